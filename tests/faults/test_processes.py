"""Processes that misbehave, commands that cannot be started, and what is left of them: nothing."""

from __future__ import annotations

import asyncio
import os
import pwd
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from repeater.engine.facts import Fact, RunEnded, RunExited, RunStarted, SpawnFailed
from repeater.model.reasons import reason as because
from repeater.model.run import Exit
from repeater.ports import LaunchRequest, Stream
from repeater.processes.local_spawner import LocalSpawner
from repeater.processes.shim_spawner import ShimSpawner
from tests.fakes.own_runs import OwnRuns, own
from tests.fakes.text import text_of

PATH = os.environ["PATH"]


class Nothing:
    """A sink that counts."""

    def __init__(self) -> None:
        self.size: dict[str, int] = {}
        self.data: dict[str, bytes] = {}
        self.keep = True

    def write(self, run: str, stream: Stream, data: bytes) -> bool:
        self.size[run] = self.size.get(run, 0) + len(data)
        if self.keep:
            self.data[run] = self.data.get(run, b"") + data
        return True

    def finish(self, run: str) -> frozenset[str]:
        return frozenset()


class Runner:
    """A spawner with its event loop, and the facts that it reported."""

    def __init__(self, kind: type[LocalSpawner | ShimSpawner]) -> None:
        self.facts: list[Fact] = []
        self.sink = Nothing()
        self.loop = asyncio.new_event_loop()
        self.spawner = OwnRuns(lambda tell, sink: kind(tell, sink, self.loop), self._tell, self.sink)
        self.on_fact: Callable[[Fact], None] = lambda _: None

    def _tell(self, fact: Fact) -> None:
        self.facts.append(fact)
        self.on_fact(fact)

    def begin(self, run: str, *argv: str, cwd: str = "/", env: dict[str, str] | None = None, **more: Any) -> None:
        full = {"PATH": PATH, "RPR_RUN_ID": run} if env is None else env
        self.spawner.start(LaunchRequest(run, argv, cwd, full, **more))

    def shell(self, run: str, script: str, **more: Any) -> None:
        self.begin(run, "/bin/sh", "-c", script, **more)

    def until(self, condition: Callable[[], bool], within: float = 20) -> None:
        async def wait() -> None:
            async with asyncio.timeout(within):
                while not condition():  # noqa: ASYNC110 - there is no event to wait for
                    await asyncio.sleep(0.002)

        self.loop.run_until_complete(wait())

    def go_on(self, length: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(length))

    def last(self, run: str, kind: type, within: float = 20) -> Any:
        def found() -> list[Fact]:
            return [fact for fact in self.facts if isinstance(fact, kind) and fact.run == run]  # type: ignore[attr-defined]

        self.until(lambda: bool(found()), within)
        return found()[0]

    def ended(self, run: str, within: float = 20) -> Exit:
        exit_: Exit = self.last(run, RunEnded, within).exit
        return exit_

    def refused(self, run: str) -> SpawnFailed:
        failed: SpawnFailed = self.last(run, SpawnFailed)
        return failed

    def until_said(self, run: str, text: bytes) -> None:
        self.until(lambda: text in self.sink.data.get(run, b""))

    def close(self) -> None:
        self.spawner.close()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


@pytest.fixture(params=[LocalSpawner, ShimSpawner], ids=["children", "keeper"])
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    made = Runner(request.param)
    yield made
    made.close()


