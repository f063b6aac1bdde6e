"""HTTP and TCP probes: one question, one answer within the timeout, never an exception.

A probe is healthy when the connection opens (`tcp`) or the answer's status is 200 to 399 (`http`; redirects are not
followed, as with Kubernetes). The body is not read. Implements half of `ports.Prober`; `runtime.probes` has the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import SplitResult, urlsplit

from repeater.engine.facts import ProbeReported, RunEnded, RunExited, RunLost, RunStarted, SpawnFailed
from repeater.model.spec import JobSpec, Probe
from repeater.ports import Tell

_LONGEST_STATUS_LINE = 8192


class NetProber:
    """Asks over the network, in the loop."""

    def __init__(self, tell: Tell, loop: asyncio.AbstractEventLoop) -> None:
        self._tell = tell
        self._loop = loop
        self._asking: set[asyncio.Task[None]] = set()

    def ask(self, job: str, kind: str, probe: Probe, spec: JobSpec) -> None:  # noqa: ARG002
        task = self._loop.create_task(self._answer(job, kind, probe))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def take(self, fact: RunStarted | RunExited | RunEnded | RunLost | SpawnFailed) -> None:
        """Has no runs of its own."""

    def close(self) -> None:
        for task in self._asking:
            task.cancel()

    async def _answer(self, job: str, kind: str, probe: Probe) -> None:
        try:
            async with asyncio.timeout(probe.timeout.total_seconds()):
                problem = await (_ask_http(probe.http) if probe.http else _ask_tcp(probe.tcp or ""))
        except TimeoutError:
            problem = "no answer in time"
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            problem = getattr(error, "strerror", None) or str(error) or type(error).__name__
        self._tell(ProbeReported(job, "live" if kind == "live" else "ready", problem is None, problem or ""))


async def _ask_tcp(address: str) -> str | None:
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host.strip("[]") or "localhost", int(port))
    await _close(writer)
    return None


async def _ask_http(url: str) -> str | None:
    """None if the answer is good, else what is wrong with it."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure or None, limit=_LONGEST_STATUS_LINE)
    try:
        writer.write(_request(parts))
        await writer.drain()
        line = await reader.readline()
    finally:
        await _close(writer)
    words = line.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return "the answer is not HTTP"
    status = int(words[1])
    return None if 200 <= status < 400 else f"status {status}"


def _request(parts: SplitResult) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = (
        f"GET {target} HTTP/1.1",
        f"Host: {parts.netloc.rpartition('@')[2]}",
        "User-Agent: repeater",
        "Accept: */*",
    )
    return "\r\n".join((*lines, "Connection: close", "", "")).encode("utf-8")


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
