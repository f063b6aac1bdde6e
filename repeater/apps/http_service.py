"""HTTP for a supervisor, assembled: address, token, socket, metrics, server.

It listens on this machine only, unless `--allow-remote` is given. A token is always required.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import secrets
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repeater.apps.options import HttpOptions
from repeater.control.http.auth import LOOPBACK
from repeater.errors import RepeaterError, UsageError
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.wire.installed import extra_hint
from repeater.wire.trust import shown_user, trusted_users

if TYPE_CHECKING:
    from repeater.control.context import ControlContext
    from repeater.control.http.server import HttpServer
    from repeater.model.events import Event
    from repeater.output.metrics import Metrics

TOKEN = "RPR_HTTP_TOKEN"  # noqa: S105 - the name of a variable
TOKEN_FILE = "http-token"  # noqa: S105 - the name of a file
BACKLOG = 1024
"""Connections that wait to be accepted. When there are more, the system makes a client wait for a second."""
_SHORTEST_TOKEN, _LONGEST_TOKEN = 16, 4096


class HttpService:
    """Listens from its construction on, answers from `serve` on. `hear` counts events for the metrics.

    `words` describe the address; `is_chosen`: the system chose the port, so the user does not know it yet.
    """

    def __init__(
        self,
        options: HttpOptions,
        folder: Path | None,
        environ: Mapping[str, str],
        warn: Callable[[Reason], None],
        fault: Callable[[Exception], None],
    ) -> None:
        """`folder` is the state's, None if none is kept. `fault` gets each unexpected exception of a connection or a
        request. Raises RepeaterError.
        """
        _check_extras()
        host, port = parse_address(options.address)
        self._token, where = _token(options, folder, environ)
        self._warn = warn
        self._fault = fault
        self._hosts = {*LOOPBACK, *options.hosts}
        self._server: HttpServer | None = None
        self._making: asyncio.Future[bytes] | None = None
        self._metrics = _metrics()
        self._door = _bind(host, port, options)
        bound, number = self._door.getsockname()[:2]
        if options.allow_remote:
            self._hosts |= {socket.gethostname(), host}
        shown = f"[{bound}]" if ":" in bound else bound
        self.is_chosen = port == 0
        self.words = f"http://{shown}:{number}, token in {where}"

    def hear(self, event: Event) -> None:
        if self._metrics is not None:
            self._metrics(event)

    def serve(self, desk: ControlContext) -> None:
        """Answer requests from now on."""
        from repeater.control.http.app import NO_METRICS, build
        from repeater.control.http.server import HttpServer

        if self._metrics is None:
            self._warn(because("metrics_missing", error=f"{NO_METRICS}: {extra_hint('web')}"))

        async def scrape() -> bytes:
            """A request that arrives while metrics are made gets the same metrics."""
            if self._making is None:
                self._making = asyncio.ensure_future(self._make(desk))
                self._making.add_done_callback(self._made)
            return await asyncio.shield(self._making)

        app = build(
            desk,
            token=self._token,
            hosts=self._hosts,
            scrape=None if self._metrics is None else scrape,
            warn=self._warn,
            fault=self._fault,
        )
        self._server = HttpServer(app, self._door, self._warn, self._fault)

    async def sent(self) -> None:
        """Return when all clients have received their replies."""
        if self._server is not None:
            await self._server.sent()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._making is not None:
            self._making.cancel()
        self._door.close()

    async def _make(self, desk: ControlContext) -> bytes:
        """Collect the metrics in the loop, some jobs at a time, and format them in a thread."""
        from repeater.control.context import aside

        assert self._metrics is not None
        self._metrics.attach(desk.engine.admission.usage)
        for _ in self._metrics.sample(desk.engine.jobs):
            await asyncio.sleep(0)
        return await aside(self._metrics.expose)

    def _made(self, _: asyncio.Future[bytes]) -> None:
        self._making = None


def _check_extras() -> None:
    try:
        import repeater.control.http.app
        import repeater.control.http.server  # noqa: F401
    except ModuleNotFoundError as error:
        raise RepeaterError(f"cannot serve HTTP: `{error.name}` is not installed", hint=extra_hint("web")) from None


def _metrics() -> Metrics | None:
    try:
        from repeater.output.metrics import Metrics
    except ModuleNotFoundError:
        return None
    return Metrics()


def parse_address(text: str) -> tuple[str, int]:
    """Host and port; `127.0.0.1` if only a port is given. Port 0 lets the system choose. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = ("", text) if text.isdigit() else (text, "")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        port = ""  # an address of version 6 without brackets: which of the colons is meant?
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise UsageError(
            f"cannot use `--http {text}`: expected a port, `HOST:PORT` or `[V6]:PORT`", hint="like `127.0.0.1:8080`"
        )
    return host or "127.0.0.1", int(port)


