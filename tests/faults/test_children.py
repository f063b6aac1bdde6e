"""P4 and P9: jobs that misbehave, under a real supervisor. When it says that nothing is left, nothing is; what they
wrote is kept as written; what became of them is recorded exactly.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from tests.cli.conftest import RPR
from tests.faults.effects import effectful, mark
from tests.faults.ground import Ground, wait_for


def toml(text: str) -> str:
    """A TOML string; JSON's are all TOML's too."""
    return json.dumps(text)


def job(name: str, command: str | list[str], **keys: object) -> str:
    lines = [
        f"{key} = {value if isinstance(value, str) and key in RAW else json.dumps(value)}"
        for key, value in keys.items()
    ]
    return "\n".join([f"[jobs.{name}]", f"command = {json.dumps(command)}", *lines, ""])


RAW = {"schedule", "output", "rlimits", "stop", "matrix", "retry", "success"}

# --- nothing is left ------------------------------------------------------------------------------------------------

DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 100)
        os.execve("/bin/sleep", ["sleep", "300"], {})
    os._exit(0)
time.sleep(300)
"""

UNRULY = {
    "deaf": "trap '' TERM INT HUP; sleep 300 & wait; sleep 300",
    "frozen": "kill -STOP $$; sleep 300",
    "background": "sleep 300 & sleep 300",
    "left_behind": "sleep 300 & exit 0",
    "own_session": "setsid sleep 300 & sleep 300",
    "own_session_deaf": "setsid sh -c 'trap \"\" TERM; sleep 300; sleep 300' & sleep 300",
    "double_fork": "(setsid sh -c 'sleep 300 & sleep 300' &); sleep 300",
    "silent": "exec >/dev/null 2>&1 </dev/null; setsid sleep 300 & sleep 300",
    "forks_on": "while :; do sleep 0.05 & wait $!; done",
    "group_of_jobs": "set -m; sleep 300 & sleep 300 & wait",
}


def unruly(names: list[str]) -> str:
    return "".join(
        job(name, f"{mark('start')}; {UNRULY[name]}", schedule='"always"', stop_timeout="500ms", drain_timeout="500ms")
        for name in names
    )


