"""The keeper and its client, each killed without a word: nothing lives on unseen, and nothing is told that is not so."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from repeater.engine.facts import Fact, RunEnded, RunLost, RunStarted, SpawnFailed
from repeater.model.run import Exit
from repeater.ports import LaunchRequest
from repeater.processes import shim_client
from repeater.processes.shim_client import ShimUnavailable, start_new
from repeater.processes.shim_run import ShimRun
from repeater.processes.shim_spawner import ShimSpawner
from repeater.shim.crash_log import MOST
from tests.fakes.sink import FakeSink
from tests.fakes.text import text_of
from tests.faults.ground import Ground

PATH = os.environ["PATH"]
PATIENCE = 60.0
DEFECT, DIED_OF = {"op": ["no word at all"]}, "TypeError: unhashable type: 'list'"  # nothing of ours says that

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs subreapers")


def wait_for(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.01)


class Home:
    """A spawner with its keeper, in a loop that the test turns."""

    def __init__(self, folder: Path | None = None) -> None:
        self.facts: list[Fact] = []
        self.sink = FakeSink()
        self.warnings: list[str] = []
        self.loop = asyncio.new_event_loop()
        self.spawner = ShimSpawner(
            self.facts.append,
            self.sink,
            self.loop,
            warn=lambda reason: self.warnings.append(str(text_of(reason))),
            folder=folder,
        )

    def begin(self, run: str, script: str) -> None:
        self.spawner.start(LaunchRequest(run, ("/bin/sh", "-c", script), "/", {"PATH": PATH}))

    def until(self, condition: Callable[[], object]) -> None:
        async def wait() -> None:
            async with asyncio.timeout(PATIENCE):
                while not condition():  # noqa: ASYNC110 - there is no event to wait for
                    await asyncio.sleep(0.01)

        self.loop.run_until_complete(wait())

    def told(self, kind: type) -> list[Fact]:
        return [fact for fact in self.facts if isinstance(fact, kind)]

    def ended(self) -> list[tuple[str, Exit]]:
        return [(fact.run, fact.exit) for fact in self.facts if isinstance(fact, RunEnded)]

    def close(self) -> None:
        self.spawner.close()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


@pytest.fixture
def home() -> Iterator[Home]:
    made = Home()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("owner", "method"),
    [(ShimSpawner, "_on_started"), (ShimRun, "on_exited"), (ShimRun, "check"), (ShimRun, "listen")],
)
def test_a_message_that_raises_does_not_cost_the_others_of_its_batch(
    home: Home, monkeypatch: pytest.MonkeyPatch, owner: type, method: str
) -> None:
    original = getattr(owner, method)
    failed: list[object] = []
    reported: list[object] = []
    home.loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))

    def fail_once(self: object, *args: object) -> object:
        if not failed:
            failed.append(args)
            raise ZeroDivisionError
        return original(self, *args)

    monkeypatch.setattr(owner, method, fail_once)
    runs = [f"run-{number}" for number in range(20)]
    for run in runs:
        home.begin(run, f"echo {run}")
    home.until(lambda: len(home.told(RunEnded)) == len(runs))
    assert failed
    assert [type(error) for error in reported] == [ZeroDivisionError]
    assert {run: home.sink.written[run]["stdout"] for run in runs} == {run: f"{run}\n".encode() for run in runs}
    assert home.warnings == []


def test_requests_that_are_too_big_for_one_frame_are_sent_in_several(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repeater.shim.protocol.LONGEST_FRAME", 2000)
    for number in range(30):
        home.begin(f"run-{number}", f"echo {number} {'x' * 300}")
    home.until(lambda: len(home.told(RunEnded)) == 30)
    assert home.told(SpawnFailed) == []


def test_a_start_too_big_for_a_frame_affects_no_other_start(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repeater.shim.protocol.LONGEST_FRAME", 2000)
    home.begin("before", "true")
    home.begin("big", "true " + "x" * 3000)
    home.begin("after", "true")
    home.until(lambda: len(home.facts) >= 5)
    assert {fact.run for fact in home.told(RunEnded) if isinstance(fact, RunEnded)} == {"before", "after"}
    (refused,) = home.told(SpawnFailed)
    assert isinstance(refused, SpawnFailed)
    assert (refused.run, refused.reason.code) == ("big", "arguments_too_big")
    assert sorted(home.sink.ended) == ["after", "before", "big"]


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_killed_shim_ends_its_runs_and_another_one_takes_over(home: Home) -> None:
    home.begin("lost-a", "echo heard; trap '' HUP; sleep 60")
    home.begin("lost-b", "setsid sleep 60 & exec sleep 60")
    home.until(lambda: len(home.told(RunStarted)) == 2 and home.sink.written["lost-a"]["stdout"])
    first = home.spawner.keeper
    assert first is not None
    tree = psutil.Process(first).children(recursive=True)
    os.kill(first, signal.SIGKILL)
    home.until(lambda: len(home.told(RunLost)) == 2)
    assert {fact.run for fact in home.told(RunLost) if isinstance(fact, RunLost)} == {"lost-a", "lost-b"}
    assert all(gone(process.pid) for process in tree)
    assert sorted(home.sink.ended) == ["lost-a", "lost-b"]
    home.begin("new", "exit 3")
    home.until(lambda: home.told(RunEnded))
    assert home.ended() == [("new", Exit(code=3))]
    assert home.spawner.keeper not in (None, first)
    assert home.warnings == [
        "the shim exited unexpectedly: it was killed by SIGKILL; killing its runs and restarting it"
    ]


def test_a_shim_that_cannot_be_started_keeps_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ShimUnavailable, match="it cannot be started"):
        start_new(tmp_path / "keeper", "kill", use_cgroups=False)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_begin_of_a_run_is_that_of_its_process_not_of_the_report(home: Home) -> None:
    before = time.monotonic_ns() // 1000
    home.begin("short", "true")
    home.until(lambda: home.told(RunEnded))
    (began,) = home.told(RunStarted)
    assert isinstance(began, RunStarted)
    assert began.at is not None
    assert before < began.at < time.monotonic_ns() // 1000


def test_another_shim_passes_on_inherited_variables_and_own_values_win(home: Home) -> None:
    base = {"PATH": PATH, "KEPT": "from base", "CHANGED": "from base"}

    def begin(run: str) -> None:
        argv = ("/bin/sh", "-c", 'echo "$KEPT, $CHANGED"')
        home.spawner.start(LaunchRequest(run, argv, "/", {"CHANGED": f"by {run}"}, base=base))

    begin("first")
    begin("second")
    home.until(lambda: len(home.told(RunEnded)) == 2)
    assert home.spawner.keeper is not None
    os.kill(home.spawner.keeper, signal.SIGKILL)
    home.until(lambda: home.warnings)
    begin("third")
    home.until(lambda: len(home.told(RunEnded)) == 3)
    said = {run: home.sink.written[run]["stdout"] for run in ("first", "second", "third")}
    assert said == {run: f"from base, by {run}\n".encode() for run in said}


@pytest.mark.parametrize("has_folder", [True, False])
def test_a_shim_that_crashes_names_the_defect_and_the_next_one_avoids_it(tmp_path: Path, has_folder: bool) -> None:
    home = Home(tmp_path / "keeper" if has_folder else None)
    log = tmp_path / "keeper" / "log"
    try:
        home.begin("one", "sleep 60")
        home.until(lambda: home.told(RunStarted))
        home.spawner._outbox.send(DEFECT)
        home.until(lambda: home.told(RunLost) and home.spawner.keeper)
        (warning,) = home.warnings
        more = f" (more in `{log}`)" if has_folder else ""
        assert f"the shim exited unexpectedly: {DIED_OF}{more}; killing its runs" in warning
        if has_folder:
            assert "Traceback" in log.read_text()
            assert log.stat().st_mode & 0o777 == 0o600
        os.kill(home.spawner.keeper or 0, signal.SIGKILL)
        home.until(lambda: len(home.warnings) == 2)
        assert "exited unexpectedly: it was killed by SIGKILL; killing" in home.warnings[1]
    finally:
        home.close()


def test_a_shim_that_crashes_below_python_names_the_place(home: Home) -> None:
    os.kill(home.spawner.keeper or 0, signal.SIGABRT)
    home.until(lambda: home.warnings)
    assert "exited unexpectedly: Fatal Python error: Aborted; killing" in home.warnings[0]


def test_the_crash_log_of_a_shim_is_bounded_and_no_job_can_write_to_it(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path)
    (tmp_path / "log").write_text("x" * MOST + "\n")
    home.spawner._outbox.send(DEFECT)
    home.until(lambda: home.warnings)
    assert DIED_OF in home.warnings[0]
    assert "xxx" not in (tmp_path / "log").read_text()
    home.until(lambda: home.spawner.keeper)
    home.begin("one", "ls -l /proc/self/fd")
    home.until(lambda: home.told(RunEnded))
    assert str(tmp_path) not in home.sink.written["one"]["stdout"].decode()
    home.close()


def test_a_run_requested_without_a_shim_is_started_by_the_next_one(home: Home) -> None:
    first = home.spawner.keeper
    assert first is not None
    os.kill(first, signal.SIGKILL)
    home.until(lambda: home.spawner.keeper is None)
    home.begin("exits-4", "exit 4")
    home.until(lambda: home.told(RunEnded))
    assert home.ended() == [("exits-4", Exit(code=4))]
    assert home.told(RunLost) == []


def test_a_shim_ignores_signals_of_the_terminal_and_of_an_init(home: Home) -> None:
    keeper = home.spawner.keeper
    assert keeper is not None
    home.begin("exits-5", "sleep 0.2; exit 5")
    home.until(lambda: home.told(RunStarted))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(keeper, number)
    home.until(lambda: home.told(RunEnded))
    assert home.ended() == [("exits-5", Exit(code=5))]
    assert home.spawner.keeper == keeper


def test_a_stopped_shim_blocks_no_other_and_continues_later(home: Home) -> None:
    keeper = home.spawner.keeper
    assert keeper is not None
    os.kill(keeper, signal.SIGSTOP)
    try:
        began = time.monotonic()
        for number in range(2000):
            home.begin(f"r{number}", "x" * 1000 if number else "exit 6")
        home.loop.run_until_complete(asyncio.sleep(0.1))
        assert time.monotonic() - began < PATIENCE / 2
    finally:
        os.kill(keeper, signal.SIGCONT)
    home.until(
        lambda: any(isinstance(fact, RunEnded) and (fact.run, fact.exit) == ("r0", Exit(code=6)) for fact in home.facts)
    )


CLIENT = """
import asyncio, os, sys
from repeater.processes.shim_spawner import ShimSpawner
from repeater.ports import LaunchRequest

