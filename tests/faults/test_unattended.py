"""What the commands say and do after a supervisor was killed and its runs go on."""

from __future__ import annotations

import json
import sys

import pytest

from tests.cli.conftest import rpr  # noqa: F401 - a fixture
from tests.faults.test_keep import Shop, shop  # noqa: F401 - a fixture
from tests.faults.test_shim import gone, wait_for

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="needs subreapers"), pytest.mark.slow]

JOBS = """\
project = "shop"
[jobs.web]
command = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"
schedule = "always"
[jobs.bad]
command = "exit 3"
schedule = "every 1h"
[jobs.asked]
command = "true"
schedule = "manual"
"""


def test_after_a_kill_commands_show_and_end_the_kept_jobs(shop: Shop) -> None:  # noqa: F811
    shop.rpr.write("jobs.toml", JOBS)
    out = shop.begin()
    wait_for(lambda: "| up" in out.read_text(), "the service runs")
    wait_for(lambda: shop.state("bad") == [("failed", 3)], "the job has failed")
    shop.kill()
    supervisor, keeper = shop.lives[-1].pid, shop.keeper
    assert keeper is not None

    told = shop.rpr("status")
    head, takes, total, _, *rows = told.out.splitlines()
    assert head == f"project shop: no supervisor is running; the last one, pid {supervisor}, was killed; times in UTC"
    assert (
        takes
        == f"1 run continues, kept by the shim (pid {keeper.pid}): the next `rpr apply` takes over, `rpr down` stops"
    )
    assert total == "3 jobs: 1 failing, 2 down"
    assert [row.split()[:3] for row in rows] == [
        ["bad", "down", "failed"],
        ["web", "running", "never"],
        ["asked", "down", "never"],
    ]
    assert (told.code, told.err) == (6, "")
    web, bad, _ = map(json.loads, shop.rpr("status", "--json").out.splitlines())
    pid = web["running"][0]["pid"]
    assert f"pid {pid} for" in rows[1]
    assert (bad["last"]["exit"], bad["last"]["reason_code"]) == (3, "exit")

    told = shop.rpr("why", "web")
    assert told.out.startswith(f"`web` runs as pid {pid} since ")
    assert (
        f"the shim (pid {keeper.pid}) keeps it running: the next `rpr apply` takes it over, `rpr down` stops it"
        in told.out
    )
    assert "its last run ended" in shop.rpr("why", "bad").out
    assert f"`web` (pid {pid}) runs without a supervisor, kept by the shim (pid {keeper.pid})" in shop.rpr("doctor").out
    assert not gone(pid), "looking changes nothing"

    shop.rpr("down").is_(err=f"no supervisor was running; ended `web` (pid {pid})\n")
    assert gone(pid)
    assert shop.rpr("down").code == 6
    shop.begin()
    wait_for(lambda: ("failed", 7) in shop.state("web"), "the next supervisor records how the run ended")


def test_down_kills_what_ignores_its_stop_signal(shop: Shop) -> None:  # noqa: F811
    text = '[jobs.web]\ncommand = "trap \'\' TERM; echo up; while :; do sleep 0.05; done"\nschedule = "always"\n'
    shop.rpr.write("jobs.toml", f'project = "shop"\n{text}stop_timeout = "100ms"\n')
    out = shop.begin()
    wait_for(lambda: "| up" in out.read_text(), "the service runs")
    shop.kill()
    (web,) = map(json.loads, shop.rpr("status", "--json").out.splitlines())
    assert shop.rpr("down", "-q").code == 0
    assert gone(web["running"][0]["pid"])
