"""The layout of `rpr status` at 40, 80 and 120 columns, for 3 and 60 jobs."""

from __future__ import annotations

import re
from typing import Any

import pytest

from repeater.cli.status_layout import (
    FAILING,
    HELD,
    OFF,
    REST,
    Row,
    frame,
    group_of,
    has_label,
    shorten,
    status_lines,
    totals,
    wrap,
)

ERROR = "failed 3 times in a row (exit 3)"
SOON = Row(REST, "web", "scheduled", "ok 4s ago", "13:25:12, in 1s", "in 1s", "")
THREE = [
    SOON,
    Row(HELD, "report", "blocked", "never", "13:25:12", "now", "needs `backup` to have succeeded (for 2m)"),
    Row(FAILING, "backup-of-the-customers-database", "scheduled", "failed 12m ago", "03:00:00, in 5h", "in 5h", ERROR),
]
SIXTY = [
    Row(
        FAILING if n in (7, 31) else OFF if n == 50 else REST, f"customer-{n:02}-synchronise-all-the-orders",
        "disabled" if n == 50 else "scheduled", "failed 2m ago" if n in (7, 31) else "ok 3m ago",
        "2026-12-01 01:30, in 12h 04m", "in 12h 04m", ERROR if n in (7, 31) else "",
    )
    for n in range(60)
]  # fmt: skip

TABLES = {
    120: """\
JOB                               STATE      LAST RUN        NEXT START       NOTE
backup-of-the-customers-database  scheduled  failed 12m ago  03:00:00, in 5h  failed 3 times in a row (exit 3)
report                            blocked    never           13:25:12         needs `backup` to have succeeded (for 2m)
web                               scheduled  ok 4s ago       13:25:12, in 1s""",
    80: """\
JOB                   STATE      LAST RUN        NOTE
backup-of-…-database  scheduled  failed 12m ago  failed 3 times in a row (exit
                                                 3)
report                blocked    never           needs `backup` to have
                                                 succeeded (for 2m)
web                   scheduled  ok 4s ago""",
    40: """\
backup-of-the-customers-database
  scheduled  failed 12m ago  next in 5h
  failed 3 times in a row (exit 3)
report  blocked  next now
  needs `backup` to have succeeded (for
  2m)
web  scheduled  ok 4s ago  next in 1s""",
}


@pytest.mark.parametrize("width", TABLES)
def test_three_jobs_have_this_layout(width: int) -> None:
    assert "\n".join(status_lines(THREE, width)) == TABLES[width]


@pytest.mark.parametrize("width", [40, 59, 60, 80, 120, 200])
@pytest.mark.parametrize("rows", [THREE, SIXTY], ids=["3 jobs", "60 jobs"])
def test_no_line_is_wider_than_the_terminal(rows: list[Row], width: int) -> None:
    assert max(map(len, status_lines(rows, width))) <= width


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("rows", [THREE, SIXTY], ids=["3 jobs", "60 jobs"])
def test_notes_are_complete_and_dates_are_not_broken(rows: list[Row], width: int) -> None:
    text = " ".join(" ".join(status_lines(rows, width)).split())
    for row in rows:
        assert all(word in text for word in row.note.split())
    lines = status_lines(SIXTY, width)
    assert not [line for line in lines if re.search(r"\d{4}-\d\d$|-$", line)]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_failing_jobs_are_first_and_disabled_jobs_last(width: int) -> None:
    lines = status_lines(SIXTY, width)
    names = [line for line in lines if line.startswith("customer-")]
    assert len(names) == 60
    assert "07" in names[0]
    assert "31" in names[1]
    assert "50" in names[-1]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_sixty_jobs_fit_on_one_screen_and_the_rest_is_counted(width: int) -> None:
    lines = status_lines(SIXTY, width, 20)
    assert len(lines) <= 20
    left = re.fullmatch(r"… and (\d+) more; `rpr status --all`", lines[-1])
    assert left is not None
    count = int(left[1])
    assert count + sum(line.startswith("customer-") for line in lines) == 60


def test_failing_and_held_jobs_are_always_shown() -> None:
    rows = [Row(FAILING if n % 2 else HELD, f"j{n}", "idle", "-", "-", "-", "") for n in range(40)]
    assert len(status_lines([*rows, SOON], 80, 10)) == 1 + 40 + 1


