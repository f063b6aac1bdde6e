"""P4: signals of every kind and number, closed streams, and life as process 1. A supervisor leaves once, in good order,
and leaves nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.effects import effectful, mark
from tests.faults.ground import Ground, holdings, wait_for

SERVICE = f"""
[jobs.service]
command = '''{mark("start")}; trap '{mark("term")}; exit 0' TERM; while :; do sleep 0.1; done'''
schedule = "always"
"""
WAITS = f"""
[jobs.waits]
command = '''{mark("start")}; trap '{mark("term")}; exit 0' TERM; while :; do sleep 0.1; {mark("tick")}; done'''
"""


def begun(ground: Ground, *names: str) -> None:
    wait_for(lambda: {effect.job for effect in ground.effects.starts()} >= set(names), f"{names} begin")
    time.sleep(0.1)  # until the trap is set


@pytest.mark.slow
@pytest.mark.parametrize("storm", [["TERM"], ["HUP", "TERM", "INT"]], ids="-".join)
def test_ten_thousand_signals_are_one_departure_in_good_order(ground: Ground, storm: list[str]) -> None:
    supervisor = ground.apply(SERVICE + WAITS, "-q")
    supervisor.until_ready()
    begun(ground, "service", "waits")
    signals = [signal.Signals[f"SIG{name}"] for name in storm]
    for number in range(10_000):
        supervisor.process.send_signal(signals[number % len(signals)])
    for number in signals:  # so that the last level is reached, whatever was lost
        supervisor.process.send_signal(number)
    assert supervisor.leaves() in {0, 130}, supervisor.err
    assert ground.living() == []
    assert "Traceback" not in supervisor.err
    assert len(supervisor.err.splitlines()) < 30
    assert len(ground.effects.all("service", "term")) <= 1
    assert len(ground.effects.all("waits", "term")) <= 1
    assert not ground.socket.exists()
    assert (ground.state / "began").read_text().split()[0] == "closed"
    assert {row["job"]: row["state"] for row in ground.rows()} == {"service": "cancelled", "waits": "cancelled"}


@pytest.mark.slow
def test_ten_thousand_hups_restart_nothing_and_the_next_change_is_read(ground: Ground) -> None:
    supervisor = ground.apply(SERVICE, "-q")
    supervisor.until_ready()
    begun(ground, "service")
    for _ in range(10_000):
        supervisor.process.send_signal(signal.SIGHUP)
    assert ground("status").code == 0
    ground.write(SERVICE + WAITS)
    supervisor.process.send_signal(signal.SIGHUP)
    begun(ground, "waits")
    assert len(ground.effects.starts("service")) == 1
    assert ground.down("--now") == 0
    assert "Traceback" not in supervisor.err


@pytest.mark.slow
def test_the_first_signal_drains_runs_and_the_second_stops_them(ground: Ground) -> None:
    supervisor = ground.apply(SERVICE + WAITS)
    begun(ground, "service", "waits")
    supervisor.process.terminate()
    wait_for(lambda: ground.effects.all("service", "term"), "the service is asked to end")
    ticks = len(ground.effects.all("waits", "tick"))
    wait_for(lambda: len(ground.effects.all("waits", "tick")) > ticks + 2, "a trap would have run between these")
    assert supervisor.is_there
    assert ground.effects.all("waits", "term") == []
    supervisor.process.terminate()
    assert supervisor.leaves() == 0
    assert len(ground.effects.all("waits", "term")) == 1
    assert ground.living() == []


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_harm_nothing_and_nothing_else_takes_their_place(ground: Ground, closed: str) -> None:
    tick = f"[jobs.tick]\ncommand = '''{effectful('echo hello; echo oops >&2')}'''\nschedule = \"every 100ms\"\n"
    supervisor = ground.apply(tick, prefix=["sh", "-c", f'exec "$@" {closed}', "sh"])
    wait_for(lambda: len(ground.effects.ends("tick")) >= 5, "it runs")
    for number, words in ((0, "<&-"), (1, " >&-"), (2, "2>&-")):
        if words in f" {closed}":
            assert Path(f"/proc/{supervisor.pid}/fd/{number}").readlink() == Path(os.devnull)
    before = cpu_seconds(supervisor.pid)
    time.sleep(0.5)
    assert cpu_seconds(supervisor.pid) - before < 0.45, "it is busy with nothing"
    ground.down()
    assert ground.effects.twice() == []
    with sqlite3.connect(ground.state / "history.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_a_closed_reader_of_standard_error_and_sigpipe_itself_end_nothing(ground: Ground) -> None:
    tick = f"[jobs.tick]\ncommand = '''{effectful('echo oops >&2')}'''\nschedule = \"every 100ms\"\n"
    supervisor = ground.apply(tick, stderr=subprocess.PIPE)
    assert supervisor.process.stderr is not None
    wait_for(lambda: len(ground.effects.ends("tick")) >= 2, "it runs")
    supervisor.process.stderr.close()
    supervisor.process.send_signal(signal.SIGPIPE)
    count = len(ground.effects.ends("tick"))
    wait_for(lambda: len(ground.effects.ends("tick")) >= count + 5, "it runs on")
    assert supervisor.down() == 0
    assert ground.effects.twice() == []


@pytest.mark.slow
def test_as_process_one_a_thousand_orphans_are_reaped_and_none_is_lost(ground: Ground) -> None:
    namespace = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], capture_output=True).returncode != 0:
        pytest.skip("no process namespace can be made here")
    orphans = effectful("n=0; while [ $n -lt 1000 ]; do (sleep 0.3 &); n=$((n + 1)); done; (exit 7)")
    jobs = f"[jobs.orphans]\ncommand = '''{orphans}'''\n"
    jobs += f"[jobs.tick]\ncommand = '''{effectful('(exit 3)')}'''\nschedule = \"every 50ms\"\n"
    outside = ground.apply(jobs, "-q", prefix=namespace)
    wait_for(lambda: ground.effects.ends("orphans"), "all orphans are there")
    wait_for(lambda: "sleep 0.3 " not in {found.command for found in ground.living()}, "all are dead")
    count = len(ground.effects.ends("tick"))
    wait_for(lambda: len(ground.effects.ends("tick")) >= count + 5, "others run on")
    wait_for(lambda: sum(holdings(pid).zombies for pid in below(outside.pid)) == 0, "all are buried", within=20)
    ground.down()
    assert ground.row("orphans")["exit"] == 7
    assert {row["exit"] for row in ground.rows("tick") if row["state"] == "failed"} == {3}
    assert ground.living() == []


def below(pid: int) -> list[int]:
    """The living processes below one."""
    found, looked = [], [pid]
    while looked:
        for task in Path(f"/proc/{looked.pop()}/task").glob("*/children"):
            try:
                children = [int(child) for child in task.read_text().split()]
            except OSError:
                continue
            alive = [child for child in children if Path(f"/proc/{child}/exe").exists()]
            found += alive
            looked += alive
    return found
