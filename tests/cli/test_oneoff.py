"""One-off commands through the real `rpr`: what they run, print and end with."""

from __future__ import annotations

import array
import fcntl
import json
import os
import re
import signal
import subprocess
import termios
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from repeater.cli.commands import ONE_OFF
from tests.cli.conftest import RPR, Rpr


def lines(folder: Path, name: str) -> list[str]:
    return (folder / name).read_text().split()


def wait_for(path: Path, *, size: int = 1) -> None:
    end = time.monotonic() + 20
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < end, f"{path} was never written"
        time.sleep(0.01)


# --- the commands -------------------------------------------------------------------------------------------------


def test_count_runs_n_times_and_prints_nothing_of_its_own(rpr: Rpr) -> None:
    rpr("count", "--times", "3", "--", "echo", "hi").is_(out="hi\nhi\nhi\n")


def test_two_thousand_runs_give_two_thousand_lines(rpr: Rpr) -> None:
    done = rpr("c", "-t", "2000", "--", "echo", "hi")
    assert (done.out, done.err, done.code) == ("hi\n" * 2000, "", 0)


def test_the_separator_is_optional_and_later_options_belong_to_the_command(rpr: Rpr) -> None:
    rpr("c", "-t1", "echo", "-n", "--times", "9").is_(out="--times 9")


def test_short_options_can_be_combined_with_their_value(rpr: Rpr) -> None:
    rpr("c", "-qt2", "--", "sh", "-c", "echo x; echo y >>log").is_()
    assert lines(rpr.folder, "log") == ["y", "y"]


@pytest.mark.parametrize("word", [word for name, (_, shorts) in ONE_OFF.items() for word in (name, *shorts)])
def test_every_command_has_a_help_with_an_example(rpr: Rpr, word: str) -> None:
    done = rpr(word, "-h")
    assert done.code == 0
    assert done.err == ""
    assert done.out.startswith("Usage: rpr ")
    assert "\nExample: rpr " in done.out


def test_interval_ends_at_once_after_its_last_run(rpr: Rpr) -> None:
    begin = time.monotonic()
    rpr("interval", "-e", "1h", "-t", "1", "--", "echo", "one").is_(out="one\n")
    assert time.monotonic() - begin < 10


def test_interval_keeps_its_grid(rpr: Rpr) -> None:
    rpr("i", "-e", "100ms", "-t", "4", "--", "sh", "-c", "echo $RPR_NOMINAL_TIME $(date +%s%N) >>log").is_()
    words = lines(rpr.folder, "log")
    nominal = [datetime.fromisoformat(word) for word in words[::2]]
    steps = [(one - nominal[0]) / timedelta(milliseconds=100) for one in nominal]
    assert steps == sorted(set(map(round, steps)))  # whole ones, none twice, though a busy machine may leave some out
    began = [int(word) / 1e9 for word in words[1::2]]
    assert all(one.timestamp() <= real for one, real in zip(nominal, began, strict=True))


def test_an_interval_may_wait_before_its_first_run(rpr: Rpr) -> None:
    begin = time.monotonic()
    rpr("i", "-e", "400ms", "--wait-first", "-t", "1", "echo", "late").is_(out="late\n")
    assert time.monotonic() - begin >= 0.4
    rpr("i", "-e", "1h", "-n", "-t", "1", "echo", "now").is_(out="now\n")


def test_duration_ends_when_its_time_is_over(rpr: Rpr) -> None:
    begin = time.monotonic()
    done = rpr("duration", "--for", "1s", "--every", "300ms", "--", "echo", "x")
    assert 1 <= time.monotonic() - begin < 3
    assert (done.out, done.code) == ("x\n" * 4, 0)


def test_duration_without_an_interval_runs_back_to_back(rpr: Rpr) -> None:
    done = rpr("d", "-f", "300ms", "--", "echo", "x")
    assert done.code == 0
    assert done.out.count("x\n") >= 3


def test_the_end_of_the_time_does_not_cut_a_live_run(rpr: Rpr) -> None:
    rpr("d", "-f", "200ms", "--", "sh", "-c", "sleep 0.5; echo whole").is_(out="whole\n")


def test_kill_at_end_cuts_a_live_run(rpr: Rpr) -> None:
    begin = time.monotonic()
    rpr("d", "-f", "300ms", "--kill-at-end", "--", "sleep", "60").is_()
    assert time.monotonic() - begin < 10


def test_until_takes_an_instant_and_a_time_of_day(rpr: Rpr) -> None:
    rpr("d", "-u", "2020-01-01", "--", "echo", "x").is_()
    assert 'until = "2020-01-01T00:00:00Z"' in rpr("d", "-u", "2020-01-01", "--as-job", "--", "x").out
    assert ':30:00Z"' in rpr("d", "-u", "18:30", "--as-job", "--", "x").out


def test_cron_waits_for_its_time(rpr: Rpr) -> None:
    rpr("cron", "--cron", "0 0 1 1 *", "-f", "300ms", "--", "echo", "x").is_()
    done = rpr("cr", "--cron", "0 9 * * 1-5", "--tz", "America/New_York", "--dry-run", "--", "./report.sh")
    assert done.out.startswith("would run: ./report.sh\n")
    assert done.out.count("09:00:00 -0") == 5


