"""Warnings: what a job may say, but what is probably a mistake."""

import pytest

from tests.unit.jobfile.loading import road


def warnings(keys: str, **options: object) -> list[str]:
    return [str(one) for one in road(f'[jobs.a]\ncommand = "true"\n{keys}\n', **options).warnings]


@pytest.mark.parametrize(
    "value", ["/opt/x:$PATH", "${PATH}:/x", "${PATH:-/bin}:/x", "$HOME/bin", "/a:$HOME/b", "$USER"]
)
def test_a_reference_in_env_that_is_not_expanded_is_a_warning(value):
    (warning,) = warnings(f'env = {{ PATH = "{value}" }}')
    assert warning.startswith("jobs.toml:3:9: warning: jobs.a.env.PATH: found `$"), warning


@pytest.mark.parametrize("value", ["$5", "a$", "$$", "$OTHER", "100 $ or more", "${", "$(date)"])
def test_other_dollar_signs_in_env_are_not_a_warning(value):
    assert warnings(f'env = {{ PRICE = "{value}" }}') == []


def test_a_variable_that_refers_to_itself_is_a_warning():
    (warning,) = warnings('env = { LD_LIBRARY_PATH = "/x:${LD_LIBRARY_PATH}" }')
    assert warning.endswith("(write `{{ env('LD_LIBRARY_PATH') }}`)")


@pytest.mark.parametrize(
    ("keys", "doubtful"),
    [
        ("", True),
        ('overlap = "skip"', True),
        ('overlap = "latest"', True),
        ('overlap = "first"', True),
        ('overlap = "replace"', True),
        ('overlap = "queue"', False),
        ('overlap = "queue"\nqueue_max = 5', True),
        ('overlap = "queue"\nqueue_max = 99', False),
        ('overlap = "queue"\nqueue_max = 5\ncatch_up_max = 6', False),
        ('overlap = "queue"\nqueue_max = 5\ncatch_up_max = 7', True),
        ('overlap = "allow"', False),
        ('overlap = "allow"\nmax_instances = 6\ncatch_up_max = 6', False),
        ('overlap = "allow"\nmax_instances = 6\ncatch_up_max = 7', True),
    ],
)
def test_catch_up_all_with_an_overlap_that_drops_starts_is_a_warning(keys, doubtful):
    found = warnings(f'schedule = "0 3 * * *"\ncatch_up = "all"\n{keys}')
    assert [one.startswith("jobs.toml:4:1: warning: jobs.a.catch_up: found `all`") for one in found] == [
        True
    ] * doubtful


def test_catch_up_all_of_an_interval_is_not_a_warning():
    assert warnings('schedule = "every 1h"\ncatch_up = "all"') == []


def test_a_warning_of_defaults_is_reported_once_at_its_place():
    jobs = "\n".join(f'[jobs.j{number}]\ncommand = "true"\nschedule = "0 3 * * *"' for number in range(9))
    loaded = road(f'[defaults]\ncatch_up = "all"\n{jobs}')
    assert [(one.line, one.key) for one in loaded.warnings] == [(2, "defaults.catch_up")]


def test_warnings_are_in_the_order_of_the_file():
    text = '[jobs.a]\ncommand = "true"\nschedule = "0 3 * * *"\ncatch_up = "all"\nenv = { PATH = "$PATH", A = "$HOME" }'
    assert [one.line for one in road(text).warnings] == [4, 5, 5]


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ('"* 16 * * *"', "starts every minute of each hour that it names"),
        ('"* 8,20 * * *"', "starts every minute of each hour that it names"),
        ('"* */2 * * *"', "starts every minute of each hour that it names"),
        ('"* * */12 * *"', "starts every minute of each day that it names"),
        ('"* * 1 * *"', "starts every minute of each day that it names"),
        ('"* * L * *"', "starts every minute of each day that it names"),
        ('"* * * * mon"', "starts every minute of each day that it names"),
        ('"* * * 1 *"', "starts every minute of each month that it names"),
        ('{ cron = "* 5 * * * *", seconds = "first" }', "starts every second of each minute that it names"),
        ('{ cron = "* 16 * * * 0", seconds = "last" }', "starts every minute of each hour that it names"),
        ('{ cron = "* * 16 * * *", seconds = "first" }', "starts every second of each hour that it names"),
        ('"0 0 */31 * *"', "`*/31` in the day of month field, which is only `1`"),
        ('"*/60 * * * *"', "`*/60` in the minute field, which is only `0`"),
        ('"0 0 1 */12 *"', "`*/12` in the month field, which is only `1`"),
        ('"0 0 * * */7"', "`*/7` in the day of week field, which is only `0`"),
        ('"*/45 * * * *"', "`*/45` in the minute field, which is `0,45`: not evenly spaced"),
        ('"0 */18 * * *"', "`*/18` in the hour field, which is `0,18`: not evenly spaced"),
    ],
)
def test_a_cron_expression_that_is_probably_a_mistake_is_a_warning(schedule, words):
    (warning,) = warnings(f"schedule = {schedule}")
    assert warning.startswith("jobs.toml:3:"), warning
    assert words in warning


