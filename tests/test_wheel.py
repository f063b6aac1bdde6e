"""What people install: the wheel, in an environment that holds nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# As it was before the leak guard moved HOME: pip's configuration and cache are the user's.
ENV = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_", "RPR_"))}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the files that the sdist names, so that nothing is written to the checkout."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("repeater", "schemas"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(dist), str(source))
    (built,) = dist.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `rpr` of a clean environment."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=True, symlinks=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--only-binary", ":all:", str(wheel))
    run(*pip, "check")
    return folder / "bin" / "rpr"


def run(*argv: str, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, cwd=cwd, env=ENV, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_the_package_the_schema_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"repeater/schemas/jobs.schema.json", "repeater/py.typed"} <= set(names)
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"repeater"}


def test_an_installed_rpr_runs_and_finds_its_schema(installed: Path, tmp_path: Path) -> None:
    from repeater import __version__

    assert run(str(installed), "--version", cwd=tmp_path) == f"rpr {__version__}\n"
    assert (
        run(str(installed.with_name("python")), "-m", "repeater", "--version", cwd=tmp_path) == f"rpr {__version__}\n"
    )
    assert json.loads(run(str(installed), "schema", cwd=tmp_path)) == json.loads(
        (ROOT / "schemas" / "jobs.schema.json").read_text()
    )


def test_an_installed_rpr_validates_the_example(installed: Path, tmp_path: Path) -> None:
    assert "ok" in run(str(installed), "validate", str(ROOT / "jobs.example.toml"), cwd=tmp_path)
