"""Which project a job file is, and which job file a state belongs to.

A state belongs to the path of its first job file, as it was given. Another file takes it over only if that path is gone
and no supervisor runs. A file without the key `project` gets the name of its folder. If that state belongs to another
existing file, `-` and six digits of the hash of its path are added, so that two folders of one name do not meet.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repeater.errors import ApplyRefused

if TYPE_CHECKING:
    from repeater.jobfile.load import Loaded
    from repeater.store.origin import Origin

STANDARD_INPUT = "-"


def first_file(name: str) -> str:
    """The absolute path of a job file as it was given; links in it stay."""
    return name if name == STANDARD_INPUT else os.path.normpath(Path(name).absolute())


def default_name(folder: str, file: str, environ: Mapping[str, str]) -> str:
    """The project of a job file without the key `project`. `file` is as `first_file` gives it."""
    from hashlib import sha256

    from repeater.jobfile.project import default_project
    from repeater.store.origin import read_origin
    from repeater.store.state_dir import state_folder

    name = default_project(folder)
    own = f"{name[:57]}-{sha256(os.fsencode(file)).hexdigest()[:6]}"
    mine, usual = read_origin(state_folder(own, environ)), read_origin(state_folder(name, environ))
    if mine is not None and _is_same(mine.file, file):
        return own
    return own if usual is not None and _is_of_another(usual, file) else name


def claim(folder: Path, wanted: Origin) -> str | None:
    """Let a state folder belong to a job file from now on. The caller holds its lock.

    Returns a warning if it belonged to a file that is gone. Raises ApplyRefused if that file exists.
    """
    from repeater.store.origin import read_origin, write_origin

    origin = read_origin(folder)
    if origin == wanted:
        return None
    check_origin(origin, wanted.file, folder)
    write_origin(folder, wanted)
    if origin is None or _is_same(origin.file, wanted.file):
        return None
    return (
        f"the state in `{folder}` was created by `{origin.file}`, which no longer exists; `{wanted.file}` now uses it"
    )


def check_loaded(loaded: Loaded, state_dir: str | None) -> None:
    """Raises ApplyRefused if the state that job files would use belongs to another existing job file."""
    from repeater.apps.state import state_folder
    from repeater.store.origin import read_origin

    folder = state_folder(loaded.jobfile.project, state_dir)
    check_origin(read_origin(folder), first_file(loaded.name), folder)


def check_running(status: Mapping[str, Any], file: str) -> None:
    """Raises ApplyRefused if the supervisor that gave this result of `status` runs another job file."""
    from repeater.store.origin import read_origin

    folder = Path(status["state_dir"])
    check_origin(read_origin(folder), file, folder, is_running=True)


def check_origin(origin: Origin | None, file: str, folder: Path | None, *, is_running: bool = False) -> None:
    """Raises ApplyRefused if a job file must not use the state of this origin. `is_running`: a supervisor uses it."""
    if origin is None or _is_same(origin.file, file) or not (is_running or _is_of_another(origin, file)):
        return
    state = "the supervisor" if folder is None else f"the state in `{folder}`"
    hint = "give this file its own `project`, or use `--project` or `--state-dir`"
    raise ApplyRefused(
        f"cannot apply `{file}`: {state} belongs to project `{origin.project}` of `{origin.file}`",
        hint=f"{hint}; `rpr down` stops the supervisor of the other file" if is_running else hint,
    )


def _is_of_another(origin: Origin, file: str) -> bool:
    return not _is_same(origin.file, file) and origin.file != STANDARD_INPUT and Path(origin.file).exists()


def _is_same(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        return Path(one).samefile(other)
    except OSError:
        return False
