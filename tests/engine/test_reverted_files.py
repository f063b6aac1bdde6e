"""Files that are edited and reverted: `plan` is then empty, and is the same with a supervisor and from the store alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repeater.apps.state import stored_from
from repeater.cli.plan import Planned, plan_from
from repeater.control.commands import supervisor
from repeater.errors import RepeaterError
from repeater.jobfile.load import load
from repeater.model.plugins import NO_PLUGINS
from tests.engine.test_plan_is_apply import EDITS, SALT, SimulatedSupervisor, content, edited
from tests.fakes.filesystem import MemoryDisk


def apply(simulated: SimulatedSupervisor, files: dict[str, str]) -> bool:
    """Whether the files are valid."""
    simulated.disk = MemoryDisk(files)
    try:
        simulated.verb(supervisor.apply, allow_removals=True)
    except RepeaterError:
        return False
    return True


def plan_without_supervisor(simulated: SimulatedSupervisor) -> Planned:
    """The plan of the same files from the store alone."""
    store = simulated.stage.store
    stored = stored_from(store.generation, store.document, store.extras, store.progress, SALT)
    return plan_from(stored, load(["root.json"], files=simulated.disk, folder="/p").jobfile, NO_PLUGINS)


def check_same_plan(simulated: SimulatedSupervisor, files: dict[str, str]) -> None:
    """The supervisor and the store alone give the same plan for these files."""
    simulated.disk = MemoryDisk(files)
    try:
        planned, result = simulated.verb(supervisor.plan, allow_removals=True)
    except RepeaterError:
        return
    offline = plan_without_supervisor(simulated)
    live = [(item["job"], item["class"], item["from"], _changes(item["changes"])) for item in planned]
    found = [(one.job, one.reload, one.moved_from, list(one.changes)) for one in offline.entries]
    assert sorted(found, key=_job) == sorted(live, key=_job)
    assert [(name, old, new) for kind, name, old, new in offline.shared if kind == "pool"] == _shared(result["pools"])
    assert [(name, old, new) for kind, name, old, new in offline.shared if kind == "limit"] == _shared(result["limits"])


def _job(entry: tuple[Any, ...]) -> str:
    """The order of removed jobs is that of the former generation, which a store does not keep."""
    return str(entry[0])


def _changes(items: list[dict[str, Any]]) -> list[tuple[str, Any, Any]]:
    return [(item["key"], item["old"], item["new"]) for item in items]


def _shared(items: list[dict[str, Any]]) -> list[tuple[str, Any, Any]]:
    return [(item["name"], item["old"], item["new"]) for item in items]


def check_nothing_changes(simulated: SimulatedSupervisor) -> None:
    planned, result = simulated.verb(supervisor.plan)
    assert {item["class"] for item in planned} <= {"keep"}
    assert all(item["next"]["old"] == item["next"]["new"] for item in planned)
    assert (result["pools"], result["limits"], result["changed"]) == ([], [], 0)
    assert result["generation"] == simulated.stage.engine.generation
    offline = plan_without_supervisor(simulated)
    assert [entry for entry in offline.entries if entry.reload != "keep"] == []
    assert not offline.changes_anything


@pytest.mark.parametrize(
    "job",
    [
        {"command": "docker inspect --format '{{ '{{' }}.Id}}'"},
        {"command": ["echo", "{% raw %}{{ x }}{% endraw %}", "{{ run.id }}"]},
        {"command": "true", "description": "{{ '{# x #}' }}"},
        {"command": "true", "env": {"A": "{{ '{{ x }}' }}", "B": "{{ run.id }} {{ '{{ x }}' }}"}},
        {"command": "true", "cwd": "/{{ run.id }}", "stdin": "{{ '{{' }}"},
    ],
)
def test_a_text_like_a_template_is_not_a_change_without_a_supervisor(job: dict[str, Any]) -> None:
    simulated = SimulatedSupervisor(0)
    assert apply(simulated, {"/p/root.json": json.dumps({"project": "p", "jobs": {"a": job}})})
    check_nothing_changes(simulated)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(EDITS, st.lists(EDITS, min_size=1, max_size=3), st.floats(0, 20), st.booleans())
def test_a_reverted_file_makes_an_empty_plan(first: Any, edits: list[Any], wait: float, restarts: bool) -> None:
    simulated, state = SimulatedSupervisor(0), edited(None, first)
    files = content(state, is_sound=True)
    if not apply(simulated, files):
        return
    simulated.stage.advance(round(wait, 3))
    for edit in edits:
        state = edited(state, edit)
        check_same_plan(simulated, content(state, is_sound=True))
        apply(simulated, content(state, is_sound=True))
        simulated.stage.advance(round(wait, 3))
    if restarts:
        simulated = simulated.restarted(files)
    else:
        assert apply(simulated, files)
    check_nothing_changes(simulated)
    simulated.stage.advance(round(wait, 3))
    check_nothing_changes(simulated)
