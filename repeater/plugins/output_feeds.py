"""Passes the output of jobs and the records of their slots to output plugins. A decorator of a sink, and a listener.

Each use of a plugin has a feed: a bounded queue, and a thread that delivers batches to the plugin. The loop only adds
items. When a queue is full, items are dropped, and a warning has their number. A plugin that fails loses the batch of
that call. Jobs are not affected.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from repeater.errors import PluginFailed
from repeater.model.events import Event, SlotDecided
from repeater.model.plugins import Description
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.run import RunKind, SlotRecord
from repeater.model.spec import JobFile, JobSpec, Plugin
from repeater.plugins.pool import PluginPool
from repeater.ports import Stream
from repeater.sentences import sentence
from repeater.supervisor.probes import Output

FULL = 4 << 20
"""Maximum number of pending bytes of a plugin, with `_ITEM` bytes of overhead per item."""
_ITEM = 200
_BATCH = 128 * 1024
_PATIENCE = 10.0
"""Seconds that a plugin may take for a batch."""
_PAUSE = 0.5
"""Seconds between attempts to deliver to a plugin that failed."""
LEAVING = 2.0
"""Seconds that all feeds together have at the end."""


class OutputFeeds:
    """`ports.RunSink`, and a listener of events. `spec_of` returns the spec of an active job. `warn(job, reason)` is
    called in the loop, through `call_soon`.
    """

    def __init__(
        self,
        next_sink: Output,
        residents: PluginPool,
        *,
        spec_of: Callable[[str], JobSpec | None],
        warn: Callable[[str, Reason], None],
        call_soon: Callable[[Callable[[], None]], object],
    ) -> None:
        self._next_sink = next_sink
        self._residents = residents
        self._spec_of = spec_of
        self._warn = warn
        self._call_soon = call_soon
        self._feeds: dict[Plugin, _Feed] = {}
        self._runs: dict[str, tuple[str, tuple[Plugin, ...]]] = {}
        self._leaving: list[_Feed] = []

    def begin(self, run: str, spec: JobSpec, kind: RunKind = "run") -> None:
        if spec.output.plugins and kind == "run":
            self._runs[run] = spec.name, spec.output.plugins
            for plugin in spec.output.plugins:
                self._feed(plugin).put("begin", ["begin", spec.name, run], 0)
        self._next_sink.begin(run, spec, kind)

    def write(self, run: str, stream: Stream, data: bytes) -> bool:
        if run in self._runs:
            job, plugins = self._runs[run]
            for plugin in plugins:
                self._feed(plugin).put("chunk", ["chunk", job, run, stream, data], len(data))
        return self._next_sink.write(run, stream, data)

    def finish(self, run: str) -> frozenset[str]:
        self._runs.pop(run, None)
        return self._next_sink.finish(run)

    def __call__(self, event: Event) -> None:
        if isinstance(event, SlotDecided):
            spec = self._spec_of(event.row.job)
            for plugin in spec.output.plugins if spec is not None else ():
                self._feed(plugin).put("record", ["record", _record(event.row)], 0)

    def accepted(self, jobfile: JobFile) -> None:
        """These jobs are active now. A feed without use delivers its pending items and ends."""
        used = {plugin for job in jobfile.jobs for plugin in job.output.plugins}
        used |= {plugin for _, plugins in self._runs.values() for plugin in plugins}
        for plugin in [plugin for plugin in self._feeds if plugin not in used]:
            feed = self._feeds.pop(plugin)
            feed.end()
            self._leaving.append(feed)
        self._leaving = [feed for feed in self._leaving if feed.lives]

    @property
    def names(self) -> set[str]:
        """The plugins with feeds, including feeds that are ending."""
        return {feed.plugin.name for feed in (*self._feeds.values(), *self._leaving)}

    def close(self) -> None:
        """Block until all items are delivered, at most `LEAVING` seconds. Later items are lost."""
        feeds = [*self._feeds.values(), *self._leaving]
        for feed in feeds:
            feed.end()
        until = time.monotonic() + LEAVING
        for feed in feeds:
            feed.join(max(0.0, until - time.monotonic()))

    def _feed(self, plugin: Plugin) -> _Feed:
        feed = self._feeds.get(plugin)
        if feed is None:
            feed = self._feeds[plugin] = _Feed(plugin, self._residents, self._on_reply)
        return feed

    def _on_reply(self, reason: Reason) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._call_soon(partial(self._warn, "", reason))


class _Feed:
    """One use of an output plugin. Its thread starts with the first item."""

    def __init__(self, plugin: Plugin, residents: PluginPool, warn: Callable[[Reason], None]) -> None:
        self.plugin = plugin
        known: Description | None = residents.describe("output", plugin.name)
        self._answers = frozenset() if known is None else known.answers
        self._residents = residents
        self._warn = warn
        self._changed = threading.Condition()
        self._items: deque[tuple[list[Any], int]] = deque()
        self._waiting = 0
        self._left_out = 0
        self._ending = False
        self._reported = ""
        self._thread: threading.Thread | None = None

    @property
    def lives(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def put(self, method: str, item: list[Any], size: int) -> None:
        """Add an item if the plugin overrides this method."""
        if method not in self._answers:
            return
        with self._changed:
            if self._waiting > FULL:
                self._left_out += 1
                return
            self._items.append((item, size + _ITEM))
            self._waiting += size + _ITEM
            if self._thread is None:
                self._thread = self._begin()
            self._changed.notify()

    def _begin(self) -> threading.Thread | None:
        """The started thread, or None if the system has no more threads. Then a later `put` tries again."""
        thread = threading.Thread(target=self._work, name="rpr-feed", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return None
        return thread

    def end(self) -> None:
        with self._changed:
            self._ending = True
            self._changed.notify()

    def join(self, patience: float) -> None:
        if self._thread is not None:
            self._thread.join(patience)

    # --- in its thread ---

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._items and not self._ending:
                    self._changed.wait()
                batch = self._batch()
                left_out, self._left_out = self._left_out, 0
            if left_out:
                self._warn(because("plugin_too_slow", plugin=self.plugin.name, items=left_out))
            if not batch:
                break
            if not self._give(batch):
                with self._changed:
                    self._changed.wait_for(lambda: self._ending, _PAUSE)
        with contextlib.suppress(PluginFailed):
            self._ask("close")

    def _batch(self) -> list[list[Any]]:
        batch: list[list[Any]] = []
        size = 0
        while self._items and size < _BATCH:
            item, one = self._items.popleft()
            batch.append(item)
            size += one
        self._waiting -= size
        return batch

    def _give(self, batch: list[list[Any]]) -> bool:
        items = [_as_text(item) for item in batch]
        try:
            self._ask("take", items)
        except PluginFailed as failure:
            if failure.message != self._reported:
                self._reported = failure.message
                self._warn(because("plugin_failed", error=failure.message, items=len(items)))
            return False
        self._reported = ""
        return True

    def _ask(self, question: str, *arguments: Any) -> None:
        resident = self._residents.resident("output", self.plugin.name)
        resident.ask_and_wait(question, self.plugin.keys, arguments, _PATIENCE)


def _as_text(item: list[Any]) -> list[Any]:
    return [one.decode("latin-1") if isinstance(one, bytes) else one for one in item]


def _record(row: SlotRecord) -> Mapping[str, Any]:
    return {**row.as_json(sentence), "outcome": row.outcome, "trigger": row.trigger, "generation": row.generation}
