"""Hints: how to write here what other programs write in another way."""

import pytest

from repeater.jobfile.hints import duration_hint
from tests.unit.jobfile.loading import problems


def told(keys: str, head: str = '[jobs.a]\ncommand = "x"\n') -> str:
    (problem,) = problems(f"{head}{keys}\n")
    return problem


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("stagger", "matrix.stagger"), ("jitter", "schedule.jitter"), ("max_size", "output.max_size"), ("attempts", "retry.attempts"),
        ("condition", "needs.NAME.condition"), ("http", "ready.http"), ("slots", "pools.NAME.slots"),
        ("max_delay", "http_aware.max_delay"), ("on_exit", "stop.on_exit"), ("timestamps", "output.timestamps"),
    ],
)  # fmt: skip
def test_a_key_that_belongs_elsewhere_is_named_with_its_place(key, place):
    assert told(f"{key} = 1") == f"jobs.toml:3:1: jobs.a.{key}: unknown key `{key}` (write `{place}`)"


@pytest.mark.parametrize("table", ['schedule = { every = "1m", timeout = "5s" }', 'retry = { timeout = "5s" }'])
def test_a_key_of_the_job_in_one_of_its_tables_is_named(table):
    assert told(table).endswith("(`timeout` is a key of the job itself)")


@pytest.mark.parametrize(("key", "place"), [("timeout", "timeout"), ("env", "env"), ("timezone", "schedule.timezone")])
def test_a_key_of_a_job_at_the_top_of_the_file_is_named(key, place):
    assert told(f'{key} = "x"', head="").endswith(
        f"(keys of jobs belong in `jobs.NAME` or `defaults`: `defaults.{place}`)"
    )


@pytest.mark.parametrize(("key", "near"), [("timout", "timeout"), ("comand_", "command"), ("scheduel", "schedule")])
def test_a_key_that_is_nearly_right_gets_the_nearest_name(key, near):
    assert told(f'{key} = "x"').endswith(f"(did you mean `{near}`?)")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("5 min", "5m"), ("5 minutes", "5m"), ("1h 30m", "1h30m"), ("PT5M", "5m"), ("P1DT2H", "1d2h"), ("P1W", "1w"), ("PT1.5S", "1.5s"),
        ("5M", "5m"), ("90 sec", "90s"), ("1 hour, 5 minutes", "1h5m"), ("1 hour and 5 min", "1h5m"), ("500 ms", "500ms"), ("1 Day", "1d"),
        ("1.5 h", "1.5h"), ("30", "30s"),
    ],
)  # fmt: skip
def test_a_duration_of_other_programs_is_written_as_ours(text, written):
    hint = f"write `{written}`"
    assert duration_hint(text) == (hint + " for seconds" if text == "30" else hint)
    for keys in (
        f'timeout = "{text}"',
        f'schedule = {{ every = "{text}" }}',
        f'retry = {{ base = "{text}" }}',
        f'catch_up_window = "{text}"',
    ):
        assert f"({hint}" in told(keys), keys


@pytest.mark.parametrize("text", ["5x", "P", "PT", "P1Y", "min 5", "", "five minutes", "1m1h", "-5m", "1 month"])
def test_an_invalid_duration_gets_no_hint(text):
    assert duration_hint(text) is None


@pytest.mark.parametrize(
    ("schedule", "hint"),
    [
        ("@every 5m", 'write `schedule = "every 5m"`'),
        ("@every 1h30m", 'write `schedule = "every 1h30m"`'),
        ("TZ=Europe/Berlin 0 3 * * *", 'write `schedule = { cron = "0 3 * * *", timezone = "Europe/Berlin" }`'),
        ("CRON_TZ=UTC @daily", 'write `schedule = { cron = "@daily", timezone = "UTC" }`'),
        ("0 3 * * * root /bin/x", 'the user has its own key: `user = "root"`, the rest in `command`'),
        ("0 3 * * * 2027", "cron has no field for the year; `stop.until` ends a job, `schedule.at` starts it once"),
        (
            "0 0 3 * * ? 2027-2029",
            "cron has no field for the year; `stop.until` ends a job, `schedule.at` starts it once",
        ),
        ("daily", 'write `schedule = "@daily"`'),
        ("5m", 'write `schedule = "every 5m"`'),
    ],
)
def test_a_schedule_of_other_programs_gets_a_hint(schedule, hint):
    assert told(f"schedule = '{schedule}'").endswith(f"({hint})")


@pytest.mark.parametrize(("zone", "right"), [("europe/berlin", "Europe/Berlin"), ("AMERICA/NEW_YORK", "America/New_York"), ("utc", "UTC"), ("Utc", "UTC"), ("Asia/kolkata ", "Asia/Kolkata")])  # fmt: skip
def test_a_zone_in_the_wrong_case_is_named_in_the_right_one(zone, right):
    assert f"`{right}`" in told(f'schedule = {{ cron = "0 3 * * *", timezone = "{zone}" }}')


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ('http = "http://x", tcp = "x:1"', "`http` and `tcp`"),
        ('log = "x", exec = "y", tcp = "x:1"', "`tcp` and `exec` and `log`"),
        ('every = "1s"', "a table"),
    ],
)
def test_a_probe_of_several_kinds_names_them(keys, found):
    words = "expected a probe: a table with one of `http`, `tcp`, `exec`, `log`"
    assert told(f'schedule = "always"\nready = {{ {keys} }}').endswith(f"jobs.a.ready: found {found}, {words}")
