"""Stop conditions of plugins: the data about the job that the plugin gets, and the check of its answer.

Pure: `model.plugins.Plugins` calls the plugin.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from repeater.errors import PluginFailed
from repeater.model.plugins import NO_PLUGINS, WORDS, Plugins
from repeater.model.reasons import Reason, reason
from repeater.model.run import Progress, SlotRecord
from repeater.model.spec import Plugin
from repeater.model.time import rfc3339
from repeater.sentences import sentence

_LONGEST = 200
"""Characters of an answer."""


def tally(progress: Progress, *, now: datetime, elapsed: timedelta, last: SlotRecord | None) -> dict[str, Any]:
    """What a stop condition judges. `last` is the row that was decided last."""
    return {
        "job": progress.job,
        "now": rfc3339(now),
        "elapsed_seconds": elapsed.total_seconds(),
        "runs": progress.runs,
        "successes": progress.successes,
        "failures": progress.failures,
        "streak": progress.streak,
        "first_start": rfc3339(progress.first_start),
        "last_start": rfc3339(progress.last_start),
        "last_end": rfc3339(progress.last_end),
        "last_success": rfc3339(progress.last_success),
        "last": None if last is None else last.as_json(sentence),
    }


def is_met(plugins: Plugins | None, plugin: Plugin, told: dict[str, Any]) -> Reason | None:
    """Why the plugin says that the job is done, None if it does not say so. Raises PluginFailed."""
    answer = (plugins or NO_PLUGINS).call("stop_condition", plugin, "met", told)
    if answer is None:
        return None
    if not isinstance(answer, str) or not answer.strip():
        words = f"cannot use {WORDS['stop_condition']} `{plugin.name}`"
        raise PluginFailed(f"{words}: it answered {answer!r:.60}, expected a reason or nothing")
    return reason("stop_plugin", plugin=plugin.name, text=" ".join(answer.split())[:_LONGEST])
