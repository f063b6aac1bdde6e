"""Keys of the job language through the real `rpr`: what a process gets, and what others see of it."""

from __future__ import annotations

import json
import os
import pwd
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Rpr, to_supervisor
from tests.cli.test_apply import Live, live, wait_for  # noqa: F401 - a fixture


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def apply(rpr: Rpr, text: str, *args: str) -> str:
    rpr.write("jobs.toml", text)
    done = rpr("apply", "jobs.toml", "-q", "--ephemeral", *args)
    assert (done.err, done.code) == ("", 0)
    return done.out


def test_values_named_as_secrets_are_shown_nowhere(rpr: Rpr) -> None:
    rpr.write("token.env", "TOKEN=hunter-twenty-two\n")
    rpr.write(
        "jobs.toml",
        """
        [jobs.a]
        command = "echo token $TOKEN; printf hunter-; sleep 0.3; printf twenty-two; env | grep TOKEN >&2"
        env_file = "token.env"
        secrets = ["TOKEN"]
        output = { file = "a.log" }
        """,
    )
    done = rpr("apply", "jobs.toml", "--state-dir", "state", "-v")
    assert done.code == 0
    assert "a | token ***\n" in done.out
    assert "a | TOKEN=***\n" in done.err
    for path in rpr.folder.rglob("*"):
        if path.is_file() and path.name != "token.env":
            assert b"hunter-twenty-two" not in path.read_bytes(), path


def test_a_clean_environment_holds_only_what_it_must(rpr: Rpr) -> None:
    text = '[jobs.a]\ncommand = ["env"]\nenv_mode = "clean"\nenv = { MINE = "yes" }\n'
    rpr.env["OTHERS"] = "no"
    names = {line.split("a | ")[1].split("=")[0] for line in apply(rpr, text).splitlines()}
    assert "MINE" in names
    assert "OTHERS" not in names
    assert {name for name in names if not name.startswith("RPR_")} <= {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "MINE", "TRACEPARENT",
    }  # fmt: skip


def test_the_job_beats_its_files_which_beat_what_is_inherited(rpr: Rpr) -> None:
    rpr.env |= {"A": "inherited", "B": "inherited", "C": "inherited"}
    rpr.write("x.env", "A=file\nB=file\n")
    text = '[jobs.a]\ncommand = "echo $A $B $C"\nenv_file = "x.env"\nenv = { A = "job" }\n'
    assert apply(rpr, text) == "a | job file inherited\n"


def test_stdin_shell_umask_nice_and_limits_reach_the_process(rpr: Rpr) -> None:
    text = """
    [jobs.a]
    command = "cat; umask; nice; ulimit -n; ulimit -c; echo $0"
    shell = ["/bin/sh", "-c"]
    stdin = "from the file\\n"
    umask = "027"
    nice = 5
    rlimits = { nofile = 77, core = 0 }
    """
    assert apply(rpr, text).splitlines()[:5] == ["a | from the file", "a | 0027", "a | 5", "a | 77", "a | 0"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")
def test_a_job_may_run_as_another_user(rpr: Rpr) -> None:
    assert apply(rpr, '[jobs.a]\ncommand = "id -un"\nuser = "nobody"\ncwd = "/"\n') == "a | nobody\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")
@pytest.mark.parametrize("mode", ["inherit", "clean"])
def test_a_job_of_another_user_has_the_variables_of_that_user(rpr: Rpr, mode: str) -> None:
    entry = pwd.getpwnam("nobody")
    text = f"""
    [jobs.a]
    command = 'echo "$HOME:$USER:$LOGNAME:$SHELL"'
    user = "nobody"
    cwd = "/"
    env_mode = "{mode}"
    [jobs.b]
    extends = "t"
    needs = ["a"]
    [templates.t]
    command = 'echo "$HOME:$USER"'
    user = "{entry.pw_uid}"
    cwd = "/"
    env = {{ HOME = "/own" }}
    """
    assert apply(rpr, text).splitlines() == [f"a | {entry.pw_dir}:nobody:nobody:{entry.pw_shell}", "b | /own:nobody"]


