"""HTTP and TCP probes: one question, one answer within the timeout, never an exception.

A probe is healthy when the connection opens (`tcp`) or the answer's status is 200 to 399 (`http`; redirects are not
followed, as with Kubernetes). The body is not read. Implements half of `ports.Prober`; `supervisor.probes` has the
rest.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from repeater.engine.facts import ProbeReported, RunEnded, RunExited, RunLost, RunStarted, SpawnFailed
from repeater.model.address import HttpTarget, parse_address, parse_http_url
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.spec import JobSpec, Probe
from repeater.ports import EmitFact

_LONGEST_STATUS_LINE = 8192


class NetProber:
    """Asks over the network, in the loop."""

    def __init__(
        self,
        tell: EmitFact,
        loop: asyncio.AbstractEventLoop,
        fault: Callable[[str, str, Exception], None] = lambda *_: None,
    ) -> None:
        """`fault(job, kind, error)` is called for an exception that is not an answer; the probe counts as failed."""
        self._tell = tell
        self._fault = fault
        self._loop = loop
        self._asking: set[asyncio.Task[None]] = set()

    def run_probe(self, job: str, kind: str, probe: Probe, spec: JobSpec) -> None:  # noqa: ARG002
        task = self._loop.create_task(self._answer(job, kind, probe))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def on_run_fact(self, fact: RunStarted | RunExited | RunEnded | RunLost | SpawnFailed) -> None:
        """Has no runs of its own."""

    def close(self) -> None:
        for task in self._asking:
            task.cancel()

    async def _answer(self, job: str, kind: str, probe: Probe) -> None:
        try:
            async with asyncio.timeout(probe.timeout.total_seconds()):
                problem = await (_probe_http(probe.http) if probe.http else _probe_tcp(probe.tcp or ""))
        except TimeoutError:
            problem = Reason("probe_timeout")
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
            problem = because("probe_failed", error=cause)
        except Exception as error:  # noqa: BLE001 - one probe
            problem = because("probe_failed", error=f"{type(error).__name__}: {error}")
            self._fault(job, kind, error)
        self._tell(ProbeReported(job, "live" if kind == "live" else "ready", problem is None, problem))


async def _probe_tcp(text: str) -> Reason | None:
    address = parse_address(text)
    _, writer = await asyncio.open_connection(address.host, address.port)
    await _close(writer)
    return None


async def _probe_http(url: str) -> Reason | None:
    """None if the answer is good, else what is wrong with it."""
    target = parse_http_url(url)
    host, port = target.address.host, target.address.port
    reader, writer = await asyncio.open_connection(host, port, ssl=target.is_secure or None, limit=_LONGEST_STATUS_LINE)
    try:
        writer.write(_request(target))
        await writer.drain()
        line = await reader.readline()
    finally:
        await _close(writer)
    words = line.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return Reason("probe_not_http")
    status = int(words[1])
    return None if 200 <= status < 400 else because("probe_status", status=status)


def _request(target: HttpTarget) -> bytes:
    lines = (
        f"GET {target.path} HTTP/1.1",
        f"Host: {target.authority}",
        "User-Agent: repeater",
        "Accept: */*",
    )
    return "\r\n".join((*lines, "Connection: close", "", "")).encode("ascii")


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