def _bind(host: str, port: int, options: HttpOptions) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise RepeaterError(f"cannot serve HTTP at `{options.address}`: {error}") from None
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    if not options.allow_remote and not all(_is_loopback(str(address[0])) for _, address in addresses):
        raise UsageError(
            f"cannot serve HTTP at `{options.address}`: other machines could reach it",
            hint="use `--allow-remote` to allow this; the token gives full control, so put TLS in front",
        )
    causes = []
    for family, address in addresses:  # `localhost` may be `::1` first where there is no version 6
        try:
            return _listen(family, address)
        except OSError as error:
            causes.append(os.strerror(error.errno or 0))
    raise RepeaterError(f"cannot serve HTTP at `{options.address}`: {causes[0]}")


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _listen(family: int, address: Any) -> socket.socket:
    # asyncio turns Nagle's delay off only for sockets that say they are TCP
    door = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and address[0] == "::":
            with contextlib.suppress(OSError):  # version 4 as well, where the system has both
                door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        door.bind(address)
        door.listen(BACKLOG)
        door.setblocking(False)
    except OSError:
        door.close()
        raise
    return door


# --- the token ------------------------------------------------------------------------------------------------------


def _token(options: HttpOptions, folder: Path | None, environ: Mapping[str, str]) -> tuple[str, str]:
    """The token, and words for where it is: never in an argument, which all users of a machine can read."""
    if options.token_file is not None:
        return _checked(_read(Path(options.token_file)), f"`{options.token_file}`"), f"`{options.token_file}`"
    if environ.get(TOKEN):
        return _checked(environ[TOKEN], f"`{TOKEN}`"), f"`{TOKEN}`"
    if folder is None:
        raise UsageError(
            "cannot serve HTTP: without a state directory there is no file for the token",
            hint=f"set `{TOKEN}`, or name a token file with `--http-token-file`",
        )
    path = folder / TOKEN_FILE
    with contextlib.suppress(FileExistsError):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
    return _checked(_read(path, is_ours=True), f"`{path}`"), f"`{path}`"


def _read(path: Path, *, is_ours: bool = False) -> str:
    """The text of a token file. `is_ours`: the one in the state folder, which is not a link and only for this user."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if is_ours else 0)
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            found = os.fstat(file.fileno())
            if cause := _written_by_others(found):
                raise RepeaterError(f"cannot use the token in `{path}`: {cause}", hint=_TOKEN_HINT)
            if is_ours and found.st_mode & 0o044:
                os.fchmod(file.fileno(), 0o600)
            return file.read(_LONGEST_TOKEN + 2).decode("ascii", "replace").strip()
    except OSError as error:
        raise RepeaterError(f"cannot read the token in `{path}`: {os.strerror(error.errno or 0)}") from None


def _written_by_others(found: os.stat_result) -> str:
    """Why another user could have written a file; empty if none could."""
    if not stat.S_ISREG(found.st_mode):
        return "it is not a regular file"
    if found.st_uid not in trusted_users():
        return f"it belongs to {shown_user(found.st_uid)}"
    return "other users can write it" if found.st_mode & 0o022 else ""


_TOKEN_HINT = "other users may know the token: remove the file, or name another one with `--http-token-file`"  # noqa: S105


def _checked(token: str, where: str) -> str:
    if not _SHORTEST_TOKEN <= len(token) <= _LONGEST_TOKEN or not all("!" <= char <= "~" for char in token):
        raise UsageError(
            f"cannot use the token in {where}: expected {_SHORTEST_TOKEN} to {_LONGEST_TOKEN} visible ASCII characters",
            hint="create one with `openssl rand -hex 32`",
        )
    return token
