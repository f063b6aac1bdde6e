"""A running supervisor and the commands that talk to it, all through the real `rpr`."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from repeater.cli.commands import CONTROL
from tests.cli.conftest import RPR, Lines, Result, Rpr
from tests.cli.test_apply import PATIENCE, Live, wait_for

JOBS = """
project = "shop"

[jobs.tick]
command = "echo tick"
schedule = "every 1h"
labels = { team = "a" }

[jobs.web]
command = "echo up; exec sleep 600"
schedule = "always"

[jobs.bad]
command = "echo broken >&2; exit 3"
schedule = "manual"
labels = { team = "a" }
"""


class Supervisor:
    """A supervisor in the foreground, and commands that run in the same folder."""

    def __init__(self, rpr: Rpr, *args: str, jobs: str = JOBS, wait: str = "") -> None:
        self.rpr = rpr
        rpr.write("jobs.toml", jobs)
        self.live = Live(rpr, "jobs.toml", *args)
        where = args[args.index("--state-dir") :][:2] if "--state-dir" in args else ()
        try:
            wait_for(lambda: rpr("health", "-q", *where).code == 0 or self._is_over(), "a supervisor")
            assert not self._is_over(), self.live.err
            if wait:
                self.live.until_out(wait)
        except BaseException:
            self.end()  # nobody has it yet who could
            raise

    def _is_over(self) -> bool:
        return self.live.process.poll() is not None

    def __call__(self, *args: str, **more: Any) -> Result:
        return self.rpr(*args, **more)

    def lines(self, *args: str) -> list[dict[str, Any]]:
        done = self(*args, "--json")
        assert done.code == 0, done
        return [json.loads(line) for line in done.out.splitlines()]

    def job(self, name: str) -> dict[str, Any]:
        (found,) = self.lines("status", name)
        return found

    def until(self, name: str, **wanted: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def is_so() -> bool:
            found.update(self.job(name))
            return all(found[key] == value for key, value in wanted.items())

        wait_for(is_so, lambda: f"{name} with {wanted}, last {found}")
        return found

    def follow(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [RPR, *args], cwd=self.rpr.folder, env=self.rpr.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip

    def end(self) -> None:
        if self.live.process.poll() is None:
            self.live.process.send_signal(signal.SIGINT)
            self.live.process.send_signal(signal.SIGTERM)
            try:
                self.live.process.wait(PATIENCE)
            finally:
                self.live.process.kill()
                self.live.process.wait()


@pytest.fixture
def launch(rpr: Rpr) -> Iterator[Callable[..., Supervisor]]:
    built: list[Supervisor] = []
    (rpr.folder / ".run").mkdir(mode=0o700)
    rpr.env["TMPDIR"] = str(rpr.folder / ".run")  # where others have no socket

    def build(*args: str, **more: Any) -> Supervisor:
        built.append(Supervisor(rpr, *args, **more))
        return built[-1]

    yield build
    for one in built:
        one.end()


# --- every command --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONTROL)
def test_every_command_has_help_with_an_example(rpr: Rpr, name: str) -> None:
    told = rpr(name, "--help")
    assert (told.code, told.err) == (0, "")
    assert told.out.startswith(f"Usage: rpr {name} ")
    assert "Example: " in told.out


NEEDS_ONE = [name for name in CONTROL if name not in ("health", "doctor", "systemd-unit")]


@pytest.mark.parametrize("name", NEEDS_ONE)
def test_without_a_supervisor_each_command_prints_one_line_and_ends_with_6(rpr: Rpr, name: str) -> None:
    rpr.write("jobs.toml", JOBS)
    job = ["tick"] if name in ("why", "trigger", "pause", "resume", "start", "stop", "restart", "reset") else []
    rpr(name, *job).is_(
        err="rpr: cannot reach a supervisor of project `shop`: none is running\nhint: start one with `rpr apply`\n",
        code=6,
    )


def test_health_without_a_supervisor_is_1(rpr: Rpr) -> None:
    rpr.write("jobs.toml", JOBS)
    done = rpr("health")
    assert (done.code, done.out) == (1, "cannot reach a supervisor of project `shop`: none is running\n")


# --- finding it -----------------------------------------------------------------------------------------------------


def test_it_is_found_from_below_by_file_project_socket_and_state_folder(
    rpr: Rpr, launch: Callable[..., Supervisor]
) -> None:
    built = launch()
    sock = rpr.folder / ".run" / "repeater" / "shop.sock"
    assert sock.is_socket()
    assert sock.stat().st_mode & 0o777 == 0o600
    rpr.write("deep/er/x", "")
    elsewhere = Rpr(rpr.folder / "deep" / "er")
    elsewhere.env = rpr.env
    assert "project shop" in elsewhere("status").out
    nowhere = Rpr(Path("/"))
    nowhere.env = rpr.env
    assert "project shop" in nowhere("status", "--project", "shop").out
    assert "project shop" in nowhere("status", env={"RPR_PROJECT": "shop"}).out
    assert "project shop" in nowhere("status", "--socket", str(sock)).out
    assert "project shop" in nowhere("status", "--file", str(rpr.folder / "jobs.toml")).out
    nowhere("status", "--file", "/none.toml").is_(
        err="rpr: cannot use `--file /none.toml`: there is no such file\n", code=2
    )
    assert "project shop" in nowhere("status").out, "the only one that runs"
    assert nowhere("status", "--project", "other").code == 6
    without = {name: value for name, value in rpr.env.items() if name != "XDG_RUNTIME_DIR"}
    elsewhere.env = without
    assert "project shop" in elsewhere("status").out, "through the link in the state directory"
    assert built("down", "-q").code == 0
    assert not sock.exists()
    assert not (rpr.folder / ".state/repeater/shop/control.sock").is_symlink()


def test_a_broken_job_file_does_not_keep_one_from_asking(rpr: Rpr, launch: Callable[..., Supervisor]) -> None:
    built = launch()
    rpr.write("jobs.toml", JOBS + "\n[jobs.tick\n")
    assert built("status").code == 0
    built.live.until_err("job files rejected")
    assert "were rejected" in built("status").out
    refused = built("reload")
    assert (refused.code, "jobs.toml:" in refused.err) == (2, True)
    ill = built("health")
    assert ill.code == 1
    assert built("health", "--ready").code == 0
    assert "the job files are rejected, generation 1 is still active: " in ill.out + ill.err
    coded = json.loads(built("health", "--json").out)
    assert coded["problems"] == [problem["reason"] for problem in coded["problem_reasons"]]
    assert [problem["reason_code"] for problem in coded["problem_reasons"]] == ["last_files_active"]
    assert coded["problem_reasons"][0]["detail"]["generation"] == 1
    facts = built.lines("why", "tick")[0]["fact_reasons"]
    rejected = next(fact for fact in facts if fact["reason_code"] == "files_not_active")
    assert rejected["detail"]["cause"]["reason_code"] == "files_rejected"
    rpr.write("jobs.toml", JOBS)
    built.live.until_err("the job files are valid again, generation 1 is active")
    assert built("health").code == 0
    names = [item["event"] for item in built.lines("events")]
    assert names.index("reload_rejected") < names.index("reload_recovered")


def test_one_with_a_state_folder_of_its_own_or_none_has_a_socket_too(
    rpr: Rpr, launch: Callable[..., Supervisor]
) -> None:
    built = launch("--ephemeral")
    assert "project shop" in built("status").out
    rpr.write("other/jobs.toml", '[jobs.a]\ncommand = "true"\nschedule = "every 1h"\n')
    other = Live(rpr, "other/jobs.toml", "--state-dir", "st")
    try:
        wait_for(lambda: rpr("health", "-q", "--state-dir", "st").code == 0, "the other one")
        assert "project other" in rpr("status", "--state-dir", "st").out
        assert {path.name for path in (rpr.folder / "st").iterdir()} >= {"control.sock", "history.db"}
        third = Rpr(Path("/"))
        third.env = rpr.env
        assert third("status").code == 0
    finally:
        other.process.send_signal(signal.SIGINT)
        other.leaves()


def test_a_socket_path_of_more_than_107_bytes_works(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 80) / ("e" * 80)
    folder.mkdir(parents=True)
    rpr = Rpr(folder)
    rpr.env["XDG_STATE_HOME"] = str(tmp_path / "state")
    built = Supervisor(rpr, "--state-dir", "st")
    try:
        assert "project shop" in rpr("status", "--state-dir", "st").out
    finally:
        built.end()


def test_a_socket_of_a_killed_supervisor_is_replaced(rpr: Rpr, launch: Callable[..., Supervisor]) -> None:
    first = launch(jobs='[jobs.a]\ncommand = "true"\nschedule = "every 1h"\n')
    first.live.process.kill()
    first.live.process.wait()
    (path,) = (rpr.folder / ".run" / "repeater").iterdir()
    assert path.is_socket()
    assert first("status").code == 6
    second = launch(jobs='[jobs.a]\ncommand = "true"\nschedule = "every 1h"\n')
    assert second("status").code == 0


# --- status, health -------------------------------------------------------------------------------------------------


def test_status_shows_the_state_of_each_job(launch: Callable[..., Supervisor]) -> None:
    built = launch(wait="tick | tick")
    built.until("tick", state="scheduled")
    built("trigger", "bad")
    built.until("bad", consecutive_failures=1)
    built("pause", "tick", "--for", "2h", "--reason", "moving")
    told = built("status").out.splitlines()
    assert re.fullmatch(r"project shop: generation 1, pid \d+, up for \d+s; times in UTC", told[0])
    assert told[1] == "3 jobs: 1 failing, 1 paused"
    assert re.fullmatch(r"JOB +STATE +LAST RUN +NEXT START +NOTE", told[2])
    assert re.fullmatch(r"bad +idle +failed \d+s ago +- +exit 3", told[3]), told[3]
    assert re.fullmatch(r"tick +paused +ok \d+s ago +- +moving; until ([-\d]+ )?[:\d]+", told[4]), told[4]
    assert re.fullmatch(r"web +running +never +- +pid \d+ for \d+s", told[5]), told[5]
    failing = built("status", "--failed").out.splitlines()
    assert failing[1] == "1 of 3 jobs: 1 failing"
    assert [line.split()[0] for line in failing[3:]] == ["bad", "bad", "broken"]
    assert [item["job"] for item in built.lines("status", "--label", "team=a", "--failed")] == ["bad"]
    assert [item["job"] for item in built.lines("status", "--label", "team")] == ["tick", "bad"]
    narrow = built("status", env={"COLUMNS": "40", "LINES": "9"}).out.splitlines()
    assert max(map(len, narrow)) <= 40
    assert any(line.startswith("… and 1 more; ") for line in narrow), narrow


def test_status_watch_draws_again_until_it_is_interrupted(launch: Callable[..., Supervisor]) -> None:
    built = launch(wait="tick | tick")
    ours, theirs = os.openpty()
    watch = subprocess.Popen(
        [RPR, "status", "--watch"], cwd=built.rpr.folder, env={**built.rpr.env, "COLUMNS": "80", "LINES": "24"},
        stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(theirs)
    try:
        text = ""
        while text.count("3 jobs: none failing") < 2:
            text += os.read(ours, 65536).decode(errors="replace")
        assert text.count("\x1b[H") >= 2
        watch.send_signal(signal.SIGINT)
        assert watch.wait(PATIENCE) == 130
    finally:
        watch.kill()
        watch.communicate()
        os.close(ours)


def test_status_watch_without_a_terminal_is_an_error(rpr: Rpr) -> None:
    rpr.write("jobs.toml", JOBS)
    done = rpr("status", "--watch")
    assert done.code == 2
    assert done.err.startswith("rpr: cannot use `--watch`: standard output is not a terminal\n")


def test_status_json_has_stable_keys_and_ps_is_the_same(launch: Callable[..., Supervisor]) -> None:
    built = launch(wait="web  | up")
    assert [item["job"] for item in built.lines("ps")] == ["tick", "web", "bad"]
    assert list(built.job("web")) == [
        "job", "state", "why", "reason_code", "detail", "waited", "next", "last", "running", "runs", "successes", "failures",
        "planned", "skipped", "interval", "average_interval", "consecutive_successes", "consecutive_failures", "last_success",
        "pending", "ready", "paused", "service", "labels", "description", "faults",
    ]  # fmt: skip
    tick = built.job("tick")
    assert tick["planned"] == tick["runs"] + tick["skipped"]
    assert tick["interval"] == 3600.0
    (run,) = built.job("web")["running"]
    assert list(run) == ["run", "pid", "attempt", "nominal", "started", "seconds", "trigger"]
    os.kill(run["pid"], 0)


def test_jobs_are_chosen_by_name_glob_and_label_everywhere(launch: Callable[..., Supervisor]) -> None:
    built = launch()
    assert [item["job"] for item in built.lines("status", "team=a")] == ["tick", "bad"]
    assert [item["job"] for item in built.lines("status", "w*", "bad")] == ["web", "bad"]
    assert [item["job"] for item in built.lines("pause", "team=a")] == ["tick", "bad"]
    built("status", "wob").is_(err="rpr: cannot find job `wob`: did you mean `web`?\n", code=2)
    assert built("trigger").code == 2


def test_health_waits_for_services_with_a_ready_probe(rpr: Rpr, launch: Callable[..., Supervisor]) -> None:
    rpr.write(
        "jobs.toml",
        'project = "shop"\n[jobs.web]\ncommand = "sleep 600"\nschedule = "always"\n'
        'ready = { exec = "test -e ready", every = "50ms" }\n',
    )
    live = Live(rpr, "jobs.toml")
    try:
        wait_for(lambda: rpr("status").code == 0, "a supervisor")
        assert (rpr("health").code, rpr("health").out) == (1, "service `web` is not ready\n")
        rpr.write("ready", "")
        wait_for(lambda: rpr("health").code == 0, "health")
        assert json.loads(rpr("health", "--json").out)["ok"] is True
    finally:
        live.process.send_signal(signal.SIGINT)
        live.leaves()


# --- logs -----------------------------------------------------------------------------------------------------------

TALKER = """
[jobs.a]
command = "printf 'one\\ntwo\\nthree\\n'; printf rest"
schedule = "manual"
[jobs.b]
command = "echo other; echo problem >&2"
schedule = "manual"
"""


def test_logs_show_what_was_printed_with_names_unless_one_job_is_named(launch: Callable[..., Supervisor]) -> None:
    built = launch("--keep-alive", jobs=TALKER)
    built("trigger", "a", "b")
    built.until("a", successes=1)
    built.until("b", successes=1)
    built("logs", "a").is_(out="one\ntwo\nthree\nrest\n")
    built("logs", "a", "--tail", "2").is_(out="three\nrest\n")
    assert sorted(built("logs").out.splitlines()) == sorted(
        ["a | one", "a | two", "a | three", "a | rest", "b | other", "b | problem"]
    )
    assert built("logs", "--raw", "a").out == "one\ntwo\nthree\nrest"
    assert built("logs", "b", "--since", "1h").out == "other\nproblem\n"
    assert built("logs", "b", "--since", "2099-01-01").out == ""
    streams = {(item["stream"], item["text"]) for item in built.lines("logs", "b")}
    assert streams == {("stdout", "other\n"), ("stderr", "problem\n")}


def test_logs_of_one_run_and_of_one_that_is_not_known(launch: Callable[..., Supervisor]) -> None:
    built = launch("--keep-alive", jobs=TALKER)
    for number in (1, 2):
        built("trigger", "a")
        built.until("a", successes=number)
    first = built.lines("history", "a")[1]["run"]
    assert {item["run"] for item in built.lines("logs", "--run", first)} == {first}
    assert "its output is not stored" in built("logs", "--run", "nope").err


JOB_THAT_TAILS = '[jobs.a]\ncommand = "tail -n +1 -f feed"\nschedule = "always"\n[jobs.b]\ncommand = "sleep 99"\n'


def test_logs_follow_within_a_blink_and_over_supervisors(rpr: Rpr, launch: Callable[..., Supervisor]) -> None:
    built = launch(jobs=JOB_THAT_TAILS)
    rpr.write("feed", "")
    reader = built.follow("logs", "a", "-f")
    try:
        delays, shown = [], Lines(reader.stdout)
        for number in range(3):
            with (rpr.folder / "feed").open("a") as feed:
                feed.write(f"{number}\n")
            began = time.monotonic()
            while (line := shown.next()) != str(number):
                assert line.startswith("tail:"), line
            delays.append(time.monotonic() - began)
        assert min(delays) < 1.2  # `tail -f` itself may look only once a second
        built("down", "--kill", "-q")
        said = Lines(reader.stderr)
        assert said.next() == "rpr: the supervisor has exited; waiting for the next one"
        launch(jobs=JOB_THAT_TAILS)
        assert said.next() == "rpr: a supervisor is running again"
        while (line := shown.next()) != "2":  # the new run reads the file from its beginning
            assert line in ("0", "1") or line.startswith("tail:"), line
    finally:
        reader.kill()
        reader.communicate()


def test_a_closed_pipe_ends_logs_quietly(launch: Callable[..., Supervisor]) -> None:
    built = launch("--keep-alive", jobs='[jobs.a]\ncommand = "seq 4000"\nschedule = "manual"\n')
    built("trigger", "a")
    built.until("a", successes=1)
    done = subprocess.run(
        f"{RPR} logs a | head -1", shell=True, cwd=built.rpr.folder, env=built.rpr.env, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_secrets_are_hidden_in_logs_events_and_plans(rpr: Rpr, launch: Callable[..., Supervisor]) -> None:
    text = (
        '[jobs.a]\ncommand = "echo key is $KEY"\nschedule = "manual"\nenv = { KEY = "hunter22" }\nsecrets = ["KEY"]\n'
    )
    built = launch("--keep-alive", jobs=text)
    built("trigger", "a")
    built.until("a", successes=1)
    assert built("logs", "a").out == "key is ***\n"
    rpr.write("jobs.toml", text.replace("hunter22", "hunter33"))
    told = built("apply", "jobs.toml").out + built("reload", "--json").out + built("events", "--json").out
    assert "hunter" not in told


def test_a_secret_in_a_command_is_not_in_the_state_folder(rpr: Rpr) -> None:
    rpr.write(
        "jobs.toml",
        """
        project = "secretive"
        [vars]
        key = "hunter22"
        [jobs.a]
        command = "true {{ vars.key }}"
        env = { KEY = "{{ vars.key }}" }
        secrets = ["KEY"]
        """,
    )
    assert rpr("apply", "-q", "jobs.toml").code == 0
    kept = {path.name: path.read_bytes() for path in (rpr.folder / ".state" / "repeater" / "secretive").glob("*.*")}
    assert b"hmac-sha256:" in kept["history.db"]
    assert [name for name, content in kept.items() if b"hunter22" in content] == []
    assert "no change" in rpr("plan", "jobs.toml").out


def test_a_secret_in_the_name_of_what_cannot_be_started_is_hidden_too(rpr: Rpr) -> None:
    rpr.write(
        "jobs.toml",
        """
        [vars]
        key = "hunter22"
        [defaults]
        env = { KEY = "{{ vars.key }}" }
        secrets = ["KEY"]
        [jobs.a]
        command = ["./{{ vars.key }}"]
        [jobs.b]
        command = "true"
        cwd = "/at/{{ vars.key }}/no"
        [jobs.c]
        command = "true"
        hooks = { on_success = ["./{{ vars.key }}"] }
        """,
    )
    done = rpr("apply", "jobs.toml")
    assert "a: failed: cannot start `./***`: No such file or directory" in done.err
    assert "b: failed: cannot enter directory `/at/***/no`: No such file or directory" in done.err
    assert "c: warning: hook on_success could not be started: cannot start `./***`" in done.err
    assert "hunter" not in done.err + rpr("history", "--json").out + rpr("why", "a").out


# --- history, events ------------------------------------------------------------------------------------------------


def test_history_has_the_command_as_it_ran(rpr: Rpr) -> None:
    text = """
        project = "commands"
        [vars]
        key = "hunter2"
        [defaults]
        env = { KEY = "{{ vars.key }}" }
        secrets = ["KEY"]
        [jobs.late]
        command = "echo {{ run.attempt }} {{ run.trigger }} {{ vars.key }}"
        [jobs.argv]
        command = ["echo", "a b", "{{ vars.key }}"]
        [jobs.missing]
        command = ["./missing-{{ vars.key }}"]
        """
    rpr.write("jobs.toml", text)
    rpr("apply", "jobs.toml")
    rpr.write("jobs.toml", text.replace("a b", "changed"))
    rows = [json.loads(line) for line in rpr("history", "--json").out.splitlines()]
    assert {row["job"]: row["command"] for row in rows} == {
        "late": "echo 1 schedule ***",
        "argv": "echo 'a b' '***'",
        "missing": "'./missing-***'",
    }


def test_history_is_the_same_with_and_without_a_supervisor(launch: Callable[..., Supervisor]) -> None:
    built = launch(wait="tick | tick")
    for number in (1, 2):
        built("trigger", "bad")
        built.until("bad", failures=number)
    rows = built.lines("history", "bad", "tick")
    assert list(rows[0]) == [
        "job", "nominal", "due", "started", "ended", "state", "reason", "reason_code", "detail", "run", "attempts", "exit",
        "outcome", "trigger", "generation", "command", "memory", "cpu",
    ]  # fmt: skip
    assert [row["command"] for row in rows] == ["echo broken >&2; exit 3"] * 2 + ["echo tick"]
    assert [(row["job"], row["outcome"]) for row in rows] == [("bad", "failed"), ("bad", "failed"), ("tick", "success")]
    assert [row["job"] for row in built.lines("history", "--failed")] == ["bad", "bad"]
    assert len(built.lines("history", "-n", "1")) == 1
    assert built.lines("history", "tick", "--until", "2000-01-01") == []
    shown = built("history", "bad").out.splitlines()
    assert re.fullmatch(r"TIME \(UTC\) +JOB +OUTCOME +TOOK +REASON +RUN", shown[0])
    assert re.fullmatch(r"\S+ +bad +failed +\S+ +exit 3; manual +\w{20}", shown[1])
    built("down", "-q")
    assert built.lines("history", "bad", "tick") == rows
    built.rpr.write("jobs.toml", 'project = "shop"\n[jobs.new]\ncommand = "true"\n')
    assert built.lines("history", "bad") == rows[:2], "of a job that is not in the file any more"


def test_utc_and_the_local_zone_are_named_once(launch: Callable[..., Supervisor]) -> None:
    built = launch(wait="tick | tick")
    kolkata = {"TZ": "Asia/Kolkata"}
    for command in ("status", "history", "events"):
        local = built(command, env=kolkata).out
        utc = built(command, "--utc", env=kolkata).out
        assert len(re.findall(r"\bIST\b", local)) == 1, local
        assert len(re.findall(r"\bUTC\b", utc)) == 1, utc
        assert "IST" not in utc
    (row,) = built.lines("history", "tick")
    hour = datetime.fromisoformat(row["nominal"]).astimezone(UTC).strftime("%H:")
    assert built("history", "tick", "--utc", env=kolkata).out.splitlines()[1].startswith(hour)


def test_events_show_past_events_and_follow_new_ones(launch: Callable[..., Supervisor]) -> None:
    built = launch(wait="tick | tick")
    reader = built.follow("events", "bad", "-f", "--tail", "1", "--json")
    try:
        told = Lines(reader.stdout)
        assert json.loads(told.next())["event"] == "job_added"
        built("trigger", "bad")
        heard = [json.loads(told.next()) for _ in range(3)]
        assert [item["event"] for item in heard] == ["run_started", "run_finished", "slot_decided"]
        assert {item["job"] for item in heard} == {"bad"}
        assert (heard[1]["success"], heard[1]["reason"], heard[1]["exit"]) == (False, "exit 3", 3)
    finally:
        reader.send_signal(signal.SIGINT)
        assert reader.wait(20) == 130
        reader.communicate()
    shown = built("events").out.splitlines()
    assert shown[0] == "times in UTC"
    texts = [line.partition(" ")[2] for line in shown]
    assert "generation 1 active: 3 added" in texts
    assert any(re.fullmatch(r"bad: started, pid \d+, run \w{20}", text) for text in texts)
    assert any(re.fullmatch(r"bad: failed: exit 3, run \w{20}", text) for text in texts)
    assert not [text for text in texts if "=" in text or "_" in text]


# --- orders ---------------------------------------------------------------------------------------------------------


def test_trigger_reports_the_result(launch: Callable[..., Supervisor]) -> None:
    built = launch(
        jobs='[jobs.a]\ncommand = "sleep 600"\nschedule = "manual"\n[jobs.k]\ncommand = "true"\nschedule = "every 1h"\n'
    )
    assert re.fullmatch(r"a: started, run \w{20}\n", built("trigger", "a").out)
    again = built("trigger", "a")
    assert (again.out, again.code) == ("a: skipped: the previous run was still running\n", 1)
    assert built.lines("trigger", "a", "--force")[0]["result"] == "started"
    assert len(built.job("a")["running"]) == 2


def test_pause_and_resume(launch: Callable[..., Supervisor]) -> None:
    built = launch(jobs='[jobs.a]\ncommand = "true"\nschedule = "every 100ms"\n')
    built("pause", "a", "--reason", "deploy").is_(out="a: paused until it is resumed\n")
    wait_for(lambda: built.lines("history", "-n", "1")[0]["reason"] == "paused: deploy", "a skipped slot")
    assert built("trigger", "a").out == "a: skipped: paused: deploy\n"
    assert built("resume", "a").out.startswith("a: resumed, next start ")
    built("resume", "a").is_(out="a: was not paused\n")
    built("pause", "a", "--for", "200ms")
    wait_for(lambda: built.job("a")["paused"] is None, "the end of the pause")
    assert built("pause", "a", "--for", "soon").code == 2


def test_a_pause_is_there_after_a_restart(launch: Callable[..., Supervisor]) -> None:
    built = launch()
    built("pause", "tick", "--reason", "holidays")
    built("down", "-q")
    again = launch()
    assert again.job("tick")["paused"] == {"text": "holidays", "until": None}


def test_stop_returns_when_no_process_runs_and_start_begins_again(launch: Callable[..., Supervisor]) -> None:
    built = launch(wait="web  | up")
    (run,) = built.job("web")["running"]
    built("stop", "web", "--reason", "looking").is_(out="web: stopped\n")
    with pytest.raises(ProcessLookupError):
        os.kill(run["pid"], 0)
    assert built.lines("history", "web", "-n", "1")[0]["reason"] == "looking"
    refused = built("restart", "web")
    assert (refused.code, refused.err) == (
        1,
        "rpr: cannot restart `web`: it is stopped\nhint: `rpr start web` starts it\n",
    )
    built("start", "web")
    assert built.until("web", state="running")["running"][0]["pid"] != run["pid"]


ENDING = """
project = "shop"

