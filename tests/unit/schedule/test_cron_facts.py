"""`schedule.cron` against facts of the public tests of other cron readers: expressions and instants, no code."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from repeater.model.spec import Cron
from repeater.model.time import Instant, Mono
from repeater.schedule.base import Track
from repeater.schedule.cron import CronSchedule, check_cron

CORPUS = Path(__file__).parents[2] / "corpus" / "cron"


def facts() -> list[tuple[str, ...]]:
    rows = []
    for file in sorted(CORPUS.glob("*.tsv")):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if not line.startswith("#"):
                rows.append(pytest.param(*line.split("\t"), id=f"{file.stem}:{number}"))
    return rows


@pytest.mark.parametrize(("expression", "seconds", "zone", "gap", "fold", "after", "starts"), facts())
def test_the_starts_are_those_that_other_readers_give(expression, seconds, zone, gap, fold, after, starts):
    seconds = None if seconds == "-" else seconds
    spec = Cron(check_cron(expression, seconds, zone), seconds, zone, gap=gap, fold=fold)
    schedule, cursor = CronSchedule(spec, "job"), Instant(datetime.fromisoformat(after), Mono(0))
    for start in starts.split(" "):
        cursor = schedule.next(Track(cursor, cursor))
        assert cursor.wall == datetime.fromisoformat(start)
