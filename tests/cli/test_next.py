"""`rpr next`, as it is typed."""

from __future__ import annotations

import json

JOBS = """
[jobs.backup]
command = "true"
schedule = { cron = "30 2 * * *", timezone = "Europe/Berlin" }

[jobs.poll]
command = "true"
schedule = "every 30s"

[jobs.web]
command = "sleep 1000"
schedule = "always"

[jobs.ask]
command = "true"
schedule = "manual"

[jobs.build]
command = "true"
schedule = { watch = ["src/**"] }

[jobs.setup]
command = "true"

[jobs.off]
command = "true"
schedule = "@daily"
enabled = false

[jobs.poll2]
matrix = { region = ["eu", "us"] }
command = "true"
schedule = { every = "1h", after_end = true }
"""


def test_next_lists_starts_in_utc_and_in_the_zone_of_the_job(rpr):
    rpr.write("jobs.toml", JOBS)
    rpr("next", "jobs.toml", "-n", "2", "--from", "2026-03-28T12:00:00Z").is_(
        out="""\
backup            2026-03-29 01:00:00Z  2026-03-29 03:00:00 +02:00 Europe/Berlin
                  2026-03-30 00:30:00Z  2026-03-30 02:30:00 +02:00 Europe/Berlin
poll              2026-03-28 12:00:00Z  2026-03-28 12:00:00 +00:00  (at once)
                  2026-03-28 12:00:30Z  2026-03-28 12:00:30 +00:00
web               2026-03-28 12:00:00Z  2026-03-28 12:00:00 +00:00  (at once)
                  a service, kept running
ask               only on request
build             when files change: src/**
setup             2026-03-28 12:00:00Z  2026-03-28 12:00:00 +00:00  (at once)
                  once, when it is applied
off               disabled
poll2[region=eu]  2026-03-28 12:00:00Z  2026-03-28 12:00:00 +00:00  (at once)
                  then 1h after the end of each run
poll2[region=us]  2026-03-28 12:00:00Z  2026-03-28 12:00:00 +00:00  (at once)
                  then 1h after the end of each run
"""
    )


def test_next_shows_runs_that_follow_each_other(rpr):
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "true"\nschedule = { every = "0s", after_end = true }\n')
    rpr("next", "jobs.toml", "--from", "2026-03-28T12:00:00Z").is_(
        out="a  2026-03-28 12:00:00Z  2026-03-28 12:00:00 +00:00  (at once)\n   then back to back\n"
    )


def test_next_as_json_is_one_object_for_each_start(rpr):
    rpr.write("jobs.toml", JOBS)
    result = rpr("next", "--json", "-n", "2", "--job", "backup", "--job", "ask", "--from", "2026-10-24")
    assert [json.loads(line) for line in result.out.splitlines()] == [
        {
            "job": "backup",
            "nominal": f"2026-10-{day}T{hour}:30:00Z",
            "due": f"2026-10-{day}T{hour}:30:00Z",
            "local": f"2026-10-{day}T02:30:00+02:00",
        }
        for day, hour in ((24, "00"), (25, "00"))
    ]


def test_next_shows_the_machines_zone_where_the_job_has_none(rpr):
    rpr.write("jobs.toml", JOBS)
    result = rpr("next", "--json", "-n1", "--job", "poll", "--from", "2026-03-28T12:00:00Z", env={"TZ": "Asia/Tokyo"})
    assert json.loads(result.out)["local"] == "2026-03-28T21:00:00+09:00"


def test_next_shows_an_offset_with_seconds(rpr):
    file = """
    [jobs.old]
    command = "true"
    schedule = { cron = "0 12 * * *", timezone = "Europe/Berlin" }
    """
    result = rpr("next", "-", "-n", "1", "--from", "1890-01-01", stdin=file)
    assert result.out == "old  1890-01-01 11:06:32Z  1890-01-01 12:00:00 +00:53:28 Europe/Berlin\n"


def test_next_without_a_time_begins_now(rpr):
    rpr.write("jobs.toml", JOBS)
    assert rpr("next", "--job", "poll").out.count("Z") == 5


def test_a_group_name_means_its_cells(rpr):
    rpr.write("jobs.toml", JOBS)
    assert rpr("next", "--job", "poll2").out.count("poll2[") == 2
    assert rpr("next", "--job", "poll2[region=us]").out.count("poll2[") == 1


def test_next_refuses_what_it_cannot_do(rpr):
    rpr.write("jobs.toml", JOBS)
    rpr("next", "--job", "nix*").is_(
        err="rpr: cannot find job `nix*`: there is `backup`, `poll`, `web`, `ask`, `build`, `setup`, `off`, `poll2[region=eu]` …\n",
        code=2,
    )
    rpr("next", "--from", "soon").is_(
        err="rpr: cannot use `--from soon`: expected a time like `07:00` or `2026-11-24T03:00:00Z`, a date, `tomorrow`, or a duration like `2h`\n",
        code=2,
    )
    assert rpr("next", "-n", "0").code == 2


def test_next_names_every_schedule_that_cannot_be(rpr):
    rpr.write(
        "bad.toml",
        '[jobs.a]\ncommand = "true"\nschedule = "0 0 30 2 *"\n\n[jobs.b]\ncommand = "true"\nschedule = { cron = "0 0 * * *", timezone = "EST" }\n',
    )
    result = rpr("next", "bad.toml")
    assert result.code == 2
    assert "bad.toml:3:" in result.err
    assert "never matches" in result.err
    assert "bad.toml:7:" in result.err
    assert "time zone `EST`" in result.err
    assert result.out == ""