def alive(token: str) -> list[int]:
    """Living processes whose environment names this run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"RPR_RUN_ID={own(token)}\0".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


# --- how they end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 2, 42, 124, 126, 127, 128, 130, 137, 255])
def test_every_exit_code_is_recorded_exactly(runner: Runner, code: int) -> None:
    runner.shell("a", f"exit {code}")
    assert runner.ended("a") == Exit(code=code)


@pytest.mark.parametrize(
    "name", ["HUP", "INT", "QUIT", "ILL", "ABRT", "FPE", "KILL", "SEGV", "PIPE", "ALRM", "TERM", "USR1", "XCPU"]
)
def test_every_deadly_signal_is_recorded_exactly(runner: Runner, name: str) -> None:
    runner.shell("a", f"ulimit -c 0; kill -{name} $$")
    assert runner.ended("a") == Exit(signal=signal.Signals[f"SIG{name}"].value)


def test_a_stopped_process_can_be_stopped_for_good(runner: Runner) -> None:
    runner.shell("a", "echo up; kill -STOP $$; sleep 60")
    runner.until_said("a", b"up")
    runner.go_on(0.1)
    runner.spawner.signal("a", "TERM")
    assert runner.ended("a") == Exit(signal=signal.SIGTERM)


def test_a_process_in_its_own_group_of_the_session_gets_the_signal(runner: Runner) -> None:
    runner.shell("a", "set -m; sleep 60 & echo up; wait")
    runner.until_said("a", b"up")
    runner.go_on(0.05)
    runner.spawner.signal("a", "TERM")
    runner.ended("a")
    assert alive("a") == []


@pytest.mark.parametrize(
    "script",
    [
        "sleep 61 & echo up; sleep 61",
        "setsid sleep 61 & echo up; sleep 61",
        "(setsid sh -c 'sleep 61 & sleep 61' &) ; echo up; sleep 61",
        "sleep 61 | sleep 61 & echo up; sleep 61",
        "(trap '' TERM HUP INT; while :; do sleep 0.1; done) & echo up; sleep 61",
        "setsid sh -c 'trap \"\" TERM; exec >/dev/null 2>&1 </dev/null; sleep 61' & echo up; sleep 61",
        "sh -c 'kill -STOP $$; sleep 61' & echo up; sleep 61",
    ],
    ids=["background", "setsid", "double-fork", "pipeline", "deaf-child", "deaf-daemon", "stopped-child"],
)
def test_a_sweep_ends_every_process(runner: Runner, script: str) -> None:
    runner.shell("a", script)
    runner.until_said("a", b"up")
    runner.go_on(0.05)
    runner.spawner.kill_tree("a")
    runner.ended("a")
    assert alive("a") == []


def test_a_process_with_closed_output_does_not_outlive_a_stopped_run(runner: Runner) -> None:
    runner.shell("a", "setsid sleep 61 >/dev/null 2>&1 </dev/null & echo up; exec sleep 61")
    runner.until_said("a", b"up")
    runner.go_on(0.05)
    assert len(alive("a")) == 2
    runner.spawner.signal("a", "TERM")
    assert runner.ended("a") == Exit(signal=signal.SIGTERM)
    assert alive("a") == []


def test_a_process_that_kills_its_group_does_not_end_other_runs(runner: Runner) -> None:
    runner.shell("a", "sleep 61 & kill -KILL 0")
    assert runner.ended("a") == Exit(signal=signal.SIGKILL)
    assert alive("a") == []


def test_a_sweep_does_not_end_processes_of_other_runs(runner: Runner) -> None:
    runner.shell("ab", "sleep 61")
    runner.shell("a", "sleep 61")
    runner.last("a", RunStarted)
    runner.last("ab", RunStarted)
    runner.spawner.kill_tree("a")
    runner.ended("a")
    runner.go_on(0.05)
    assert len(alive("ab")) >= 1
    runner.spawner.kill_tree("ab")
    runner.ended("ab")


def test_output_of_a_late_writer_is_read_until_the_end(runner: Runner) -> None:
    runner.shell("a", "(sleep 0.2; echo late) & exit 0")
    runner.last("a", RunExited)
    runner.ended("a")
    assert runner.sink.data["a"] == b"late\n"


# --- what they say ----------------------------------------------------------------------------------------------


def test_bytes_are_read_without_a_change(runner: Runner) -> None:
    runner.begin("a", sys.executable, "-c", "import sys; sys.stdout.buffer.write(bytes(range(256)) * 1000)")
    assert runner.ended("a") == Exit(code=0)
    assert runner.sink.data["a"] == bytes(range(256)) * 1000


def test_output_without_a_newline_arrives_whole(runner: Runner) -> None:
    runner.shell("a", "printf abc")
    runner.ended("a")
    assert runner.sink.data["a"] == b"abc"


def test_a_process_that_closes_its_output_runs_on(runner: Runner) -> None:
    runner.shell("a", "echo up; exec >&- 2>&-; sleep 0.3; exit 5")
    runner.until_said("a", b"up")
    runner.go_on(0.1)
    assert [type(fact) for fact in runner.facts] == [RunStarted]
    assert runner.ended("a") == Exit(code=5)


def test_a_process_that_reads_finds_the_end_at_once(runner: Runner) -> None:
    runner.begin("a", "cat")
    assert runner.ended("a") == Exit(code=0)


def test_a_process_reads_what_it_was_given(runner: Runner) -> None:
    runner.begin("a", "cat", stdin=b"x" * 300_000)
    assert runner.ended("a") == Exit(code=0)
    assert runner.sink.data["a"] == b"x" * 300_000


def test_input_that_is_never_read_blocks_no_other_run(runner: Runner) -> None:
    runner.begin("a", "true", stdin=b"x" * 3_000_000)
    assert runner.ended("a") == Exit(code=0)


@pytest.mark.slow
def test_a_gigabyte_of_output_needs_no_memory(runner: Runner) -> None:
    runner.sink.keep = False
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    runner.shell("a", "head -c 1000000000 /dev/zero")
    assert runner.ended("a", within=120) == Exit(code=0)
    assert runner.sink.size["a"] == 1_000_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


# --- what cannot be started -------------------------------------------------------------------------------------


def test_a_missing_command_is_named(runner: Runner) -> None:
    runner.begin("a", "no-such-command", "arg")
    reason = because("program_missing", program="no-such-command", on_path=True)
    assert runner.refused("a") == SpawnFailed("a", reason, exit_code=127)


def test_a_missing_folder_is_not_mistaken_for_a_missing_command(runner: Runner) -> None:
    runner.begin("a", "true", cwd="/no/such/folder")
    assert text_of(runner.refused("a").reason) == "cannot enter directory `/no/such/folder`: No such file or directory"


def test_a_file_is_refused_as_working_folder(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    runner.begin("a", "true", cwd=str(tmp_path / "file"))
    assert text_of(runner.refused("a").reason) == f"cannot enter directory `{tmp_path}/file`: Not a directory"


def test_a_folder_is_refused_as_command(runner: Runner, tmp_path: Path) -> None:
    runner.begin("a", str(tmp_path))
    assert text_of(runner.refused("a").reason) == f"cannot start `{tmp_path}`: Permission denied, it is a directory"


def test_a_file_that_is_not_executable_is_refused(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    runner.begin("a", str(tmp_path / "script"))
    assert text_of(runner.refused("a").reason) == f"cannot start `{tmp_path}/script`: Permission denied"


def script(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_a_missing_interpreter_is_named(runner: Runner, tmp_path: Path) -> None:
    command = script(tmp_path / "script", "#!/no/such/python -u\n")
    runner.begin("a", command)
    assert (
        text_of(runner.refused("a").reason)
        == f"cannot start `{command}`: its interpreter `/no/such/python` does not exist"
    )


def test_a_program_of_another_system_is_reported_as_such(runner: Runner, tmp_path: Path) -> None:
    program = Path(shutil.which("true") or "").read_bytes()
    if b"/ld-" not in program:
        pytest.skip("`true` needs no loader here")
    (tmp_path / "alien").write_bytes(program.replace(b"/ld-", b"/no-", 1))
    (tmp_path / "alien").chmod(0o755)
    runner.begin("a", str(tmp_path / "alien"))
    words = "its dynamic loader is missing (built for another system?)"
    assert text_of(runner.refused("a").reason) == f"cannot start `{tmp_path}/alien`: {words}"


def test_jobs_start_also_when_the_folder_where_we_are_was_removed(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    runner.shell("a", "exit 7")
    assert runner.last("a", RunEnded).exit.code == 7


def test_a_text_without_interpreter_is_refused(runner: Runner, tmp_path: Path) -> None:
    command = script(tmp_path / "script", "echo hello\n")
    runner.begin("a", command)
    assert text_of(runner.refused("a").reason).startswith(f"cannot start `{command}`: Exec format error")


def test_too_many_arguments_are_refused(runner: Runner) -> None:
    runner.begin("a", "true", *["x" * 100_000] * 40)
    assert text_of(runner.refused("a").reason).startswith("cannot start `true`: Argument list too long")


@pytest.mark.parametrize(
    ("argv", "env", "reason"),
    [
        (("tr\0ue",), {}, "cannot start `tr\\0ue`: it contains a NUL byte"),
        (("true", "a\0b"), {}, "cannot start `true`: it contains a NUL byte"),
        (("true",), {"A": "x\0y"}, "cannot start `true`: environment variable `A` contains a NUL byte"),
        (("true",), {"A=B": "x"}, "cannot start `true`: `A=B` cannot be the name of an environment variable"),
        (("",), {}, "command_empty"),
    ],
    ids=["command", "argument", "value", "name", "empty"],
)
def test_an_argument_that_no_system_accepts_is_refused(
    runner: Runner, argv: tuple[str, ...], env: dict[str, str], reason: str
) -> None:
    runner.begin("a", *argv, env={"PATH": PATH, **env})
    assert runner.refused("a").kind == "run"
    assert text_of(runner.refused("a").reason) == reason


def test_an_unknown_user_or_group_is_named(runner: Runner) -> None:
    runner.begin("a", "true", user="nobody-knows-me")
    assert text_of(runner.refused("a").reason) == "cannot run as user `nobody-knows-me`: there is no such user"
    runner.begin("b", "true", group="nobody-knows-us")
    assert text_of(runner.refused("b").reason) == "cannot run as group `nobody-knows-us`: there is no such group"


def test_a_spawner_continues_after_failures(runner: Runner) -> None:
    """Bursts, because starts that go on at once leave dead children to each other."""
    for burst in range(20):
        for number in range(20):
            runner.begin(f"bad{burst}-{number}", "/no/such/command")
        runner.begin(f"good{burst}", "true")
    for burst in range(20):
        assert runner.ended(f"good{burst}") == Exit(code=0)
    runner.until(lambda: sum(isinstance(fact, SpawnFailed) for fact in runner.facts) == 400)


# --- who they are -----------------------------------------------------------------------------------------------


def test_a_process_leads_a_session_of_its_own_in_its_folder(runner: Runner, tmp_path: Path) -> None:
    runner.shell("a", "echo $$ $(ps -o sid= -p $$); pwd; umask", cwd=str(tmp_path), umask=0o027)
    runner.ended("a")
    lines = runner.sink.data["a"].decode().split("\n")
    pid, session = lines[0].split()
    assert pid == session
    assert lines[1:3] == [str(tmp_path), "0027"]


def test_a_process_gets_exactly_the_environment_it_is_given(runner: Runner) -> None:
    runner.begin("a", "/usr/bin/env", env={"RPR_RUN_ID": "a", "X": "ü y"})
    runner.ended("a")
    assert sorted(runner.sink.data["a"].decode().splitlines()) == [f"RPR_RUN_ID={own('a')}", "X=ü y"]


def test_a_process_inherits_no_descriptor(runner: Runner) -> None:
    runner.shell("a", "ls /proc/$$/fd")
    runner.ended("a")
    assert runner.sink.data["a"].split() == [b"0", b"1", b"2"]


def test_limits_and_nice_apply_before_the_command_begins(runner: Runner) -> None:
    limits = (("nofile", (64, 128)), ("core", (0, 0)))
    runner.shell("a", "ulimit -Sn; ulimit -Hn; ulimit -c; nice; echo $0", rlimits=limits, nice=5)
    assert runner.ended("a") == Exit(code=0)
    assert runner.sink.data["a"].split() == [b"64", b"128", b"0", b"5", b"/bin/sh"]


def test_a_missing_command_with_limits_is_refused_like_any_other(runner: Runner) -> None:
    runner.begin("a", "no-such-command", nice=1)
    assert (
        text_of(runner.refused("a").reason) == "cannot start `no-such-command`: No such file or directory on the PATH"
    )
    runner.begin("b", "true", nice=1, cwd="/no/such/folder")
    assert text_of(runner.refused("b").reason) == "cannot enter directory `/no/such/folder`: No such file or directory"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_a_process_of_another_user_has_that_users_groups_alone(runner: Runner) -> None:
    nobody = pwd.getpwnam("nobody")
    runner.shell("a", "id -u; id -g; id -G", user="nobody")
    runner.ended("a")
    ids = runner.sink.data["a"].split()
    assert ids[:2] == [str(nobody.pw_uid).encode(), str(nobody.pw_gid).encode()]
    assert b"0" not in ids[2:]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_limits_of_another_user_alone_apply_before_the_command_begins(runner: Runner) -> None:
    limits = (("nofile", (64, 128)), ("nproc", (500, 500)))
    script = "ulimit -Sn; ulimit -Hn; nice; id -u; id -G; umask; pwd; ls /proc/$$/fd; echo $$ $(ps -o sid= -p $$)"
    runner.shell("a", script, rlimits=limits, nice=5, user="nobody", umask=0o027, cwd="/usr")
    assert runner.ended("a") == Exit(code=0)
    nobody = pwd.getpwnam("nobody")
    lines = runner.sink.data["a"].decode().splitlines()
    assert lines[:4] == ["64", "128", "5", str(nobody.pw_uid)]
    assert "0" not in lines[4].split()
    assert lines[5:10] == ["0027", "/usr", "0", "1", "2"]
    assert len(set(lines[10].split())) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_a_failed_start_as_another_user_with_limits_is_named_as_usual(runner: Runner, tmp_path: Path) -> None:
    runner.begin("a", "no-such-command", nice=1, user="nobody")
    assert (
        text_of(runner.refused("a").reason) == "cannot start `no-such-command`: No such file or directory on the PATH"
    )
    command = script(tmp_path / "script", "#!/bin/sh\n")  # in a folder that only root can enter
    runner.begin("b", command, nice=1, user="nobody")
    assert text_of(runner.refused("b").reason) == f"cannot start `{command}`: Permission denied"
    runner.begin("c", "true", rlimits=(("nproc", (0, 0)),), user="nobody")
    assert runner.ended("c") == Exit(code=0)


def test_a_run_as_the_current_user_needs_no_privilege(runner: Runner) -> None:
    runner.shell("a", "id -u", user=pwd.getpwuid(os.geteuid()).pw_name)
    assert runner.ended("a") == Exit(code=0)


# --- many -------------------------------------------------------------------------------------------------------


def test_a_thousand_runs_that_end_at_once_keep_no_descriptor_and_no_zombie(runner: Runner) -> None:
    runner.begin("first", "true")
    runner.ended("first")
    before = len(list(Path("/proc/self/fd").iterdir()))
    left = iter(range(1000))

    def next_one(fact: Fact) -> None:
        if isinstance(fact, RunEnded) and (number := next(left, None)) is not None:
            runner.begin(f"r{number}", "true")

    runner.on_fact = next_one
    for number in range(16):
        runner.begin(f"s{number}", "true")
    runner.until(lambda: sum(isinstance(fact, RunEnded) for fact in runner.facts) == 1017, within=60)
    assert all(fact.exit == Exit(code=0) for fact in runner.facts if isinstance(fact, RunEnded))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert not [child for child in psutil.Process().children(recursive=True) if child.status() == psutil.STATUS_ZOMBIE]


def test_a_burst_of_three_hundred_starts_does_not_stall_the_loop(runner: Runner) -> None:
    async def worst_stall() -> float:
        worst, running = 0.0, True

        async def probe() -> None:
            nonlocal worst
            while running:
                began = time.monotonic()
                await asyncio.sleep(0.001)
                worst = max(worst, time.monotonic() - began - 0.001)

        probing = asyncio.ensure_future(probe())
        for number in range(300):
            runner.begin(f"r{number}", "true")
        while sum(isinstance(fact, RunEnded) for fact in runner.facts) < 300:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        running = False
        await probing
        return worst

    assert runner.loop.run_until_complete(worst_stall()) < 0.05


def test_the_status_of_foreign_children_is_not_taken(runner: Runner) -> None:
    foreign = subprocess.Popen(["/bin/sh", "-c", "exit 7"])
    runner.shell("a", "exit 3")
    assert runner.ended("a") == Exit(code=3)
    assert foreign.wait() == 7


FEW_DESCRIPTORS = """
import asyncio, os, resource, sys
from repeater.sentences import sentence
from repeater.processes.shim_spawner import ShimSpawner
from repeater.processes.local_spawner import LocalSpawner
from repeater.engine.facts import *
from repeater.ports import LaunchRequest

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