def test_columns_that_matter_less_go_before_a_note_is_cut() -> None:
    note = "cannot start the command: " + "a long reason " * 12
    row = Row(FAILING, "a", "scheduled", "failed 2m ago", "2026-12-01 01:30, in 12h", "in 12h", note)
    lines = status_lines([row], 80)
    assert "NEXT START" not in lines[0]
    assert lines[-1].endswith("…")


def test_without_a_width_each_job_has_one_line_with_everything() -> None:
    lines = status_lines(SIXTY, 0)
    assert len(lines) == 61
    assert lines[1].endswith(f"2026-12-01 01:30, in 12h 04m  {ERROR}")


def test_a_frame_clears_the_rest_of_each_line_and_of_the_screen() -> None:
    assert frame(["a", "b"], 24) == "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J"
    assert frame(["a", "b", "c"], 3) == frame(["a", "b"], 0)


def test_shortened_names_stay_different() -> None:
    rows = [Row(REST, f"customer-database-{n}-in-the-north-of-europe", "idle", "-", "-", "-", "") for n in range(12)]
    names = [line.split()[0] for line in status_lines(rows, 80)[1:]]
    assert len(set(names)) == 12
    assert all(name.startswith("customer") and name.endswith("europe") for name in names)


def test_colours_mark_the_state_and_the_last_run() -> None:
    def paint(text: str, code: str) -> str:
        return f"<{code}:{text.strip()}>"

    failing = status_lines(THREE, 120, 0, paint)[1]
    assert "<31:failed 12m ago>" in failing
    assert "<35:blocked>" in "\n".join(status_lines(THREE, 40, 0, paint))
    shown = re.findall(r"<(\d+):", "\n".join(status_lines([*THREE, *SIXTY], 120, 0, paint)))
    assert not {"33", "93", "37", "97"} & set(shown), "not readable on a light background"


@pytest.mark.parametrize(
    ("text", "most", "short"), [("backup", 6, "backup"), ("backups", 6, "bac…ps"), ("poll[region=eu]", 9, "poll…=eu]")]
)
def test_a_long_name_is_shortened_in_the_middle(text: str, most: int, short: str) -> None:
    assert shorten(text, most) == short


def test_text_is_wrapped_at_spaces_only() -> None:
    assert wrap("until 2026-12-01 01:30:00 paused", 12, "  ") == ["until", "  2026-12-01", "  01:30:00", "  paused"]
    assert wrap("a-word-that-is-too-long b", 10) == ["a-wor…long", "b"]
    assert wrap("one line", 0) == ["one line"]


def item(**changes: Any) -> dict[str, Any]:
    return {
        "job": "a", "state": "scheduled", "last": None, "consecutive_failures": 0, "service": False, "ready": None,
        "running": [], "faults": [], "labels": {"team": "a"}, **changes,
    }  # fmt: skip


FAILED = {"outcome": "failed"}


@pytest.mark.parametrize(
    ("changes", "group"),
    [
        ({}, REST),
        ({"consecutive_failures": 1}, FAILING),
        ({"last": FAILED, "state": "done"}, FAILING),
        ({"last": {"outcome": "interrupted"}}, FAILING),
        ({"state": "throttled"}, FAILING),
        ({"state": "retrying"}, FAILING),
        ({"faults": [{}]}, FAILING),
        ({"state": "blocked"}, HELD),
        ({"state": "paused"}, HELD),
        ({"service": True, "ready": False, "state": "running"}, HELD),
        ({"service": True, "last": FAILED, "running": [{"seconds": 61.0}]}, REST),
        ({"service": True, "last": FAILED, "running": [{"seconds": 1.0}]}, FAILING),
        ({"state": "disabled", "last": FAILED}, OFF),
        ({"state": "done"}, OFF),
    ],
)
def test_a_job_is_failing_held_off_or_the_rest(changes: dict[str, Any], group: int) -> None:
    assert group_of(item(**changes)) == group


def test_the_totals_count_jobs_with_a_problem() -> None:
    items = [item(), item(consecutive_failures=2), item(last=FAILED), item(state="paused"), item(state="disabled")]
    assert totals(items, 5) == "5 jobs: 2 failing, 1 paused, 1 disabled"
    assert totals(items[:1], 5) == "1 of 5 jobs: none failing"
    assert totals(items[:1], 1) == "1 job: none failing"
    assert totals([], 5) == "0 of 5 jobs"


def test_a_label_is_a_key_or_a_key_with_a_value() -> None:
    assert has_label(item(), "team")
    assert has_label(item(), "team=a")
    assert not has_label(item(), "team=b")
    assert not has_label(item(), "owner")
