"""`rpr daemon` as a person and as a service manager see it."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat

import pytest

from repeater.ratelimitd.socket_path import PATIENCE_SOCKETS
from tests.cli.conftest import Rpr
from tests.cli.ratelimitd import PATIENCE, running, until


def test_a_daemon_reports_its_socket_and_shuts_down_cleanly(rpr: Rpr) -> None:
    with running(rpr) as daemon:
        assert stat.S_IMODE(daemon.path.stat().st_mode) == 0o600
        assert daemon.stop(signal.SIGTERM) == (0, "")
        assert not daemon.path.exists()
        daemon.start()
        assert daemon.stop(signal.SIGINT) == (130, "")


def test_the_state_of_a_daemon_is_shown_as_text_and_as_json(rpr: Rpr) -> None:
    with running(rpr, "--ephemeral") as daemon, daemon.client() as client:
        client.reserve("a", "github", "5000/3600000")
        result = rpr("daemon", "--stats", "--socket", str(daemon.path))
        first, second = result.out.splitlines()
        assert first.startswith("pid ")
        assert second.startswith("github  5000/1h  1 used, 0 reserved, 0 waiting, next start now")
        answer = json.loads(rpr("daemon", "--stats", "--json", "--socket", str(daemon.path)).out)
        assert answer["resources"][0]["rate_limit"] == 5000
        assert answer["problems"] == []


def test_a_socket_is_found_by_the_variables_of_both_tools(rpr: Rpr) -> None:
    with running(rpr, "--ephemeral") as daemon:
        for name in ("RPR_DAEMON_SOCKET", "PATIENCE_DAEMON_SOCKET"):
            result = rpr("daemon", "--stats", env={name: str(daemon.path)})
            assert (result.code, result.err) == (0, "")


def test_without_a_daemon_the_answer_is_one_line(rpr: Rpr) -> None:
    path = rpr.folder / "none.sock"
    rpr("daemon", "--stats", "--socket", str(path)).is_(
        err=f"rpr: cannot reach a rate-limit daemon at `{path}`: none is running\nhint: start one with `rpr daemon`\n",
        code=6,
    )


def test_a_second_daemon_at_a_socket_is_refused_and_the_first_runs_on(rpr: Rpr) -> None:
    with running(rpr) as daemon:
        rpr("daemon", "--socket", str(daemon.path)).is_(
            err=f"rpr: cannot listen on `{daemon.path}`: address in use by another daemon\n", code=5
        )
        assert daemon.stats()["status"] == "ok"


def test_a_file_that_is_not_a_socket_is_not_touched(rpr: Rpr) -> None:
    path = rpr.write("d.sock", "precious")
    rpr("daemon", "--socket", str(path)).is_(
        err=f"rpr: cannot listen on `{path}`: the path exists and is not a socket\n", code=5
    )
    assert path.read_text() == "precious"


def test_a_socket_in_a_world_writable_folder_is_refused(rpr: Rpr) -> None:
    folder = rpr.folder / "open"
    folder.mkdir()
    folder.chmod(0o777)
    rpr("daemon", "--socket", str(folder / "d.sock")).is_(
        err=f"rpr: cannot listen in `{folder}`: it is world-writable\n", code=5
    )


def test_the_mode_option_sets_the_permissions_of_the_socket(rpr: Rpr) -> None:
    with running(rpr, "--mode", "666", "--ephemeral") as daemon:
        assert stat.S_IMODE(daemon.path.stat().st_mode) == 0o666
    rpr("daemon", "--mode", "777").is_(err="rpr: cannot use `--mode 777`: expected `600`, `660` or `666`\n", code=2)


@pytest.mark.parametrize("state", [b"", b"not a database" * 100])
def test_damaged_ledgers_are_refused_by_name_and_not_changed(rpr: Rpr, state: bytes) -> None:
    folder = rpr.folder / "state"
    folder.mkdir(mode=0o700)
    path = rpr.write("state/ledgers.db", state)
    result = rpr("daemon", "--socket", str(rpr.folder / "d.sock"), "--state-dir", str(folder))
    assert result.code == 5
    assert result.err.startswith(f"rpr: cannot use state `{path}`: ")
    assert "hint: " in result.err
    assert path.read_bytes() == state


def test_a_service_manager_is_notified_when_the_daemon_is_ready(rpr: Rpr) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = os.path.relpath(rpr.folder / "notify")
        manager.bind(address)
        manager.settimeout(PATIENCE)
        process = rpr.start(
            "daemon", "--ephemeral", "--socket", "d.sock", env={"NOTIFY_SOCKET": str(rpr.folder / "notify")}
        )
        try:
            assert b"READY=1" in manager.recv(4096)
            process.terminate()
            assert b"STOPPING=1" in manager.recv(4096)
        finally:
            process.communicate()


def test_a_restart_keeps_what_it_knew(rpr: Rpr) -> None:
    with running(rpr) as daemon:
        with daemon.client() as client:
            client.send({"type": "start_notice", "reservation": client.reserve("a")["reservation"]})
            until(lambda: daemon.stats()["resources"][0]["starts"] == 1)
        daemon.stop()
        daemon.start()
        with daemon.client() as client:
            answer = client.reserve("b")
            assert answer["status"] == "waiting"
            assert answer["wait_ms"] > 20_000


def test_a_client_that_is_killed_gives_its_reservation_back(rpr: Rpr) -> None:
    with running(rpr, "--ephemeral") as daemon, daemon.client() as other:
        with daemon.client() as client:
            assert client.reserve("a")["status"] == "granted"
            assert other.reserve("b")["status"] == "waiting"
        assert other.hear()["status"] == "granted"


def test_the_metrics_of_a_run_are_taken_without_an_answer(rpr: Rpr) -> None:
    run = {"command": "true", "command_hash": "b5bea41b", "final_status": "succeeded", "total_duration_seconds": 0.1}
    run |= {"total_attempts": 1, "successful_attempts": 1, "failed_attempts": 0, "timestamp": 1795448037}
    with running(rpr, "--ephemeral") as daemon:
        with daemon.client() as client:
            client.send(json.dumps(run).encode())
        until(lambda: daemon.stats()["runs"]["succeeded"] == 1)
        assert "runs by `patience`: 1 succeeded" in rpr("daemon", "--stats", "--socket", str(daemon.path)).out


def test_with_patience_it_listens_where_the_go_tool_connects(rpr: Rpr) -> None:
    asked, metrics = PATIENCE_SOCKETS
    if any(path.exists() for path in PATIENCE_SOCKETS):
        pytest.skip("somebody listens there")
    try:
        with running(rpr, "--ephemeral", "--patience") as daemon:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(asked))
                client.sendall(b'{"type":"handshake","version":"1.0","client":"patience-cli"}\n')
                assert b"handshake successful" in client.recv(4096)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(metrics))
                client.sendall(b'{"command":"true","command_hash":"ab","final_status":"succeeded","total_attempts":1}')
            until(lambda: daemon.stats()["runs"]["succeeded"] == 1)
            second = rpr("daemon", "--ephemeral", "--patience", "--socket", str(rpr.folder / "other.sock"))
            assert (second.code, second.err) == (
                5,
                f"rpr: cannot listen on `{asked}`: address in use by another daemon\n",
            )
            assert not (rpr.folder / "other.sock").exists()
            daemon.stop()
            assert not asked.exists()
            assert not metrics.exists()
    finally:
        for path in PATIENCE_SOCKETS:
            path.with_name(path.name + ".lock").unlink(missing_ok=True)


def test_the_help_has_an_example(rpr: Rpr) -> None:
    assert "Example: rpr daemon" in rpr("daemon", "--help").out
