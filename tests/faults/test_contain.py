"""P14: a fault stays with its owner. Bad values of job files are refused or cost their own job; the others go on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.ground import Ground, Supervisor, wait_for

TICK = "[jobs.tick]\ncommand = 'echo tick'\nschedule = 'every 100ms'\n"
BAD_PROBES = (
    'ready = { tcp = "127.0.0.1:80000" }',
    'live = { tcp = "127.0.0.1:٨٠" }',
    'ready = { http = "http://localhost:80000/" }',
    'ready = { http = "http://[::1/" }',
    'live = { log = "(" }',
    'ready = { exec = "a\\u0000b" }',
)

BAD_GLOBS = (
    'watch = ["src/[z-a]*.py"]',
    'watch = ["a\\u0000*"]',
    'watch = ["{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}"]',
    'watch = ["ok"]\nwatch_ignore = ["[z-a]"]',
)


def service(keys: str) -> str:
    return f"{TICK}[jobs.web]\ncommand = 'exec sleep 600'\nschedule = 'always'\n{keys}\n"


def goes_on(supervisor: Supervisor) -> None:
    """The job `tick` still starts."""
    before = supervisor.out.count("| tick\n")
    wait_for(lambda: supervisor.out.count("| tick\n") > before + 1, lambda: supervisor.err)
    assert supervisor.is_there


def test_saved_bad_probes_and_globs_are_refused_and_jobs_run_on(ground: Ground) -> None:
    supervisor = ground.apply(service(""))
    supervisor.until_ready()
    for keys in (*BAD_PROBES, *BAD_GLOBS):
        before = supervisor.err.count("jobs.web.")
        ground.write(service(keys))
        supervisor.until_err("jobs.web.", before + 1)
    goes_on(supervisor)
    assert supervisor.down() == 0


def test_a_watch_continues_after_a_bad_glob_was_refused(ground: Ground) -> None:
    watched = "[jobs.seen]\ncommand = 'echo seen'\nschedule = { watch = [%s], debounce = '0s' }\n"
    supervisor = ground.apply(TICK + watched % "'src/*.py'")
    supervisor.until_ready()
    (ground.folder / "src").mkdir()
    ground.write(TICK + watched % "'src/[z-a]*.py'")
    supervisor.until_err("the range is backwards")

    def is_seen() -> bool:
        (ground.folder / "src" / "a.py").write_text(str(time.monotonic()))
        time.sleep(0.05)
        return "seen |" in supervisor.out

    wait_for(is_seen, lambda: supervisor.err)
    goes_on(supervisor)
    assert supervisor.down() == 0


HUNGRY = "{% for i in range(1000) %}{{ range(1000) | map('string') | join | length }}{% endfor %}"
LATE = f"""{TICK}
[jobs.hungry]
command = "echo {{{{ run.id }}}} {{% if run.id != 'sample' %}}{HUNGRY}{{% endif %}}"
schedule = 'every 500ms'
[jobs.modest]
command = "echo modest {{{{ run.id | upper }}}}"
schedule = 'every 500ms'
"""


def test_a_late_template_that_takes_long_fails_its_own_slot(ground: Ground) -> None:
    supervisor = ground.apply(LATE)
    supervisor.until_ready()
    supervisor.until_err("hungry: failed: cannot render `command`: it takes more than 0.25s of CPU time", 2)
    wait_for(lambda: supervisor.out.count("modest |") > 1, lambda: supervisor.err)
    goes_on(supervisor)
    decided = [row for row in ground.rows("hungry") if row["state"] != "claimed"]
    assert {row["state"] for row in decided} <= {"spawn_failed", "skipped"}
    assert "spawn_failed" in {row["state"] for row in decided}
    assert supervisor.down() == 0


def test_a_template_that_takes_long_is_a_problem_for_validate(ground: Ground) -> None:
    ground.write(f'[jobs.hungry]\ncommand = "echo {HUNGRY * 3}"\n')
    result = ground("validate", "jobs.toml", env={"RPR_MAX_RELOAD_TIME": "1s"})
    assert result.code == 2
    assert result.err.startswith("jobs.toml:4:1: jobs.hungry.command: cannot render ")
    assert result.err.endswith("reading the job files needs more than 1s of CPU time\n")


def twenty() -> str:
    """Ten timers, with hooks, late texts, files and patterns; ten services, with probes of each kind."""
    timer = "[jobs.timer-{n}]\ncommand = 'echo {n}'\nschedule = 'every 250ms'\n{keys}\n"
    service = "[jobs.service-{n}]\ncommand = 'echo up; exec sleep 600'\nschedule = 'always'\n{keys}\n"
    extra = {
        0: "hooks = { on_success = 'true' }",
        1: "env = { A = '{{ run.id }}' }",
        2: "env = { A = '{{ run.id | upper }}' }",
        3: "success = { pattern = 'x' }",
        4: "output = { file = 'out.log' }",
        5: "output = { mode = 'aggregate' }",
        6: "env = { B = '{{ run.attempt }}' }\nlimit = 'shared'",
    }
    probes = {
        0: "ready = { tcp = '127.0.0.1:1', every = '200ms' }",
        1: "ready = { http = 'http://127.0.0.1:1/', every = '200ms' }",
        2: "ready = { exec = 'true', every = '200ms' }",
        3: "ready = { log = 'up' }",
        4: "watch = ['*.md']",
        5: "live = { exec = 'true', every = '200ms' }",
    }
    timers = [timer.format(n=n, keys=extra.get(n, "")) for n in range(8)]
    timers.append("[jobs.seen]\ncommand = 'true'\nschedule = { watch = ['*.py'], debounce = '0s' }\n")
    timers.append(
        "[jobs.busy]\ncommand = 'true'\nschedule = { load = { base = '250ms', min = '250ms', max = '500ms' } }\n"
    )
    limit = "[limits.shared]\nrate = '1000/1s'\nshared = true\nfail = 'open'\n"
    return limit + "".join(timers + [service.format(n=n, keys=probes.get(n, "")) for n in range(10)])


OWNERS = {
    "repeater.system.file_watcher": {"watch", "service"},  # in the thread of the watcher it is the fault of the watcher
    "repeater.processes.shim_spawner": {"run", "hook", "probe"},
    "repeater.system.system_load": {"job"},
    "repeater.system.sd_notify": {"listener"},
    "repeater.system.net_probe": {"probe"},
    "repeater.system.ratelimit_client": {"limit"},
    "repeater.worker": {"run", "reload"},
    "repeater.apps.template_worker": {"run"},
    "repeater.control": {"connection"},
    "repeater.output.event_log": {"listener"},
    "repeater.output.event_printer": {"listener"},
    "repeater.output.router": {"output"},
    "repeater.plugins.output_feeds": {"listener", "output"},
    "repeater.supervisor.sinks.masking": {"output"},
    "repeater.supervisor.probes": {"output", "probe"},
    "repeater.supervisor.reload": {"reload"},
    "repeater.wire": {"connection"},
}
"""Who a fault of a module belongs to. A fault of other modules belongs to the service as a whole, or to one run."""


@pytest.mark.all
@pytest.mark.slow
@pytest.mark.parametrize("names", [[], ["all"]], ids=["few", "all"])
def test_an_exception_in_any_callback_costs_its_owner_only(ground: Ground, names: list[str]) -> None:
    """One supervisor with twenty jobs; each callback of each adapter raises once, one after the other."""
    ground.write(twenty())
    argv = [sys.executable, "-m", "tests.faults.injected", str(ground.folder), *names]
    env = {**ground.rpr.env, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((ground.folder / "injected.json").read_text())
    assert found["stalled"] == []
    assert found["code"] == 0
    assert len(found["before"]) == 10
    assert found["before"] == found["after"], "no service was started again"
    assert len(found["fired"]) >= (35 if names else 10), found["never"]
    for name, faults in found["fired"].items():
        parts = (owners for part, owners in OWNERS.items() if f" of {part}" in name)
        owners = next(parts, {"service", "run", "hook", "probe"})
        expected = [fault for fault in faults if fault[0] in owners]
        assert expected, f"the fault at the {name} was not reported, only {faults}"
        assert any(fault in found["shown"] for fault in expected), f"`status` and `health` do not show it: {name}"
