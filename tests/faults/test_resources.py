"""P4 and P13: too few descriptors, no more processes, very many of them. Starts wait, none is lost or made twice, the
supervisor can be asked all the time, and everything is gone when it says so.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from repeater.control.client import Client
from repeater.wire.unix import connect
from tests.faults.effects import effectful, mark
from tests.faults.ground import Ground, wait_for


def limited(words: str) -> list[str]:
    """What runs a command under limits of a shell's `ulimit`."""
    return ["sh", "-c", f'{words}; exec "$@"', "sh"]


def many(count: int, script: str) -> str:
    return f"[jobs.j]\ncommand = '''{script}'''\nmatrix = {{ n = {[*range(count)]} }}\n"


@pytest.mark.slow
def test_with_sixty_four_descriptors_each_slot_runs_once_and_requests_work(ground: Ground) -> None:
    supervisor = ground.apply(
        many(60, effectful("sleep 1")), "-q", "--keep-alive", prefix=limited("ulimit -n 64")
    )  # fmt: skip
    supervisor.until_err("Too many open files")
    assert ground("health", "-q").code == 0
    wait_for(lambda: len(ground.effects.ends()) >= 60, lambda: f"60 ends, there are {len(ground.effects.ends())}")
    assert len(ground.effects.starts()) == 60
    assert ground.effects.twice() == []
    assert ground.down() == 0
    assert {row["state"] for row in ground.rows()} == {"succeeded"}
    assert "Traceback" not in supervisor.err


@pytest.fixture
def few_processes() -> Iterator[Path]:
    """A control group that limits how many processes there are."""
    for base in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")):
        group = base / f"rpr-test-{os.getpid()}-{time.monotonic_ns()}"
        try:
            group.mkdir()
        except OSError:
            continue
        if (group / "pids.max").exists():
            break
        group.rmdir()
    else:
        pytest.skip("processes cannot be limited by a control group here")
    yield group
    for _ in range(500):
        try:
            group.rmdir()
            break
        except OSError:
            time.sleep(0.02)


@pytest.mark.slow
def test_starts_are_retried_while_no_process_can_be_made(few_processes: Path, ground: Ground) -> None:
    join = f"echo $$ > {few_processes}/cgroup.procs"
    tick = f"[jobs.tick]\ncommand = '''{effectful('true')}'''\nschedule = \"every 200ms\"\n"
    burst = f"[jobs.burst]\ncommand = '''{effectful(':')}'''\nschedule = \"manual\"\n"
    burst += f"matrix = {{ n = {[*range(20)]} }}\n"
    supervisor = ground.apply(tick + burst, "-q", prefix=limited(join), env={"RPR_DEBUG": "1"})
    supervisor.until_ready()
    wait_for(lambda: ground.effects.ends("tick"), "it runs")
    readings = [int((few_processes / "pids.current").read_text()) for _ in range(50)]
    (few_processes / "pids.max").write_text(str(min(readings)))  # what is there, and nothing more
    assert ground("trigger", "burst*").code == 0
    supervisor.until_err("Resource temporarily unavailable")
    assert ground("health", "-q").code == 0
    (few_processes / "pids.max").write_text("max")
    wait_for(lambda: len(ends(ground, "burst")) >= 20, lambda: f"20 ends: {supervisor.err}")
    count = len(ground.effects.ends("tick"))
    wait_for(lambda: len(ground.effects.ends("tick")) >= count + 3, "the other runs on")
    assert ground.down() in {0, 1}
    assert ground.effects.twice() == []
    assert len([effect for effect in ground.effects.starts() if effect.job.startswith("burst")]) == 20
    assert "Traceback" not in supervisor.err
    assert ground.living() == []


def ends(ground: Ground, name: str) -> set[str]:
    return {effect.job for effect in ground.effects.ends() if effect.job.startswith(name)}


@pytest.mark.slow
def test_a_thousand_live_runs_start_and_stop_in_bounded_time(ground: Ground) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 6000:
        pytest.skip("too few descriptors are allowed here")
    supervisor = ground.apply(
        many(1000, f"{mark('start')}; exec sleep 300"), "-q", prefix=limited("ulimit -n 6000")
    )  # fmt: skip
    wait_for(lambda: len(ground.effects.starts()) >= 1000, lambda: f"1000 starts: {len(ground.effects.starts())}")
    assert sum(found.job != "" for found in ground.living()) == 1000
    with Client(connect(ground.socket, 30), ground.socket) as client:
        began = time.monotonic()
        client.call("health")
        assert time.monotonic() - began < 5
    held = supervisor.holds()
    assert held.zombies == 0
    assert held.threads < 40
    assert held.peak < 200 << 20
    began = time.monotonic()
    ground.down("--now")
    assert time.monotonic() - began < 40
    assert ground.effects.twice() == []
    assert len(ground.rows()) == 1000
    assert {row["state"] for row in ground.rows()} == {"cancelled"}
