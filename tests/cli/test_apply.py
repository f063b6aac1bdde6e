"""`rpr apply` for real: a folder, a file, processes, signals, saved changes."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import RPR, Lines, Rpr

PATIENCE = 60.0


def wait_for(condition: Callable[[], object], what: str | Callable[[], str]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"never: {what() if callable(what) else what}"
        time.sleep(0.01)


class Live:
    """A running `rpr apply`, whose output goes to files of the folder."""

    def __init__(self, rpr: Rpr, *args: str) -> None:
        self.folder = rpr.folder
        self._out, self._err = rpr.folder / ".out", rpr.folder / ".err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [RPR, "apply", *args],
                cwd=rpr.folder,
                env=rpr.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def until_out(self, text: str, count: int = 1) -> None:
        wait_for(lambda: self.out.count(text) >= count, lambda: f"{count} x {text!r} in {self.out!r} {self.err!r}")

    def until_err(self, text: str, count: int = 1) -> None:
        wait_for(lambda: self.err.count(text) >= count, lambda: f"{count} x {text!r} in {self.err!r}")

    def leaves(self) -> int:
        return self.process.wait(PATIENCE)


@pytest.fixture
def live(rpr: Rpr) -> Iterator[Callable[..., Live]]:
    begun: list[Live] = []

    def begin(*args: str) -> Live:
        begun.append(Live(rpr, *args))
        return begun[-1]

    yield begin
    for one in begun:
        if one.process.poll() is None:
            one.process.terminate()
            one.process.send_signal(signal.SIGINT)
            try:
                one.process.wait(PATIENCE)
            finally:
                one.process.kill()
                one.process.wait()


@contextmanager
def effects(folder: Path) -> Iterator[Callable[[], list[str]]]:
    yield lambda: (folder / "effects").read_text().splitlines() if (folder / "effects").exists() else []


def test_a_file_of_finished_jobs_runs_and_exits_with_0(rpr: Rpr) -> None:
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "echo hello; echo oops >&2"\n')
    done = rpr("apply", "jobs.toml", "-q")
    done.is_(out="a | hello\n", err="a | oops\n")


def test_a_failed_job_makes_it_1(rpr: Rpr) -> None:
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "exit 3"\n')
    rpr("apply", "jobs.toml", "-q").is_(err="rpr: a: failed: exit 3\n", code=1)


def test_times_ends_it_at_once(rpr: Rpr) -> None:
    rpr.write("jobs.toml", '[jobs.a]\ncommand = ["echo", "x"]\nschedule = "every 1h"\nstop = { times = 1 }\n')
    began = time.monotonic()
    done = rpr("apply", "jobs.toml", "-q")
    assert (done.out, done.code) == ("a | x\n", 0)
    assert time.monotonic() - began < 30


def test_a_missing_command_is_a_row_not_a_load_error(rpr: Rpr) -> None:
    rpr.write(
        "jobs.toml", '[jobs.a]\ncommand = ["no-such-command-here"]\n[jobs.b]\ncommand = "true"\ncwd = "nowhere"\n'
    )
    done = rpr("apply", "jobs.toml", "-q")
    assert done.code == 1
    assert "no-such-command-here" in done.err
    assert "nowhere" in done.err
    assert "Traceback" not in done.err


def test_nothing_starts_when_the_file_is_wrong(rpr: Rpr) -> None:
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "touch started"\n[jobs.b]\ncomand = "x"\n')
    done = rpr("apply", "jobs.toml")
    assert done.code == 2
    assert "jobs.toml:4:1: jobs.b.comand" in done.err
    assert "`command`" in done.err
    assert not (rpr.folder / "started").exists()
    assert not (rpr.folder / ".state").exists()


def test_dry_run_does_nothing_at_all(rpr: Rpr) -> None:
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "touch started"\n')
    before = sorted(path.name for path in rpr.folder.iterdir())
    done = rpr("apply", "jobs.toml", "--dry-run")
    assert done.code == 0
    assert done.out.startswith("+ a")
    assert sorted(path.name for path in rpr.folder.iterdir()) == before


def test_ctrl_c_drains_and_stops_every_process(rpr: Rpr, live: Callable[..., Live]) -> None:
    rpr.write(
        "jobs.toml",
        '[jobs.s]\ncommand = "echo up; exec sleep 600"\nschedule = "always"\n'
        '[jobs.t]\ncommand = "echo begun; sleep 1; echo finished"\n',
    )
    run = live("jobs.toml")
    run.until_out("up")
    run.until_out("begun")
    run.process.send_signal(signal.SIGINT)
    assert run.leaves() == 130
    assert "t | finished" in run.out


def test_sigterm_in_good_order_is_0(rpr: Rpr, live: Callable[..., Live]) -> None:
    rpr.write("jobs.toml", '[jobs.s]\ncommand = "echo up; exec sleep 600"\nschedule = "always"\n')
    run = live("jobs.toml")
    run.until_out("up")
    run.process.send_signal(signal.SIGTERM)
    assert run.leaves() == 0


def test_a_third_signal_kills_what_ignores_term(rpr: Rpr, live: Callable[..., Live]) -> None:
    command = "trap '' TERM; echo up; while :; do sleep 1; done"
    rpr.write("jobs.toml", f'[jobs.s]\ncommand = "{command}"\nschedule = "always"\nstop_timeout = "1h"\n')
    run = live("jobs.toml")
    run.until_out("up")
    for _ in range(3):
        before = len(run.err.splitlines())
        run.process.send_signal(signal.SIGINT)
        wait_for(lambda: len(run.err.splitlines()) > before, "an answer to the signal")  # noqa: B023 - called here
    assert run.leaves() == 130


def test_a_second_supervisor_is_refused_and_the_holder_is_named(rpr: Rpr, live: Callable[..., Live]) -> None:
    rpr.write("jobs.toml", '[jobs.s]\ncommand = "echo up; exec sleep 600"\nschedule = "always"\n')
    first = live("jobs.toml", "--state-dir", "state")
    first.until_out("up")
    (rpr.folder / "state" / "control.sock").unlink()  # else the first one would take the file over
    began = time.monotonic()
    second = rpr("apply", "jobs.toml", "-q", "--state-dir", "state")
    assert second.code == 5
    assert f"process {first.process.pid} is using it" in second.err
    assert time.monotonic() - began < PATIENCE
    first.process.send_signal(signal.SIGTERM)
    assert first.leaves() == 0


def test_counts_and_done_jobs_survive_a_restart(rpr: Rpr, live: Callable[..., Live]) -> None:
    rpr.write(
        "jobs.toml",
        '[jobs.a]\ncommand = "echo x >> effects"\nschedule = "every 1h"\nstop = { times = 2 }\n'
        '[jobs.tick]\ncommand = "echo tick"\nschedule = "every 50ms"\n',
    )
    with effects(rpr.folder) as lines:
        run = live("jobs.toml")
        wait_for(lambda: len(lines()) == 1, "one run")
        run.process.kill()
        run.leaves()
        again = live("jobs.toml", "-v")
        again.until_out("tick", 5)
        assert lines() == ["x"]
        again.process.send_signal(signal.SIGTERM)
        again.leaves()


def test_a_saved_change_becomes_active_and_other_jobs_continue(rpr: Rpr, live: Callable[..., Live]) -> None:
    service = '[jobs.s]\ncommand = "echo up $$; exec sleep 600"\nschedule = "always"\n'
    rpr.write("jobs.toml", service + '[jobs.a]\ncommand = "echo old"\nschedule = "every 100ms"\n')
    run = live("jobs.toml")
    run.until_out("a | old", 2)
    rpr.write("jobs.toml", service + '[jobs.a]\ncommand = "echo new"\nschedule = "every 100ms"\n')
    run.until_out("a | new", 2)
    assert run.out.count("s | up") == 1
    run.until_err("generation 2 active: 1 changed, 1 unchanged")


def test_a_warning_of_the_files_is_reported_once(rpr: Rpr, live: Callable[..., Live]) -> None:
    doubtful = '[jobs.a]\ncommand = "true"\nschedule = "0 3 1 1 *"\nenv = {{ PATH = "$PATH", LIB = "{}" }}\n'
    rpr.write("jobs.toml", doubtful.format("x"))
    run = live("jobs.toml")
    run.until_err("warning: jobs.toml:4:9: jobs.a.env.PATH: found `$PATH`, which is not expanded")
    rpr.write("jobs.toml", doubtful.format("$LIB"))
    run.until_err("warning: jobs.toml:4:25: jobs.a.env.LIB: found `$LIB`, which is not expanded")
    run.until_err("generation 2 active")
    assert run.err.count("jobs.a.env.PATH") == 1


def test_a_broken_file_changes_nothing_and_a_mended_one_does(rpr: Rpr, live: Callable[..., Live]) -> None:
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "echo old"\nschedule = "every 100ms"\n')
    run = live("jobs.toml")
    run.until_out("a | old", 2)
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "echo new"\nschedule = "every 100ms\n')
    run.until_err("job files rejected; generation 1 remains active")
    before = run.out.count("a | old")
    run.until_out("a | old", before + 3)
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "echo new"\nschedule = "every 100ms"\n')
    run.until_out("a | new")
    assert run.err.count("job files rejected") == 1


def save_in_place(path: Path, text: str) -> None:
    path.write_text(text)


def save_by_rename(path: Path, text: str) -> None:
    beside = path.with_name(".beside")
    beside.write_text(text)
    beside.replace(path)


def save_by_recreation(path: Path, text: str) -> None:
    path.unlink()
    time.sleep(0.05)
    path.write_text(text)


@pytest.mark.parametrize("save", [save_in_place, save_by_rename, save_by_recreation])
def test_every_way_to_save_is_noticed_once(
    rpr: Rpr, live: Callable[..., Live], save: Callable[[Path, str], None]
) -> None:
    def text(word: str) -> str:
        return f'[jobs.a]\ncommand = "echo {word}"\nschedule = "every 100ms"\n'

    path = rpr.write("jobs.toml", text("zero"))
    run = live("jobs.toml")
    run.until_out("a | zero")
    for generation, word in ((2, "one"), (3, "two")):
        save(path, text(word))
        run.until_err(f"generation {generation} active")
        run.until_out(f"a | {word}")
    assert "generation 4" not in run.err


def test_a_swapped_symlink_as_of_a_config_map_is_noticed(rpr: Rpr, live: Callable[..., Live]) -> None:
    def publish(version: str) -> None:
        rpr.write(f"mount/{version}/jobs.toml", f'[jobs.a]\ncommand = "echo {version}"\nschedule = "every 100ms"\n')
        fresh = rpr.folder / "mount" / "..data_tmp"
        fresh.symlink_to(version)
        fresh.replace(rpr.folder / "mount" / "..data")

    publish("v1")
    (rpr.folder / "mount" / "jobs.toml").symlink_to("..data/jobs.toml")
    run = live("mount/jobs.toml")
    run.until_out("a | v1")
    publish("v2")
    run.until_out("a | v2")


@pytest.mark.slow
def test_a_hundred_saves_a_second_end_with_the_last_one_active(rpr: Rpr, live: Callable[..., Live]) -> None:
    path = rpr.write("jobs.toml", '[jobs.a]\ncommand = "echo start"\nschedule = "every 100ms"\n')
    run = live("jobs.toml")
    run.until_out("a | start")
    for number in range(300):
        save_by_rename(path, f'[jobs.a]\ncommand = "echo n{number}"\nschedule = "every 100ms"\n')
        time.sleep(0.01)
    run.until_out("a | n299")
    assert run.err.count("active") <= 8


def test_a_change_that_removes_most_jobs_is_refused_unless_allowed(rpr: Rpr, live: Callable[..., Live]) -> None:
    jobs = "".join(f'[jobs.j{n}]\ncommand = "true"\nschedule = "every 1h"\n' for n in range(4))
    rpr.write("jobs.toml", jobs + '[jobs.t]\ncommand = "echo tick"\nschedule = "every 100ms"\n')
    run = live("jobs.toml")
    run.until_out("tick")
    rpr.write("jobs.toml", '[jobs.t]\ncommand = "echo tock"\nschedule = "every 100ms"\n')
    run.until_err("4 of 5 jobs would be removed")
    assert "tock" not in run.out


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["stream", "aggregate"])
def test_at_the_end_the_reader_is_waited_for_however_slow_it_is(rpr: Rpr, mode: str) -> None:
    rpr.write("jobs.toml", f'[jobs.a]\ncommand = "seq 100000; touch over"\noutput = {{ mode = "{mode}" }}\n')
    process = rpr.start("apply", "-q", "jobs.toml")
    try:
        wait_for((rpr.folder / "over").exists, "the end of the run")
        time.sleep(2.5)
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, err) == (0, "")
    assert out == "".join(f"a | {number}\n" for number in range(1, 100001))


def test_ctrl_c_does_not_wait_for_a_reader(rpr: Rpr) -> None:
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "seq 100000; touch over"\n')
    process = rpr.start("apply", "-q", "jobs.toml")
    try:
        wait_for((rpr.folder / "over").exists, "the end of the run")
        wait_for(lambda: "success" in rpr("history").out, "a row")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    finally:
        process.kill()
        process.communicate()


def test_a_closed_pipe_ends_it(rpr: Rpr) -> None:
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "echo x"\nschedule = "every 20ms"\n')
    with rpr.start("apply", "jobs.toml", "-q") as process:
        assert process.stdout is not None
        assert Lines(process.stdout).next() == "a | x"
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_an_ephemeral_run_keeps_nothing(rpr: Rpr) -> None:
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "echo x"\nschedule = "every 1h"\nstop = { times = 1 }\n')
    for _ in range(2):
        assert rpr("apply", "jobs.toml", "-q", "--ephemeral").out == "a | x\n"
    assert not (rpr.folder / ".state").exists()


def test_only_applies_matching_jobs(rpr: Rpr) -> None:
    rpr.write("jobs.toml", '[jobs.api]\ncommand = "echo api"\n[jobs.web]\ncommand = "echo web"\n')
    assert rpr("apply", "jobs.toml", "-q", "--only", "a*").out == "api | api\n"
    refused = rpr("apply", "jobs.toml", "-q", "--only", "x*")
    assert refused.code == 2
    assert "cannot find job `x*`" in refused.err


def test_new_included_files_and_changed_env_files_become_active(rpr: Rpr, live: Callable[..., Live]) -> None:
    rpr.write("x.env", "WORD=one\n")
    rpr.write(
        "jobs.toml",
        'include = ["jobs.d/*.toml"]\n[jobs.a]\ncommand = "echo a $WORD"\nschedule = "every 100ms"\nenv_file = "x.env"\n',
    )
    (rpr.folder / "jobs.d").mkdir()
    run = live("jobs.toml")
    run.until_out("a one")
    rpr.write("jobs.d/b.toml", '[jobs.b]\ncommand = "echo b is here"\nschedule = "every 100ms"\n')
    run.until_out("b is here")
    rpr.write("x.env", "WORD=two\n")
    run.until_out("a two")
