"""`rpr simulate`: every slot of a stretch of time, without starting anything."""

from __future__ import annotations

import json

from tests.cli.conftest import Rpr

FILE = """
[jobs.backup]
command = "touch never"
schedule = { cron = "0 3 * * *", timezone = "Europe/Berlin" }
[jobs.poll]
command = "touch never"
schedule = "every 20m"
"""
FROM = ("--from", "2026-10-25T00:00:00Z")


def rows(rpr: Rpr, *args: str) -> list[dict[str, object]]:
    done = rpr("simulate", "jobs.toml", *FROM, "--json", *args)
    assert (done.err, done.code) == ("", 0)
    return [json.loads(line) for line in done.out.splitlines()]


def test_every_slot_is_one_object_with_the_ten_keys_in_order(rpr: Rpr) -> None:
    rpr.write("jobs.toml", FILE)
    found = rows(rpr, "--for", "24h")
    assert list(found[0]) == [
        "job",
        "nominal",
        "due",
        "started",
        "ended",
        "state",
        "reason",
        "reason_code",
        "detail",
        "run",
        "attempts",
        "exit",
    ]
    assert [row["nominal"] for row in found] == sorted(str(row["nominal"]) for row in found)
    assert len([row for row in found if row["job"] == "poll"]) == 72
    (backup,) = [row for row in found if row["job"] == "backup"]
    assert backup["nominal"] == "2026-10-25T02:00:00Z"  # 03:00 after the clocks went back
    assert (backup["state"], backup["reason"], backup["attempts"], backup["exit"]) == ("succeeded", "success", 1, 0)
    assert not (rpr.folder / "never").exists()
    assert not (rpr.folder / ".state").exists()


def test_durations_make_overlaps_visible(rpr: Rpr) -> None:
    rpr.write("jobs.toml", FILE)
    found = rows(rpr, "--for", "1h", "--duration", "poll=25m")
    told = [(row["state"], row["reason_code"]) for row in found if row["job"] == "poll"]
    assert told == [("succeeded", "success"), ("skipped", "overlap"), ("running", None)]


def test_the_text_is_a_line_a_slot_and_a_summary(rpr: Rpr) -> None:
    rpr.write("jobs.toml", FILE)
    rpr("simulate", "jobs.toml", *FROM, "--for", "40m", "--duration", "p*=30s").is_(
        out="2026-10-25 00:00:00  poll  ran in 30s\n2026-10-25 00:20:00  poll  ran in 30s\n2 slots in 40m: 2 ran\n"
    )


def test_many_slots_are_summarised_by_job_unless_all_are_wanted(rpr: Rpr) -> None:
    rpr.write("jobs.toml", FILE)
    rpr("simulate", "jobs.toml", *FROM, "--for", "24h").is_(
        out="poll    72 ran\nbackup  1 ran\n73 slots in 1d: 73 ran\n",
        err="hint: `--all` shows every slot, `--job` selects jobs\n",
    )
    assert len(rpr("simulate", "jobs.toml", *FROM, "--for", "24h", "--all").out.splitlines()) == 74


def test_job_shows_the_slots_of_these_jobs_only(rpr: Rpr) -> None:
    rpr.write("jobs.toml", FILE)
    done = rpr("simulate", "jobs.toml", *FROM, "--for", "24h", "--job", "back*")
    assert done.out.splitlines()[-1] == "1 slot in 1d: 1 ran"
    assert {row["job"] for row in rows(rpr, "--for", "24h", "--job", "backup")} == {"backup"}
    assert rpr("simulate", "jobs.toml", "--for", "1h", "--job", "bakcup").code == 2


def test_wrong_options_are_explained(rpr: Rpr) -> None:
    rpr.write("jobs.toml", FILE)
    for args, message in (
        (("--for", "5"), "cannot use `--for 5`: found `5`, expected a duration"),
        (("--for", "1h", "--duration", "pol=1s"), "did you mean `poll`?"),
        (("--for", "1h", "--duration", "poll"), "expected `JOB=DURATION`"),
        (("--for", "1h", "--from", "soon"), "cannot use `--from soon`"),
    ):
        done = rpr("simulate", "jobs.toml", *args)
        assert done.code == 2
        assert message in done.err


def test_durations_are_taken_from_history(rpr: Rpr) -> None:
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "sleep 0.5"\nschedule = "every 1m"\nstop = { times = 1 }\n')
    assert rpr("apply", "jobs.toml", "-q").code == 0
    (row,) = rows(rpr, "--for", "30s")
    assert str(row["ended"]).startswith("2026-10-25T00:00:00.")  # half a second and a little


def test_slots_that_a_limit_holds_are_shown_with_what_holds_them(rpr: Rpr) -> None:
    rpr.write(
        "jobs.toml",
        """
        [limits.api]
        rate = "1/10m"
        shared = true
        [jobs]
        a = { command = "x", schedule = "*/5 * * * *", limit = "api", overlap = "queue" }
        """,
    )
    done = rpr("simulate", "jobs.toml", "--for", "20m", "--from", "2026-11-23T00:00:00Z")
    assert done.out == (
        "2026-11-23 00:00:00  a  ran in 0s\n"
        "2026-11-23 00:05:00  a  ran in 0s, 5m late: limit `api` (1/10m)\n"
        "2026-11-23 00:10:00  a  limit `api` (1/10m) until 2026-11-23T00:20:00Z\n"
        "3 slots in 20m: 2 ran, 1 blocked\n"
    )
    rows = rpr("simulate", "jobs.toml", "--for", "20m", "--from", "2026-11-23T00:00:00Z", "--json").out.splitlines()
    assert [json.loads(row)["state"] for row in rows] == ["succeeded", "succeeded", "blocked"]
    assert list(json.loads(rows[2])) == list(json.loads(rows[0]))
