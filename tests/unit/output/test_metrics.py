"""Metrics from events and from the engine: what is counted, that it is bounded, and that a stranger can read it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from repeater.engine.job import Job
from repeater.model.events import (
    GenerationApplied,
    JobRemoved,
    ReloadRejected,
    RunBegan,
    RunFinished,
    SlotDecided,
    SpawnRejected,
)
from repeater.model.reasons import OVERLAP, STOPPED, SUCCESS, Reason
from repeater.model.reasons import reason as because
from repeater.model.run import Exit, Run, Slot, SlotRecord, Verdict
from repeater.model.spec import Cron, Every, Limit, Pool
from repeater.model.units import Rate
from repeater.output import metrics as module
from repeater.output.metrics import OTHER, Metrics
from tests.engine.stage import Stage, job
from tests.fakes.clock import EPOCH
from tests.fakes.spawn import Act, seconds

T = datetime(2026, 11, 23, tzinfo=UTC)


def run(name: str = "a", number: int = 1) -> Run:
    return Run(f"{name}{number}", Slot(name, T, T), 1, 1)


def row(name: str, state: Any, reason: Reason, *, attempts: int = 1) -> SlotRecord:
    return SlotRecord(name, T, T, T if attempts else None, T, state, reason, f"{name}1" if attempts else None, attempts)


class Meter:
    """Metrics with a clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 0.0
        self.metrics = Metrics(clock=lambda: self.time)

    def tell(self, *events: Any) -> None:
        for event in events:
            self.metrics(event)

    def samples(self, jobs: dict[str, Job] | None = None) -> dict[str, float]:
        if jobs is not None:
            for _ in self.metrics.sample(jobs):
                pass
        found = {}
        for family in text_string_to_metric_families(self.metrics.expose().decode()):
            for sample in family.samples:
                labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}"] = sample.value
        return found

    def names(self) -> set[str]:
        return set(re.findall(r'job="([^"]*)"', self.metrics.expose().decode()))


def test_runs_are_counted_by_job_and_outcome_and_timed() -> None:
    meter = Meter()
    meter.tell(RunBegan(run(), 7, 0.004))
    meter.time = 2.5
    meter.tell(RunFinished(run(), Verdict(True, SUCCESS), 0), SlotDecided(row("a", "succeeded", SUCCESS)))
    meter.tell(RunBegan(run(), 7, 0.0), RunFinished(run(), Verdict(False, because("exit", exit=3)), 3, T))
    found = meter.samples()
    assert found["repeater_runs_total{job=a,outcome=success}"] == 1
    assert found["repeater_runs_total{job=a,outcome=failed}"] == 1
    assert found["repeater_run_duration_seconds_sum{job=a}"] == 2.5
    assert found["repeater_run_duration_seconds_bucket{job=a,le=1.0}"] == 1
    assert found["repeater_run_lateness_seconds_count{}"] == 2
    assert found["repeater_spawn_failures_total{reason=program_missing}"] == 0


@pytest.mark.parametrize("state", ["cancelled", "replaced", "interrupted"])
def test_a_run_that_was_ended_from_outside_counts_once_by_that(state: str) -> None:
    meter = Meter()
    meter.tell(RunBegan(run(), 7, 0.0), SlotDecided(row("a", state, STOPPED)))
    assert meter.samples()[f"repeater_runs_total{{job=a,outcome={state}}}"] == 1
    assert "repeater_slots_skipped_total" not in str(meter.samples())


def test_slots_without_a_run_are_counted_by_the_code_of_their_reason() -> None:
    meter = Meter()
    failed = [because("upstream_failed", job=name, condition="succeeded") for name in ("b", "c")]
    for reason in (OVERLAP, *failed, because("paused", text="the disk is moved")):
        meter.tell(SlotDecided(row("a", "skipped", reason, attempts=0)))
    found = meter.samples()
    assert found["repeater_slots_skipped_total{job=a,reason=overlap}"] == 1
    assert found["repeater_slots_skipped_total{job=a,reason=upstream_failed}"] == 2
    assert found["repeater_slots_skipped_total{job=a,reason=paused}"] == 1
    assert "repeater_runs_total" not in str(found)


