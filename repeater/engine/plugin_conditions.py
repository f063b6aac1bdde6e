"""Stop conditions of plugins, as one job asks them: what is asked and not answered yet, what went wrong and was told.

One that cannot be asked does not hold. One that has not answered is asked the same again in a moment, and what happened
meanwhile is asked about afterwards. Made by `engine.job` for jobs that have such a condition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from repeater.engine.context import Context
from repeater.engine.next_slot import BUSY
from repeater.errors import PluginBusy, PluginFailed
from repeater.model.events import Warned
from repeater.model.plugins import Plugins
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.spec import Plugin
from repeater.policy.plugin_stop import is_met


class PluginConditions:
    """Those of one job. `again` is called when they are to be asked once more."""

    __slots__ = ("_again", "_asked", "_context", "_faults")

    def __init__(self, context: Context, again: Callable[[], None]) -> None:
        self._context = context
        self._again = again
        self._faults: dict[Plugin, str] = {}
        self._asked: dict[Plugin, dict[str, Any]] = {}

    def reason(self, plugins: Plugins | None, plugin: Plugin, tally: dict[str, Any]) -> Reason | None:
        """Why the plugin says that the job is done; None also while it cannot be asked."""
        told = self._asked.pop(plugin, tally)  # a question without an answer yet, or a new one
        try:
            reason = is_met(plugins, plugin, told)
            if reason is None and told["last"] != tally["last"]:
                told = tally
                reason = is_met(plugins, plugin, told)
        except PluginBusy:
            self._asked[plugin] = told
            self._context.call_in(BUSY, lambda _: self._again())
            return None
        except PluginFailed as failure:
            if self._faults.get(plugin) != failure.message:
                self._faults[plugin] = failure.message
                self._context.emit_event(
                    Warned(str(tally["job"]), because("stop_condition_failed", error=failure.message))
                )
            return None
        self._faults.pop(plugin, None)
        return reason
