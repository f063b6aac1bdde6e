"""P14: a fault stays with its owner. Bad values of job files are refused or cost their own job; the others go on."""

from __future__ import annotations

import time

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


def test_bad_probes_and_globs_that_are_saved_are_refused_and_all_goes_on(ground: Ground) -> None:
    supervisor = ground.apply(service(""))
    supervisor.until_ready()
    for keys in (*BAD_PROBES, *BAD_GLOBS):
        before = supervisor.err.count("jobs.web.")
        ground.write(service(keys))
        supervisor.until_err("jobs.web.", before + 1)
    goes_on(supervisor)
    assert supervisor.down() == 0


def test_a_watch_goes_on_after_a_bad_glob_was_refused(ground: Ground) -> None:
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
    assert {row["state"] for row in ground.rows("hungry") if row["outcome"]} == {"spawn_failed"}
    assert supervisor.down() == 0


def test_a_template_that_takes_long_is_a_problem_for_validate(ground: Ground) -> None:
    ground.write(f'[jobs.hungry]\ncommand = "echo {HUNGRY * 3}"\n')
    result = ground("validate", "jobs.toml", env={"RPR_MAX_RELOAD_TIME": "1s"})
    assert result.code == 2
    assert result.err.startswith("jobs.toml:4:1: jobs.hungry.command: cannot render ")
    assert result.err.endswith("reading the job files takes more than 1s of CPU time\n")