def test_a_row_that_represents_many_slots_counts_all_of_them() -> None:
    meter = Meter()
    meter.tell(SlotDecided(row("a", "skipped", because("missed_many", until=T), attempts=0), 3589))
    assert meter.samples()["repeater_slots_skipped_total{job=a,reason=missed_many}"] == 3589


def test_times_of_day_have_no_interval() -> None:
    stage = Stage()
    stage.apply(job("a", Cron("0 3 * * *")))
    found = Meter().samples(dict(stage.engine.jobs))
    assert found["repeater_slots_planned_total{job=a}"] == 0
    assert "interval_seconds" not in str(found)


def test_failed_starts_are_counted_also_when_they_are_retried() -> None:
    meter = Meter()
    missing = because("program_missing", program="x")
    meter.tell(SpawnRejected("a", missing, 127, temporary=False), RunFinished(run(), Verdict(False, missing), None))
    meter.tell(SpawnRejected("a", because("resource_short", program="x", errno="EAGAIN"), 126, temporary=True))
    found = meter.samples()
    assert found["repeater_spawn_failures_total{reason=program_missing}"] == 1
    assert found["repeater_spawn_failures_total{reason=resource_short}"] == 1


def test_a_shortage_of_the_machine_is_counted() -> None:
    meter = Meter()
    stage = Stage({"a": Act(refusal="no memory", temporary=True)})
    stage.listeners.append(meter.metrics)
    stage.apply(job("a", Every(seconds(10))))
    assert meter.samples()["repeater_spawn_failures_total{reason=text}"] == 1


def test_the_last_reload_and_the_generation_are_exposed() -> None:
    meter = Meter()
    meter.tell(GenerationApplied(3))
    found = meter.samples()
    assert found["repeater_config_generation{}"] == 3
    assert found["repeater_config_last_reload_successful{}"] == 1
    assert found["repeater_config_last_reload_success_timestamp_seconds{}"] > 0
    meter.tell(ReloadRejected(3, because("files_rejected", error="broken")))
    found = meter.samples()
    assert found["repeater_config_last_reload_successful{}"] == 0
    assert found["repeater_config_reloads_total{result=rejected}"] == 1
    assert found["repeater_config_reloads_total{result=accepted}"] == 1


def test_series_of_a_removed_job_do_not_return_with_its_last_run() -> None:
    meter = Meter()
    meter.tell(RunBegan(run("a"), 7, 0.0), RunFinished(run("a"), Verdict(True, SUCCESS), 0))
    meter.tell(SlotDecided(row("a", "skipped", OVERLAP, attempts=0)), RunBegan(run("a", 2), 7, 0.0))
    assert meter.names() == {"a"}
    meter.tell(JobRemoved("a"), RunFinished(run("a", 2), Verdict(True, SUCCESS), 0))
    assert meter.names() == set()
    meter.tell(RunBegan(run("a", 3), 7, 0.0), RunFinished(run("a", 3), Verdict(True, SUCCESS), 0))
    assert meter.names() == {"a"}  # a new one of that name


def test_series_of_a_job_that_got_another_name_disappear_too() -> None:
    meter = Meter()
    meter.tell(RunFinished(run("old"), Verdict(True, SUCCESS), 0))
    stage = Stage()
    stage.apply(job("new", Every(seconds(10))))
    meter.samples(dict(stage.engine.jobs))
    assert meter.names() == {"new"}