class Sink:
    def write(self, *args): return True
    def finish(self, run): return frozenset()

async def main():
    facts = []
    spawner = LocalSpawner(facts.append, Sink(), asyncio.get_running_loop())
    for number in range(100):
        spawner.start(LaunchRequest(f"r{number}", ("sleep", "0.3"), "/", {"PATH": os.environ["PATH"]}))
    def over(): return sum(isinstance(f, (RunEnded, SpawnFailed)) for f in facts)
    while over() < 100:
        await asyncio.sleep(0.01)
    failed = [f for f in facts if isinstance(f, SpawnFailed)]
    ended = [f for f in facts if isinstance(f, RunEnded)]
    assert failed and ended, (len(failed), len(ended))
    assert all(f.temporary and "Too many open files" in sentence(f.reason) for f in failed), failed[0]
    assert all(f.exit.code == 0 for f in ended)
    facts.clear()
    for number in range(100, 105):
        spawner.start(LaunchRequest(f"r{number}", ("true",), "/", {"PATH": os.environ["PATH"]}))
    while over() < 5:
        await asyncio.sleep(0.01)
    assert all(isinstance(f, (RunStarted, RunEnded)) for f in facts), facts
    spawner.close()
    print("fine", len(os.listdir("/proc/self/fd")) < 20)