def test_a_wrong_expression_or_zone_is_named(rpr: Rpr) -> None:
    bad = rpr("cron", "--cron", "0 25 * * *", "--", "true")
    assert bad.code == 2
    assert bad.err.startswith("rpr: cannot use `--cron 0 25 * * *`: ")
    bad = rpr("cron", "--cron", "@daily", "--timezone", "Europe/Berlyn", "--", "true")
    assert bad.code == 2
    assert "cannot use `--timezone Europe/Berlyn`: " in bad.err


STRATEGIES = {
    "exponential": ["--base-delay", "1ms", "--multiplier", "2"],
    "fibonacci": ["--base-delay", "1ms"],
    "linear": ["--base-delay", "1ms", "--increment", "1ms"],
    "polynomial": ["--base-delay", "1ms", "--exponent", "1.5"],
    "decorrelated-jitter": ["--base-delay", "1ms", "--multiplier", "3"],
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_stops_at_the_first_success(rpr: Rpr, name: str) -> None:
    script = "echo x >>log; [ $(wc -l <log) -ge 3 ]"
    rpr(name, *STRATEGIES[name], "--max-delay", "20ms", "-a", "9", "--", "sh", "-c", script).is_()
    assert len(lines(rpr.folder, "log")) == 3


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("sleep 60", 124)])
def test_a_strategy_without_a_success_ends_with_the_status_of_its_last_run(rpr: Rpr, script: str, code: int) -> None:
    done = rpr("exp", "--base-delay", "1ms", "-a", "2", "-T", "200ms", "--", "sh", "-c", f"echo x >>log; {script}")
    assert (done.out, done.code) == ("", code)
    assert len(lines(rpr.folder, "log")) == 2


def test_a_missing_command_gives_127_and_one_not_executable_gives_126(rpr: Rpr) -> None:
    rpr("c", "-t", "1", "--", "no-such-command").is_(
        err="rpr: cannot start `no-such-command`: No such file or directory on the PATH\n", code=127
    )
    rpr.write("plain", "text")
    assert rpr("exp", "-a", "1", "--", "./plain").code == 126
    assert rpr("c", "-t", "1", "--", "echo hi").err.endswith("\nhint: use `--shell` to run it with a shell\n")


def test_watch_runs_on_change(rpr: Rpr) -> None:
    rpr.write("a.txt", "1")
    process = rpr.start("watch", "--debounce", "50ms", "*.txt", "-t", "1", "--ignore", "b*", "--", "echo", "changed")
    end = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < end:
        rpr.write("a.txt", str(time.monotonic()))
        time.sleep(0.2)
    out, err = process.communicate(timeout=20)
    assert (out, err, process.returncode) == ("changed\n", "", 0)


# --- when to stop, and the exit status ----------------------------------------------------------------------------


def test_any_failure_gives_1_and_the_runs_continue(rpr: Rpr) -> None:
    done = rpr("c", "-t", "4", "-k", "--", "sh", "-c", "echo x >>log; [ $(wc -l <log) -ne 2 ]")
    done.is_(code=1)
    assert len(lines(rpr.folder, "log")) == 4


def test_fail_fast_stops_at_the_first_failure(rpr: Rpr) -> None:
    rpr("c", "-t", "4", "--fail-fast", "--", "sh", "-c", "echo x; exit 3").is_(out="x\n", code=1)


def test_max_failures_counts_failures_in_a_row(rpr: Rpr) -> None:
    script = "echo x >>log; [ $(wc -l <log) -eq 2 ]"
    rpr("i", "-e", "10ms", "--max-failures", "3", "--", "sh", "-c", script).is_(code=1)
    assert len(lines(rpr.folder, "log")) == 5


def test_until_success_is_a_goal(rpr: Rpr) -> None:
    script = "echo x >>log; [ $(wc -l <log) -eq 3 ]"
    rpr("i", "-e", "10ms", "--until-success", "--", "sh", "-c", script).is_()
    rpr("c", "-t", "2", "--until-success", "--", "false").is_(code=3)


def test_until_failure_is_a_goal(rpr: Rpr) -> None:
    rpr("c", "-t", "9", "--until-failure", "--", "sh", "-c", "echo x; exit 1").is_(out="x\n")
    rpr("c", "-t", "2", "--until-failure", "--", "true").is_(code=3)


def test_patterns_decide_what_success_is(rpr: Rpr) -> None:
    rpr("c", "-t", "1", "--success-pattern", "all .ood", "--", "sh", "-c", "echo all good; exit 1").is_(
        out="all good\n"
    )
    rpr("c", "-t", "1", "--failure-pattern", "ERROR", "--", "echo", "an error").is_(out="an error\n")
    rpr("c", "-t", "1", "--failure-pattern", "ERROR", "--case-insensitive", "--", "echo", "an error").is_(
        out="an error\n", code=1
    )


