"""A supervisor of this version with a shim of 0.1.0, which uses version 2 of the protocol."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from repeater.engine.facts import Fact, RunEnded, RunExited, SpawnFailed
from repeater.model.run import Exit
from repeater.ports import LaunchRequest
from repeater.processes.shim_client import ShimConnection, connect_existing, spawn_message, start_new
from repeater.processes.shim_protocol_v2 import from_v2, hello_for_both, to_v2
from repeater.processes.shim_spawner import ShimSpawner
from repeater.shim import __main__ as shim_main
from tests.fakes.sink import FakeSink

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def old_shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`keeper/main.py` of 0.1.0."""
    made = subprocess.run(["git", "archive", "v0.1.0", "repeater/keeper"], cwd=ROOT, capture_output=True, check=False)
    if made.returncode:
        pytest.skip("the tag v0.1.0 is not here")
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as archive:
        archive.extractall(folder, filter="data")
    (folder / "repeater" / "__init__.py").touch()
    return folder / "repeater" / "keeper" / "main.py"


class Supervisor:
    """A spawner and its loop; `facts` are those that it emitted."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.facts: list[Fact] = []
        self.sink = FakeSink()
        self.spawner = ShimSpawner(
            self.facts.append, self.sink, self.loop, folder=folder, on_death="keep", cgroups="all"
        )

    def start(self, run: str, script: str) -> None:
        self.spawner.start(launch(run, "sh", "-c", script))

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end, self.facts
            self.loop.run_until_complete(asyncio.sleep(0.01))

    def has(self, kind: type[Fact], run: str) -> bool:
        return any(isinstance(fact, kind) and getattr(fact, "run", "") == run for fact in self.facts)

    def close(self) -> None:
        self.spawner.close()
        self.loop.close()


def launch(run: str, *argv: str) -> LaunchRequest:
    return LaunchRequest(run, argv, "/", {"PATH": "/bin:/usr/bin"}, base={"BASE": "of all"})


@pytest.fixture
def shim(old_shim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShimConnection]:
    """The connection to a shim of 0.1.0, as the supervisor that started it has it."""
    with monkeypatch.context() as patched:
        patched.setattr(shim_main, "__file__", str(old_shim))
        connection = start_new(tmp_path / "keeper", "keep", use_cgroups=True)
    yield connection
    connection.abandon()


@pytest.fixture
def supervisor(shim: ShimConnection, tmp_path: Path) -> Iterator[Supervisor]:
    """The next supervisor, after the first one has crashed."""
    assert shim.hello["version"] == 2
    shim.socket.close()
    found = Supervisor(tmp_path / "keeper")
    assert found.spawner.keeper == shim.pid
    yield found
    found.close()
    assert shim.process is not None
    assert shim.process.wait(20) == 0


def await_message(shim: ShimConnection, op: str) -> dict[str, Any]:
    """The next message with this `op`; the descriptors that come are closed."""
    shim.socket.settimeout(20)
    while True:
        for messages, fds in shim.receive():
            for fd in fds:
                os.close(fd)
            for message in messages:
                if message["op"] == op:
                    return message


def send(shim: ShimConnection, *messages: dict[str, Any]) -> None:
    shim.socket.settimeout(20)
    shim.socket.sendall(shim.frame(messages))


def test_runs_of_a_shim_of_0_1_0_survive_the_supervisor(shim: ShimConnection, tmp_path: Path) -> None:
    send(shim, spawn_message(launch("long", "sleep", "60"), 0))
    started = await_message(shim, "started")
    shim.socket.close()
    second = Supervisor(tmp_path / "keeper")
    survivors = second.spawner.surviving_runs()
    assert {run: found.pid for run, found in survivors.items()} == {"long": started["pid"]}
    second.spawner.adopt("long")
    second.spawner.kill_tree("long")
    second.until(lambda: second.has(RunEnded, "long"))
    second.close()


def test_a_run_starts_and_ends_in_a_shim_of_0_1_0(supervisor: Supervisor) -> None:
    supervisor.start("a", "echo $BASE; echo problem >&2; exit 3")
    supervisor.until(lambda: supervisor.has(RunEnded, "a"))
    assert supervisor.sink.written["a"] == {"stdout": b"of all\n", "stderr": b"problem\n"}
    (ended,) = [fact for fact in supervisor.facts if isinstance(fact, RunEnded)]
    assert ended.exit == Exit(code=3)


def test_a_shim_of_0_1_0_reports_a_program_that_is_missing(supervisor: Supervisor) -> None:
    supervisor.spawner.start(launch("a", "no-such-program"))
    supervisor.until(lambda: supervisor.has(SpawnFailed, "a"))


def test_a_shim_of_0_1_0_kills_the_remaining_processes_of_a_run(supervisor: Supervisor) -> None:
    supervisor.start("a", "sleep 60 >/dev/null 2>&1 &")
    supervisor.until(lambda: supervisor.has(RunExited, "a"))
    assert not supervisor.has(RunEnded, "a")
    supervisor.spawner.kill_tree("a")
    supervisor.until(lambda: supervisor.has(RunEnded, "a"))


def test_a_shim_of_0_1_0_forgets_a_run_that_is_acknowledged(shim: ShimConnection, tmp_path: Path) -> None:
    for run in ("a", "b"):
        send(shim, spawn_message(launch(run, "true"), 0))
        await_message(shim, "exited")
    send(shim, {"op": "ack", "runs": ["a"]})
    shim.socket.close()
    known = connect_existing(tmp_path / "keeper", "keep", True)
    assert known is not None
    assert known.has == {"b"}
    assert known.shut_down(b"")


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ({"op": "ack", "runs": ["a"]}, {"op": "settled", "runs": ["a"]}),
        ({"op": "env_base", "base": 1, "env": {}}, {"op": "base", "base": 1, "env": {}}),
        ({"op": "spawn", "base": 1, "cgroup": True}, {"op": "spawn", "base": 1, "fence": True}),
        ({"op": "spool_ack", "run": "a", "stdout": 1}, {"op": "took", "run": "a", "stdout": 1}),
        ({"op": "shutdown"}, {"op": "leave"}),
        ({"op": "signal", "signal": "TERM"}, {"op": "signal", "signal": "TERM"}),
    ],
)
def test_messages_to_a_shim_of_0_1_0_use_its_names(new: dict[str, object], old: dict[str, object]) -> None:
    assert to_v2(new) == old


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"op": "refused", "run": "a"}, {"op": "spawn_failed", "run": "a"}),
        ({"op": "empty", "run": "a"}, {"op": "group_empty", "run": "a"}),
        ({"op": "swept", "run": "a"}, {"op": "tree_killed", "run": "a"}),
        ({"op": "exited", "empty": True}, {"op": "exited", "empty": True}),
        ({"op": "started", "unfenced": "why"}, {"op": "started", "no_cgroup_reason": "why"}),
    ],
)
def test_messages_of_a_shim_of_0_1_0_get_the_new_names(old: dict[str, object], new: dict[str, object]) -> None:
    assert from_v2(old) == new


def test_a_hello_has_the_names_of_both_versions() -> None:
    hello = {"op": "hello", "version": 3, "use_cgroups": True}
    assert hello_for_both(hello) == {"op": "hello", "version": 3, "use_cgroups": True, "fences": True}
