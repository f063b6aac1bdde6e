"""Process level C: a run with a cgroup of its own. Nothing gets out of it, and nothing stays of it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from repeater.engine.facts import RunEnded, RunExited, RunLost, RunStarted, SpawnFailed
from repeater.model.run import Exit
from repeater.ports import LaunchRequest
from repeater.processes.shim_spawner import Cgroups
from repeater.shim import cgroup
from repeater.shim.cgroup import MARK, NotDelegated
from tests.fakes.text import text_of
from tests.faults.ground import Ground
from tests.faults.test_children import DAEMON, job
from tests.faults.test_shim import PATH, Home, gone, wait_for


def _home() -> str:
    try:
        return cgroup.delegated_root()
    except NotDelegated as why:
        pytest.skip(f"process level C is not to be had here: {why}")


@pytest.fixture
def home() -> Iterator[str]:
    """The folder of our cgroup. What a keeper made there is gone when that is; others may be at work there."""
    folder = _home()
    before = groups(folder)
    yield folder
    wait_for(lambda: not any(is_left(path) for path in groups(folder) - before), "no cgroup is left")


def is_left(path: str) -> bool:
    """Whether this cgroup is of a keeper that is dead."""
    try:
        fd = os.open(path[: path.index("/", path.index(MARK))] if "/" in path.partition(MARK)[2] else path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def groups(folder: str) -> set[str]:
    return {path for path, _, _ in os.walk(folder) if MARK in path}  # it does not mind what vanishes meanwhile


class Fenced(Home):
    """A spawner with its keeper, and with services."""

    def __init__(self, cgroups: Cgroups = "services") -> None:
        super().__init__()
        self.spawner.close()
        self.remake(cgroups)

    def remake(self, cgroups: Cgroups) -> None:
        from repeater.processes.shim_spawner import ShimSpawner

        self.spawner = ShimSpawner(
            self.facts.append,
            self.sink,
            self.loop,
            warn=lambda reason: self.warnings.append(str(text_of(reason))),
            cgroups=cgroups,
        )

    def serve(self, run: str, *argv: str, is_service: bool = True, **more: Any) -> int:
        """Its pid."""
        self.spawner.start(LaunchRequest(run, argv, "/", {"PATH": PATH}, **more, is_service=is_service))
        self.until(lambda: any(fact.run == run for fact in self.started()) or self.told(SpawnFailed))
        return next((fact.pid for fact in self.started() if fact.run == run), 0)

    def started(self) -> list[RunStarted]:
        return [fact for fact in self.facts if isinstance(fact, RunStarted)]


@pytest.fixture
def fenced(home: str) -> Iterator[Fenced]:
    made = Fenced()
    yield made
    made.close()


def cgroup_of(pid: int) -> str:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next(line[3:] for line in lines if line.startswith("0::"))


def daemon_of(pid: int) -> int:
    """The process that got away from this one, as `DAEMON` lets it."""
    found: list[int] = []

    def look() -> bool:
        own = cgroup_of(pid)
        for process in psutil.process_iter(["cmdline"]):
            if process.info["cmdline"] == ["sleep", "300"] and process.pid != pid:
                try:
                    if cgroup_of(process.pid) == own:
                        found.append(process.pid)
                except OSError:
                    continue
        return bool(found)

    wait_for(look, "the daemon is there")
    return found[0]


@pytest.mark.slow
def test_an_escaped_process_has_ended_when_stop_reports_done(ground: Ground, home: str) -> None:
    """Of a service: empty environment, session of its own, no parent, no output. Its keeper lives on."""
    ground.rpr.write("daemon.py", DAEMON)
    jobs = job("daemon", [sys.executable, "daemon.py"], schedule='"always"', stop_timeout="500ms")
    jobs += job("other", "exec sleep 299", schedule='"always"')
    ground.apply(jobs, "-q")
    wait_for(lambda: any(found.command == "sleep 300 " for found in ground.living()), "the daemon is there")
    (pid,) = [found.pid for found in ground.living() if found.command == "sleep 300 "]
    assert b"RPR" not in Path(f"/proc/{pid}/environ").read_bytes()
    made = len(groups(home))
    assert ground("stop", "daemon").code == 0
    assert gone(pid)
    assert made >= 3
    assert ground.jobs_living() == {"other"}
    assert ground.down() == 0


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["supervisor", "both"])
def test_the_next_supervisor_ends_an_escaped_daemon_of_the_last_one(ground: Ground, home: str, killed: str) -> None:
    """With its service, which was kept; at once, if the keeper was killed too."""
    ground.rpr.write("daemon.py", DAEMON)
    text = job("daemon", [sys.executable, "daemon.py"], schedule='"always"', stop_timeout="500ms")
    first = ground.apply(text, "-q", "--on-crash", "keep")
    wait_for(lambda: any(found.command == "sleep 300 " for found in ground.living()), "the daemon is there")
    (pid,) = [found.pid for found in ground.living() if found.command == "sleep 300 "]
    keeper = int(cgroup_of(pid).partition(MARK)[2].split("-")[1])
    first.kill()
    if killed == "both":
        os.kill(keeper, signal.SIGKILL)
        wait_for(lambda: gone(keeper), "the keeper is dead")
    cgroup.remove_stale(home, "somebody")
    assert not gone(pid)
    ground.apply(None, "-q", "--keep-alive").until_ready()
    if killed == "supervisor":
        assert not gone(pid)
        assert ground("stop", "daemon").code == 0
    assert gone(pid)
    ground.down()


@pytest.mark.slow
def test_background_processes_of_a_service_end_with_its_drain_timeout(ground: Ground, home: str) -> None:
    leaves = DAEMON.replace("time.sleep(300)", "")
    ground.rpr.write("leaves.py", leaves)
    service = '"always"'
    text = job("leaves", [sys.executable, "leaves.py"], schedule=service, restart="never", drain_timeout="300ms")
    supervisor = ground.apply(text, "-q", "--keep-alive")
    supervisor.until_ready()
    wait_for(lambda: ground.rows("--outcome", "success"), "it has exited")
    assert [found for found in ground.living() if found.command == "sleep 300 "] == []
    ground.down()


@pytest.mark.slow
def test_with_cgroups_off_nothing_is_divided(ground: Ground, home: str) -> None:
    cat = "cat /proc/self/cgroup; echo up; exec sleep 300"
    ground.apply(job("web", cat, schedule='"always"'), env={"RPR_CGROUPS": "off"})
    wait_for(lambda: "| up" in ground.begun[-1].out, "it runs")
    assert "0::" in ground.begun[-1].out
    assert MARK not in ground.begun[-1].out
    assert "tracked by a subreaper" in ground("doctor", env={"RPR_CGROUPS": "off"}).out
    assert ground.level() == "C"
    ground.down()


def test_a_service_starts_inside_its_cgroup_and_the_shim_stays_outside(fenced: Fenced) -> None:
    fenced.serve("first", "/bin/sh", "-c", "cat /proc/self/cgroup; sleep 60")
    fenced.until(lambda: b"0::" in fenced.sink.written["first"]["stdout"])
    said = fenced.sink.written["first"]["stdout"].decode()
    assert f"/{MARK}" in said.partition("0::")[2]
    assert fenced.spawner.keeper is not None
    assert MARK not in cgroup_of(fenced.spawner.keeper)
    assert MARK not in cgroup_of(fenced.serve("other", "sleep", "60", is_service=False))
    fences = {cgroup_of(fenced.serve(f"s{number}", "sleep", "60")) for number in range(5)}
    assert len(fences) == 5
    assert fenced.warnings == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("limits", [(), (("nofile", (64, 64)),)], ids=["plain", "limited"])
def test_a_service_of_another_user_has_a_fence_too(
    fenced: Fenced, limits: tuple[tuple[str, tuple[int, int]], ...]
) -> None:
    pid = fenced.serve("nobody", "sleep", "60", user="nobody", rlimits=limits)
    assert pid, fenced.facts
    assert MARK in cgroup_of(pid)
    assert psutil.Process(pid).username() == "nobody"
    fenced.spawner.kill_tree("nobody")
    fenced.until(lambda: fenced.told(RunEnded))
    assert gone(pid)


def test_a_command_that_cannot_be_started_is_reported_and_keeps_no_cgroup(fenced: Fenced, home: str) -> None:
    fenced.serve("missing", "./no-such-command")
    (failed,) = fenced.told(SpawnFailed)
    assert isinstance(failed, SpawnFailed)
    assert "No such file or directory" in text_of(failed.reason)
    wait_for(lambda: not any(path.endswith("missing") for path in groups(home)), "its fence is removed")


def test_a_run_is_not_over_before_its_fence_is_empty(fenced: Fenced, tmp_path: Path) -> None:
    script = tmp_path / "leaves.py"
    script.write_text(DAEMON.replace("time.sleep(300)", "sys.stdin.read()"))
    pid = fenced.serve("leaves", sys.executable, str(script))
    fenced.until(lambda: fenced.told(RunExited))
    assert fenced.told(RunEnded) == []
    fenced.spawner.kill_tree("leaves")
    fenced.until(lambda: fenced.told(RunEnded))
    assert fenced.ended() == [("leaves", Exit(code=0))]
    assert gone(pid)


def test_cgroups_that_a_run_made_below_its_own_are_removed_with_it(fenced: Fenced, home: str) -> None:
    divides = (
        'd=$(sed -n s/^0:://p /proc/self/cgroup); mkdir -p "$1$d/a/b"; echo $$ > "$1$d/a/b/cgroup.procs"; exec sleep 60'
    )
    mounted = home.removesuffix(cgroup_of(os.getpid())) or home
    pid = fenced.serve("divides", "/bin/sh", "-c", divides, "sh", mounted)
    wait_for(lambda: cgroup_of(pid).endswith("/a/b"), "it is in a part of its fence")
    fenced.spawner.kill_tree("divides")
    fenced.until(lambda: fenced.told(RunEnded))
    fenced.spawner.acknowledge(["divides"])
    fenced.until(lambda: not any("divides" in path for path in groups(home)))


def test_processes_of_a_killed_shim_are_ended_by_the_next_one(fenced: Fenced, tmp_path: Path) -> None:
    script = tmp_path / "daemon.py"
    script.write_text(DAEMON)
    daemon = daemon_of(fenced.serve("daemon", sys.executable, str(script)))
    keeper = fenced.spawner.keeper
    assert keeper is not None
    os.kill(keeper, signal.SIGKILL)
    fenced.until(lambda: fenced.told(RunLost))
    fenced.until(lambda: fenced.spawner.keeper not in (None, keeper))
    assert gone(daemon)


def test_cgroups_of_running_shims_are_not_touched(fenced: Fenced, home: str) -> None:
    pid = fenced.serve("lives", "sleep", "60")
    other = Fenced()
    try:
        other.serve("too", "sleep", "60")
        cgroup.remove_stale(home, cgroup.owner_of(None, os.getpid()))
        assert not gone(pid)
        assert len(groups(home)) >= 4
    finally:
        other.close()
    assert not gone(pid)


def test_without_a_cgroup_a_service_runs_and_a_warning_is_logged_once(home: str) -> None:
    """The kernel refuses: our cgroup may have no more of them below it."""
    part = Path(home) / f"test-{os.getpid()}-{time.monotonic_ns()}"
    part.mkdir()
    try:
        (part / "cgroup.max.descendants").write_text("0")
        os.setxattr(part, "trusted.delegate", b"1")
    except OSError as error:
        part.rmdir()
        pytest.skip(f"cgroups cannot be limited or marked here: {error}")
    code = (
        "import pathlib, sys\n"
        f"pathlib.Path({str(part / 'cgroup.procs')!r}).write_text('0')\n"
        "from tests.faults.test_cgroups import Fenced\n"
        "fenced = Fenced()\n"
        "assert fenced.serve('a', 'sleep', '60') and fenced.serve('b', 'sleep', '60')\n"
        "assert len(fenced.warnings) == 1 and 'cannot create cgroups' in fenced.warnings[0], fenced.warnings\n"
        "fenced.spawner.kill_tree('a')\n"
        "fenced.until(lambda: fenced.facts[-1].run == 'a')\n"
        "fenced.close()\n"
    )
    try:
        done = subprocess.run([sys.executable, "-c", code], cwd=Path.cwd(), capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    finally:
        wait_for(lambda: (part / "cgroup.procs").read_text() == "", "nobody is in it")
        part.rmdir()