[jobs.one]
command = "{command}"
schedule = "{schedule}"
"""


@pytest.mark.parametrize(
    ("schedule", "command", "order"),
    [
        ("every 1h", "true", "stop"),
        ("always", "exec sleep 600", "stop"),
        ("always", "trap 'sleep 0.3; exit' TERM; echo up; while :; do sleep 0.1; done", "stop"),
        ("once", "exec sleep 600", "stop"),
    ],
)
def test_an_order_that_ends_the_supervisor_is_answered_before_it_exits(
    launch: Callable[..., Supervisor], schedule: str, command: str, order: str
) -> None:
    here = launch(jobs=ENDING.format(schedule=schedule, command=command))
    done = here(order, "one")
    assert (done.code, done.err) == (0, ""), here.live.err
    assert done.out.startswith("one: "), done
    assert here.live.process.wait(PATIENCE) == 0


def test_restart_replaces_the_live_run(launch: Callable[..., Supervisor]) -> None:
    built = launch(wait="web  | up")
    (before,) = built.job("web")["running"]
    built("restart", "web")
    wait_for(lambda: [run["pid"] for run in built.job("web")["running"]] not in ([], [before["pid"]]), "a new run")


def test_reset_clears_the_state_of_a_job(launch: Callable[..., Supervisor]) -> None:
    built = launch("--keep-alive", jobs='[jobs.a]\ncommand = "true"\nschedule = "every 10ms"\nstop = { times = 2 }\n')
    built.until("a", state="done")
    assert built("status", "a").out.endswith("2 runs\n")
    built("reset", "a")
    wait_for(lambda: len(built.lines("history", "a", "--outcome", "success")) == 4, "two more runs")


def test_down_waits_for_all_processes_and_by_default_drains_runs(rpr: Rpr, launch: Callable[..., Supervisor]) -> None:
    built = launch(
        jobs='[jobs.a]\ncommand = "until test -e go; do sleep 0.02; done; touch finished"\nschedule = "every 1h"\n'
        '[jobs.web]\ncommand = "echo up; exec sleep 600"\nschedule = "always"\n',
        wait="web | up",
    )
    built.until("a", state="running")
    (run,) = built.job("web")["running"]
    leaving = built.follow("down")
    try:
        assert "waiting for `a`" in Lines(leaving.stderr).next()
        assert leaving.poll() is None
        rpr.write("go", "")
        assert leaving.wait(20) == 0
    finally:
        leaving.kill()
        leaving.communicate()
    assert (rpr.folder / "finished").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(run["pid"], 0)
    assert built.live.leaves() == 0


def test_down_now_stops_live_runs(rpr: Rpr, launch: Callable[..., Supervisor]) -> None:
    built = launch(jobs='[jobs.a]\ncommand = "sleep 600"\nschedule = "every 1h"\n')
    built.until("a", state="running")
    began = time.monotonic()
    built("down", "--now", "-q")
    assert time.monotonic() - began < 15
    assert built.live.leaves() == 0


# --- apply, reload --------------------------------------------------------------------------------------------------


def test_apply_hands_over_to_the_supervisor_that_runs(rpr: Rpr, launch: Callable[..., Supervisor]) -> None:
    built = launch("--no-watch", wait="web  | up")
    (run,) = built.job("web")["running"]
    rpr.write(
        "jobs.toml", JOBS.replace("every 1h", "every 2h") + '\n[jobs.new]\ncommand = "true"\nschedule = "manual"\n'
    )
    dry = built("apply", "jobs.toml", "--dry-run")
    assert dry.out == (
        "~ tick  reschedules (schedule)\n+ new   is new\ngeneration 2 would be active: 2 changed, 2 unchanged\n"
    )
    assert [item["job"] for item in built.lines("status")] == ["tick", "web", "bad"]
    built("apply", "jobs.toml").is_(out=dry.out.replace("would be", "is"))
    assert built.job("new")["state"] == "idle"
    assert built.job("web")["running"][0]["pid"] == run["pid"]
    built("apply", "jobs.toml").is_(out="generation 2 is active: no changes, 4 unchanged\n")


def test_an_apply_that_would_remove_most_jobs_is_refused_unless_allowed(
    rpr: Rpr, launch: Callable[..., Supervisor]
) -> None:
    built = launch("--no-watch")
    rpr.write("jobs.toml", 'project = "shop"\n[jobs.tick]\ncommand = "echo tick"\nschedule = "every 1h"\n')
    refused = built("apply", "jobs.toml")
    assert (refused.code, refused.out) == (5, "")
    assert "2 of 3 jobs would be removed" in refused.err
    assert len(built.lines("status")) == 3
    assert built("apply", "jobs.toml", "--allow-removals").code == 0
    assert len(built.lines("status")) == 1


def test_an_apply_with_other_settings_becomes_active_and_stays_active(
    rpr: Rpr, launch: Callable[..., Supervisor]
) -> None:
    text = (
        'project = "shop"\nvars = { word = "one" }\n[jobs.a]\ncommand = "echo {{ vars.word }}"\nschedule = "manual"\n'
    )
    built = launch("--keep-alive", jobs=text)
    assert built("apply", "jobs.toml", "--set", "word=two").code == 0
    built("trigger", "a")
    built.live.until_out("two")
    rpr.write("jobs.toml", text + 'description = "x"\n')
    built.live.until_err("generation 3 active")
    built("trigger", "a")
    built.live.until_out("two", 2)
    assert built("apply", "jobs.toml", "--set", "word=3.10", "--set-json", "jobs.a.nice=1").code == 0
    built("trigger", "a")
    built.live.until_out("3.10")
    refused = built("apply", "jobs.toml", "--set", "wrod=four")
    assert refused.code == 2
    assert "there is no variable `wrod` (did you mean `word`?)" in refused.err


def test_an_apply_of_a_broken_file_or_another_project_changes_nothing(
    rpr: Rpr, launch: Callable[..., Supervisor]
) -> None:
    built = launch("--no-watch")
    rpr.write("jobs.toml", JOBS + "[jobs.x]\n")
    assert built("apply", "jobs.toml").code == 2
    assert built("apply", "--keep-alive", "jobs.toml").code == 2
    assert len(built.lines("status")) == 3


def test_reload_reports_the_changes(rpr: Rpr, launch: Callable[..., Supervisor]) -> None:
    built = launch("--no-watch")
    built("reload").is_(out="generation 1 is active: no changes, 3 unchanged\n")
    rpr.write("jobs.toml", JOBS.replace("exit 3", "exit 4"))
    built("reload").is_(
        out="~ bad  takes effect at next run (command)\ngeneration 2 is active: 1 changed, 2 unchanged\n"
    )
    assert json.loads(built("reload", "--json").out) == {
        "generation": 2, "changed": 0, "unchanged": 3, "pools": [], "limits": [], "jobs": [],
    }  # fmt: skip


def test_detach_returns_when_it_is_ready_and_what_is_printed_is_in_the_log(rpr: Rpr) -> None:
    rpr.write("jobs.toml", JOBS)
    done = rpr("apply", "-d", "jobs.toml")
    try:
        assert (done.code, done.out) == (0, "")
        assert done.err.endswith("running in the background: generation 1, 3 jobs\n")
        assert rpr("health").code == 0
        log = rpr.folder / ".state/repeater/shop/supervisor.log"
        wait_for(lambda: "tick | tick\n" in log.read_text(), "output in the log")
        assert log.stat().st_mode & 0o777 == 0o600
    finally:
        assert rpr("down", "--now", "-q").code == 0


def test_detach_reports_the_reason_when_it_fails(rpr: Rpr, launch: Callable[..., Supervisor]) -> None:
    built = launch("--state-dir", "st")
    (rpr.folder / "st" / "control.sock").unlink()
    done = rpr("apply", "-d", "-q", "--state-dir", "st", "jobs.toml")
    assert done.code == 5
    assert f"process {built.live.process.pid} is using it" in done.err
    rpr.write("broken.toml", "[jobs.x]\n")
    assert rpr("apply", "-d", "broken.toml").code == 2


def test_detach_needs_no_state(rpr: Rpr) -> None:
    (rpr.folder / ".run").mkdir(mode=0o700)
    rpr.write("jobs.toml", JOBS)
    assert rpr("apply", "-d", "--ephemeral", "jobs.toml").code == 0
    assert rpr("status").code == 0
    assert rpr("down", "--now", "-q").code == 0
    assert not (rpr.folder / ".state").exists()


def test_a_dry_run_has_no_side_effect_at_all(rpr: Rpr) -> None:
    rpr.write("jobs.toml", JOBS)
    assert rpr("apply", "--dry-run", "jobs.toml").code == 0
    assert sorted(path.name for path in rpr.folder.iterdir()) == ["jobs.toml"]


# --- why ------------------------------------------------------------------------------------------------------------


def test_why_names_the_holder_of_an_overlap_a_pool_and_a_need(launch: Callable[..., Supervisor]) -> None:
    built = launch(
        jobs="[pools.db]\nslots = 1\n"
        '[jobs.long]\ncommand = "sleep 600"\nschedule = "every 100ms"\npool = "db"\n'
        '[jobs.poor]\ncommand = "true"\nschedule = "manual"\npool = "db"\n'
        '[jobs.after]\ncommand = "true"\nschedule = "manual"\nneeds = { long = { condition = "succeeded" } }\n'
    )
    (run,) = built.until("long", state="running")["running"]
    built("trigger", "poor", "after")
    wait_for(lambda: any(row["reason_code"] == "overlap" for row in built.lines("history", "long")), "a skipped slot")
    told = built("why", "long").out
    assert told.startswith("`long` is running\n")
    assert f"pid {run['pid']}" in told
    assert 'was skipped for this reason (`overlap = "skip"`)' in told
    told = built("why", "poor").out
    assert "`poor` is due but blocked: pool `db` is full" in told
    assert re.search(rf"pool `db` is used by `long` \(pid {run['pid']}, for \d+s\)", told)
    told = built("why", "after").out
    assert "needs `long` to have succeeded" in told
    assert "needs `long` to have succeeded; `long` is running" in told
    skipped = next(row for row in built.lines("history", "long") if row["reason_code"] == "overlap")
    answer = built.lines("why", f"long@{skipped['nominal']}")[0]
    assert answer["reason_code"] == "slot_decided"
    assert answer["detail"]["verdict"]["detail"]["cause"]["reason_code"] == "overlap"
    live = next(fact for fact in answer["fact_reasons"] if fact["reason_code"] == "run_went_on")
    assert (live["detail"]["run"], live["detail"]["pid"]) == (run["run"], run["pid"])
    assert answer["facts"] == [fact["reason"] for fact in answer["fact_reasons"]]
    told = built("why", f"long@{skipped['nominal']}").out
    assert "skipped: the previous run was still running" in told
    assert f"run `{run['run']}` (pid {run['pid']}) has been running since " in told


def test_why_takes_a_cell_with_an_at_in_its_name(launch: Callable[..., Supervisor]) -> None:
    built = launch(
        "--keep-alive", jobs='[jobs.a]\nmatrix = { who = ["me@home"] }\ncommand = "true"\nschedule = "manual"\n'
    )
    assert built("why", "a[who=me@home]").out.startswith("`a[who=me@home]` has no next start")
    assert "was not scheduled at that time" in built("why", "a[who=me@home]@03:00").out


def test_why_shows_the_interval_of_a_job_where_no_slot_was(launch: Callable[..., Supervisor]) -> None:
    built = launch(
        jobs='[jobs.e]\ncommand = "true"\nschedule = "every 1h"\n'
        '[jobs.n]\ncommand = "true"\nschedule = { every = "2h", after_end = true }\n'
    )
    assert "it is scheduled every 1h; `rpr history e` shows past slots" in built("why", "e@2026-01-01T00:00:00Z").out
    assert "it is scheduled 2h after the end of each run" in built("why", "n@2026-01-01T00:00:00Z").out


def test_why_explains_pause_done_slowdown_and_disabled(launch: Callable[..., Supervisor]) -> None:
    built = launch(
        jobs='[jobs.p]\ncommand = "true"\nschedule = "every 1h"\n'
        '[jobs.d]\ncommand = "true"\n'
        '[jobs.s]\ncommand = "false"\nschedule = "every 1s"\nslowdown = { base = "1h" }\n'
        '[jobs.x]\ncommand = "true"\nenabled = false\nschedule = "every 1h"\n'
    )
    built("pause", "p", "--reason", "audit")
    assert built("why", "p").out.startswith("`p` is paused: audit; until it is resumed\n")
    built.until("d", state="done")
    assert "`d` is done: its schedule has ended; run `rpr reset d` to start over" in built("why", "d").out
    built.until("s", state="throttled")
    assert "after a failure, not before " in built("why", "s").out
    assert built("why", "x").out.startswith("`x` is disabled: `enabled = false`")
    assert built("why", "*").code == 2
    assert built("why", "p@soon").code == 2


def test_why_explains_downtime_and_generations_also_without_a_supervisor(
    rpr: Rpr, launch: Callable[..., Supervisor]
) -> None:
    jobs = '[jobs.a]\ncommand = "true"\nschedule = "* * * * * *"\n'.replace(
        '"* * * * * *"', '{ cron = "* * * * * *", seconds = "first" }'
    )
    built = launch(jobs=jobs)
    wait_for(lambda: built.lines("history", "a", "--outcome", "success"), "a run")  # the newest may be running
    row = built.lines("history", "a", "--outcome", "success")[0]
    told = built("why", f"a@{row['nominal']}").out
    assert "it ran and succeeded" in told
    assert "generation 1 was active, since " in told
    built("down", "-q")
    gone = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
    wait_for(lambda: datetime.now(UTC) > gone + timedelta(seconds=2), "slots that are missed")
    told = built("why", f"a@{gone:%Y-%m-%dT%H:%M:%SZ}").out
    assert "it was scheduled at this time, but no slot is recorded" in told
    assert re.search(r"the supervisor was down from \S+ \S+", told)
    assert "no supervisor is running" in built("why", "a").out
    again = launch(jobs=jobs)

    def missed_slots() -> list[dict[str, Any]]:
        """On a busy machine others are skipped because the run before goes on."""
        return [row for row in again.lines("history", "a", "--outcome", "skipped") if row["reason_code"] == "missed"]

    wait_for(missed_slots, "a missed slot")
    missed = missed_slots()[0]
    told = again("why", f"a@{missed['nominal']}").out
    assert "skipped: it was missed" in told
    assert re.search(r"the supervisor was down from \S+ \S+ until \S+ \S+", told)


def test_why_knows_the_nights_when_clocks_change(launch: Callable[..., Supervisor]) -> None:
    built = launch(jobs='[jobs.n]\ncommand = "true"\nschedule = { cron = "30 2 * * *", timezone = "Europe/Berlin" }\n')
    told = built("why", "n@2027-03-28T02:30").out
    assert "02:30 did not exist on 2027-03-28 in this zone (clocks went forward)" in told
    assert "gap = `next`, fold = `first`" in told
    told = built("why", "n@2027-10-31T02:30").out
    twice = r"that time occurred twice \(clocks went back\): 2027-10-31 02:30:00( \+02:00)? and 2027-10-31 02:30:00( \+01:00)?"
    found = re.search(twice, told)
    assert found is not None, told
    assert [found[1], found[2]].count(None) == 1, "the present offset is named with the zone"
    assert len(re.findall(r"times in Europe/Berlin \(CES?T, UTC\+0[12]:00\)", told)) == 1
    assert "00:30:00 and 2027-10-31 01:30:00\n" in built("why", "n@2027-10-31T02:30", "--utc").out
    told = built("why", "n@2027-06-01T12:00").out
    assert "it was not scheduled at that time" in told
    assert "the next slot is 2027-06-02 02:30:00" in told
    assert "this time is in the future" in built("why", "n@2027-06-02T02:30").out


# --- doctor, systemd ------------------------------------------------------------------------------------------------


def test_doctor_looks_and_touches_nothing(rpr: Rpr) -> None:
    rpr.write("jobs.toml", JOBS)
    found = [json.loads(line) for line in rpr("doctor", "--json").out.splitlines()]
    assert {one["topic"] for one in found} >= {"python", "processes", "open files", "clock", "history", "supervisor"}
    assert {one["level"] for one in found} <= {"ok", "note", "bad"}
    assert sorted(path.name for path in rpr.folder.iterdir()) == ["jobs.toml"]
    (rpr.folder / ".state").write_text("")
    broken = rpr("doctor")
    assert broken.code in (0, 1)
    assert "Traceback" not in broken.err


class Manager:
    """What systemd is to a service: a socket that listens."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.settimeout(20)

    def hear(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self._socket.recv(4096).decode().splitlines())

    def until(self, key: str) -> list[dict[str, str]]:
        heard = [self.hear()]
        while key not in heard[-1]:
            heard.append(self.hear())
        return heard

    def close(self) -> None:
        self._socket.close()


