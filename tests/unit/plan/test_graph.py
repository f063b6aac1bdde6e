"""Wiring: which nodes a reload takes over from the graph in force."""

from repeater._lazy_dataclasses import replace
from repeater.model.spec import Always, JobFile, JobSpec, Need, ProcessSpec
from repeater.plan.graph import wire


def job(name: str, *needs: str, **keys: object) -> JobSpec:
    return JobSpec(name, ProcessSpec(""), needs=tuple(Need(one, "succeeded") for one in needs), **keys)  # type: ignore[arg-type]


def test_a_node_is_taken_over_when_its_job_and_those_it_needs_are_the_same() -> None:
    jobs = (job("a"), job("b", "a"))
    before = wire(JobFile("p", jobs))
    after = wire(JobFile("p", (*jobs, job("c"))), known=before.nodes)
    assert list(after.nodes) == ["a", "b", "c"]
    assert all(after.nodes[name] is before.nodes[name] for name in "ab")


def test_a_changed_job_gets_a_node_of_its_own() -> None:
    before = wire(JobFile("p", (job("a"),)))
    service = job("a", schedule=Always())
    after = wire(JobFile("p", (service,)), known=before.nodes)
    assert after.nodes["a"].spec is service
    assert after.nodes["a"].schedule is not before.nodes["a"].schedule


def test_a_need_of_a_matrix_means_its_cells_of_now() -> None:
    cells = [replace(job(f"m[x={n}]"), group="m") for n in range(3)]
    needy = job("b", "m")
    before = wire(JobFile("p", (*cells[:2], needy)))
    after = wire(JobFile("p", (*cells, needy)), known=before.nodes)
    assert [targets for _, targets in after.nodes["b"].needs] == [("m[x=0]", "m[x=1]", "m[x=2]")]
