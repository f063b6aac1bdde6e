"""Where the daemon is looked for, and where it listens."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from repeater.ratelimitd import socket_path
from repeater.ratelimitd.socket_path import ListeningSocket, connect_path, listen_path, path_resolver
from repeater.wire.unix_listener import CannotListen


@pytest.fixture
def usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "var" / "patience" / "daemon.sock"
    monkeypatch.setattr(socket_path, "USUAL", path)
    return path


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "run").mkdir()
    return {"XDG_RUNTIME_DIR": str(tmp_path / "run")}


def test_the_usual_place_is_taken_where_it_can_be_made(usual: Path, environ: dict[str, str]) -> None:
    usual.parent.parent.mkdir()
    assert listen_path(environ) == usual


def test_the_folder_of_the_user_is_the_fallback(usual: Path, environ: dict[str, str], tmp_path: Path) -> None:
    assert listen_path(environ) == tmp_path / "run" / "patience" / "daemon.sock"
    assert listen_path({"XDG_RUNTIME_DIR": "relative"}).parent.name.startswith("patience-")


def test_a_client_uses_the_socket_on_which_a_daemon_listens(
    usual: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    spare = tmp_path / "run" / "patience" / "daemon.sock"
    find = path_resolver(None, environ)
    assert find() == spare
    gate = ListeningSocket(spare)
    usual.parent.parent.mkdir()
    assert find() == spare  # the usual place could be made, but nobody is there
    other = ListeningSocket(usual)
    assert find() == usual
    other.close()
    assert find() == spare
    gate.close()
    assert path_resolver("d.sock", environ)() == Path.cwd() / "d.sock"
    assert connect_path(environ) == usual


def test_a_socket_of_a_crashed_daemon_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    gate = ListeningSocket(path)
    with pytest.raises(CannotListen, match="in use by another daemon"):
        ListeningSocket(path)
    gate.close()
    assert not path.exists()


def test_a_socket_of_another_program_that_answers_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(CannotListen, match="in use by another process"):
            ListeningSocket(path)
    assert path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
@pytest.mark.parametrize("which", ["socket", "lock"])
def test_a_path_of_another_user_is_refused_and_not_changed(tmp_path: Path, which: str) -> None:
    path = tmp_path / "d.sock"
    if which == "socket":
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(path))
        left.close()
        os.chown(path, 12345, -1)
    else:
        lock = tmp_path / "d.sock.lock"
        lock.touch()
        os.chown(lock, 12345, -1)
    with pytest.raises(CannotListen, match="belongs to user 12345"):
        ListeningSocket(path)
    assert path.exists() == (which == "socket")


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_path_that_is_not_a_socket_is_kept(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "d.sock"
    (tmp_path / "file").write_text("kept")
    if kind == "link":
        path.symlink_to(tmp_path / "file")
    else:
        (tmp_path / "file").rename(path)
    with pytest.raises(CannotListen, match="is not a socket"):
        ListeningSocket(path)
    assert path.read_text() == "kept"
