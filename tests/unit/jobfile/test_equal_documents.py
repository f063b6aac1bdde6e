"""TOML, YAML and JSON of one document give equal specs, whatever the order of keys; needs of disabled jobs are warned of."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repeater._lazy_dataclasses import replace
from repeater.errors import RepeaterError
from repeater.jobfile.load import load
from repeater.jobfile.write import WRITERS
from repeater.model.spec import JobSpec, cell_key, former_names
from tests.engine.test_plan_is_apply import FILES, content, sometimes, tables
from tests.fakes.filesystem import MemoryDisk
from tests.unit.jobfile.loading import road

DEFAULTS = tables(
    schedule=sometimes(st.sampled_from(["every 10s", "manual", {"every": "7s", "jitter": "50%", "immediate": False}])),
    timeout=sometimes(st.sampled_from(["1h", "never"])),
    env=sometimes(st.sampled_from([{"A": "1"}, {"E": "{{ vars.word }}", "B": "3.10", "C": "no"}])),
    env_file=sometimes(st.sampled_from(["e.env", ["e.env"]])),
    labels=sometimes(st.sampled_from([{"tier": "db"}, {"tier": "web", "team": "x"}])),
    retry=sometimes(st.sampled_from([{"attempts": 3, "backoff": "exponential", "base": "2s"}, {"attempts": 2}])),
    stop=sometimes(st.sampled_from([{"times": 5, "for": "1h"}, {"failures": 2}])),
    overlap=sometimes(st.sampled_from(["latest", "allow"])),
    pool=sometimes(st.just("p")),
    limit=sometimes(st.just("l")),
    nice=sometimes(st.sampled_from([0, 5])),
    hooks=sometimes(st.sampled_from([{"on_failure": "echo x"}, {"on_success": ["echo", "1"], "on_skip": "true"}])),
    output=sometimes(st.sampled_from([{"mode": "suppress"}, {"file": "x.log", "keep": {"runs": 3}}])),
)
"""Keys for all jobs of one file."""


def shuffled(value: Any, draw: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        draw.shuffle(keys)
        return {key: shuffled(value[key], draw) for key in keys}
    return [shuffled(one, draw) for one in value] if isinstance(value, list) else value


def specs(documents: dict[str, Any], kind: str) -> dict[str, JobSpec]:
    """By identity, with the order of the axes, which is a part of the shown name, taken away."""
    root = {**documents["root"], "include": [f"more.{kind}"]}
    files = {"/p/e.env": documents["env"]}
    for name, document in (("root", root), ("more", documents["more"])):
        files[f"/p/{name}.{kind}"] = json.dumps(document) if kind == "json" else WRITERS[kind](document)
    loaded = load([f"root.{kind}"], files=MemoryDisk(files), folder="/p")
    return {
        cell_key(job.name): replace(
            job,
            name=cell_key(job.name),
            cell=tuple(sorted(job.cell)),
            moved_from=tuple(cell_key(former) for former in former_names(job)),
        )
        for job in loaded.jobfile.jobs
    }


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(FILES, DEFAULTS, DEFAULTS, st.integers())
def test_one_document_in_three_languages_and_any_order_gives_equal_specs(
    drawn: Any, defaults: dict[str, Any], further: dict[str, Any], seed: int
) -> None:
    files = content(drawn, is_sound=True)
    documents = {
        "root": json.loads(files["/p/root.json"]) | {"defaults": defaults},
        "more": json.loads(files["/p/more.json"]) | {"defaults": further},
        "env": drawn["env"],
    }
    draw = random.Random(seed)
    try:
        wanted = specs(documents, "json")
    except RepeaterError:
        return
    for kind in ("toml", "yaml", "json"):
        mixed = {**documents, "root": shuffled(documents["root"], draw), "more": shuffled(documents["more"], draw)}
        assert specs(mixed, kind) == wanted


@pytest.mark.parametrize(
    ("need", "enabled", "count"),
    [
        ('["b"]', "false", 1),
        ('{ b = { condition = "completed" } }', "false", 1),
        ('{ b = { condition = "completed", required = false } }', "false", 0),
        ('["b"]', "true", 0),
    ],
)
def test_a_need_of_a_disabled_job_is_warned_of(need: str, enabled: str, count: int) -> None:
    text = f'[jobs.a]\ncommand = "x"\nneeds = {need}\n[jobs.b]\ncommand = "x"\nenabled = {enabled}\n'
    warnings = [str(one) for one in road(text).warnings]
    assert len(warnings) == count
    for warning in warnings:
        assert warning.startswith("jobs.toml:3:")
        assert "`b` is disabled, so this job waits until it is triggered or enabled" in warning


def test_json_is_indented_and_keeps_letters_of_all_languages():
    assert WRITERS["json"]({"a": "é→"}) == '{\n  "a": "é→"\n}\n'
