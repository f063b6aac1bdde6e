"""Every example: the simulated rows are those of a live run under the fake clock, row by row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from repeater.apps.job_files import load_job_files
from repeater.engine.simulate import simulate
from repeater.model.run import INTERIM, SlotRecord
from repeater.ports import LaunchRequest
from repeater.sentences import sentence
from tests.engine.stage import Stage
from tests.fakes.clock import FakeClock
from tests.fakes.spawn import FOR_EVER, Act, seconds

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path for path in (ROOT / "docs" / "examples").iterdir() if path.suffix in (".toml", ".yaml"))
LENGTH = timedelta(hours=3)


def key(row: SlotRecord) -> dict[str, object]:
    plain = row.as_json(sentence)
    if row.state in INTERIM:
        plain["state"] = "open"
    return plain


@pytest.mark.parametrize("path", [ROOT / "jobs.example.toml", *EXAMPLES], ids=lambda path: path.name)
def test_an_example_is_simulated_as_it_would_run(path: Path) -> None:
    length = timedelta(minutes=5) if path.parent == ROOT else LENGTH
    jobfile = load_job_files((str(path),), environ={}).jobfile
    # a different, odd length for each job: where an end and a due time coincide, real life has no order either
    durations = {
        job.name: seconds(0.0137 + 1.0173 * index) for index, job in enumerate(jobfile.jobs) if not job.is_service
    }
    clock = FakeClock(datetime(2026, 11, 23, 1, tzinfo=UTC))
    simulated = list(simulate(jobfile, clock.now(), length, durations=durations))

    def act(launch: LaunchRequest) -> Act:
        return Act() if ":" in launch.run else Act(lasts=durations.get(launch.env["RPR_JOB"], FOR_EVER))

    stage = Stage(act, clock=clock, keep_alive=False)
    stage.apply(*jobfile.jobs, pools=jobfile.pools, limits=jobfile.limits)
    stage.clock.advance(length - timedelta(microseconds=1))

    order = {job.name: index for index, job in enumerate(jobfile.jobs)}
    live = sorted(stage.store.find_records(most=1_000_000), key=lambda row: (row.nominal, order[row.job], row.due))
    assert [key(row) for row in simulated] == [key(row) for row in live]
    assert simulated