@pytest.mark.slow
def test_stop_ends_all_processes_of_an_unruly_job_and_down_ends_all_jobs(ground: Ground) -> None:
    names = [name for name in UNRULY if name != "left_behind"]
    ground.apply(unruly(names), "-q")
    wait_for(lambda: {effect.job for effect in ground.effects.starts()} == set(names), "all of them begin")
    stopped, others = names[: len(names) // 2], names[len(names) // 2 :]
    assert ground("stop", *stopped).code == 0
    assert ground.jobs_living() == set(others)
    assert ground.down() == 0
    assert ground.effects.twice() == []


@pytest.mark.slow
def test_background_processes_of_a_job_end_with_its_drain_timeout(ground: Ground) -> None:
    script = f"{mark('start')}; {UNRULY['left_behind']}"
    supervisor = ground.apply(job("left_behind", script, drain_timeout="300ms"), "-q")
    assert supervisor.leaves() == 0
    assert ground.living() == []
    assert ground.row("left_behind")["state"] == "succeeded"


@pytest.mark.slow
def test_a_process_without_environment_and_descriptors_ends_too(ground: Ground) -> None:
    if ground.level() == "A":
        pytest.skip("process level A (no keeper, no cgroup) does not promise this")
    ground.rpr.write("daemon.py", DAEMON)
    ground.apply(job("daemon", [sys.executable, "daemon.py"], schedule='"always"', stop_timeout="500ms"), "-q")
    wait_for(lambda: any(found.command == "sleep 300 " for found in ground.living()), "the daemon is there")
    ground.down()


@pytest.mark.slow
def test_a_job_that_kills_its_parent_does_not_run_twice_and_is_cleaned_up(ground: Ground) -> None:
    """Its parent is the supervisor, or the keeper if there is one; the slot is spent in both cases."""
    killer = effectful("sleep 0.2; kill -KILL $PPID; sleep 0.2")
    jobs = job("killer", killer, schedule='"manual"')
    jobs += job("other", f"{mark('start')}; exec sleep 300", schedule='"always"')
    supervisor = ground.apply(jobs, "-q")
    wait_for(lambda: ground.effects.starts("other"), "the other is there")
    assert ground("trigger", "killer").code == 0
    decided = {"succeeded", "failed", "interrupted"}
    wait_for(lambda: not supervisor.is_there or ground.row("killer")["state"] in decided, "one of both is over")
    if not supervisor.is_there:
        ground.apply(jobs, "-q")
        wait_for(lambda: ground.row("killer")["state"] in decided, "its slot is decided")
    wait_for(lambda: len(ground.effects.starts("other")) == 2, "the other is there again")
    assert [found.job for found in ground.living() if found.job] == ["other"]
    ground.down()
    assert len(ground.effects.starts("killer")) == 1


def test_a_job_that_signals_its_group_and_session_affects_no_other_process(ground: Ground) -> None:
    jobs = job("group", f"{mark('start')}; kill -TERM 0; sleep 300")
    jobs += job("bystander", effectful("sleep 0.5"))
    supervisor = ground.apply(jobs, "-q")
    assert supervisor.leaves() == 1
    assert ground.row("group")["exit"] == -signal.SIGTERM
    assert ground.row("bystander")["exit"] == 0
    assert len(ground.effects.ends("bystander")) == 1


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0, reason="a limit of processes holds for other users only, and only root can be one"
)
def test_a_limited_fork_bomb_affects_no_other_job_and_ends_when_stopped(ground: Ground) -> None:
    bomb = "bomb() { sleep 300 & bomb | bomb & }; bomb; sleep 300"
    jobs = job(
        "bomb", bomb, user="nobody", cwd="/", rlimits="{ nproc = 60 }", schedule='"always"', output='{ mode = "suppress" }',
        stop_timeout="200ms",
    )  # fmt: skip
    jobs += job("tick", effectful("true"), schedule='"every 100ms"')
    ground.apply(jobs, "-q")
    wait_for(lambda: [found.job for found in ground.living()].count("bomb") > 20, "the bomb has gone off")
    count = len(ground.effects.ends("tick"))
    wait_for(lambda: len(ground.effects.ends("tick")) > count + 5, "others run on")
    assert ground("status").code == 0
    ground.down("--now")
    assert ground.effects.twice() == []


# --- what became of them ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_exit_code_and_every_deadly_signal_is_recorded_exactly(ground: Ground) -> None:
    harmless = {"SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGWINCH"}
    deadly = sorted(number for number in signal.Signals if number.name not in harmless)
    numbers = [int(number) for number in deadly]
    jobs = job("code", effectful("(exit {{ matrix.n }})"), matrix=f"{{ n = {[*range(256)]}, max_parallel = 8 }}")
    jobs += job(
        "sig", effectful("ulimit -c 0; kill -{{ matrix.n }} $$"), matrix=f"{{ n = {numbers}, max_parallel = 8 }}"
    )
    ground.apply(jobs, "-q").leaves()
    wanted = {f"code[n={code}]": code for code in range(256)} | {f"sig[n={number}]": -number for number in numbers}
    assert {row["job"]: row["exit"] for row in ground.rows()} == wanted
    assert {effect.job for effect in ground.effects.starts()} == set(wanted)
    assert len(ground.effects.starts()) == len(wanted)
    assert {effect.job for effect in ground.effects.ends()} == {name for name in wanted if name.startswith("code")}


