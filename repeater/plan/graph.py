"""The graph that the engine runs: a node for each job, an edge for each need. Cycles are found and named here."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING

from repeater._lazy_dataclasses import dataclass, field
from repeater.model.spec import JobFile, JobSpec, Limit, Need, Pool
from repeater.schedule.base import Schedule
from repeater.schedule.factory import schedule_for

if TYPE_CHECKING:
    from repeater.model.plugins import Plugins


@dataclass(frozen=True, slots=True)
class Node:
    """A job, wired: its spec, its schedule, the jobs (cells, if a need names a matrix job) each need means, and where
    its plugins are asked.
    """

    spec: JobSpec
    schedule: Schedule
    needs: tuple[tuple[Need, tuple[str, ...]], ...] = ()
    plugins: Plugins | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes by job name, in the order of the file. `order` is a start order: needed jobs first."""

    project: str
    nodes: Mapping[str, Node]
    pools: Mapping[str, Pool] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    limits: Mapping[str, Limit] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())


_NONE: Mapping[str, Node] = {}


def wire(jobfile: JobFile, plugins: Plugins | None = None, known: Mapping[str, Node] = _NONE) -> Graph:
    """The graph of a job file whose needs were checked when it was built.

    A node of `known` is used again if its job and the jobs that it needs are the same.
    """
    steps = wiring(jobfile, plugins, known)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            graph: Graph = end.value
            return graph


def wiring(
    jobfile: JobFile, plugins: Plugins | None = None, known: Mapping[str, Node] = _NONE, turn: int = 200
) -> Generator[None, None, Graph]:
    """The same in steps of `turn` jobs, for a caller that must not block for long."""
    groups: dict[str, list[str]] = {}
    for job in jobfile.jobs:
        groups.setdefault(job.group or job.name, []).append(job.name)
    yield
    names = {job.name for job in jobfile.jobs}
    nodes = {}
    for number, job in enumerate(jobfile.jobs, 1):
        if number % turn == 0:
            yield
        needs: tuple[tuple[Need, tuple[str, ...]], ...] = ()
        if job.needs:
            needs = tuple(
                (need, (need.job,) if need.job in names else tuple(groups.get(need.job, ()))) for need in job.needs
            )
        node = known.get(job.name)
        if node is None or node.spec is not job or node.needs != needs or node.plugins is not plugins:
            node = Node(job, schedule_for(job, plugins), needs, plugins)
        nodes[job.name] = node
    yield
    order = start_order(nodes)
    yield
    return Graph(
        jobfile.project,
        nodes,
        {pool.name: pool for pool in jobfile.pools},
        order,
        {limit.name: limit for limit in jobfile.limits},
    )


def start_order(nodes: Mapping[str, Node]) -> tuple[str, ...]:
    """Names so that every job comes after those it needs, otherwise in the given order. No cycle may be left."""
    done: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in done:
            for _, targets in nodes[name].needs:
                for target in targets:
                    if target in nodes:
                        visit(target)
            done[name] = None

    for name in nodes:
        visit(name)
    return tuple(done)
