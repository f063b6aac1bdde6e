"""A supervisor in the background: it leaves the terminal and reports to the command that started it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from repeater._lazy_dataclasses import replace
from repeater.apps.options import SupervisorOptions
from repeater.apps.state import state_folder
from repeater.apps.supervisor import supervise
from repeater.errors import ApplyRefused, RepeaterError
from repeater.store.state_dir import make_folder
from repeater.system.daemonize import daemonize

if TYPE_CHECKING:
    from repeater.jobfile.load import Loaded


def supervise_detached(options: SupervisorOptions, loaded: Loaded) -> tuple[str, int]:
    """Run in the background. Returns a message and an exit status.

    In the parent: when the supervisor is ready, with its message. Raises RepeaterError if it did not become ready. In
    the child: at its end, with an empty message.
    """
    log = None
    if not options.ephemeral:
        folder = state_folder(loaded.jobfile.project, options.state_dir)
        make_folder(folder)
        log = folder / "supervisor.log"
    child = daemonize(log)
    if isinstance(child, str):
        return _read_child_report(child, log), 0
    options = replace(options, color="never", log=None if log is None else str(log))
    try:
        return "", supervise(options, loaded, lambda words: child.report_ready(json.dumps({"ready": words})))
    except RepeaterError as error:
        child.report_ready(json.dumps({"error": error.message, "hint": error.hint, "exit": error.exit_code}))
        raise


def _read_child_report(text: str, log: Path | None) -> str:
    report = json.loads(text) if text else {}
    if "ready" in report:
        return str(report["ready"])
    if "error" in report:
        error = ApplyRefused(report["error"], hint=report["hint"])
        error.exit_code = int(report["exit"])
        raise error
    raise RepeaterError(
        "cannot start the supervisor: it exited before it was ready", hint=f"see `{log}`" if log else None
    )
