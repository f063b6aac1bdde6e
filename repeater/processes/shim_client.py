"""The connection from a supervisor to its shim: start or find the shim, greet it, receive messages, shut it down.

`shim.protocol` describes the messages, `processes.shim_spawner` decides which to send.
"""

from __future__ import annotations

import array
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from repeater.ports import LaunchRequest
from repeater.processes import shim_protocol_v2
from repeater.shim import __main__ as shim_main
from repeater.shim import spool
from repeater.shim.crash_log import CrashLog
from repeater.shim.protocol import MOST_FDS, VERSION, Frames, ProtocolError, frame
from repeater.wire.trust import Untrusted, check_path
from repeater.wire.unix import connect, pid_of, user_of

if TYPE_CHECKING:
    from repeater.shim.protocol import Message

_READ = 1 << 16
_FDS_ROOM = socket.CMSG_LEN(MOST_FDS * array.array("i").itemsize)
_EXIT_TIMEOUT_S = 1.0  # from the end of the connection to the exit of the shim
_HELLO_TIMEOUT_S = 10.0  # within which a shim must answer
SHUTDOWN_TIMEOUT_S = 7.0  # within which every process is dead; the shim itself gives up after five seconds

OnDeath: TypeAlias = Literal["kill", "keep"]


class ShimUnavailable(Exception):
    """No shim can be started or reached."""


class ConnectionLost(Exception):
    """The shim has exited or closed the connection."""


def connect_existing(folder: Path, on_death: OnDeath, use_cgroups: bool) -> ShimConnection | None:
    """The shim that an earlier supervisor left in this directory. None if there is none, or if it is exiting.

    A shim that is killing its runs does not answer, and closes the connection when it has finished.
    """
    try:
        check_path(folder / spool.SOCKET, links=False)
        sock = connect(folder / spool.SOCKET, _HELLO_TIMEOUT_S)
    except (OSError, Untrusted):
        return None
    if user_of(sock) != os.geteuid():
        sock.close()
        return None
    try:
        pid = pid_of(sock)
        return ShimConnection(sock, None, folder, on_death, use_cgroups, _open_crash_log(folder))
    except ShimUnavailable as why:
        if isinstance(why.__cause__, TimeoutError) and pid is not None:
            with contextlib.suppress(OSError):  # it is stopped, and might be continued later
                os.kill(pid, signal.SIGKILL)
        return None


def start_new(folder: Path | None, on_death: OnDeath, use_cgroups: bool) -> ShimConnection:
    """A new shim. Raises ShimUnavailable."""
    if sys.platform != "linux":
        raise ShimUnavailable("this system does not support subreapers")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    crash_log = None
    with theirs:
        try:
            if folder is not None:
                folder.mkdir(mode=0o700, exist_ok=True)
            crash_log = _open_crash_log(folder)
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", shim_main.__file__, str(theirs.fileno()), *([folder] if folder else [])],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL if crash_log is None else crash_log.fd,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            ours.close()
            if crash_log is not None:
                crash_log.close()
            raise ShimUnavailable(f"it cannot be started: {error}") from error
    return ShimConnection(ours, process, folder, on_death, use_cgroups, crash_log)


def _open_crash_log(folder: Path | None) -> CrashLog | None:
    """For its stderr. None if the file cannot be created; the shim starts without it."""
    with contextlib.suppress(OSError):
        return CrashLog(None if folder is None else str(folder))
    return None