class Sink:
    def write(self, *args): return True
    def finish(self, run): return frozenset()

async def main():
    told = lambda fact: print(fact, flush=True)
    spawner = ShimSpawner(told, Sink(), asyncio.get_running_loop())
    print("keeper", spawner.keeper, flush=True)
    for number, script in enumerate(sys.argv[1:]):
        spawner.start(LaunchRequest(f"r{number}", ("/bin/sh", "-c", script), "/", {"PATH": os.environ["PATH"]}))
    await asyncio.sleep(60)

asyncio.run(main())
"""

ESCAPES = {
    "plain": "sleep 61",
    "background": "sleep 61 & sleep 61",
    "own session": "setsid sleep 61 & sleep 61",
    "deaf": "trap '' TERM HUP INT; while :; do sleep 0.1; done",
    "stopped": "kill -STOP $$",
    "daemon": "(setsid env -i /bin/sleep 61 </dev/null >/dev/null 2>&1 &); sleep 61",
    "forgotten daemon": "(setsid env -i /bin/sleep 61 </dev/null >/dev/null 2>&1 &); exit 0",
}


def test_a_shim_whose_client_is_killed_ends_all_processes_of_its_runs() -> None:
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, *ESCAPES.values()],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert client.stdout is not None
    with client.stdout as told:
        keeper = psutil.Process(int(told.readline().split()[1]))
        lines: list[str] = []

        def heard(kind: str) -> int:
            return sum(kind in line for line in lines)

        # the run that ends is that of the forgotten daemon; others may start later
        while heard("RunStarted") < len(ESCAPES) or not heard("RunEnded"):
            lines.append(told.readline())
            assert lines[-1], lines
        wait_for(
            lambda: sum(p.name() == "sleep" for p in keeper.children(recursive=True)) >= len(ESCAPES),
            "all of them live",
        )
        tree = [keeper, *keeper.children(recursive=True)]
        client.kill()
        client.wait()
    wait_for(lambda: all(gone(process.pid) for process in tree), "all of it is dead")


SHORT_OF_DESCRIPTORS = """
import asyncio, os, resource
from repeater.processes.shim_spawner import ShimSpawner
from repeater.engine.facts import RunEnded, SpawnFailed
from repeater.ports import LaunchRequest