def test_a_template_over_the_run_is_rendered_when_it_starts(rpr: Rpr) -> None:
    text = """
    vars = { who = "world" }
    [jobs.a]
    command = "echo {{ vars.who }} {{ run.attempt }} {{ run.nominal | date('%Y') }}; test $RPR_ATTEMPT = 2"
    retry = { attempts = 2, base = "10ms" }
    """
    rpr.write("jobs.toml", text)
    done = rpr("apply", "jobs.toml", "-q", "--ephemeral")
    year = time.strftime("%Y", time.gmtime())
    assert done.out.splitlines() == [f"a | world 1 {year}", f"a | world 2 {year}"]


def test_cells_of_a_matrix_run_under_their_stable_names(rpr: Rpr) -> None:
    text = '[jobs.poll]\nmatrix = { region = ["eu", "us"] }\ncommand = "echo {{ matrix.region }}"\n'
    assert sorted(apply(rpr, text).splitlines()) == ["poll[region=eu] | eu", "poll[region=us] | us"]
    assert apply(rpr, text, "--only", "poll[region=us]") == "poll[region=us] | us\n"


def test_needs_order_jobs_and_a_failure_skips_what_needs_it(rpr: Rpr) -> None:
    rpr.write(
        "jobs.toml",
        """
        [jobs.deploy]
        command = "echo deploy"
        needs = { build = { condition = "succeeded" } }
        [jobs.report]
        command = "echo report"
        needs = { build = { condition = "completed" } }
        [jobs.build]
        command = "sleep 0.2; echo build; exit 7"
        """,
    )
    done = rpr("apply", "jobs.toml", "-q", "--ephemeral")
    assert done.out.splitlines() == ["build  | build", "report | report"]
    assert "rpr: deploy: skipped: `build` has not succeeded" in done.err
    assert done.code == 1


def test_ready_by_log_http_tcp_and_exec_starts_the_dependents(rpr: Rpr) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        rpr.write(
            "jobs.toml",
            f"""
            [defaults]
            schedule = "always"
            stop_timeout = "1s"
            [jobs.logs]
            command = "sleep 0.2; echo now listening on 80; exec sleep 60"
            ready = {{ log = "listening on \\\\d+" }}
            [jobs.execs]
            command = "touch there; exec sleep 60"
            ready = {{ exec = ["test", "-e", "there"], every = "50ms" }}
            [jobs.tcps]
            command = ["sleep", "60"]
            ready = {{ tcp = "127.0.0.1:{port}", every = "50ms" }}
            [jobs.user]
            command = "echo all are ready; {to_supervisor("INT")}"
            schedule = "once"
            needs = ["logs", "execs", "tcps"]
            """,
        )
        done = rpr("apply", "jobs.toml", "--ephemeral")
    assert "user  | all are ready" in done.out
    assert done.code == 130
    assert {line for line in done.err.splitlines() if line.endswith(": ready")} == {
        "rpr: logs: ready", "rpr: execs: ready", "rpr: tcps: ready",
    }  # fmt: skip


def test_hooks_run_with_the_facts_of_the_slot(rpr: Rpr) -> None:
    text = """
    [jobs.a]
    command = "exit 3"
    hooks = { on_failure = "echo $RPR_JOB $RPR_STATE $RPR_EXIT: $RPR_REASON > hook" }
    """
    rpr.write("jobs.toml", text)
    assert rpr("apply", "jobs.toml", "-q", "--ephemeral").code == 1
    assert (rpr.folder / "hook").read_text() == "a failed 3: exit 3\n"


def test_a_pool_lets_no_more_run_at_once(rpr: Rpr) -> None:
    command = "mkdir lock || echo OVERLAP; sleep 0.1; rmdir lock"
    jobs = "".join(f'[jobs.j{n}]\ncommand = "{command}"\npool = "one"\n' for n in range(4))
    assert apply(rpr, f"[pools.one]\nslots = 1\n{jobs}") == ""


