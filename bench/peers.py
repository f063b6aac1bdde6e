"""The programs that are measured: ours and the peers, each in an environment of its own, and the C programs that the
benches need. Made when they are first wanted, kept in `.bench`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOME = ROOT / ".bench"
FROM_INDEX = {
    "APScheduler": "apscheduler>=3.11,<4",
    "cronstable": "cronstable>=1.2",
    "limits": "limits>=5",
    "supervisor": "supervisor>=4.2",
    "circus": "circus>=0.18",
}
FROM_DEBIAN = {"xargs": "xargs", "GNU parallel": "parallel"}


@dataclass(frozen=True, slots=True)
class Tools:
    """Paths of what is measured and measured with. `missing` names peers that are not to be had here."""

    rpr: str
    python: str
    peers: Path
    stamp: str
    sleeper: str
    limit: str
    parallel: str
    versions: dict[str, str]
    missing: frozenset[str]

    def peer(self, program: str) -> str:
        """A program of the peers' environment: `python`, `cronstable`, `supervisord`."""
        return str(self.peers / "bin" / program)


def tools(*, here: bool, fetch: bool) -> Tools:
    """`here`: the rpr of this interpreter; otherwise one freshly installed from this folder. Without `fetch` nothing is
    installed. Raises RuntimeError when there is no C compiler.
    """
    HOME.mkdir(exist_ok=True)
    ours = Path(sys.executable).parent if here else _ours()
    peers = HOME / "peers"
    missing = set()
    if fetch:
        _environment(peers, tuple(FROM_INDEX.values()))
    if not (peers / "wanted").exists():
        missing |= set(FROM_INDEX)
    versions = {"repeater": _versions(ours / "python").get("repeater-rpr", "of this folder")}
    if peers.exists():
        has = {name.lower(): version for name, version in _versions(peers / "bin" / "python").items()}
        versions |= {name: has[name.lower()] for name in FROM_INDEX if name.lower() in has}
    programs = {name: _program(program, fetch) for name, program in FROM_DEBIAN.items()}
    for name, path in programs.items():
        if path is None:
            missing.add(name)
        else:
            said = subprocess.run([path, "--version"], check=True, capture_output=True, text=True).stdout
            versions[name] = said.splitlines()[0].split()[-1]
    return Tools(
        rpr=str(ours / "rpr"),
        python=str(ours / "python"),
        peers=peers,
        stamp=_built("stamp"),
        sleeper=_built("sleeper"),
        limit=_built("limit"),
        parallel=programs["GNU parallel"] or "parallel",
        versions=versions,
        missing=frozenset(missing),
    )


def _ours() -> Path:
    """A fresh environment with what a user would get from this folder."""
    home = HOME / "ours"
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
    _install(home, f"{ROOT}[load]")
    return home / "bin"


def _environment(home: Path, wanted: Sequence[str]) -> None:
    wish = home / "wanted"
    if not wish.exists() or wish.read_text() != "\n".join(wanted):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        _install(home, *wanted, "setuptools<81")  # supervisor asks for pkg_resources
        wish.write_text("\n".join(wanted))


def _install(home: Path, *wanted: str) -> None:
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *wanted], check=True)


def _versions(python: Path) -> dict[str, str]:
    code = "import importlib.metadata as m; [print(d.name, d.version) for d in m.distributions()]"
    listed = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout
    return dict(line.split(" ", 1) for line in listed.splitlines())


def _program(name: str, fetch: bool) -> str | None:
    """A program of the system, or of a Debian package that is unpacked here and installed nowhere."""
    unpacked = HOME / "debian" / "usr" / "bin" / name
    if (path := shutil.which(name)) is not None:
        return path
    if not unpacked.exists() and fetch and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        (HOME / "debian").mkdir(exist_ok=True)
        got = subprocess.run(["apt-get", "download", name], cwd=HOME / "debian", check=False, capture_output=True)
        for package in (HOME / "debian").glob(f"{name}_*.deb") if got.returncode == 0 else ():
            subprocess.run(["dpkg-deb", "-x", str(package), str(HOME / "debian")], check=True)
    return str(unpacked) if unpacked.exists() else None


def _built(name: str) -> str:
    program, source = HOME / name, Path(__file__).with_name(f"{name}.c")
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise RuntimeError(f"cannot build `{source.name}`: no C compiler (`cc`, `gcc`, `clang`) found")
        subprocess.run([compiler, "-O2", "-o", str(program), str(source)], check=True)
    return str(program)
