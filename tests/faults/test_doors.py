"""P12: who may not, cannot; what was laid in the way is not followed; what is shown cannot steer who looks.

The ways in are the socket, the lock and the state folder. Of the socket's protocol `tests/unit/control` holds every value of
every argument; here strangers, links, twins and drips meet a real supervisor.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import pwd
import re
import select
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from repeater.control.commands import VERBS
from tests.cli.conftest import RPR
from tests.faults.effects import mark
from tests.faults.ground import Ground, wait_for

TWINS = int(os.environ.get("TWINS", "4"))
"""Pairs that are started in the same instant; `TWINS=50` is the promise, what `make test` has time for proves the same."""
SERVICE = "schedule = 'always'\ncommand = 'exec sleep 600'\n"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")


# --- strangers --------------------------------------------------------------------------------------------------

STRANGER = """
import json, socket, sys
answers = []
for line in sys.stdin.buffer:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    try:
        sock.connect("/proc/self/fd/" + sys.argv[1] + "/ground.sock")
        sock.sendall(line)
    except BrokenPipeError:
        pass
    except OSError as error:
        answers.append(type(error).__name__)
        continue
    told = b""
    try:
        while data := sock.recv(65536):
            told += data
    except OSError:
        pass
    answers.append(told.decode())
    sock.close()