def test_moved_from_takes_the_counters_along(rpr: Rpr, live: Callable[..., Live]) -> None:  # noqa: F811
    old = '[jobs.{name}]\ncommand = "echo x >> effects"\nschedule = "every 100ms"\nstop = {{ times = 3 }}\n{more}'
    keep = '[jobs.k]\ncommand = "echo x >> ticks"\nschedule = "every 100ms"\n'
    effects, ticks = rpr.folder / "effects", rpr.folder / "ticks"
    rpr.write("jobs.toml", old.format(name="a", more="") + keep)
    run = live("jobs.toml")
    wait_for(lambda: effects.exists() and len(effects.read_text().splitlines()) == 3, "three runs")
    rpr.write("jobs.toml", old.format(name="b", more='moved_from = "a"\n') + keep)
    run.until_err("generation 2 active")
    before = len(ticks.read_text())
    wait_for(
        lambda: len(ticks.read_text()) >= before + 10, "five ticks, in which a job with new counters would have run"
    )
    assert len(effects.read_text().splitlines()) == 3
    plan = rpr("plan", "jobs.toml", "--json")
    assert {job["class"] for job in json.loads(plan.out)["jobs"]} == {"keep"}


def test_a_service_of_a_killed_supervisor_is_ended_before_it_starts_again(
    rpr: Rpr,
    live: Callable[..., Live],  # noqa: F811
) -> None:
    rpr.write("jobs.toml", '[jobs.s]\ncommand = "echo $$ >> pids; exec sleep 600"\nschedule = "always"\n')
    pids = rpr.folder / "pids"

    def count() -> int:
        return len(pids.read_text().splitlines()) if pids.exists() else 0

    first = live("jobs.toml")
    wait_for(lambda: count() == 1, "the service")
    first.process.kill()
    first.leaves()
    live("jobs.toml")
    wait_for(lambda: count() == 2, "the service again")
    old = int(pids.read_text().splitlines()[0])
    assert not is_alive(old)


def test_a_saved_source_restarts_its_service_and_runs_its_watch_job(
    rpr: Rpr,
    live: Callable[..., Live],  # noqa: F811
) -> None:
    rpr.write("src/app.py", "1")
    rpr.write(
        "jobs.toml",
        """
        [jobs.serve]
        command = "echo serving; exec sleep 600"
        schedule = "always"
        watch = ["src/**/*.py"]
        [jobs.lint]
        command = "echo linted"
        schedule = { watch = ["src/**"], debounce = "20ms" }
        [jobs.tick]
        command = "echo tick"
        schedule = "every 50ms"
        """,
    )
    run = live("jobs.toml")
    run.until_out("serving")
    while run.out.count("serving") < 2 or "linted" not in run.out:  # it takes a moment until the folder is watched
        rpr.write("src/app.py", str(time.monotonic()))
        time.sleep(0.5)
    run.until_out("tick", run.out.count("tick") + 5)
    linted = run.out.count("linted")
    rpr.write("src/__pycache__/app.pyc", "x")
    run.until_out("tick", run.out.count("tick") + 5)
    rpr.write("src/app.py", "last")
    run.until_out("linted", linted + 1)
    run.until_out("tick", run.out.count("tick") + 5)
    assert run.out.count("linted") == linted + 1


def test_a_service_that_is_not_alive_is_restarted(rpr: Rpr, live: Callable[..., Live]) -> None:  # noqa: F811
    rpr.write(
        "jobs.toml",
        """
        [jobs.s]
        command = "rm -f sick; echo up; exec sleep 600"
        schedule = "always"
        live = { exec = "test ! -e sick", every = "50ms", failures = 2 }
        """,
    )
    run = live("jobs.toml")
    run.until_out("up")
    rpr.write("sick", "")
    run.until_out("up", 2)
    run.until_err("s: warning: liveness probe failed")


def test_restart_on_failure_lets_a_service_end_well(rpr: Rpr) -> None:
    rpr.write(
        "jobs.toml",
        """
        [jobs.s]
        command = "echo run; test -e once || { touch once; exit 1; }"
        schedule = "always"
        restart = "on-failure"
        slowdown = { backoff = "fixed", base = "10ms" }
        """,
    )
    done = rpr("apply", "jobs.toml", "--ephemeral", "-q")
    assert (done.out, done.code) == ("s | run\ns | run\n", 0)