asyncio.run(main())
"""


def test_without_descriptors_starts_fail_for_the_moment_and_nothing_leaks() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FEW_DESCRIPTORS],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert (done.stdout, done.stderr) == ("fine True\n", "")


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this system is without pidfds anyway")
def test_without_pidfds_runs_end_just_the_same(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    runner.shell("a", "echo hello; exit 4")
    assert runner.ended("a") == Exit(code=4)
    assert runner.sink.data["a"] == b"hello\n"
    runner.begin("b", "sleep", "60")
    runner.last("b", RunStarted)
    runner.spawner.signal("b", "TERM")
    assert runner.ended("b") == Exit(signal=signal.SIGTERM)
    runner.begin("c", "sleep", "60")
    runner.last("c", RunStarted)


AS_PROCESS_ONE = """
import asyncio, os, pathlib, sys, time
from repeater.processes.shim_spawner import ShimSpawner
from repeater.processes.local_spawner import LocalSpawner
from repeater.engine.facts import *
from repeater.ports import LaunchRequest

class Sink:
    def write(self, *args): return True
    def finish(self, run): return frozenset()

def zombies():
    found = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                found += pathlib.Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
            except OSError:
                pass
    return found

async def main():
    assert os.getpid() == 1
    facts = []
    spawner = LocalSpawner(facts.append, Sink(), asyncio.get_running_loop())
    for number in range(200):
        script = "(sleep 0.05; exit 9) & (setsid sleep 0.05 &) ; exit 3"
        spawner.start(LaunchRequest(f"r{number}", ("/bin/sh", "-c", script), "/", {"PATH": os.environ["PATH"]}))
    def ended(): return [f for f in facts if isinstance(f, RunEnded)]
    end = time.monotonic() + 20
    while len(ended()) < 200 and time.monotonic() < end:
        await asyncio.sleep(0.01)
    assert len(ended()) == 200, len(ended())
    assert {f.exit.code for f in ended()} == {3}, {str(f.exit) for f in ended()}
    await asyncio.sleep(0.1)
    spawner.start(LaunchRequest("last", ("true",), "/", {"PATH": os.environ["PATH"]}))
    while len(ended()) < 201:
        await asyncio.sleep(0.01)
    print("zombies:", zombies())
    spawner.close()

asyncio.run(main())
"""


def test_as_process_one_orphans_are_reaped_and_no_status_is_stolen() -> None:
    unshare = ["unshare", "--fork", "--pid", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], capture_output=True).returncode != 0:
        pytest.skip("no process namespace can be made here")
    done = subprocess.run(
        [*unshare, sys.executable, "-W", "error", "-c", AS_PROCESS_ONE],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert (done.stdout, done.stderr) == ("zombies: 0\n", "")


@pytest.mark.skipif(shutil.which("setsid") is None, reason="needs setsid")
def test_closing_kills_processes_in_other_sessions_too(runner: Runner) -> None:
    runner.shell("a", "setsid sleep 61 & echo up; sleep 61")
    runner.until_said("a", b"up")
    runner.go_on(0.05)
    runner.spawner.close()
    assert alive("a") == []