def test_a_run_that_takes_too_long_is_ended(rpr: Rpr) -> None:
    rpr("c", "-t", "1", "--timeout", "200ms", "--", "sleep", "60").is_(err="rpr: timed out after 200ms\n", code=1)


def test_kill_timeout_is_the_time_between_term_and_kill(rpr: Rpr) -> None:
    begin = time.monotonic()
    script = "trap '' TERM; while :; do sleep 0.05; done"
    done = rpr("c", "-t", "1", "-T", "100ms", "--kill-timeout", "200ms", "--", "sh", "-c", script)
    assert done.code == 1
    assert time.monotonic() - begin < 8


# --- the process --------------------------------------------------------------------------------------------------


def test_a_removed_folder_is_refused_as_working_folder(rpr: Rpr) -> None:
    def run(*words: str) -> tuple[str, int]:
        line = 'mkdir gone; cd gone; rmdir ../gone; exec "$@"'
        done = subprocess.run(
            ["sh", "-c", line, "sh", RPR, *words],
            cwd=rpr.folder,
            env=rpr.env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout + done.stderr, done.returncode

    words = "rpr: cannot run in the current directory: No such file or directory\nhint: choose another directory with `-C DIR`\n"
    assert run("c", "-t", "1", "--", "pwd") == (words, 2)
    assert run("c", "-t", "1", "-C", "/", "--", "pwd") == ("/\n", 0)


def test_working_dir_env_and_shell(rpr: Rpr) -> None:
    (rpr.folder / "sub").mkdir()
    rpr(
        "c", "-t", "1", "-C", "sub", "--env", "A=1", "--env", "B=x=y", "--shell", "--", "echo $A $B; basename $PWD"
    ).is_(out="1 x=y\nsub\n")


def test_nothing_of_the_command_is_a_template_or_read_by_a_shell(rpr: Rpr) -> None:
    odd = ["{{ vars.x }}", "$HOME", "a b", "", "*", "{% if %}", "--", "-q", "ä\n"]
    done = rpr("c", "-t", "1", "--", "printf", "<%s>", *odd)
    done.is_(out="".join(f"<{one}>" for one in odd))


def test_standard_input_is_empty_unless_asked_for(rpr: Rpr) -> None:
    rpr("c", "-t", "2", "--", "cat", stdin="hello\n").is_()
    rpr("c", "-t", "2", "--stdin", "--", "head", "-c3", stdin="abcdefgh").is_(out="abcdef")
    rpr("c", "-t", "2", "--stdin", "--aggregate", "--", "cat", stdin="hello\n").is_(out="hello\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_run_has_its_three_streams_even_if_those_of_rpr_are_closed(rpr: Rpr, closed: str) -> None:
    script = "cat; echo out && echo err >&2 && echo fine >>kept"
    shell = f'exec "{RPR}" count -t 2 -- sh -c "{script}" {closed}'
    done = subprocess.run(["sh", "-c", shell], env=rpr.env, cwd=rpr.folder, capture_output=True)
    assert done.returncode == 0
    assert (rpr.folder / "kept").read_text() == "fine\nfine\n"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="nowhere to see descriptors")
@pytest.mark.parametrize("where", [".", "sub"])
def test_a_run_gets_no_descriptor_that_rpr_was_given(rpr: Rpr, where: str) -> None:
    (rpr.folder / "sub").mkdir()
    reading, writing = os.pipe()
    ours = str(Path(f"/proc/self/fd/{reading}").readlink())
    try:
        done = subprocess.run(
            [RPR, "c", "-t", "1", "-C", where, "--", "sh", "-c", "readlink /proc/$$/fd/*"], cwd=rpr.folder, env=rpr.env,
            pass_fds=(reading, writing), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    finally:
        os.close(reading)
        os.close(writing)
    assert "/dev/null" in done.stdout
    assert ours not in done.stdout


# --- output -------------------------------------------------------------------------------------------------------

BINARY = bytes(range(256)) * 500  # more than a pipe holds, no newline at its end


@pytest.mark.parametrize("mode", ["--stream", "--aggregate", "--interleave"])
def test_output_is_byte_exact(rpr: Rpr, mode: str) -> None:
    rpr.write("data", BINARY)
    more = [mode, "-p1"] if mode == "--interleave" else [mode]
    done = subprocess.run(
        [RPR, "c", "-t", "5", *more, "--", "cat", "data"], cwd=rpr.folder, env=rpr.env, capture_output=True, timeout=60
    )
    assert (done.stdout == BINARY * 5, done.stderr, done.returncode) == (True, b"", 0)


@pytest.mark.parametrize("mode", ["-s", "--aggregate"])
def test_each_stream_stays_itself_and_in_order(rpr: Rpr, mode: str) -> None:
    script = "for i in 1 2 3; do echo o$i; echo e$i >&2; done"
    rpr("c", "-t", "2", mode, "--", "sh", "-c", script).is_(out="o1\no2\no3\n" * 2, err="e1\ne2\ne3\n" * 2)


def test_quiet_shows_nothing_of_the_command(rpr: Rpr) -> None:
    for flag in ("-q", "--quiet", "--suppress"):
        rpr("c", "-t", "2", flag, "--", "sh", "-c", "echo o; echo e >&2").is_()


def test_stats_only_shows_the_counts_on_standard_output(rpr: Rpr) -> None:
    done = rpr("c", "-t", "3", "--stats-only", "--", "sh", "-c", "echo x | tee -a log; [ $(wc -l <log) -ne 2 ]")
    assert (done.err, done.code) == ("", 1)
    assert done.out.startswith("runs: 3\nsucceeded: 2\nfailed: 1\ntook: ")
    figures = dict(line.split(": ") for line in done.out.splitlines())
    assert (figures["planned"], figures["skipped"], "average interval" in figures) == ("3", "0", True)


def test_verbose_reports_starts_ends_and_counts_on_standard_error(rpr: Rpr) -> None:
    done = rpr("c", "-t", "2", "-v", "--", "echo", "x")
    assert (done.out, done.code) == ("x\nx\n", 0)
    assert done.err.count("rpr: started, pid ") == 2
    assert done.err.count("rpr: succeeded\n") == 2
    assert "rpr: runs: 2\n" in done.err


def test_parallel_runs_overlap_and_the_output_of_each_is_whole(rpr: Rpr) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do echo $0-$$; sleep 0.02; done"
    begin = time.monotonic()
    done = rpr("c", "-t", "8", "--parallel", "4", "--", "sh", "-c", script, "run")
    assert time.monotonic() - begin < 8 * 8 * 0.02
    blocks = [done.out.splitlines()[number : number + 8] for number in range(0, 64, 8)]
    assert all(len(set(block)) == 1 for block in blocks)
    assert len({block[0] for block in blocks}) == 8


def test_interleave_streams_parallel_runs(rpr: Rpr) -> None:
    script = "for i in 1 2 3 4 5; do echo $$; sleep 0.1; done"
    done = rpr("c", "-t", "2", "-p", "2", "--interleave", "--", "sh", "-c", script)
    one, two = dict.fromkeys(done.out.split())
    assert sorted(done.out.split()) == sorted([one] * 5 + [two] * 5)
    assert done.out.split() != [one] * 5 + [two] * 5


def test_output_file_takes_the_output_instead_of_the_console(rpr: Rpr) -> None:
    rpr("c", "-t", "2", "-o", "out.txt", "--", "sh", "-c", "echo o; echo e >&2").is_()
    rpr("c", "-t", "1", "-o", "out.txt", "--stream", "--", "echo", "o").is_(out="o\n")
    rpr("c", "-t", "2", "-p", "2", "-o", "parallel.txt", "--", "echo", "p").is_()
    assert lines(rpr.folder, "parallel.txt") == ["p", "p"]
    assert sorted(lines(rpr.folder, "out.txt")) == ["e", "e", "o", "o", "o"]


def test_a_file_that_cannot_be_written_is_reported_before_anything_runs(rpr: Rpr) -> None:
    rpr("c", "-t", "1", "-o", ".", "--", "touch", "ran").is_(
        err=f"rpr: cannot write `{rpr.folder}`: Is a directory\n", code=2
    )
    assert not (rpr.folder / "ran").exists()


def test_log_file_takes_what_happened(rpr: Rpr) -> None:
    rpr("c", "-t", "1", "--log-file", "log", "--", "false").is_(code=1)
    text = (rpr.folder / "log").read_text()
    assert "Z false: started, pid " in text
    assert "Z false: failed: exit 1\n" in text
    bad = rpr("c", "-t", "1", "--log-file", "no/such/log", "--", "true")
    bad.is_(err="rpr: cannot write `no/such/log`: No such file or directory\n", code=2)


def test_timestamps_begin_every_line(rpr: Rpr) -> None:
    done = rpr("c", "-t", "2", "--timestamps", "--", "printf", "a\\nb")
    texts = [line.split("Z ", 1) for line in done.out.splitlines()]
    assert [text for _, text in texts] == ["a", "b", "a", "b"]
    assert all(stamp.startswith("20") for stamp, _ in texts)


@pytest.mark.parametrize("mode", [[], ["--aggregate"]])
def test_a_reader_that_closes_its_pipe_ends_the_runs_quietly(rpr: Rpr, mode: list[str]) -> None:
    done = subprocess.run(
        ["bash", "-c", '"$0" "$@" | head -1; exit ${PIPESTATUS[0]}', RPR, "i", "-e", "10ms", *mode, "--", "echo", "hi"],
        cwd=rpr.folder, env=rpr.env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("hi\n", "", 141)


def test_a_waiting_run_is_ended_when_its_reader_closes_the_pipe(rpr: Rpr) -> None:
    begin = time.monotonic()
    script = '"$0" c -t 1 -- sh -c "echo hi; sleep 60" | head -1; exit ${PIPESTATUS[0]}'
    done = subprocess.run(
        ["bash", "-c", script, RPR], cwd=rpr.folder, env=rpr.env, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr, done.returncode) == ("hi\n", "", 141)
    assert time.monotonic() - begin < 20


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.01)


def held(process: subprocess.Popen[bytes]) -> int:
    """How many bytes of output are in the pipe."""
    assert process.stdout is not None
    count = array.array("i", [0])
    fcntl.ioctl(process.stdout, termios.FIONREAD, count)
    return count[0]


def unread(rpr: Rpr, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [RPR, *words], cwd=rpr.folder, env=rpr.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["--aggregate", "--stream"])
def test_a_reader_that_takes_its_time_gets_everything(rpr: Rpr, mode: str) -> None:
    words = ["c", "-t", "3", mode, "--success-pattern", "x", "--", "sh", "-c", "head -c 3M /dev/zero; echo >>log"]
    process = unread(rpr, *words)
    if mode == "--aggregate":
        wait_for(rpr.folder / "log", size=3)  # all runs are over, and nothing is written but what the pipe holds
    time.sleep(2.5)  # longer than anybody else waits at the end
    out, err = process.communicate(timeout=60)
    assert (len(out), err, process.returncode) == (3 * 3 * 2**20, b"", 0)


@pytest.mark.slow
def test_runs_wait_for_a_slow_reader_instead_of_piling_up(rpr: Rpr) -> None:
    process = unread(
        rpr, "c", "-t", "500", "--failure-pattern", "x", "--", "sh", "-c", "head -c 60K /dev/zero; echo >>log"
    )
    wait_for(rpr.folder / "log")
    time.sleep(1)
    begun = len((rpr.folder / "log").read_text())
    out, err = process.communicate(timeout=60)
    assert (len(out), err, process.returncode) == (500 * 60 * 1024, b"", 0)
    assert begun < 500


def test_a_full_disk_is_not_mistaken_for_a_closed_pipe(rpr: Rpr) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [RPR, "c", "-t", "3", "--aggregate", "--", "echo", "x"], cwd=rpr.folder, env=rpr.env, stdout=full,
            stderr=subprocess.PIPE, timeout=60,
        )  # fmt: skip
    assert (done.stderr, done.returncode) == (b"rpr: cannot write standard output: No space left on device\n", 1)


def test_ctrl_c_does_not_wait_for_a_slow_reader(rpr: Rpr) -> None:
    process = unread(rpr, "c", "-t", "1", "--aggregate", "--", "sh", "-c", "head -c 3M /dev/zero; echo >>log")
    wait_for(rpr.folder / "log")
    until(lambda: held(process) >= 4096, "the output that the pipe holds")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    process.communicate(timeout=20)


# --- signals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_first_signal_ends_the_run_and_rpr(rpr: Rpr, number: int, code: int) -> None:
    script = "trap 'echo asked >>log; exit 0' TERM; echo up >>log; while :; do sleep 0.02; done"
    process = rpr.start("i", "-e", "1h", "--", "sh", "-c", script)
    wait_for(rpr.folder / "log")
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (out, process.returncode) == ("", code)
    assert "rpr" not in err  # a shell may say that it lost a child
    assert lines(rpr.folder, "log") == ["up", "asked"]


def test_a_signal_between_runs_ends_rpr_at_once(rpr: Rpr) -> None:
    process = rpr.start("i", "-e", "1h", "--", "sh", "-c", "echo x >log")
    wait_for(rpr.folder / "log")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: not children.read_text(), "the end of the run")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 130