@pytest.mark.parametrize(("delivery", "starts"), [("at-most-once", 1), ("at-least-once", 2)])
def test_delivery_decides_what_follows_a_crash_between_start_and_end(
    rpr: Rpr,
    live: Callable[..., Live],  # noqa: F811
    delivery: str,
    starts: int,
) -> None:
    rpr.write(
        "jobs.toml",
        f"""
        [jobs.a]
        command = "echo $RPR_ATTEMPT $RPR_NOMINAL_TIME >> effects; sleep 600"
        schedule = {{ every = "1h" }}
        delivery = "{delivery}"
        """,
    )
    effects = rpr.folder / "effects"
    first = live("jobs.toml")
    wait_for(effects.exists, "the first start")
    first.process.kill()
    first.leaves()
    again = live("jobs.toml", "-v")
    again.until_err("started, pid" if starts == 2 else "interrupted")
    wait_for(lambda: len(effects.read_text().splitlines()) == starts, "the starts")
    rows = [line.split() for line in effects.read_text().splitlines()]
    assert [row[0] for row in rows] == ["1", "2"][:starts]
    assert len({row[1] for row in rows}) == 1


def test_catch_up_runs_what_was_missed_while_down(rpr: Rpr) -> None:
    text = """
    [jobs.skips]
    command = "echo $RPR_TRIGGER >> skips"
    schedule = { cron = "* * * * * *", seconds = "first" }
    stop = { times = 2 }
    [jobs.catches]
    command = "echo $RPR_TRIGGER >> catches"
    schedule = { cron = "* * * * * *", seconds = "first" }
    catch_up = "all"
    overlap = "queue"
    queue_max = 100
    stop = { times = 14 }
    [jobs.end]
    command = "sleep 1.5; END"
    """.replace("END", to_supervisor("TERM"))
    rpr.write("jobs.toml", text)
    assert rpr("apply", "jobs.toml", "-q").code == 0
    before = len((rpr.folder / "catches").read_text().splitlines())
    time.sleep(12)  # more than the ten seconds of grace
    assert rpr("apply", "jobs.toml", "-q").code == 0
    triggers = (rpr.folder / "catches").read_text().split()
    assert triggers[:before] == ["schedule"] * before
    assert triggers[before:].count("catch_up") >= 2
    assert set((rpr.folder / "skips").read_text().split()) == {"schedule"}


def test_output_is_written_where_the_job_declares(rpr: Rpr) -> None:
    text = """
    [jobs.whole]
    command = "echo one; sleep 0.2; echo two"
    output = { mode = "aggregate" }
    [jobs.silent]
    command = "echo secret; seq 2000"
    output = { mode = "suppress", file = "silent.log", max_size = "1KiB", backups = 2 }
    [jobs.timed]
    command = "sleep 0.1; echo tick"
    output = { timestamps = true }
    """
    out = apply(rpr, text)
    assert "whole  | one\nwhole  | two\n" in out
    assert "secret" not in out
    logs = sorted(path.name for path in rpr.folder.glob("silent.log*"))
    assert logs == ["silent.log", "silent.log.1", "silent.log.2"]
    assert all(path.stat().st_size <= 1024 for path in rpr.folder.glob("silent.log*"))
    (timed,) = [line for line in out.splitlines() if line.endswith("tick")]
    assert timed.split()[2].startswith("20")


def test_a_stop_signal_and_a_drain_time_are_the_jobs_own(rpr: Rpr) -> None:
    text = """
    [jobs.asked]
    command = "trap 'echo got USR1; exit 0' USR1; echo up; while :; do sleep 0.05; done"
    timeout = "300ms"
    stop_signal = "USR1"
    success = { exit_codes = [0] }
    [jobs.leaves]
    command = "sleep 60 & echo gone"
    drain_timeout = "100ms"
    """
    rpr.write("jobs.toml", text)
    began = time.monotonic()
    done = rpr("apply", "jobs.toml", "-q", "--ephemeral")
    assert "asked  | got USR1" in done.out
    assert "leaves | gone" in done.out
    assert "rpr: asked: failed: timed out after 300ms" in done.err
    assert time.monotonic() - began < 30