def test_a_service_manager_is_notified_of_ready_reload_watchdog_and_stop(rpr: Rpr) -> None:
    manager = Manager(rpr.folder)
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "env > seen"\nschedule = "every 1h"\n')
    rpr.env |= {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "200000"}
    live = Live(rpr, "jobs.toml")
    try:
        ready = manager.until("READY")[-1]
        assert ready["STATUS"] == "generation 1, 1 job"
        manager.until("WATCHDOG")
        manager.until("WATCHDOG")
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        live.process.send_signal(signal.SIGHUP)
        reloading = manager.until("RELOADING")[-1]
        assert now <= int(reloading["MONOTONIC_USEC"]) <= now + 20_000_000
        assert "READY" in manager.until("READY")[-1]
        rpr.write("jobs.toml", "[jobs.\n")
        live.process.send_signal(signal.SIGHUP)
        manager.until("RELOADING")
        manager.until("READY")
        live.until_err("job files rejected; generation 1 remains active")
        wait_for((rpr.folder / "seen").exists, "the job")
        live.process.send_signal(signal.SIGTERM)
        assert manager.until("STOPPING")
        assert live.leaves() == 0
        wait_for(lambda: "PATH=" in (rpr.folder / "seen").read_text(), "its environment")
        assert "NOTIFY_SOCKET" not in (rpr.folder / "seen").read_text()
    finally:
        live.process.kill()
        live.process.wait()
        manager.close()