@pytest.mark.slow
def test_every_kind_of_failed_start_is_a_row_with_its_reason(ground: Ground) -> None:
    (ground.folder / "folder").mkdir()
    (ground.folder / "loop").symlink_to("loop")
    for name, text, mode in (
        ("plain", "#!/bin/sh\n", 0o644),
        ("text", "echo hello\n", 0o755),
        ("orphan", "#!/no/such/interpreter\n", 0o755),
        ("cut", "\x7fELF\x02\x01\x01", 0o755),
    ):
        ground.rpr.write(name, text).chmod(mode)
    wanted = {
        "missing": (job("missing", ["no-such-command"]), "No such file or directory"),
        "gone": (job("gone", ["./nothing"]), "No such file or directory"),
        "folder": (job("folder", ["./folder"]), "Permission denied"),
        "plain": (job("plain", ["./plain"]), "Permission denied"),
        "text": (job("text", ["./text"]), "Exec format error"),
        "cut": (job("cut", ["./cut"]), "Exec format error"),
        "orphan": (job("orphan", ["./orphan"]), "`/no/such/interpreter` does not exist"),
        "big": (job("big", ["true", "x" * 200_000]), "Argument list too long"),
        "loop": (job("loop", ["./loop"]), "Too many levels of symbolic links"),
        "long": (job("long", ["./" + "x" * 300]), "File name too long"),
        "below": (job("below", ["./plain/x"]), "Not a directory"),
        "nowhere": (job("nowhere", ["true"], cwd="nowhere"), "cannot enter directory"),
        "inside": (job("inside", ["true"], cwd="plain"), "cannot enter directory"),
        "who": (job("who", ["true"], user="nobody-knows-me"), "there is no such user"),
    }
    jobs = "".join(text for text, _ in wanted.values()) + job("good", effectful("true"), retry="{ attempts = 2 }")
    supervisor = ground.apply(jobs, "-q")
    assert supervisor.leaves() == 1
    rows = {row["job"]: row for row in ground.rows()}
    assert {name: row["state"] for name, row in rows.items()} == {
        **dict.fromkeys(wanted, "spawn_failed"),
        "good": "succeeded",
    }
    for name, (_, reason) in wanted.items():
        assert reason in rows[name]["reason"], name
    assert "Traceback" not in supervisor.err
    assert len(ground.effects.ends("good")) == 1


@pytest.mark.slow
def test_five_thousand_runs_that_end_at_once_cost_nothing_that_stays(ground: Ground) -> None:
    jobs = job("warm", "true") + job(
        "quick", mark("start"), schedule='"every 1ms"', overlap="allow", max_instances=8, stop="{ times = 5000 }"
    )
    supervisor = ground.apply(jobs, "-q", "--keep-alive")
    wait_for(lambda: len(ground.effects.starts("quick")) > 500, "it is going on")
    before = supervisor.holds()
    wait_for(lambda: len(ground.effects.starts("quick")) >= 5000, "all have begun")
    wait_for(lambda: "done" in ground("status", "quick").out, "the job is done")
    after = supervisor.holds()
    assert after.descriptors <= before.descriptors + 2
    assert after.threads <= before.threads
    assert after.zombies == 0
    assert after.memory < before.memory + (64 << 20)
    assert ground("down").code == 0
    assert len(ground.effects.starts("quick")) == 5000
    assert ground.effects.twice() == []


# --- what they wrote ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["stream", "aggregate"])
def test_a_line_of_a_hundred_megabytes_is_kept_whole_with_little_memory(ground: Ground, mode: str) -> None:
    write = "head -c 100000000 /dev/zero | tr '\\0' x"
    output = f'{{ mode = "{mode}", file = "big.log", max_size = "200MB" }}'
    supervisor = ground.apply(job("big", effectful(write), output=output) + WAITS, "-q", **NOWHERE)
    wait_for(lambda: ground.effects.ends("big"), "it has exited")
    wait_for(lambda: (ground.folder / "big.log").stat().st_size >= 100_000_000, "all is in the file")
    peak = supervisor.holds().peak
    assert ground("down").code == 0
    assert (ground.folder / "big.log").stat().st_size == 100_000_000
    assert (ground.folder / "big.log").read_bytes().count(b"x") == 100_000_000
    assert peak < 150 << 20


