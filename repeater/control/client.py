"""The asking end: finds the supervisor, sends one request, hands on what comes. Blocking, for the commands of `rpr`."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from repeater.control.protocol import encode_request, error_from
from repeater.control.unix_socket import all_socket_paths, candidate_paths
from repeater.errors import RepeaterError, Unreachable, UsageError
from repeater.wire.json_lines import LONGEST, BadMessage, LineBuffer, decode
from repeater.wire.trust import Untrusted, check_path, check_peer
from repeater.wire.unix import connect

PATIENCE = 30.0
"""Seconds without a sign after which a supervisor is given up."""


class Client:
    """A connection. One request after the other; a context manager."""

    def __init__(self, sock: socket.socket, path: Path) -> None:
        self._sock = sock
        self._lines = LineBuffer(16 * LONGEST)
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._sock.close()

    def ask(self, verb: str, *, patience: float | None = PATIENCE, **args: Any) -> Answer:
        """Send a request. `patience` None waits without limit. Read the items before the next request."""
        try:
            self._sock.settimeout(patience)
            self._sock.sendall(encode_request(verb, args))
        except (BrokenPipeError, ConnectionResetError):
            pass  # the supervisor refused the connection: its reply can still be read
        except OSError as error:
            raise self._lost(error) from None
        return Answer(self)

    def call(self, verb: str, **args: Any) -> dict[str, Any]:
        """The result of a request; items are left out."""
        return self.ask(verb, **args).result()

    def wait_for_end(self) -> None:
        """Returns when the other end is gone."""
        self._sock.settimeout(None)
        try:
            while self._sock.recv(65536):
                pass
        except ConnectionError:
            pass

    def receive(self) -> dict[str, Any]:
        """The next message. Raises Unreachable when the connection ends."""
        try:
            while (line := self._lines.take()) is None:
                data = self._sock.recv(1 << 16)
                if not data:
                    raise Unreachable("cannot continue: the supervisor has exited")
                self._lines.feed(data)
            return decode(line)
        except OSError as error:
            raise self._lost(error) from None
        except BadMessage as error:
            raise RepeaterError(f"cannot understand the supervisor at `{self.path}`: {error.message}") from None

    def _lost(self, error: OSError) -> RepeaterError:
        if isinstance(error, TimeoutError):
            return Unreachable(f"cannot reach the supervisor at `{self.path}`: it does not answer")
        return Unreachable(f"cannot reach the supervisor at `{self.path}`: {os.strerror(error.errno or 0)}")


class Answer:
    """What comes for one request: iterate over the items, then ask for the `result`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._result: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while self._result is None:
            message = self._client.receive()
            if "item" in message:
                yield message["item"]
            elif "done" in message:
                self._result = message["done"]
            else:
                raise error_from(message.get("error"))

    def result(self) -> dict[str, Any]:
        """The result; unread items are dropped. Raises the error of the reply."""
        for _ in self:
            pass
        assert self._result is not None
        return self._result


def decode_bytes(item: Mapping[str, Any]) -> bytes:
    """What was written, of an item of `logs`."""
    if "base64" in item:
        return base64.b64decode(str(item["base64"]))
    return str(item.get("text", "")).encode("utf-8", "surrogatepass")


# --- finding --------------------------------------------------------------------------------------------------------


def open_socket(path: str) -> Client:
    """The supervisor behind a socket that was named. Raises Unreachable."""
    client = _is_reachable(Path(path))
    if client is None:
        raise Unreachable(f"cannot reach a supervisor at `{path}`: no process listens there")
    return client


def find(
    project: str, state: Path, environ: Mapping[str, str], *, own_state: bool, guests: bool = True
) -> Client | None:
    """The supervisor of a project; None if there is none. `guests`: also one that keeps no state.

    Raises UsageError if several without state are there and none with it.
    """
    found: list[Client] = []
    for path in candidate_paths(project, state, environ, own_state=own_state):
        is_guest = "@" in path.name
        if is_guest and not guests:
            continue
        client = _is_reachable(path)
        if client is not None and not is_guest:
            for other in found:
                other.close()
            return client
        if client is not None:
            found.append(client)
    if len(found) > 1:
        names = ", ".join(f"`{client.path}`" for client in found)
        for client in found:
            client.close()
        raise UsageError(
            f"cannot choose a supervisor of project `{project}`: there are {len(found)}",
            hint=f"name one with `--socket`: {names}",
        )
    return found[0] if found else None


def running_sockets(environ: Mapping[str, str]) -> list[str]:
    """The sockets at the default paths that a process listens on."""
    found = []
    for path in all_socket_paths(environ):
        client = _is_reachable(path)
        if client is not None:
            client.close()
            found.append(os.fspath(path))
    return found


def _is_reachable(path: Path) -> Client | None:
    """A connection; None if no process listens. The user of the listening process is checked before the first byte."""
    sock = None
    if not os.path.lexists(path):
        return None
    try:
        check_path(path)
        sock = connect(path, 5.0)
        check_peer(sock)
        return Client(sock, path)
    except Untrusted as error:
        if sock is not None:
            sock.close()
        raise Unreachable(
            f"cannot use the socket `{path}`: {error}",
            hint="run the command as that user, or remove the wrong file",
        ) from None
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return None
    except PermissionError:
        raise Unreachable(f"cannot reach the supervisor at `{path}`: permission denied") from None
    except OSError as error:
        raise Unreachable(f"cannot reach the supervisor at `{path}`: {error.strerror or error}") from None