def test_under_systemd_messages_carry_their_priority(rpr: Rpr) -> None:
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "exit 1"\n[jobs.b]\ncommand = "true"\n')
    error = rpr.folder / "journal"
    with error.open("wb") as sink:
        found = os.fstat(sink.fileno())
        done = subprocess.run(
            [RPR, "apply", "jobs.toml"],
            cwd=rpr.folder,
            env={**rpr.env, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=sink,
        )
    assert done.returncode == 1
    told = error.read_text()
    assert "<4>rpr: a: failed: exit 1\n" in told
    assert "<6>rpr: b: done" in told


def test_messages_can_be_json_with_the_event_in_them(rpr: Rpr) -> None:
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "exit 7"\n')
    told = rpr("apply", "jobs.toml", "--log-format", "json")
    objects = [json.loads(line) for line in told.err.splitlines() if line.startswith("{")]
    failed = next(one for one in objects if one.get("event") == "run_finished")
    assert (failed["level"], failed["message"], failed["job"], failed["exit"]) == ("warning", "failed: exit 7", "a", 7)
    assert all(set(one) >= {"time", "level", "message"} for one in objects)


def test_a_line_of_the_log_keeps_its_own_level_and_message(rpr: Rpr) -> None:
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "echo up; exec sleep 600"\nschedule = "always"\n')
    live = Live(rpr, "jobs.toml", "--log-format", "json")
    try:
        live.until_out("up")
        live.process.send_signal(signal.SIGTERM)
        live.process.wait(PATIENCE)
    finally:
        live.process.kill()
        live.process.wait()
    objects = [json.loads(line) for line in live.err.splitlines() if line.startswith("{")]
    assert {one["level"] for one in objects} <= {"error", "warning", "info"}
    (leaving,) = [one for one in objects if one.get("event") == "draining"]
    assert leaving["message"].startswith("waiting for `a`")


@pytest.mark.parametrize(("level", "told"), [("debug", "a: succeeded"), ("info", "a: done"), ("warn", "b: failed")])
def test_the_level_of_the_log_is_a_setting(rpr: Rpr, level: str, told: str) -> None:
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "true"\n[jobs.b]\ncommand = "exit 1"\n')
    err = rpr("apply", "--ephemeral", "jobs.toml", env={"RPR_LOG_LEVEL": level}).err
    assert f"rpr: {told}" in err
    assert ("a: done" in err) == (level != "warn")
    assert ("a: succeeded" in err) == (level == "debug")


def test_a_systemd_unit_is_one_that_systemd_takes(rpr: Rpr) -> None:
    folder = rpr.folder / "with space %x"
    folder.mkdir()
    (folder / "my jobs.toml").write_text('project = "shop"\n[jobs.a]\ncommand = "true"\nschedule = "every 1h"\n')
    told = rpr(
        "systemd-unit", "with space %x/my jobs.toml", "--set", "jobs.a.timeout=10s", "--set-json", "jobs.a.nice=1"
    )
    assert told.code == 0
    assert "--set jobs.a.timeout=10s --set-json jobs.a.nice=1" in told.out
    assert "Type=notify-reload\n" in told.out
    assert f'"{folder}/my jobs.toml"'.replace("%", "%%") in told.out
    unit = rpr.write("shop.service", told.out)
    verify = subprocess.run(["sh", "-c", "command -v systemd-analyze"], capture_output=True)
    if verify.returncode:
        pytest.skip("there is no systemd-analyze here")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, env={**os.environ}
    )
    told = [line for line in done.stderr.splitlines() if "shop.service" in line and "notify-reload" not in line]
    assert not told  # before 253 it does not know `notify-reload`, as the unit says


@pytest.mark.parametrize(
    "words", [("--grace", "5min\nExecStartPre=/bin/evil"), ("--set", "a=b\nExecStartPre=/bin/evil"), ("--set", "a=b\\")]
)
def test_no_option_breaks_out_of_its_line_of_a_systemd_unit(rpr: Rpr, words: tuple[str, str]) -> None:
    rpr.write("jobs.toml", '[vars]\na = ""\n[jobs.a]\ncommand = "true"\n')
    told = rpr("systemd-unit", "jobs.toml", *words)
    assert "\nExecStartPre" not in told.out
    assert told.code == (2 if words[0] == "--grace" else 0)
    (line,) = [line for line in told.out.splitlines() if line.startswith("ExecStart=")] if told.out else ["x"]
    assert not line.endswith("\\")


# --- many jobs, many clients ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_status_of_ten_thousand_jobs_is_complete(launch: Callable[..., Supervisor]) -> None:
    jobs = "".join(f'[jobs.j{n}]\ncommand = "true"\nschedule = "manual"\n' for n in range(10_000))
    built = launch("--keep-alive", jobs=jobs)
    assert len(built("status").out.splitlines()) == 10_003
    assert len(built.lines("status")) == 10_000
