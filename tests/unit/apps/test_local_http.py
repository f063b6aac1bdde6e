"""The HTTP server of one-off commands: slow clients, and no descriptor left."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time

import pytest

from repeater.apps.oneoff import local_http as module
from repeater.apps.oneoff.local_http import LocalHttpServer
from repeater.system.loops.minimal import MinimalLoop


def test_a_slow_client_keeps_no_place_and_missing_descriptors_are_awaited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_WITHIN", 0.2)
    loop = MinimalLoop()
    shown = LocalHttpServer(loop, 0, {"/livez": lambda: (200, "text/plain", b"ok\n")}, "health")
    address = shown._server.server_address
    lacking = iter([True, True])
    accept = shown._server.get_request

    def sometimes() -> tuple[socket.socket, object]:
        if next(lacking, False):
            raise OSError(errno.EMFILE, "")
        return accept()

    monkeypatch.setattr(shown._server, "get_request", sometimes)
    answers: list[bytes] = []

    def client() -> None:
        slow = [socket.create_connection(address, timeout=20) for _ in range(module.MOST_CLIENTS)]
        for sock in slow:
            sock.send(b"G")
            assert sock.recv(100) == b""  # it was ended, though not one byte of an answer was sent
            sock.close()
        while not answers:  # the thread of a slow one may not have given its place back yet
            with contextlib.suppress(ConnectionError), socket.create_connection(address, timeout=20) as good:
                good.sendall(b"GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n")
                while data := good.recv(4096):
                    answers.append(data)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=client)
    thread.start()
    loop.run()
    thread.join()
    shown.close()
    loop.close()
    assert b"".join(answers).endswith(b"ok\n")
    for _ in range(100):
        if threading.active_count() == 1:
            break
        time.sleep(0.02)