heard = {}

class Sink:
    def write(self, run, stream, data):
        heard[run] = heard.get(run, b"") + data
        return True
    def finish(self, run): return frozenset()

async def main():
    facts = []
    spawner = ShimSpawner(facts.append, Sink(), asyncio.get_running_loop())
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    for number in range(60):
        script = f"echo {number}; sleep 0.3"
        spawner.start(LaunchRequest(f"r{number}", ("/bin/sh", "-c", script), "/", {"PATH": os.environ["PATH"]}))
    while sum(isinstance(fact, (RunEnded, SpawnFailed)) for fact in facts) < 60:
        await asyncio.sleep(0.02)
    assert not any(isinstance(fact, SpawnFailed) for fact in facts)
    assert {run: int(data) for run, data in heard.items()} == {f"r{number}": number for number in range(60)}
    spawner.close()
    print("fine", len(os.listdir("/proc/self/fd")) < 20)

asyncio.run(main())
"""


def test_output_without_a_free_descriptor_waits_in_its_pipe_for_one() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SHORT_OF_DESCRIPTORS],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=Path(__file__).parents[2],
    )
    assert (done.stdout, done.stderr) == ("fine True\n", "")


# --- a keeper that is stopped -------------------------------------------------------------------------------------


def test_a_stopped_shim_is_noticed_and_its_return_too(home: Home) -> None:
    keeper = home.spawner.keeper
    assert keeper is not None
    os.kill(keeper, signal.SIGSTOP)
    try:
        home.until(lambda: home.spawner.trouble)
        assert home.spawner.trouble is not None
        assert home.spawner.trouble.detail == {"pid": keeper}
        assert len(home.warnings) == 1
    finally:
        os.kill(keeper, signal.SIGCONT)
    home.until(lambda: home.spawner.trouble is None)
    assert len(home.warnings) == 2
    home.begin("r1", "exit 3")
    home.until(lambda: home.told(RunEnded))
    assert home.spawner.keeper == keeper


def test_a_shim_that_works_is_never_called_stuck(home: Home) -> None:
    home.begin("r1", "sleep 5")
    home.until(lambda: home.told(RunEnded))
    assert home.warnings == []


def test_force_ends_a_stopped_shim_and_all_of_its_runs(home: Home) -> None:
    keeper = home.spawner.keeper
    assert keeper is not None
    home.begin("r1", "sleep 300")
    home.until(lambda: home.told(RunStarted))
    pid = home.told(RunStarted)[0].pid  # type: ignore[attr-defined]
    os.kill(keeper, signal.SIGSTOP)
    home.spawner.signal("r1", "KILL")
    home.spawner.force()  # before anybody can know that it is stopped
    home.until(lambda: home.told(RunLost))
    assert gone(keeper)
    assert gone(pid)


def test_a_stopped_shim_does_not_keep_a_spawner_from_closing(home: Home) -> None:
    keeper = home.spawner.keeper
    assert keeper is not None
    home.begin("r1", "sleep 300")
    home.until(lambda: home.told(RunStarted))
    pid = home.told(RunStarted)[0].pid  # type: ignore[attr-defined]
    os.kill(keeper, signal.SIGSTOP)
    home.until(lambda: home.spawner.trouble)
    home.spawner.close()
    assert gone(keeper)
    assert gone(pid)


@pytest.mark.slow
def test_down_kill_ends_a_supervisor_whose_shim_is_stopped(ground: Ground) -> None:
    supervisor = ground.apply('[jobs.web]\ncommand = "sleep 300"\nschedule = "always"\n', "-q")
    supervisor.until_ready()
    wait_for(lambda: "web" in ground.jobs_living(), "web runs")
    (keeper,) = [child.pid for child in psutil.Process(supervisor.pid).children()]
    os.kill(keeper, signal.SIGSTOP)
    wait_for(lambda: ground("health", "-q").code == 1, "health tells it")
    assert "does not answer" in ground("health").out + ground("health").err
    assert "does not answer" in supervisor.err
    ground.down("--kill")
    assert ground.living() == []


@pytest.mark.slow
def test_the_next_supervisor_ends_a_stopped_shim_that_does_not_greet(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = ground.apply('[jobs.web]\ncommand = "sleep 300"\nschedule = "always"\n', "-q", "--on-crash", "keep")
    supervisor.until_ready()
    wait_for(lambda: "web" in ground.jobs_living(), "web runs")
    (keeper,) = [child.pid for child in psutil.Process(supervisor.pid).children()]
    os.kill(keeper, signal.SIGSTOP)
    supervisor.kill()
    monkeypatch.setattr(shim_client, "_HELLO_TIMEOUT_S", 1.0)
    assert shim_client.connect_existing(ground.state / "keeper", "keep", use_cgroups=False) is None
    wait_for(lambda: gone(keeper), "the keeper is gone")