class ShimConnection:
    """The connection to a shim. `process` is None if another process is its parent. Raises ShimUnavailable.

    `hello` is its first message, `has` the runs that it had then.
    """

    def __init__(
        self,
        sock: socket.socket,
        process: subprocess.Popen[bytes] | None,
        folder: Path | None,
        on_death: OnDeath,
        use_cgroups: bool,
        crash_log: CrashLog | None,
    ) -> None:
        self.frames = Frames()
        self._is_v2 = False
        self._room = memoryview(bytearray(_READ))  # one for all messages: a new buffer each time is slow
        self._crash_log = crash_log
        self.process = process
        self.socket = sock
        self.fd = sock.fileno()
        self.pid = 0 if process is None else process.pid
        try:
            self.hello = self._handshake(on_death if folder else "kill", use_cgroups)
        except ShimUnavailable:
            self.abandon()
            raise
        self.pid = self.hello["pid"]
        self.has = frozenset(one["run"] for one in self.hello["runs"])
        sock.setblocking(False)

    def receive(self) -> Iterator[tuple[list[Message], list[int]]]:
        """The messages that have arrived, with the descriptors that belong to them.

        Raises ConnectionLost when the shim has exited, and ProtocolError for bytes that are not a frame.
        """
        try:
            size, words, flags, _ = self.socket.recvmsg_into((self._room,), _FDS_ROOM, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError as error:
            raise ConnectionLost from error
        if not size:
            raise ConnectionLost
        fds = array.array("i")
        for _, _, rights in words:  # no other kind was requested
            fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
        for messages, owned in self.frames.feed(self._room[:size], fds, lost=bool(flags & socket.MSG_CTRUNC)):
            yield [shim_protocol_v2.from_v2(message) for message in messages] if self._is_v2 else messages, owned

    def frame(self, messages: Sequence[Message]) -> bytes:
        """The bytes of one frame for this shim. Raises ProtocolError."""
        return frame([shim_protocol_v2.to_v2(message) for message in messages] if self._is_v2 else messages)

    def _handshake(self, on_death: OnDeath, use_cgroups: bool) -> Message:
        self.socket.settimeout(_HELLO_TIMEOUT_S)
        try:
            words: Message = {"op": "hello", "version": VERSION, "on_death": on_death, "use_cgroups": use_cgroups}
            self.socket.sendall(frame([shim_protocol_v2.hello_for_both(words)]))
            while data := self.socket.recv(_READ):
                for (hello, *_), _ in self.frames.feed(data):
                    if hello["op"] != "hello" or hello["version"] not in {shim_protocol_v2.VERSION, VERSION}:
                        raise ShimUnavailable("it has a different version")
                    self._is_v2 = hello["version"] == shim_protocol_v2.VERSION
                    return shim_protocol_v2.from_v2(hello) if self._is_v2 else hello
        except (OSError, ProtocolError) as error:
            raise ShimUnavailable(f"it does not answer: {error}") from error
        cause = self.exit_reason()
        raise ShimUnavailable(f"it exited immediately: {cause}" if cause else "it exited immediately")

    def exit_reason(self) -> str:
        """Why it exited. Empty if that is unknown."""
        if self._crash_log is not None and (last := self._crash_log.last_entry()):
            return last + (f" (more in `{self._crash_log.path}`)" if self._crash_log.path else "")
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.process is not None and (status := self.process.wait(_EXIT_TIMEOUT_S)) < 0:
                return f"it was killed by {signal.Signals(-status).name}"
        return ""

    def shut_down(self, unsent: bytes) -> bool:
        """Make it kill every process, and wait for that. False if the result is unknown."""
        self.socket.settimeout(SHUTDOWN_TIMEOUT_S)
        try:
            self.socket.sendall(unsent + self.frame([{"op": "shutdown"}]))
            while True:
                data, fds, *_ = socket.recv_fds(self.socket, _READ, MOST_FDS, socket.MSG_CMSG_CLOEXEC)
                for fd in fds:
                    os.close(fd)
                if not data:
                    break
        except OSError:
            self.abandon()
            return False
        self._close()
        return self.process is None or self.process.wait() == 0

    def abandon(self) -> None:
        """Close the connection and kill the shim."""
        self._close()
        for fd in self.frames.drop():
            os.close(fd)
        self._kill()

    def _close(self) -> None:
        self.socket.close()
        if self._crash_log is not None:
            self._crash_log.close()
            self._crash_log = None

    def _kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        elif self.pid:
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)


def base_message(number: int, env: Mapping[str, str]) -> Message:
    return {"op": "env_base", "base": number, "env": dict(env)}


def spawn_message(launch: LaunchRequest, base: int) -> Message:
    message: Message = {
        "op": "spawn",
        "run": launch.run,
        "argv": launch.argv,
        "cwd": launch.cwd,
        "env": dict(launch.env),
    }
    if base:
        message["base"] = base
    if launch.attempt != 1:
        message["attempt"] = launch.attempt
    if launch.timeout is not None:
        message["timeout"] = launch.timeout.total_seconds()
        message["stop_signal"] = launch.stop_signal
        message["stop_timeout"] = launch.stop_timeout.total_seconds()
    if launch.stdin:
        message["stdin"] = launch.stdin.decode("utf-8", "surrogateescape")
    for name in ("user", "group", "umask"):
        if (value := getattr(launch, name)) is not None:
            message[name] = value
    if launch.nice:
        message["nice"] = launch.nice
    if launch.rlimits:
        message["rlimits"] = launch.rlimits
    return message