def test_the_second_signal_kills_what_ignores_the_first_and_its_children(rpr: Rpr) -> None:
    script = (
        "trap 'echo asked >>log' TERM INT; (trap '' TERM; setsid sleep 60) & echo up >log; while :; do sleep 0.02; done"
    )
    process = rpr.start("c", "-t", "1", "--", "bash", "-c", script)
    wait_for(rpr.folder / "log")
    process.send_signal(signal.SIGINT)
    wait_for(rpr.folder / "log", size=len("up\nasked\n"))
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130


def test_a_background_child_does_not_outlive_rpr(rpr: Rpr) -> None:
    rpr("c", "-t", "1", "--", "sh", "-c", "sleep 60 & echo $! >pid").is_()
    pid = int((rpr.folder / "pid").read_text())
    stat = Path(f"/proc/{pid}/stat")
    assert not stat.exists() or ") Z " in stat.read_text()  # process 1 may be slow to bury it


# --- what is wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["i", "-e", "5", "--", "x"], "cannot use `--every 5`: found `5`, expected a duration like `30s`, `1h30m`, `500ms` or `2d`"),
        (["i", "--", "x"], "cannot run `rpr interval`: missing `--every DURATION`"),
        (["c", "--", "x"], "cannot run `rpr count`: missing `--times N`"),
        (["c", "-t", "five", "--", "x"], "cannot use `--times five`: found `five`, expected a whole number of at least 1"),
        (["c", "-t", "0", "--", "x"], "cannot use `--times 0`: found `0`, expected a whole number of at least 1"),
        (["c", "-t", "1"], "cannot run `rpr count`: no command given"),
        (["c", "-t", "1", "--"], "cannot run `rpr count`: no command given"),
        (["c", "-t"], "cannot run `rpr count`: `-t` needs a value: `-t N`"),
        (["c", "--quiet=1", "-t1", "x"], "cannot run `rpr count`: `--quiet` takes no value, found `1`"),
        (["d", "--", "x"], "cannot run `rpr duration`: missing `--for DURATION` or `--until TIME`"),
        (["w", "--", "x"], "cannot run `rpr watch`: no files to watch given"),
        (["rl", "--", "x"], "cannot run `rpr rate-limit`: missing `--rate N/DURATION`, or `--limit` and `--window`"),
        (["c", "-t", "1", "--env", "A", "--", "x"], "cannot use `--env A`: expected `NAME=VALUE`"),
        (["c", "-t", "1", "--aggregate", "-q", "--", "x"], "cannot use `--quiet` together with `--aggregate`"),
        (["c", "-t", "1", "-t", "2", "--", "x"], "cannot use `--times` twice, with `1` and `2`"),
        (["d", "-u", "25:99", "x"], "cannot use `--until 25:99`: "),
        (["d", "-u", "soon", "x"], "cannot use `--until soon`: "),
        (["i", "-e", "1s", "-j", "2s", "--", "x"], "cannot use `--jitter 2s`: found `2s`, expected less than `every`, `1s`"),
        (["c", "-t", "1", "--success-pattern", "(", "--", "x"], "cannot use `--success-pattern (`: "),
    ],
)  # fmt: skip
def test_a_wrong_value_is_reported_as_in_a_job_file_but_names_the_option(
    rpr: Rpr, words: list[str], message: str
) -> None:
    done = rpr(*words)
    assert (done.out, done.code) == ("", 2)
    first = done.err.splitlines()[0]
    assert first == f"rpr: {message}" or (message.endswith(": ") and first.startswith(f"rpr: {message}"))


