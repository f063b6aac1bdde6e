"""The process of a plugin, seen from the process that asks it: started, asked with a limit, killed, left alone a while.

`PluginChannel` is one such process; it ends with the first answer that does not come. `PluginProcess` keeps one alive
for the jobs in force. Its promise to the loop: `ask` takes no longer than `WAIT`; what is not answered by then is
`PluginBusy`, and asking the same again later gives the answer; a plugin that does not answer within `CALL_LIMIT`, or
takes too much of the loop's time, is killed and rests, and a process is started away from the loop.
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
"""Seconds for a process to begin and its plugin to be imported."""
CALL_LIMIT = 2.0
"""Seconds for an answer."""
WAIT = 0.05
"""Seconds that the loop waits for one."""
QUICK = 0.01
"""Seconds that an answer may keep the loop waiting without being called slow."""
SLOWNESS = 1.0
"""Seconds beyond `QUICK` that a plugin may keep the loop waiting in all; one is forgiven every `FORGIVEN` seconds."""
FORGIVEN = 30.0
REST, LONGEST_REST = 1.0, 300.0
"""Seconds for which a plugin that was killed is not asked, at first and at most; doubled each time."""
_MOST = 1 << 20
"""Bytes of an answer."""
_LEAVING = 0.5
_SAY_LIMIT = 0.5
_ANSWERS_KEPT = 1000
_MARK = "RPR_PLUGIN_PROCESS"
_ROUNDS = 50


class Refusal(Exception):
    """What a plugin has against its keys."""


class _NotYet(Exception):
    """No answer so far."""


_Question: TypeAlias = tuple[str, str, str]
"""What is asked, the keys, and the arguments as JSON."""


class PluginChannel:
    """One process, which begins to import its plugin at once. Not for several threads at once. `words` name the plugin
    in messages. Raises PluginFailed if there can be no process.
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
        """Whether nobody has waited for the import of the plugin so far."""
        return self._load_until is not None and not self.is_over

    def ready(self) -> None:
        """Wait until the plugin is imported, at most `START_LIMIT` from the start on. Raises PluginFailed."""
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
        """An answer. Raises Refusal, or PluginFailed: then `is_over` says whether the process is gone."""
        self.ready()
        self.send(question, keys, arguments, limit)
        try:
            return self.receive(limit)
        except _NotYet:
            raise self.timed_out(limit) from None

    def send(self, question: str, keys: str, arguments: tuple[Any, ...], limit: float) -> None:
        """Ask without waiting for the answer. Raises PluginFailed."""
        self._write({"question": question, "keys": keys, "arguments": arguments, "limit": limit})

    def receive(self, wait: float) -> Any:
        """The answer, if it comes within `wait` seconds; raises what `ask` raises, or _NotYet."""
        until = time.monotonic() + wait
        while b"\n" not in self._rest:
            try:
                data = os.read(self._answers, 65_536)
            except BlockingIOError:
                if self._has_ended():  # what it has started may still hold its end of the pipe
                    raise self._ended() from None
                if not _comes((self._answers, self._pidfd), select.POLLIN, until):
                    raise _NotYet from None
                continue
            if not data:
                raise self._ended()
            self._rest += data
            if len(self._rest) > _MOST:
                self.kill()
                raise self._failed(f"its answer has more than {_MOST} bytes")
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            told: dict[str, Any] = json.loads(line)
            if "refused" in told:
                raise Refusal(str(told["refused"]))
            if "failed" in told:
                raise self._failed(str(told["failed"]))
            return told["answer"]
        except (ValueError, KeyError, TypeError):
            self.kill()
            raise self._failed("its answer cannot be read") from None

    def timed_out(self, limit: float) -> PluginFailed:
        """The answer did not come in time: the end of the process."""
        self.kill()
        return self._failed(f"it did not answer within {limit:g} s")

    @property
    def is_over(self) -> bool:
        return self._answers < 0

    def close(self) -> None:
        """Let it end by itself, within a moment."""
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
        """Kill the process and everything in its session; for another thread than the one that asks."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End the process and everything that it started."""
        if self.is_over:
            return
        with contextlib.suppress(OSError):
            self._questions.close()
        os.close(self._answers)
        self._answers = -1
        if not self._has_ended():
            _kill_offspring(self._process.pid)
        self.end()  # before its process is reaped: until then nobody else can have its number
        self._process.wait()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _has_ended(self) -> bool:
        """Whether the process has ended. It is not reaped, so that its number stays its own."""
        if self._process.returncode is not None:
            return True
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
        except ChildProcessError:
            return True

    def _write(self, told: Mapping[str, Any]) -> None:
        rest = memoryview(json.dumps(told).encode() + b"\n")
        until = time.monotonic() + _SAY_LIMIT
        fd = self._questions.fileno()
        while rest:
            if not _comes((fd,), select.POLLOUT, until):
                raise self.timed_out(_SAY_LIMIT)
            try:
                rest = rest[os.write(fd, rest) :]
            except BlockingIOError:
                continue
            except OSError:
                raise self._ended() from None

    def _ended(self) -> PluginFailed:
        """The process ended by itself: what it had started may have left its session before."""
        self.kill()
        _kill_marked(self._mark.encode())
        code = self._process.returncode
        how = f"signal {-code}" if code < 0 else f"exit {code}"
        return self._failed(f"its process ended ({how})")

    def _failed(self, cause: str) -> PluginFailed:
        return PluginFailed(f"{self._words}: {cause}")


