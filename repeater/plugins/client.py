"""Client of a plugin process: starts it, sends requests with a time limit, kills it, and restarts it after a delay.

`PluginChannel` is one process, which is killed after the first missing response. `PluginProcess` keeps a process
running for the active jobs. It guarantees to the loop that `ask` takes at most `WAIT`. If there is no response by then,
`ask` raises `PluginBusy`, and repeating the same request later returns the response. A plugin that does not respond
within `CALL_LIMIT`, or delays the loop too much, is killed. A thread starts it again after a delay.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from repeater.errors import PluginBusy, PluginFailed
from repeater.model.plugins import WORDS, Description, Kind
from repeater.shim import process_tree

START_LIMIT = 10.0
"""Seconds for the start of a process and the import of its plugin."""
CALL_LIMIT = 2.0
"""Seconds for a response."""
WAIT = 0.05
"""Seconds that the loop waits for a response."""
QUICK = 0.01
"""Seconds of a call that do not count as slow."""
SLOWNESS = 1.0
"""Total seconds beyond `QUICK` that a plugin may delay the loop. Every `FORGIVEN` seconds, one second is deducted."""
FORGIVEN = 30.0
REST, LONGEST_REST = 1.0, 300.0
"""First and maximum delay in seconds before a killed plugin is restarted. The delay doubles each time."""
_MAX_RESPONSE = 1 << 20
"""Bytes of a response."""
_LEAVING = 0.5
_SAY_LIMIT = 0.5
_ANSWERS_KEPT = 1000
_MARK = "RPR_PLUGIN_PROCESS"
_ROUNDS = 50


class Refusal(Exception):
    """A plugin refused its keys."""


class _NotYet(Exception):
    """There is no response yet."""


_Question: TypeAlias = tuple[str, str, str]
"""The name of the request, the keys, and the arguments as JSON."""


class PluginChannel:
    """One process, which starts to import its plugin at once. Not thread-safe. `words` begins its error messages.
    Raises PluginFailed if the process cannot be started.
    """

    def __init__(self, kind: Kind, target: str, words: str) -> None:
        self._words = words
        self._rest = b""
        self._answers = self._pidfd = -1
        self._mark = f"{_MARK}={secrets.token_hex(16)}"
        try:
            answers, theirs = os.pipe()
        except OSError as error:
            raise self._failed(f"its process cannot be started: {error.strerror}") from None
        os.set_blocking(answers, False)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "repeater.plugins.host", "serve", str(theirs)],
                stdin=subprocess.PIPE,
                pass_fds=(theirs,),
                start_new_session=True,
                env={**os.environ, _MARK: self._mark.partition("=")[2]},
            )
        except OSError as error:
            os.close(answers)
            raise self._failed(f"its process cannot be started: {error.strerror}") from None
        finally:
            os.close(theirs)
        self._answers = answers
        with contextlib.suppress(OSError, AttributeError):  # a system without pidfds
            self._pidfd = os.pidfd_open(self._process.pid)
        assert self._process.stdin is not None
        self._questions = self._process.stdin
        os.set_blocking(self._questions.fileno(), False)
        self._load_until: float | None = time.monotonic() + START_LIMIT
        try:
            self._write({"path": sys.path, "kind": kind, "target": target, "limit": START_LIMIT})
        except PluginFailed:
            self.kill()
            raise

    @property
    def is_loading(self) -> bool:
        """Whether `ready` was not called yet."""
        return self._load_until is not None and not self.is_over

    def ready(self) -> None:
        """Wait until the plugin is imported, at most `START_LIMIT` after the start. Raises PluginFailed."""
        if self._load_until is None:
            return
        left, self._load_until = self._load_until - time.monotonic(), None
        try:
            self.receive(max(0.0, left))
        except PluginFailed:
            self.kill()
            raise
        except _NotYet:
            raise self.timed_out(START_LIMIT) from None

    def ask(self, question: str, keys: str, arguments: tuple[Any, ...] = (), limit: float = CALL_LIMIT) -> Any:
        """The response. Raises Refusal, or PluginFailed; then `is_over` is True if the process has ended."""
        self.ready()
        self.send(question, keys, arguments, limit)
        try:
            return self.receive(limit)
        except _NotYet:
            raise self.timed_out(limit) from None

    def send(self, question: str, keys: str, arguments: tuple[Any, ...], limit: float) -> None:
        """Send a request without waiting for the response. Raises PluginFailed."""
        self._write({"question": question, "keys": keys, "arguments": arguments, "limit": limit})

    def receive(self, wait: float) -> Any:
        """The response, if it arrives within `wait` seconds. Raises the errors of `ask`, or _NotYet."""
        until = time.monotonic() + wait
        while b"\n" not in self._rest:
            try:
                data = os.read(self._answers, 65_536)
            except BlockingIOError:
                if self._has_ended():  # its children may still hold its end of the pipe
                    raise self._ended() from None
                if not _comes((self._answers, self._pidfd), select.POLLIN, until):
                    raise _NotYet from None
                continue
            if not data:
                raise self._ended()
            self._rest += data
            if len(self._rest) > _MAX_RESPONSE:
                self.kill()
                raise self._failed(f"its answer has more than {_MAX_RESPONSE} bytes")
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            response: dict[str, Any] = json.loads(line)
            if "refused" in response:
                raise Refusal(str(response["refused"]))
            if "failed" in response:
                raise self._failed(str(response["failed"]))
            return response["answer"]
        except (ValueError, KeyError, TypeError):
            self.kill()
            raise self._failed("its answer cannot be read") from None

    def timed_out(self, limit: float) -> PluginFailed:
        """Kill the process because the response did not arrive in time."""
        self.kill()
        return self._failed(f"it did not answer within {limit:g} s")

    @property
    def is_over(self) -> bool:
        return self._answers < 0

    def close(self) -> None:
        """Let the process exit, and kill it after `_LEAVING` seconds."""
        if self.is_over:
            return
        with contextlib.suppress(OSError):
            self._questions.close()
        until = time.monotonic() + _LEAVING
        while not self._has_ended() and time.monotonic() < until:
            if self._pidfd >= 0:
                _comes((self._pidfd,), select.POLLIN, until)
            else:
                time.sleep(0.005)
        self.kill()

    def end(self) -> None:
        """Kill the process group. May be called in any thread."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """Kill the process and its descendants."""
        if self.is_over:
            return
        with contextlib.suppress(OSError):
            self._questions.close()
        os.close(self._answers)
        self._answers = -1
        if not self._has_ended():
            _kill_offspring(self._process.pid)
        self.end()  # before the process is reaped: until then its pid cannot be reused
        self._process.wait()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _has_ended(self) -> bool:
        """Whether the process has ended. It is not reaped, so that its pid cannot be reused."""
        if self._process.returncode is not None:
            return True
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
        except ChildProcessError:
            return True

    def _write(self, request: Mapping[str, Any]) -> None:
        remaining = memoryview(json.dumps(request).encode() + b"\n")
        until = time.monotonic() + _SAY_LIMIT
        fd = self._questions.fileno()
        while remaining:
            if not _comes((fd,), select.POLLOUT, until):
                raise self.timed_out(_SAY_LIMIT)
            try:
                remaining = remaining[os.write(fd, remaining) :]
            except BlockingIOError:
                continue
            except OSError:
                raise self._ended() from None

    def _ended(self) -> PluginFailed:
        """The process exited. Its descendants may have left its session, so they are found by the environment."""
        self.kill()
        _kill_marked(self._mark.encode())
        code = self._process.returncode
        how = f"signal {-code}" if code < 0 else f"exit {code}"
        return self._failed(f"its process ended ({how})")

    def _failed(self, cause: str) -> PluginFailed:
        return PluginFailed(f"{self._words}: {cause}")


def _kill_offspring(pid: int) -> None:
    """Kill the descendants of a process that is a subreaper (`host`). Stops after `_ROUNDS` rounds."""
    for _ in range(_ROUNDS):
        found = list(process_tree.descendants(pid, token=False))
        for member in found:
            process_tree.send(member, signal.SIGKILL)
        if not found:
            return
        time.sleep(0.001)


def _kill_marked(mark: bytes) -> None:
    """Kill every process with this variable in its environment. Reads all of /proc."""
    with contextlib.suppress(OSError):
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    member = process_tree.read_stat(int(folder.name), token=False)
                    if member is not None:
                        process_tree.send(member, signal.SIGKILL)


def _comes(fds: Iterable[int], event: int, until: float) -> bool:
    poll = select.poll()
    for fd in fds:
        if fd >= 0:
            poll.register(fd, event)
    return bool(poll.poll(max(0.0, until - time.monotonic()) * 1000))


class PluginProcess:
    """A plugin of the active jobs. After its process has ended, a thread starts another one with a delay."""

    def __init__(self, description: Description, clock: Callable[[], float] = time.monotonic) -> None:
        self.description = description
        self._words = f"cannot use {WORDS[description.kind]} `{description.name}`"
        self._clock = clock
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._talk: PluginChannel | None = None
        self._begun: PluginChannel | None = None
        self._open: tuple[_Question, float] | None = None
        self._answers: dict[_Question, Any] = {}
        self._starter: threading.Thread | None = None
        self._trouble = ""
        self._failures = 0
        self._rests_until = 0.0
        self._slow, self._slow_at = 0.0, clock()
        self._closed = False

    def start(self) -> None:
        """Start the process and wait for it, outside of the loop. The next request raises a failure."""
        self.begin()
        self.finish()

    def begin(self) -> None:
        """Start the process. `finish` waits for it, so several processes can start in parallel."""
        try:
            self._begun = PluginChannel(self.description.kind, self.description.target, self._words)
        except PluginFailed as failure:
            self._disable(failure.message)

    def finish(self) -> None:
        """Wait for the process that `begin` started."""
        talk, self._begun = self._begun, None
        if talk is None:
            return
        try:
            talk.ready()
        except PluginFailed as failure:
            self._disable(failure.message)
            return
        with self._lock:
            if not self._closed:
                self._talk = talk
                return
        talk.kill()

    def ask(self, question: str, keys: str, arguments: tuple[Any, ...]) -> Any:
        """For the loop: the response within `WAIT`. Raises PluginBusy if there is none yet, or PluginFailed."""
        if not self._turn.acquire(timeout=WAIT):
            raise PluginBusy(f"{self._words}: it has not answered yet")
        began = self._clock()
        try:
            return self._ask((question, keys, json.dumps(arguments)), arguments)
        finally:
            self._measure(self._clock() - began)
            self._turn.release()

    def ask_and_wait(self, question: str, keys: str, arguments: tuple[Any, ...], patience: float) -> Any:
        """For other threads: the response within `patience` seconds. Raises PluginFailed."""
        if not self._turn.acquire(timeout=patience):
            raise PluginFailed(f"{self._words}: it is busy")
        try:
            talk = self._ready()
            try:
                return talk.ask(question, keys, arguments, patience)
            except Refusal as refusal:
                raise PluginFailed(f"{self._words}: {refusal}") from None
            except PluginFailed as failure:
                self._check_alive(talk, failure)
                raise
        finally:
            self._turn.release()

    def close(self) -> None:
        """End the process without waiting long."""
        with self._lock:
            self._closed = True
        if self._turn.acquire(timeout=1):
            talk, self._talk = self._talk, None
            if talk is not None:
                talk.close()
            self._turn.release()
        elif self._talk is not None:
            self._talk.end()  # the thread that waits for the response gets an error and cleans up
        if self._starter is not None:
            self._starter.join(_LEAVING)

    def _ask(self, wanted: _Question, arguments: tuple[Any, ...]) -> Any:
        talk, wait = self._ready(), 0.0
        if self._open is not None and self._open[0] != wanted:
            self._settle(talk, 0.0)
        if wanted not in self._answers:
            if self._open is None:
                try:
                    talk.send(*wanted[:2], arguments, CALL_LIMIT)
                except PluginFailed as failure:
                    self._check_alive(talk, failure)
                    raise
                self._open, wait = (wanted, self._clock()), WAIT
            self._settle(talk, wait)
        answer = self._answers.pop(wanted)
        if isinstance(answer, PluginFailed):
            raise answer
        return answer

    def _settle(self, talk: PluginChannel, wait: float) -> None:
        """Take the response to the open request. Raises PluginBusy while there is none, PluginFailed at the end."""
        assert self._open is not None
        wanted, since = self._open
        answer: Any
        try:
            answer = talk.receive(wait)
        except _NotYet:
            if self._clock() - since < CALL_LIMIT:
                raise PluginBusy(f"{self._words}: it has not answered yet") from None
            answer = talk.timed_out(CALL_LIMIT)
        except Refusal as refusal:
            answer = PluginFailed(f"{self._words}: {refusal}")
        except PluginFailed as failure:
            answer = failure
        self._open = None
        if talk.is_over:
            self._check_alive(talk, answer)
            raise answer
        if len(self._answers) >= _ANSWERS_KEPT:  # responses to requests that are not repeated
            self._answers.clear()
        self._answers[wanted] = answer

    def _check_alive(self, talk: PluginChannel, failure: PluginFailed) -> None:
        if talk.is_over:
            self._talk = self._open = None
            self._disable(failure.message)

    def _ready(self) -> PluginChannel:
        if self._talk is not None:
            return self._talk
        if self._closed:
            raise PluginFailed(f"{self._words}: it is closed")
        if self._clock() < self._rests_until:
            raise PluginFailed(self._trouble)
        if self._starter is None or not self._starter.is_alive():
            starter = threading.Thread(target=self.start, name="rpr-plugin", daemon=True)
            try:
                starter.start()
            except RuntimeError:  # the system has no more threads
                raise PluginFailed(f"{self._words}: there is no thread to start its process") from None
            self._starter = starter
        raise PluginFailed(self._trouble or f"{self._words}: its process has not started yet")

    def _disable(self, trouble: str) -> None:
        now = self._clock()
        if now - self._rests_until > 2 * LONGEST_REST:
            self._failures = 0
        self._trouble = trouble
        self._rests_until = now + min(REST * 2**self._failures, LONGEST_REST)
        self._failures = min(self._failures + 1, 20)

    def _measure(self, took: float) -> None:
        now = self._clock()
        self._slow = max(0.0, self._slow - (now - self._slow_at) / FORGIVEN) + max(0.0, took - QUICK)
        self._slow_at = now
        if self._slow > SLOWNESS and self._talk is not None:
            self._talk.kill()
            self._talk = self._open = None
            self._slow = 0.0
            self._disable(f"{self._words}: it is too slow: other calls waited for more than {SLOWNESS:g} s")