def test_labels_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_JOBS", 3)
    meter = Meter()
    stage = Stage({f"j{n}": Act(lasts=seconds(5)) for n in range(10)})
    stage.listeners.append(meter.metrics)
    stage.apply(*(job(f"j{n}", Every(seconds(20))) for n in range(10)))
    stage.advance(21)
    found = meter.samples(dict(stage.engine.jobs))
    assert meter.names() == {"j0", "j1", "j2", OTHER}
    assert found[f"repeater_runs_total{{job={OTHER},outcome=success}}"] == 7
    assert found["repeater_jobs{}"] == 10
    assert found[f"repeater_job_runs_live{{job={OTHER}}}"] == 7
    meter.tell(JobRemoved("j0"), RunFinished(run("j9"), Verdict(True, SUCCESS), 0))
    assert "j9" in meter.names()  # there is room again


def test_the_current_state_of_jobs_is_read_from_the_engine() -> None:
    stage = Stage({"a": Act(lasts=seconds(5)), "b": Act(exit=Exit(1))})
    db, api = Pool("db", 2), Limit("api", Rate(5, timedelta(minutes=1)))
    a, b = job("a", Every(seconds(10)), pool="db"), job("b", Every(seconds(10)), limit="api")
    stage.apply(a, b, pools=(db,), limits=(api,))
    stage.advance(22)
    meter = Meter()
    meter.metrics.attach(stage.engine.admission.usage)
    found = meter.samples(dict(stage.engine.jobs))
    assert found["repeater_job_runs_live{job=a}"] == 1
    following = stage.engine.jobs["a"].next
    assert following is not None
    assert found["repeater_job_next_start_timestamp_seconds{job=a}"] == following.due.timestamp()
    assert found["repeater_job_last_success_timestamp_seconds{job=a}"] == (EPOCH + seconds(15)).timestamp()
    assert found["repeater_slots_planned_total{job=a}"] == 3
    assert found["repeater_job_interval_seconds{job=a}"] == 10
    assert found["repeater_job_average_interval_seconds{job=a}"] == 10
    assert found["repeater_job_consecutive_failures{job=a}"] == 0
    assert found["repeater_job_consecutive_failures{job=b}"] == 3
    assert "repeater_job_last_success_timestamp_seconds{job=b}" not in found
    assert (found["repeater_limit_used{limit=api}"], found["repeater_limit_size{limit=api}"]) == (3, 5)
    assert (found["repeater_pool_used{pool=db}"], found["repeater_pool_size{pool=db}"]) == (1, 2)
    assert found["process_cpu_seconds_total{}"] > 0
    assert found["process_resident_memory_bytes{}"] > 1_000_000


def everything() -> bytes:
    meter = Meter()
    stage = Stage()
    stage.apply(job("a", Every(seconds(10))))
    meter.tell(GenerationApplied(1), RunBegan(run(), 7, 0.0), RunFinished(run(), Verdict(True, SUCCESS), 0))
    meter.tell(SlotDecided(row("a", "skipped", OVERLAP, attempts=0)))
    meter.metrics.attach(lambda: [("limit", "api", 3, 5), ("pool", "db", 1, 2)])
    meter.samples(dict(stage.engine.jobs))
    return meter.metrics.expose()


def test_names_are_those_of_the_field() -> None:
    for family in text_string_to_metric_families(everything().decode()):
        assert family.documentation.endswith("."), family.name
        assert re.fullmatch(r"(repeater|process)_[a-z_]+", family.name)
        assert not re.search(r"_(ms|milliseconds|minutes|percent|kb|mb)$", family.name)
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        if family.type == "gauge":
            assert not family.name.endswith("_total")


def test_promtool_accepts_the_metrics() -> None:
    promtool = shutil.which("promtool", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if promtool is None:
        pytest.skip("there is no promtool here")
    done = subprocess.run([promtool, "check", "metrics"], input=everything(), capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_every_metric_is_described_for_those_who_build_dashboards() -> None:
    page = (Path(__file__).parents[3] / "docs/how-to/monitor.md").read_text()
    for line in everything().decode().splitlines():
        if line.startswith("# TYPE repeater_"):
            assert f"`{line.split()[2]}" in page, line