def test_all_problems_are_reported_at_once(rpr: Rpr) -> None:
    done = rpr("i", "-e", "x", "-T", "y", "--", "true")
    assert [line[:24] for line in done.err.splitlines()] == ["rpr: cannot use `--every", "rpr: cannot use `--timeo"]


def test_unknown_options_and_commands_name_the_nearest(rpr: Rpr) -> None:
    rpr("c", "--tmies", "3", "x").is_(
        err="rpr: cannot run `rpr count`: unknown option `--tmies`\nhint: did you mean `--times`?\n", code=2
    )
    assert "did you mean `rpr interval`?" in rpr("intervall").err


def test_common_options_are_accepted_before_the_name_of_the_command(rpr: Rpr) -> None:
    rpr.write("c.toml", '[scheduling]\ndefault_interval = "10ms"\n')
    rpr("--config", "c.toml", "--timeout=5s", "i", "-t", "2", "--", "echo", "x").is_(out="x\nx\n")
    rpr("-q", "c", "-t", "1", "--", "echo", "x").is_()
    rpr("--quiet", "validat").is_(
        err="rpr: cannot run `rpr`: unknown option `--quiet`\nhint: see `rpr --help`\n", code=2
    )


# --- history ------------------------------------------------------------------------------------------------------


def history(rpr: Rpr, name: str) -> list[tuple[str, int | None, int]]:
    """What is kept of the runs, oldest first: outcome, exit code, generation."""
    rows = [json.loads(line) for line in rpr("history", "--project", f"one-off/{name}", "--json").out.splitlines()]
    return [(row["outcome"], row["exit"], row["generation"]) for row in reversed(rows)]


