"""Takes output in memory. `full` names runs that are to pause; `found` what `matched` answers."""

from __future__ import annotations

from collections import defaultdict

from repeater.ports import Stream


class FakeSink:
    """`ports.RunSink` that keeps everything, by run and stream."""

    def __init__(self) -> None:
        self.written: dict[str, dict[Stream, bytes]] = defaultdict(lambda: {"stdout": b"", "stderr": b""})
        self.calls: list[tuple[str, Stream, bytes]] = []
        self.full: set[str] = set()
        self.found: dict[str, frozenset[str]] = {}
        self.ended: list[str] = []

    def write(self, run: str, stream: Stream, data: bytes) -> bool:
        assert run not in self.ended, f"output of `{run}` after its end"
        self.calls.append((run, stream, data))
        self.written[run][stream] += data
        return run not in self.full

    def finish(self, run: str) -> frozenset[str]:
        assert run not in self.ended, f"`{run}` ended twice"
        self.ended.append(run)
        return self.found.get(run, frozenset())
