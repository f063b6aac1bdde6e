"""The name of the control socket is removed under a supervisor: it listens again, and says so."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable

import pytest

from tests.faults.ground import Ground, wait_for

WEB = '[jobs.web]\ncommand = "sleep 300"\nschedule = "always"\n'


def remove_socket(ground: Ground) -> None:
    ground.socket.unlink()


def remove_folder(ground: Ground) -> None:
    shutil.rmtree(ground.socket.parent)


def log_out(ground: Ground) -> None:
    """systemd removes `$XDG_RUNTIME_DIR` with the last session of a user."""
    shutil.rmtree(ground.folder / ".run")


def put_another_in_its_place(ground: Ground) -> None:
    ground.socket.unlink()
    ground.socket.write_text("not a socket")


@pytest.mark.slow
@pytest.mark.parametrize("remove", [remove_socket, remove_folder, log_out, put_another_in_its_place])
def test_a_removed_control_socket_is_bound_again(ground: Ground, remove: Callable[[Ground], None]) -> None:
    supervisor = ground.apply(WEB, "-q")
    supervisor.until_ready()
    remove(ground)
    supervisor.until_err("again", within=30)
    assert "was removed" in supervisor.err
    assert ground("health", "-q").code == 0
    assert json.loads(ground("status", "--json").out.splitlines()[0])["job"] == "web"
    if remove is log_out:
        (ground.folder / ".run").mkdir(mode=0o700)  # the next login
        assert ground("status").code == 0
    ground.down()


@pytest.mark.slow
def test_a_removed_link_in_the_state_folder_is_made_again(ground: Ground) -> None:
    supervisor = ground.apply(WEB, "-q")
    supervisor.until_ready()
    link = ground.state / "control.sock"
    link.unlink()
    wait_for(link.is_symlink, "the link is there")
    ground.down()


@pytest.mark.slow
def test_doctor_names_a_supervisor_that_cannot_be_reached(ground: Ground) -> None:
    supervisor = ground.apply(WEB, "-q")
    supervisor.until_ready()
    assert ground("doctor").code == 0
    os.kill(supervisor.pid, signal.SIGSTOP)  # so that it cannot bind again
    ground.socket.unlink()
    found = ground("doctor")
    os.kill(supervisor.pid, signal.SIGCONT)
    assert found.code == 1
    assert f"pid {supervisor.pid} uses `{ground.state}`, but commands cannot reach it" in found.out
    wait_for(ground.socket.exists, "it binds the socket again")
    ground.down()