print(json.dumps(answers))
"""


def as_stranger(folder: Path, lines: Sequence[bytes]) -> list[str]:
    """What `nobody` is answered at the socket in `folder`, which is opened before, so that no folder above matters."""
    nobody = pwd.getpwnam("nobody")
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        done = subprocess.run(
            ["/usr/bin/env", "python3", "-c", STRANGER, str(fd)]
            if os.access("/usr/bin/python3", os.X_OK)
            else [sys.executable, "-c", STRANGER, str(fd)],
            input=b"".join(lines),
            stdout=subprocess.PIPE,
            check=True,
            pass_fds=[fd],
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            cwd="/",
            env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
        )
    finally:
        os.close(fd)
    answers: list[str] = json.loads(done.stdout)
    return answers


def request(verb: str) -> bytes:
    return json.dumps({"v": 2, "verb": verb, "args": {}}).encode() + b"\n"


@as_root
def test_another_user_gets_no_answer_from_any_verb_even_past_permissions(ground: Ground) -> None:
    run = ground.apply(f"[jobs.s]\n{SERVICE}")
    run.until_ready()
    folder = ground.socket.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(ground.socket.stat().st_mode) == 0o600
    try:
        assert as_stranger(folder, [request("status")]) == ["PermissionError"]
    except (subprocess.CalledProcessError, json.JSONDecodeError):
        pytest.skip("no Python that `nobody` may run")
    folder.chmod(0o755)
    assert as_stranger(folder, [request("status")]) == ["PermissionError"]
    ground.socket.chmod(0o666)
    answers = as_stranger(folder, [request(verb) for verb in VERBS])
    assert len(answers) == len(VERBS)
    for answer in answers:
        told = json.loads(answer)
        assert told["error"]["code"] == "forbidden"
        assert list(told) == ["error"]
    assert run.is_there
    assert ground.jobs_living() == {"s"}
    assert ground("status").code == 0


@as_root
def test_state_of_another_user_in_a_world_writable_folder_is_not_used(ground: Ground) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    place = ground.folder / "tmp"
    place.mkdir()
    place.chmod(0o1777)
    (place / "state").mkdir()
    os.chown(place / "state", nobody, -1)
    ground.write(f"[jobs.a]\ncommand = {json.dumps(mark('start'))}\n")
    done = ground("apply", "jobs.toml", "--state-dir", "tmp/state")
    assert done.code == 5
    assert f"tmp/state`: it belongs to user {nobody}" in done.err
    assert ground.effects.all() == []
    assert list((place / "state").iterdir()) == []


# --- umask and links --------------------------------------------------------------------------------------------


def test_with_umask_0_everything_is_still_for_its_user_alone(ground: Ground) -> None:
    run = ground.apply(
        f"[jobs.s]\n{SERVICE}[jobs.a]\ncommand = 'echo x'\noutput = {{ file = 'out.log' }}\n",
        umask=0,
    )
    run.until_ready()
    wait_for((ground.folder / "out.log").exists, lambda: run.err)
    ground("history")
    for place in (ground.state, ground.socket.parent):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700, place
        found = [path for path in place.rglob("*") if not path.is_symlink()]
        assert found
        assert {str(path): oct(path.lstat().st_mode) for path in found if path.lstat().st_mode & 0o077} == {}
    assert not stat.S_IMODE((ground.folder / "out.log").stat().st_mode) & 0o022


VICTIM = "what was here before\n"


@pytest.mark.parametrize("name", ["lock", "history.db", "history.db-wal", "marker", "supervisor.log"])
def test_a_link_in_the_state_folder_leads_nowhere(ground: Ground, name: str) -> None:
    from repeater.store import state_dir

    names = {
        "history.db": state_dir.DATABASE,
        "history.db-wal": f"{state_dir.DATABASE}-wal",
        "marker": state_dir.MARKER,
    }
    victim = ground.folder / "victim"
    victim.write_text(VICTIM)
    ground.state.mkdir(parents=True, mode=0o700)
    (ground.state / names.get(name, name)).symlink_to(victim)
    ground.write(f"[jobs.a]\ncommand = {json.dumps(mark('start'))}\n")
    done = ground("apply", "jobs.toml", *(["--detach"] if name == "supervisor.log" else []))
    assert victim.read_text() == VICTIM
    assert "Traceback" not in done.err
    if name != "supervisor.log":
        assert done.code == 5, done
        assert str(ground.state) in done.err
        assert ground.effects.all() == []


def test_a_link_in_the_place_of_the_socket_is_replaced_and_not_followed(ground: Ground) -> None:
    victim = ground.folder / "victim"
    victim.write_text(VICTIM)
    ground.socket.parent.mkdir(mode=0o700)
    ground.socket.symlink_to(victim)
    ground.state.mkdir(parents=True, mode=0o700)
    (ground.state / "control.sock").symlink_to(victim)
    run = ground.apply(f"[jobs.s]\n{SERVICE}")
    run.until_ready()
    assert victim.read_text() == VICTIM
    assert ground.socket.is_socket()
    assert not ground.socket.is_symlink()
    run.down()
    assert victim.read_text() == VICTIM


def test_a_link_in_the_place_of_the_sockets_folder_is_refused_and_jobs_run(ground: Ground) -> None:
    (ground.folder / "theirs").mkdir()
    ground.socket.parent.symlink_to(ground.folder / "theirs")
    run = ground.apply(f"[jobs.a]\ncommand = {json.dumps(mark('start'))}\n", "--keep-alive")
    run.until_err("cannot reach this supervisor")
    assert f"cannot use directory `{ground.socket.parent}` for the socket: it is a symbolic link" in run.err
    wait_for(lambda: ground.effects.starts("a"), lambda: f"jobs run: {run.err}")
    assert list((ground.folder / "theirs").iterdir()) == []


@pytest.mark.parametrize(
    "left",
    ["", "garbage\n", "99999999 x\n", f"{os.getpid()} alive\n", "9" * 100_000],
    ids=["empty", "garbage", "no process", "a living process", "long"],
)
def test_a_stale_lock_blocks_no_supervisor(ground: Ground, left: str) -> None:
    ground.state.mkdir(parents=True, mode=0o700)
    (ground.state / "lock").write_text(left)
    ground.write(f"[jobs.a]\ncommand = {json.dumps(mark('start'))}\n")
    assert ground("apply", "jobs.toml", "-q").code == 0
    assert len(ground.effects.starts("a")) == 1


# --- twins ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_of_two_supervisors_started_together_exactly_one_runs_the_jobs(ground: Ground) -> None:
    """The other ends with 5 and names it, or, if the first one answers already, hands its files over to it."""
    ground.write(f"[jobs.s]\ncommand = {json.dumps(mark('start') + '; exec sleep 600')}\nschedule = 'always'\n")
    refused = 0
    for number in range(TWINS):
        state = f"state-{number}"
        words = [RPR, "apply", "jobs.toml", "-q", "--state-dir", state]
        twins = [
            subprocess.Popen(
                words, cwd=ground.folder, env=ground.rpr.env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            for _ in range(2)
        ]
        wait_for(lambda twins=twins: any(twin.poll() is not None for twin in twins), "one of them ends")
        wait_for(lambda number=number: len(ground.effects.starts()) > number, "the other one runs the job")
        (loser,) = (twin for twin in twins if twin.poll() is not None)
        (winner,) = (twin for twin in twins if twin is not loser)
        told = loser.communicate()[1].decode()
        if loser.returncode == 5:
            refused += 1
            assert f"process {winner.pid} is using it" in told
        else:
            assert (loser.returncode, told) == (0, "")
        assert len(ground.effects.starts()) == number + 1
        for _ in range(2):
            winner.terminate()
            time.sleep(0.02)
        winner.communicate(timeout=60)
    assert refused > 0, "none of them came together"


# --- drips and floods -------------------------------------------------------------------------------------------


def test_clients_that_send_slowly_delay_no_job_and_block_no_other_client(ground: Ground) -> None:
    run = ground.apply(f"[jobs.t]\ncommand = {json.dumps(mark('start'))}\nschedule = 'every 200ms'\n")
    run.until_ready()
    before = run.holds()
    with contextlib.ExitStack() as closing:
        socks = []
        for _ in range(80):
            sock = closing.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(ground.socket))
            socks.append(sock)
        for byte in request("status")[:20]:
            for sock in socks:
                with contextlib.suppress(OSError):
                    sock.send(bytes([byte]))
            time.sleep(0.02)
        assert ground("status").code == 0
        starts = len(ground.effects.starts("t"))
        wait_for(lambda: len(ground.effects.starts("t")) > starts + 3, "jobs go on")
    wait_for(lambda: run.holds().descriptors <= before.descriptors + 1, "no descriptor is kept")
    assert run.holds().memory - before.memory < 50e6
    assert ground.effects.twice() == []


def test_megabytes_of_nonsense_cost_a_supervisor_nothing(ground: Ground) -> None:
    run = ground.apply(f"[jobs.s]\n{SERVICE}")
    run.until_ready()
    before = run.holds()
    for flood in (b"\0" * 8_000_000, b"[" * 8_000_000, b'{"v":' * 1_000_000, b"\xff" * 8_000_000, b"\n" * 500_000):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60)
            sock.connect(str(ground.socket))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(flood)
                sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(65536):
                    pass
    assert ground.answers()
    assert run.holds().memory - before.memory < 50e6


# --- what is shown ----------------------------------------------------------------------------------------------

STEER = "\x1b]0;owned\x07\x1b[2J\x9b31m\x08\u202e\u2066\r\u2028<script>alert(1)</script>\x7f"
UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def in_toml(text: str) -> str:
    return (
        json.dumps(text).replace("\\u007f", "\\u007F")
        if "\x7f" not in text
        else json.dumps(text).replace("\x7f", "\\u007F")
    )


HOSTILE = f"""
[jobs.said]
command = ["printf", "%s\\n", {in_toml(STEER)}]
description = {in_toml(STEER)}
labels = {{ evil = {in_toml(STEER)} }}
[jobs.failed]
command = [{in_toml("/no/such/" + STEER)}]
[jobs.odd]
command = "true"
cwd = {in_toml("/no/such/" + STEER)}
[jobs.cell]
command = "exit 3"
matrix = {{ it = ["x"] }}
[jobs.pattern]
command = ["printf", "%s\\n", {in_toml(STEER)}]
success = {{ failure_pattern = "owned" }}
[jobs.later]
command = {in_toml("echo " + STEER)}
schedule = "every 1h"
env = {{ EVIL = {in_toml(STEER)} }}
[jobs.s]
{SERVICE}"""


def on_terminal(ground: Ground, *words: str) -> str:
    """What a person would see who runs this."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        words, cwd=ground.folder, env={**ground.rpr.env, "NO_COLOR": "1", "TERM": "xterm"},
        stdin=subprocess.DEVNULL, stdout=follower, stderr=follower,
    )  # fmt: skip
    os.close(follower)
    seen = bytearray()
    end = time.monotonic() + 60
    while time.monotonic() < end and (select.select([leader], [], [], 0.1)[0] or process.poll() is None):
        try:
            data = os.read(leader, 65536)
        except OSError:  # nobody writes any more
            break
        if not data:
            break
        seen += data
    process.wait(60)
    os.close(leader)
    return seen.decode("utf-8", "replace").replace("\r\n", "\n")