@pytest.mark.parametrize(
    "schedule",
    [
        '"* * * * *"', '"*/5 16 * * *"', '"* 9-17 * * *"', '"* 22-6 * * *"', '"* * * * mon-fri"', '"0 16 * * *"',
        '"*/30 * * * *"', '"0 */12 * * *"', '"0 0 */10 * *"', '"0 0 */2 * *"', '"@daily"', '"H * * * *"', '"H/15 * * * *"',
        '"* * 1-7 * *"', '{ cron = "*/10 * * * * *", seconds = "first" }', '"0 0 * * *,fri#2"',
        '{ cron = "* 5-10 * * * *", seconds = "first" }', '{ cron = "* * 9-17 * * *", seconds = "first" }',
        '{ cron = "* * * * 6-8 *", seconds = "first" }',
    ],
)  # fmt: skip
def test_other_cron_expressions_are_not_a_warning(schedule):
    assert warnings(f"schedule = {schedule}") == []


STAGGERED = """
[jobs.m]
command = "true"
schedule = "every 1h"
matrix = {{ x = [1, 2], stagger = "even" }}
[jobs.f]
command = "true"
{keys}
"""


@pytest.mark.parametrize(
    ("keys", "pair"),
    [
        ('needs = { m = { within = "same_slot" } }', "`m[x=1]` and `m[x=2]`"),
        ('needs = { m = { within = "same_slot", trigger = true } }\nschedule = "manual"', "`m[x=1]` and `m[x=2]`"),
        ('needs = { "m[x=2]" = { within = "same_slot" } }\nschedule = "every 1h"', "this job and `m[x=2]`"),
        ('needs = { "m[x=2]" = { within = "same_slot" } }\nschedule = "every 3h"', "this job and `m[x=2]`"),
        (
            'needs = { "m[x=1]" = { within = "same_slot" }, "m[x=2]" = { within = "same_slot" } }',
            "`m[x=1]` and `m[x=2]`",
        ),
    ],
)
def test_a_same_slot_need_on_schedules_that_never_meet_is_a_warning(keys, pair):
    (warning,) = road(STAGGERED.format(keys=keys)).warnings
    assert (warning.line, warning.severity) == (8, "warning")
    assert f"the schedules of {pair} never have the same nominal time" in warning.message


@pytest.mark.parametrize(
    "keys",
    [
        'needs = { m = { within = "24h" } }',
        'needs = ["m"]',
        'needs = { "m[x=2]" = { within = "same_slot" } }',
        'needs = { "m[x=2]" = { within = "same_slot" } }\nschedule = "every 30m"',
        'needs = { "m[x=2]" = { within = "same_slot", trigger = true } }\nschedule = "every 1h"',
        'needs = { "m[x=1]" = { within = "same_slot" } }\nschedule = "every 1h"',
        'needs = { "m[x=2]" = { within = "same_slot" } }\nschedule = "0 * * * *"',
        'needs = { m = { within = "same_slot" } }\nenabled = false',
    ],
)
def test_other_needs_on_staggered_cells_are_not_a_warning(keys):
    assert list(road(STAGGERED.format(keys=keys)).warnings) == []


@pytest.mark.parametrize(
    ("service", "condition", "is_doubtful"),
    [
        ('schedule = "always"', "succeeded", True),
        ('schedule = "always"', "completed", True),
        ('schedule = "always"', "started", False),
        ('schedule = "always"\nrestart = "on-failure"', "succeeded", False),
        ('schedule = "every 5s"', "succeeded", False),
    ],
)
def test_a_need_for_the_end_of_a_service_is_a_warning(service, condition, is_doubtful):
    text = f'[jobs.a]\ncommand = "x"\nneeds = {{ b = {{ condition = "{condition}" }} }}\n[jobs.b]\ncommand = "x"\n{service}\n'
    found = [str(one) for one in road(text).warnings]
    cause = f"jobs.toml:3:11: warning: jobs.a.needs.b: found `{condition}`, but `b` is a service, which does not end by itself"
    assert found == ([f"{cause} (use `started`, or `healthy` with a `ready` probe)"] if is_doubtful else [])
