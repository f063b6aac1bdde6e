"""Why a process could not be started."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from repeater.model.reasons import ReasonCode
from repeater.sentences.fields import Fields, Maker


def _start(cause: str) -> Maker:
    return "cannot start `{program}`: " + cause


def _system(number: int) -> str:
    return os.strerror(number)


def _missing(fields: Fields) -> str:
    on_path = " on the PATH" if fields.raw("on_path") else ""
    return "cannot start `{program}`: ".format_map(fields) + _system(errno.ENOENT) + on_path


SENTENCES: Mapping[ReasonCode, Maker] = {
    "program_missing": _missing,
    "interpreter_missing": _start("its interpreter `{interpreter}` does not exist"),
    "loader_missing": _start("its dynamic loader is missing (built for another system?)"),
    "program_is_folder": _start(f"{_system(errno.EACCES)}, it is a directory"),
    "program_unusable": _start("{errno}"),
    "program_as_user_denied": _start(f"{_system(errno.EPERM)} to run as user `{{user}}`"),
    "arguments_too_big": _start(f"{_system(errno.E2BIG)}: arguments and environment are too big for the system"),
    "program_format": _start(f"{_system(errno.ENOEXEC)}, not an executable for this machine and no `#!` line"),
    "program_failed": _start("{error}"),
    "resource_short": _start("{errno}"),
    "folder_unusable": "cannot enter directory `{folder}`: {errno}",
    "command_empty": "cannot start ``: the command is empty",
    "command_nul": _start("it contains a NUL byte"),
    "environment_nul": _start("environment variable `{variable}` contains a NUL byte"),
    "environment_name": _start("`{variable}` cannot be the name of an environment variable"),
    "user_unknown": "cannot run as user `{user}`: there is no such user",
    "user_denied": f"cannot run as user `{{user}}`: {_system(errno.EPERM)}",
    "group_unknown": "cannot run as group `{group}`: there is no such group",
    "limit_unknown": "cannot limit `{limit}`: this system does not know it",
    "limit_too_high": "cannot raise a limit to {wanted}: the maximum is {most}",
    "nice_denied": f"cannot run with nice {{nice}}: {_system(errno.EACCES)}",
    "limits_unset": "cannot set limits: {error}",
    "claim_failed": "cannot claim the slot: {error}",
    "launch_failed": "{error}",
}
