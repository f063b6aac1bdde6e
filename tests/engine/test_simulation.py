"""The simulated rows are the rows that a live run leaves: same engine, same facts, same decisions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from repeater.engine.simulate import simulate
from repeater.model.run import INTERIM, SlotRecord
from repeater.model.spec import (
    Always,
    At,
    Backoff,
    CatchUp,
    Cron,
    Every,
    Growing,
    Jitter,
    JobFile,
    JobSpec,
    Manual,
    Need,
    Once,
    Overlap,
    Pool,
    Stop,
)
from repeater.ports import LaunchRequest
from repeater.sentences import sentence
from tests.engine.stage import Stage, job
from tests.fakes.clock import EPOCH, FakeClock
from tests.fakes.spawn import FOR_EVER, Act, seconds
from tests.fakes.text import text_of

schedules = st.one_of(
    st.just(Once()),
    st.just(Manual()),
    st.just(Always()),
    st.builds(lambda n, after: Every(seconds(n), after_end=after), st.integers(1, 40), st.booleans()),
    st.builds(lambda n: Every(seconds(n), jitter=Jitter(span=seconds(n / 2), mode="random")), st.integers(2, 40)),
    st.sampled_from([Cron("* * * * *"), Cron("*/2 * * * *"), Cron("*/10 * * * * *", seconds="first")]),
    st.builds(lambda n: At(EPOCH + seconds(n)), st.integers(0, 200)),
    st.builds(lambda n: Growing(Backoff("fibonacci", base=seconds(n))), st.integers(1, 9)),
)
overlaps = st.sampled_from(
    [Overlap(), Overlap("latest"), Overlap("first"), Overlap("queue", queue_max=2), Overlap("replace"),
     Overlap("allow", max_instances=2)]
)  # fmt: skip
stops = st.sampled_from([Stop(), Stop(times=3), Stop(for_=seconds(70)), Stop(successes=2), Stop(on_success=True)])


@st.composite
def job_files(draw: st.DrawFn) -> tuple[JobFile, dict[str, timedelta]]:
    count = draw(st.integers(1, 5))
    jobs: list[JobSpec] = []
    durations = {}
    for index in range(count):
        name = "abcde"[index]
        needs: tuple[Need, ...] = ()
        if index and draw(st.booleans()):
            condition: Any = draw(st.sampled_from(["started", "succeeded", "completed"]))
            within: Any = draw(st.sampled_from(["ever", "same_slot"]))
            needs = (Need(jobs[-1].name, condition, within=within, trigger=draw(st.booleans()), timeout=seconds(60)),)
        spec = job(
            name,
            draw(schedules),
            overlap=draw(overlaps),
            stop=draw(stops),
            needs=needs,
            pool=draw(st.sampled_from([None, "p"])),
            catch_up=CatchUp(start_deadline=draw(st.sampled_from([None, seconds(15)]))),
        )
        jobs.append(spec)
        if not spec.is_service:
            # odd lengths: when an end and a due time coincide, real life has no order either
            odd = (0.013007, 0.014731, 0.017093, 0.019039, 0.023017)[index]
            durations[name] = seconds(draw(st.integers(0, 30)) + odd)
    return JobFile("test", tuple(jobs), (Pool("p", 1),)), durations


@settings(max_examples=150, deadline=None)
@given(job_files())
def test_simulated_rows_equal_live_rows_under_the_fake_clock(given_file: tuple[JobFile, dict[str, timedelta]]) -> None:
    jobfile, durations = given_file
    clock = FakeClock()
    simulated = list(simulate(jobfile, clock.now(), seconds(300), durations=durations))

    def act(launch: LaunchRequest) -> Act:
        return Act(lasts=durations.get(launch.env["RPR_JOB"], FOR_EVER))

    stage = Stage(act, clock=clock, keep_alive=False)
    stage.apply(*jobfile.jobs, pools=jobfile.pools)
    stage.advance(299.999999)

    live = sorted(stage.store.find_records(most=100_000), key=lambda row: (row.nominal, row.job))
    assert [_plain(row) for row in simulated] == [_plain(row) for row in live]
    assert len({(row.job, row.nominal) for row in live}) == len(live)


def _plain(row: SlotRecord) -> dict[str, Any]:
    plain = row.as_json(sentence)
    if row.state in INTERIM:
        plain["state"] = "open"
    return plain


def test_an_hour_with_services_and_skips_is_listed_slot_by_slot() -> None:
    jobs = (job("slow", Every(seconds(600))), job("s", Always()), job("c", Cron("*/30 * * * *")))
    start = FakeClock().now()
    rows = list(simulate(JobFile("t", jobs), start, timedelta(hours=1), durations={"slow": timedelta(minutes=15)}))
    told = [(row.job, row.state, text_of(row.reason)) for row in rows if row.job == "slow"]
    assert told[:3] == [
        ("slow", "succeeded", "success"),
        ("slow", "skipped", "overlap"),
        ("slow", "succeeded", "success"),
    ]
    assert [row.state for row in rows if row.job == "s"] == ["running"]
    assert [row.state for row in rows if row.job == "c"] == ["succeeded", "succeeded"]


def test_the_same_seed_gives_the_same_rows() -> None:
    jobs = (job("a", Every(seconds(60), jitter=Jitter(span=seconds(50), mode="random"))),)
    start = FakeClock().now()

    def run(seed: int) -> list[SlotRecord]:
        return list(simulate(JobFile("t", jobs), start, timedelta(hours=1), seed=seed))

    assert run(1) == run(1)
    assert [row.due for row in run(1)] != [row.due for row in run(2)]