def _kill_offspring(pid: int) -> None:
    """Kill what descends from a process that takes in its orphans (`host`). Ends after some rounds in any case."""
    for _ in range(_ROUNDS):
        found = list(process_tree.descendants(pid, token=False))
        for member in found:
            process_tree.send(member, signal.SIGKILL)
        if not found:
            return
        time.sleep(0.001)


def _kill_marked(mark: bytes) -> None:
    """Kill every process with this variable in its environment, wherever it went. Reads all of /proc."""
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
    """A plugin of the jobs in force. A process that ended is followed by another one, which is started by a thread once
    the plugin has rested.
    """

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
        """Start the process and wait for it; not for the loop. A failure is kept for the next question."""
        self.begin()
        self.finish()

    def begin(self) -> None:
        """Start the process; `finish` waits for it. Several may begin before the first is waited for."""
        try:
            self._begun = PluginChannel(self.description.kind, self.description.target, self._words)
        except PluginFailed as failure:
            self._disable(failure.message)

    def finish(self) -> None:
        """Wait for the process that was begun."""
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
        """For the loop: an answer within `WAIT`. Raises PluginBusy if there is none yet, PluginFailed."""
        if not self._turn.acquire(timeout=WAIT):
            raise PluginBusy(f"{self._words}: it has not answered yet")
        began = self._clock()
        try:
            return self._ask((question, keys, json.dumps(arguments)), arguments)
        finally:
            self._measure(self._clock() - began)
            self._turn.release()

    def ask_and_wait(self, question: str, keys: str, arguments: tuple[Any, ...], patience: float) -> Any:
        """For everybody else: an answer within `patience`, in seconds. Raises PluginFailed."""
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
        """End the process, within a moment."""
        with self._lock:
            self._closed = True
        if self._turn.acquire(timeout=1):
            talk, self._talk = self._talk, None
            if talk is not None:
                talk.close()
            self._turn.release()
        elif self._talk is not None:
            self._talk.end()  # who waits for its answer hears of it, and tidies up
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
        """Take the answer to the open question. Raises PluginBusy while there is none, PluginFailed at the end."""
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
        if len(self._answers) >= _ANSWERS_KEPT:  # of jobs that have changed their mind
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
            except RuntimeError:  # the system has no more threads to give
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