@pytest.mark.slow
def test_a_gigabyte_of_output_costs_little_memory_and_a_bounded_file(ground: Ground) -> None:
    output = '{ mode = "stream", file = "big.log", max_size = "1MB", backups = 2 }'
    write = "head -c 1000000000 /dev/zero"
    supervisor = ground.apply(job("big", effectful(write), output=output) + WAITS, "-q", **NOWHERE)
    wait_for(lambda: ground.effects.ends("big"), "it has exited")
    peak = supervisor.holds().peak
    assert ground("down").code == 0
    assert ground.row("big")["exit"] == 0
    assert sum(path.stat().st_size for path in ground.folder.glob("big.log*")) <= 3_100_000
    assert peak < 150 << 20


WAITS = '[jobs.waits]\ncommand = ["sleep", "300"]\nschedule = "always"\n'
NOWHERE = {"stdout": subprocess.DEVNULL}

SAYS = {
    "bytes": (
        f"{sys.executable} -c 'import sys; sys.stdout.buffer.write(bytes(range(256)) * 999)'",
        bytes(range(256)) * 999,
    ),
    "no_newline": ("printf abc", b"abc"),
    "zero": ("printf 'a\\0b\\n'", b"a\0b\n"),
    "carriage": ("printf 'one\\rtwo\\r\\n'", b"one\rtwo\r\n"),
    "both": ("printf out; printf err >&2; sleep 0.1; printf end", b"outerrend"),
    "late": ("(sleep 0.3; echo late) & echo early", b"early\nlate\n"),
    "reads": ("cat; echo rc=$?", b"rc=0\n"),
    "closed": ("echo up; exec >&- 2>&-; sleep 0.3; exit 3", b"up\n"),
    "escapes": ("printf '\\033[2J\\007\\n'", b"\x1b[2J\a\n"),
}


@pytest.mark.slow
def test_output_is_stored_byte_for_byte_and_does_not_control_a_terminal(ground: Ground) -> None:
    jobs = "".join(job(name, command, output=f'{{ file = "{name}.log" }}') for name, (command, _) in SAYS.items())
    supervisor = ground.apply(jobs + WAITS, "-q", **NOWHERE)
    supervisor.until_ready()
    wait_for(lambda: len(ground.rows("--outcome", "success", "--outcome", "failed")) == len(SAYS), "all have ended")
    shown = on_a_terminal(ground, "logs", "no_newline", "escapes", "bytes")
    told = [json.loads(line) for line in ground("logs", "--json", "bytes", "escapes").out.splitlines()]
    assert ground.down() in {0, 1}
    written = {name: (ground.folder / f"{name}.log").read_bytes() for name in SAYS}
    written["both"] = b"".join(sorted([written["both"][:3], written["both"][3:6]], reverse=True)) + written["both"][6:]
    assert written == {name: wanted for name, (_, wanted) in SAYS.items()}
    assert ground.row("closed")["exit"] == 3
    assert b"abc" in shown
    assert not set(shown.replace(b"\x1b[", b"")) & {0x00, 0x07, 0x08, 0x1B, 0x7F}  # `ESC [` begins our own colors
    assert b"\x1b[2J" not in shown
    assert {entry["job"] for entry in told} == {"bytes", "escapes"}


def on_a_terminal(ground: Ground, *args: str) -> bytes:
    """What a command shows on a terminal."""
    ours, its = os.openpty()
    with open(ours, "rb", buffering=0) as reader:
        command = subprocess.Popen([RPR, *args], cwd=ground.folder, env=ground.rpr.env, stdin=its, stdout=its)
        os.close(its)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while data := reader.read(65536):
                shown += data
        assert command.wait() == 0
    return shown


@pytest.mark.slow
def test_the_beginning_of_a_line_without_end_is_shown_soon(ground: Ground) -> None:
    supervisor = ground.apply(job("slow", "printf abc; sleep 300", schedule='"always"'), "-q")
    wait_for(lambda: "slow | abc" in supervisor.out, "it is shown")
    assert ground("down").code == 0