COMMANDS = [
    "validate jobs.toml", "plan changed.toml", "next jobs.toml", "simulate jobs.toml --for 2h", "graph jobs.toml",
    "render jobs.toml", "render jobs.toml --explain jobs.later.command", "status", "ps", "logs", "logs said", "history", "events", "why said", "why failed",
    "why 'cell[it=x]'", "trigger later", "apply jobs.toml --dry-run", "pause later", "doctor", "validate bad.toml", "why nobody", "reload",
    "systemd-unit jobs.toml",
]  # fmt: skip


@pytest.fixture
def hostile(ground: Ground) -> Ground:
    run = ground.apply(HOSTILE)
    run.until_ready()
    wait_for(lambda: len(ground.rows()) >= 7, lambda: f"all were decided: {ground.rows()}")
    key = in_toml("a" + STEER)
    ground.rpr.write(
        "bad.toml",
        f"{key} = 1\n[jobs.{key}]\ncommand = 5\n[jobs.b]\ncommand = 'x'\nschedule = {key}\n[jobs.c]\ncommand = 'x'\nschedule = {{ every = {key} }}\n",
    )
    ground.rpr.write(
        "changed.toml", (ground.folder / "jobs.toml").read_text().replace("echo", "echo 2").replace("/no/such", "/none")
    )
    return ground