def test_history_keeps_the_results_of_the_runs(rpr: Rpr) -> None:
    rpr("c", "-t", "2", "--history", "--", "sh", "-c", "echo out; exit 3").is_(out="out\nout\n", code=1)
    rpr("c", "-t", "1", "--", "sh", "-c", "exit 4").is_(code=1)
    rpr("exp", "--base-delay", "1ms", "-a", "9", "--history", "--", "sh", "-c", "exit 0").is_()
    assert history(rpr, "sh") == [("failed", 3, 1), ("failed", 3, 1), ("success", 0, 2)]


def test_a_history_has_one_rpr_at_a_time_and_shows_interrupted_runs(rpr: Rpr) -> None:
    words = ["--history", "--name", "slow", "--", "sh", "-c", "echo $$ >>log; sleep 60"]
    process = rpr.start("i", "-e", "1h", *words)
    wait_for(rpr.folder / "log")
    rpr("c", "-t", "1", *words).is_(
        err=f"rpr: cannot record the history of `slow`: process {process.pid} is recording it\n"
        "hint: choose another name with `--name`, or run without `--history`\n",
        code=5,
    )
    assert history(rpr, "slow") == [("running", None, 1)]
    process.kill()
    process.wait(20)
    os.killpg(int(lines(rpr.folder, "log")[0]), signal.SIGKILL)  # nobody is left to end its run
    rpr("c", "-t", "1", "--history", "--name", "slow", "--", "true").is_()
    assert history(rpr, "slow") == [("interrupted", None, 1), ("success", 0, 2)]
    process.communicate(timeout=20)


# --- without running ----------------------------------------------------------------------------------------------


