from __future__ import annotations

import pytest

from repeater.errors import UsageError
from repeater.model.spec import JobSpec, ProcessSpec
from repeater.plan.select import select


def job(name: str, group: str = "", **labels: str) -> JobSpec:
    return JobSpec(name, ProcessSpec("true"), group=group or name, labels=tuple(sorted(labels.items())))


JOBS = (
    job("db-main", tier="data"),
    job("db-replica", tier="data"),
    job("poll[region=eu]", "poll", tier="web"),
    job("poll[region=us]", "poll"),
)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("db-main", ["db-main"]),
        ("db-*", ["db-main", "db-replica"]),
        ("poll", ["poll[region=eu]", "poll[region=us]"]),
        ("poll[region=eu]", ["poll[region=eu]"]),
        ("poll[*=us]", ["poll[region=us]"]),
        ("p?ll", ["poll[region=eu]", "poll[region=us]"]),
        ("tier=data", ["db-main", "db-replica"]),
        ("tier=*", ["db-main", "db-replica", "poll[region=eu]"]),
    ],
)
def test_a_job_is_meant_by_name_cell_matrix_glob_or_label(pattern: str, names: list[str]) -> None:
    assert [found.name for found in select(JOBS, (pattern,))] == names


def test_without_a_pattern_all_jobs_are_meant() -> None:
    assert select(JOBS, ()) == JOBS


def test_a_pattern_that_means_nothing_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean `db-main`"):
        select(JOBS, ("db-mian",))
