"""Stop conditions of plugins of one job: calls without an answer yet, and failures that were reported.

A condition that cannot be called is not met. One that has not answered yet is called again soon with the same counters,
and after that with the counters that changed meanwhile.
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
    """The conditions of one job. `again` is called when they must be checked again."""

    __slots__ = ("_again", "_asked", "_context", "_faults")

    def __init__(self, context: Context, again: Callable[[], None]) -> None:
        self._context = context
        self._again = again
        self._faults: dict[Plugin, str] = {}
        self._asked: dict[Plugin, dict[str, Any]] = {}

    def reason(self, plugins: Plugins | None, plugin: Plugin, tally: dict[str, Any]) -> Reason | None:
        """Why the plugin ends the job; None if it does not, or while it cannot be called."""
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