def test_dry_run_and_as_job_do_nothing(rpr: Rpr) -> None:
    for flag in ("--dry-run", "--as-job"):
        assert rpr("c", "-t", "3", "-o", "out", "--log-file", "log", flag, "--", "touch", "it").code == 0
    assert [path.name for path in rpr.folder.iterdir()] == []


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["c", "-t", "3"], ["first run: now", "then: one run after another, without a pause", "ends: after 3 runs"]),
        (["i", "-e", "1h", "-t", "1"], ["first run: now", "ends: after 1 run"]),
        (["exp", "-a", "9", "--max-delay", "6s"],
         ["first run: now", "then: after delays of 1s, 2s, 4s, 6s, 6s …", "ends: after 9 runs, or at the first success"]),
        (["fib", "-a", "4", "-j", "full"],
         ["first run: now", "then: after random delays of at most 1s, 1s, 2s",
          "ends: after 4 runs, or at the first success"]),
        (["dj", "--multiplier", "5"], ["first run: now", "then: after growing random delays, at most 1m",
                  "ends: after 3 runs, or at the first success"]),
        (["r", "-r", "3/1s", "--fail-fast"],
         ["first run: now", "x  TIMEZ  TIME +00:00  (at once)", "   then as often as 3/1s allows",
          "ends: at the first failure"]),
        (["w", "*.c", "--max-failures", "2"], ["x  when files change: *.c", "ends: after 2 consecutive failures"]),
    ],
)  # fmt: skip
def test_dry_run_shows_when_it_would_run_and_end(rpr: Rpr, words: list[str], lines: list[str]) -> None:
    done = rpr(*words, "--dry-run", "--", "x")
    assert (done.code, done.err) == (0, "")
    assert re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", done.out).splitlines() == ["would run: x", *lines]


def test_dry_run_lists_no_start_behind_the_end(rpr: Rpr) -> None:
    assert rpr("c", "-t", "3", "-e", "1s", "--dry-run", "--", "x").out.count(":") == 3 + 2 * 5
    assert rpr("d", "-f", "3s", "-e", "1s", "--dry-run", "--", "x").out.count("Z  ") == 2


@pytest.mark.parametrize(("name", "ok"), [("nightly", True), ("a b", False), ("", False), ("-x", False)])
def test_the_name_option_names_the_job_if_it_is_valid(rpr: Rpr, name: str, ok: bool) -> None:
    done = rpr("c", "-t", "1", f"--name={name}", "--as-job", "--", "./poll.sh")
    assert done.code == (0 if ok else 2)
    assert ("[jobs.nightly]" in done.out) if ok else done.err.startswith(f"rpr: cannot use `--name {name}`: expected ")


def test_as_job_prints_a_job_file_that_does_the_same(rpr: Rpr) -> None:
    words = ["c", "-t", "2", "--env", "A={{ x }}", "-T", "5s", "--as-job", "--", "sh", "-c", 'echo "$A {% y %}" >>log']
    rpr.write("jobs.toml", rpr(*words).out)
    assert rpr("apply", "jobs.toml", "--ephemeral", "--no-watch").code == 0
    assert (rpr.folder / "log").read_text() == "{{ x }} {% y %}\n" * 2


def test_as_job_refuses_what_no_file_can_hold(rpr: Rpr) -> None:
    done = subprocess.run(
        [RPR, "c", "-t", "1", "--as-job", "--", "echo", b"\xff"], cwd=rpr.folder, env=rpr.env, capture_output=True
    )
    assert (done.stdout, done.returncode) == (b"", 2)
    assert done.stderr == b"rpr: cannot write a job file: the command contains bytes that are not valid UTF-8\n"


def test_bytes_that_are_not_text_reach_the_command(rpr: Rpr) -> None:
    done = subprocess.run(
        [RPR, "c", "-t", "1", "--", "printf", "%s", b"\xff\xfe"], cwd=rpr.folder, env=rpr.env, capture_output=True
    )
    assert (done.stdout, done.stderr) == (b"\xff\xfe", b"")


# --- settings -----------------------------------------------------------------------------------------------------


def test_settings_rank_below_the_flags(rpr: Rpr) -> None:
    rpr.write(
        ".config/repeater/config.toml", '[defaults]\ntimeout = "200ms"\n[scheduling]\ndefault_interval = "10ms"\n'
    )
    rpr("i", "-t", "2", "--", "echo", "x").is_(out="x\nx\n")
    rpr("c", "-t", "1", "--", "sleep", "60").is_(err="rpr: timed out after 200ms\n", code=1)
    rpr("c", "-t", "1", "--", "sleep", "60", env={"RPR_TIMEOUT": "100ms"}).is_(
        err="rpr: timed out after 100ms\n", code=1
    )
    rpr("c", "-t", "1", "-T", "150ms", "--", "sleep", "60", env={"RPR_TIMEOUT": "100ms"}).is_(
        err="rpr: timed out after 150ms\n", code=1
    )


def test_a_flag_can_remove_the_time_limit(rpr: Rpr) -> None:
    for words, env in (["-T", "0s"], {"RPR_TIMEOUT": "9s"}), ([], {"RPR_TIMEOUT": "0s"}):
        assert "timeout" not in rpr("c", "-t", "1", *words, "--as-job", "--", "x", env=env).out


