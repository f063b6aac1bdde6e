"""The peers in an environment of their own, and the C program that the jobs are. Made once, kept in `.bench`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOME = ROOT / ".bench"
WANTED = ("apscheduler>=3.11,<4", "cronstable>=1.2")


@dataclass(frozen=True, slots=True)
class Tools:
    """Paths of what is measured and measured with."""

    rpr: str
    peers_python: str
    cronstable: str
    stamp: str
    versions: dict[str, str]


def tools() -> Tools:
    """Installs and builds what is not there yet. Raises RuntimeError when there is no C compiler."""
    HOME.mkdir(exist_ok=True)
    python = HOME / "peers" / "bin" / "python"
    wish = HOME / "peers" / "wanted"
    if not wish.exists() or wish.read_text() != "\n".join(WANTED):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(HOME / "peers")], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *WANTED], check=True)
        wish.write_text("\n".join(WANTED))
    stamp, source = HOME / "stamp", Path(__file__).with_name("stamp.c")
    if not stamp.exists() or stamp.stat().st_mtime < source.stat().st_mtime:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise RuntimeError("cannot build `stamp`, the job of the bench: no C compiler (`cc`, `gcc`, `clang`) found")
        subprocess.run([compiler, "-O2", "-o", str(stamp), str(source)], check=True)
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format", "freeze", "--disable-pip-version-check"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    versions = dict(line.split("==") for line in listed.splitlines() if "==" in line)
    return Tools(
        rpr=str(Path(sys.executable).with_name("rpr")),
        peers_python=str(python),
        cronstable=str(python.with_name("cronstable")),
        stamp=str(stamp),
        versions={"APScheduler": versions["APScheduler"], "cronstable": versions["cronstable"]},
    )
