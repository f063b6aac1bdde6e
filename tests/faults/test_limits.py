"""A limit of starts holds over kills, stops and restarts of the supervisor, read from what the runs wrote themselves."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.faults.effects import FILE, mark
from tests.faults.ground import Ground, wait_for

STAMP = f"{mark('start')}; date +%s%N >> times"
COUNT, WINDOW = 3, 60


def jobs(*, name: str = "a", command: str = STAMP, more: str = "") -> str:
    return (
        f'[limits.g]\nrate = "{COUNT}/{WINDOW}s"\n[jobs.{name}]\ncommand = {json.dumps(command)}\n'
        f'schedule = "every 50ms"\nlimit = "g"\n{more}\n'
    )


def times(folder: Path) -> list[int]:
    path = folder / "times"
    return sorted(map(int, path.read_text().split())) if path.exists() else []


def runs(ground: Ground) -> int:
    return len(ground.effects.starts())


def reached(ground: Ground, count: int) -> None:
    wait_for(lambda: runs(ground) >= count, lambda: f"{count} runs, there are {runs(ground)}")


def until_skipped(ground: Ground, count: int) -> None:
    """Until the history has so many skipped slots."""
    wait_for(lambda: len(ground.rows("--outcome", "skipped")) >= count, f"{count} skipped slots")


@pytest.mark.parametrize("ends", ["kill", "stop"])
def test_two_sessions_in_a_window_share_its_starts(ground: Ground, ends: str) -> None:
    """Skipped slots between do not push the starts out of what is remembered."""
    for _ in range(2):
        supervisor = ground.apply(jobs())
        supervisor.until_ready()
        reached(ground, COUNT)
        until_skipped(ground, 20)
        if ends == "kill":
            supervisor.kill()
        else:
            supervisor.down()
    ground.apply().until_ready()
    time.sleep(0.5)
    assert runs(ground) == COUNT


def test_retries_count_after_a_kill(ground: Ground) -> None:
    retried = jobs(command=f"{STAMP}; exit 1", more='retry = { attempts = 3, backoff = "fixed", base = "10ms" }')
    supervisor = ground.apply(retried)
    supervisor.until_ready()
    reached(ground, COUNT)
    supervisor.kill()
    ground.apply().until_ready()
    time.sleep(0.5)
    assert runs(ground) == COUNT


def test_starts_of_a_job_that_was_renamed_or_removed_count(ground: Ground) -> None:
    supervisor = ground.apply(jobs())
    supervisor.until_ready()
    reached(ground, COUNT)
    supervisor.kill()
    again = ground.apply(jobs(name="b", more='moved_from = "a"'))
    again.until_ready()
    time.sleep(0.3)
    again.kill()
    ground.apply(jobs(name="c"), "--allow-removals").until_ready()
    time.sleep(0.5)
    assert runs(ground) == COUNT
    assert Path(ground.folder / FILE).exists()


def test_starts_before_a_reload_that_adds_the_limit_count(ground: Ground) -> None:
    free = f"[jobs.a]\ncommand = {json.dumps(STAMP)}\nschedule = 'every 50ms'\n"
    supervisor = ground.apply(free)
    supervisor.until_ready()
    reached(ground, COUNT + 1)
    ground.write(jobs())
    wait_for(lambda: "generation 2" in supervisor.err or "generation 2" in supervisor.out, "the reload")
    before = runs(ground)
    time.sleep(0.5)
    assert runs(ground) <= before + 1  # one could be on its way at the reload


def test_a_rate_schedule_holds_over_a_kill(ground: Ground) -> None:
    rated = f"[jobs.a]\ncommand = {json.dumps(STAMP)}\nschedule = {{ rate = '{COUNT}/{WINDOW}s' }}\n"
    supervisor = ground.apply(rated)
    supervisor.until_ready()
    reached(ground, COUNT)
    supervisor.kill()
    ground.apply().until_ready()
    time.sleep(0.5)
    assert runs(ground) == COUNT


def test_an_open_shared_limit_without_a_daemon_holds_over_a_kill(ground: Ground) -> None:
    shared = jobs().replace("[jobs.", 'shared = true\nfail = "open"\n[jobs.')
    env = {"RPR_DAEMON_SOCKET": str(ground.folder / "none.sock")}
    supervisor = ground.apply(shared, env=env)
    supervisor.until_ready()
    reached(ground, COUNT)
    supervisor.kill()
    ground.apply(env=env).until_ready()
    time.sleep(0.5)
    assert runs(ground) == COUNT


@pytest.mark.all
def test_no_window_holds_too_many_over_many_kills(ground: Ground) -> None:
    """The window is short, so places become free between the kills."""
    text = jobs().replace(f"{COUNT}/{WINDOW}s", "3/2s")
    end = time.monotonic() + 8
    while time.monotonic() < end:
        supervisor = ground.apply(text)
        supervisor.until_ready()
        time.sleep(0.3)
        supervisor.kill()
    found = times(ground.folder)
    assert len(found) >= COUNT
    settling = 0.4e9  # a start shows later than it happened, and not always equally late
    assert all(late - early > 2e9 - settling for early, late in zip(found, found[COUNT:], strict=False))