def test_max_retries_is_the_number_of_attempts(rpr: Rpr) -> None:
    rpr("exp", "--base-delay", "1ms", "--", "sh", "-c", "echo x; exit 1", env={"RPR_MAX_RETRIES": "2"}).is_(
        out="x\nx\n", code=1
    )


def test_debug_is_verbose(rpr: Rpr) -> None:
    assert "started, pid" in rpr("c", "-t", "1", "--", "true", env={"RPR_LOG_LEVEL": "debug"}).err


def test_config_shows_every_setting_with_its_origin(rpr: Rpr) -> None:
    path = rpr.write(
        "mine.toml", "[defaults]\nmax_retries = 5\n[observability]\nmetrics_enabled = true\n[plugins.x]\ny = 1"
    )
    done = rpr("config", "--config", "mine.toml", env={"RPR_TIMEOUT": "9s", "PATIENCE_DAEMON_SOCKET": "/s"})
    found = {name: rest for name, *rest in (line.split() for line in done.out.splitlines())}
    assert found["timeout"] == ["9s", "RPR_TIMEOUT"]
    assert found["max_retries"] == ["5", "mine.toml"]
    assert found["metrics_enabled"] == ["true", "mine.toml"]
    assert found["daemon_socket"] == ["/s", "PATIENCE_DAEMON_SOCKET"]
    assert found["kill_timeout"] == ["10s", "default"]
    assert str(path) in rpr("config", "--json", env={"RPR_CONFIG": str(path)}).out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[defaults]\ntimeout = 5\n", "rpr: cannot use `defaults.timeout` in `c.toml`: found `5`, expected "),
        ("[defaults]\ntimeuot = '5s'\n", "rpr: cannot use `c.toml`: unknown key `defaults.timeuot`, did you mean `timeout`?"),
        ("[default]\n", "rpr: cannot use `c.toml`: unknown section `default`, did you mean `defaults`?"),
        ("x", "rpr: cannot read `c.toml`: "),
        ("[observability]\nmetrics_port = 70000\n", "rpr: cannot use `observability.metrics_port` in `c.toml`: found `70000`"),
        ("[defaults]\nlog_level = 'loud'\n", "rpr: cannot use `defaults.log_level` in `c.toml`: found `loud`"),
        ("[scheduling]\njitter_percent = 101\n", "rpr: cannot use `scheduling.jitter_percent` in `c.toml`: found `101`"),
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_fatal_and_named(rpr: Rpr, text: str, message: str) -> None:
    rpr.write("c.toml", text)
    done = rpr("c", "-t", "1", "--config", "c.toml", "--", "echo", "x")
    assert (done.out, done.code) == ("", 2)
    assert done.err.startswith(message)


def test_a_configuration_that_was_asked_for_must_be_there(rpr: Rpr) -> None:
    rpr("c", "-t", "1", "--", "true", env={"RPR_CONFIG": "gone.toml"}).is_(
        err="rpr: cannot read `gone.toml`: the file does not exist\n", code=2
    )


@pytest.mark.parametrize(
    ("words", "code", "runs"),
    [
        ([], 3, 4),
        (["--retry-on", "3"], 3, 4),
        (["--retry-on", "4, 5"], 3, 1),
        (["--give-up-on", "3"], 3, 1),
        (["--give-up-on", "4"], 3, 4),
        ([], 127, 1),
        ([], 130, 1),
        (["--retry-on", "127"], 127, 4),
        (["--retry-on", "127"], 130, 1),
    ],
)
def test_a_strategy_retries_after_the_exit_codes_that_were_given(
    rpr: Rpr, words: list[str], code: int, runs: int
) -> None:
    done = rpr("exp", "--base-delay", "1ms", "-a", "4", *words, "--", "sh", "-c", f"echo run; exit {code}")
    assert done.out == "run\n" * runs
    assert done.code == code


def test_a_strategy_tries_a_program_that_does_not_exist_once(rpr: Rpr) -> None:
    done = rpr("fib", "--base-delay", "1ms", "-a", "4", "--", "no-such-program")
    assert (done.code, done.err.count("no-such-program")) == (127, 1)


def test_a_strategy_does_not_retry_what_the_user_interrupted(rpr: Rpr) -> None:
    done = rpr("lin", "--base-delay", "1ms", "-a", "4", "--", "sh", "-c", "echo run; kill -INT $$")
    assert (done.code, done.out) == (130, "run\n")


def test_exit_codes_of_a_strategy_that_make_no_sense_are_refused(rpr: Rpr) -> None:
    both = rpr("dj", "--retry-on", "3,4", "--give-up-on", "4", "--", "true")
    both.is_(err="rpr: cannot use exit code 4 with `--retry-on` and with `--give-up-on`\n", code=2)
    for words in (["--retry-on", "x"], ["--give-up-on", "256"], ["--give-up-on", ""]):
        bad = rpr("dj", *words, "--", "true")
        assert bad.code == 2
        assert f"cannot use `{words[0]}" in bad.err