ONE_AFTER_THE_OTHER = """
import shlex, sys
from repeater.cli.main import run
for words in sys.argv[1:]:
    print("\\n=====", words, flush=True)
    run(shlex.split(words))
"""


@pytest.mark.slow
def test_no_text_of_a_job_or_its_file_can_control_a_terminal(hostile: Ground) -> None:
    seen = on_terminal(hostile, sys.executable, "-c", ONE_AFTER_THE_OTHER, *COMMANDS)
    assert "Traceback" not in seen
    parts = dict(part.split("\n", 1) for part in seen.split("\n===== ")[1:])
    assert list(parts) == COMMANDS
    assert [words for words, said in parts.items() if not said.strip()] == []
    assert {words: found for words, said in parts.items() if (found := sorted(set(UNSAFE.findall(said))))} == {}
    assert sum("x1b" in said for said in parts.values()) >= 8, "the test sees what it looks for"


def test_output_is_made_visible_on_a_terminal_and_kept_raw_in_files(ground: Ground) -> None:
    ground.write(
        HOSTILE.partition("[jobs.later]")[0].replace("[jobs.failed]", "output = { file = 'raw' }\n[jobs.failed]")
    )
    seen = on_terminal(ground, RPR, "apply", "jobs.toml", "-v")
    assert sorted(set(UNSAFE.findall(seen))) == []
    assert r"\x1b]0;owned\x07\x1b[2J\x9b31m\x08\u202e\u2066" in seen
    assert (ground.folder / "raw").read_bytes() == STEER.encode() + b"\n"
