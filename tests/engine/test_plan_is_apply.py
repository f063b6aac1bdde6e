"""What `plan` says is what `apply` then does: random edits of job files, through the real road, in virtual time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from repeater.apps.reload_worker import reading_of
from repeater.control.commands import supervisor
from repeater.control.context import ApplyRequest
from repeater.engine.job_states import State
from repeater.errors import ApplyRefused, RepeaterError
from repeater.jobfile.load import Loaded, load
from repeater.model.run import Exit
from repeater.model.spec import RateLimited
from repeater.model.time import from_rfc3339
from repeater.policy.marks import Marks
from repeater.sentences import sentence
from repeater.supervisor.reload import Applied, Foreseen, Reload
from tests.engine.stage import Stage
from tests.fakes.filesystem import MemoryDisk
from tests.fakes.spawn import FOR_EVER, Act, seconds

SALT = "salt"
NAMES = ["a", "b", "c", "d"]
OLD_NAMES = [*NAMES, "m", "m[x=1,y=u]", "n"]
SCHEDULES: list[Any] = [
    "once", "once-ever", "manual", "always", "every 1s", "every 10s", {"every": "10s", "jitter": "50%"}, {"every": "7s", "immediate": False},
    {"every": "5s", "after_end": True}, {"cron": "*/5 * * * *"}, {"cron": "H * * * *", "jitter": "30s"}, {"at": "2026-01-01T00:01:00Z"},
    {"at": "2020-01-01T00:00:00Z"}, {"backoff": "fibonacci", "base": "1s"}, {"adaptive": {"base": "2s"}}, {"rate": "3/1m"},
    {"watch": ["*.x"]},
]  # fmt: skip


def sometimes(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), st.none(), values)


def tables(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A table with some of the keys; None leaves one out."""
    return st.fixed_dictionaries(keys).map(
        lambda table: {name: value for name, value in table.items() if value is not None}
    )


JOBS = tables(
    command=st.sampled_from(["true", "other", "{{ vars.word }} {{ run.id }}"]),
    schedule=st.sampled_from(SCHEDULES),
    enabled=sometimes(st.booleans()),
    labels=sometimes(st.just({"tier": "web"})),
    stop=sometimes(st.sampled_from([{"times": 1}, {"times": 2}, {"failures": 1}, {"for": "20s"}])),
    overlap=sometimes(st.sampled_from(["skip", "latest", "replace", "allow"])),
    pool=sometimes(st.sampled_from(["p", "q"])),
    limit=sometimes(st.just("l")),
    retry=sometimes(st.just({"attempts": 2, "base": "3s"})),
    env_file=sometimes(st.just("e.env")),
    secrets=sometimes(st.just(["E"])),
    extends=sometimes(st.just("t")),
    unset=sometimes(st.just(["timeout"])),
    needs=sometimes(st.sampled_from([["a"], {"b": {"condition": "completed", "trigger": True}}])),
    moved_from=sometimes(st.sampled_from([*OLD_NAMES, ["a", "n"]])),
)
MATRICES = st.sampled_from([
    {"x": [1, 2], "y": ["u"]}, {"y": ["u"], "x": [2, 1]}, {"x": [1], "y": ["u", "v"], "max_parallel": 1},
    {"y": ["u"], "x": [1], "max_parallel": 2}, {"x": [1]},
])  # fmt: skip
POOLS = [{"p": {"slots": 1}, "q": {"slots": 2}}, {"p": {"slots": 2}, "q": {"slots": 2}, "r": {"slots": 1}}]
LIMITS = [{"l": {"rate": "2/10s"}}, {"l": {"rate": "5/1m"}}]
CELLS = [{"x": [1, 2], "y": ["u"]}, {"y": ["u"], "x": [2]}]
FILES = st.fixed_dictionaries({
    "root": st.dictionaries(st.sampled_from(NAMES), JOBS, max_size=4),
    "more": st.dictionaries(st.sampled_from(["n", "o"]), JOBS, max_size=2),
    "matrix": sometimes(st.tuples(JOBS, MATRICES, st.sampled_from(["m", "a", "k"]))),
    "vars": st.sampled_from([{"word": "true"}, {"word": "echo"}]),
    "defaults": st.sampled_from([{}, {"timeout": "1h"}]),
    "pools": st.sampled_from(POOLS),
    "limits": st.sampled_from(LIMITS),
    "env": st.sampled_from(["E=one\n", "E=two\n"]),
    "template": st.sampled_from([{"nice": 1}, {"overlap": "latest"}]),
})  # fmt: skip


@dataclass
class Edit:
    """What is taken of a new draw, and a rename; the rest stays as it was."""

    drawn: dict[str, Any]
    takes: frozenset[str]
    rename: tuple[str, str]
    is_sound: bool
    further: str


EDITS = st.builds(
    Edit,
    FILES,
    st.frozensets(
        st.sampled_from([*NAMES, "n", "o", "matrix", "axes", "vars", "pools", "limits", "env", "template"]), max_size=3
    ),
    st.tuples(st.sampled_from(["", "", "a", "b", "n", "matrix"]), st.sampled_from(["a", "c", "d", "k"])),
    st.sampled_from([True] * 9 + [False]),
    st.sampled_from(["", "", "", "pools", "limits", "kind", "rename", "matrix", "env"]),
)


def edited(state: dict[str, Any] | None, edit: Edit) -> dict[str, Any]:
    """The next state of the files."""
    if state is None:
        return edit.drawn
    new = {key: edit.drawn[key] if key in edit.takes else value for key, value in state.items()}
    for part in ("root", "more"):
        kept = {name: job for name, job in state[part].items() if name not in edit.takes}
        new[part] = kept | {name: job for name, job in edit.drawn[part].items() if name in edit.takes}
    if new["matrix"] is not None and edit.drawn["matrix"] is not None and "axes" in edit.takes:
        job, _, name = new["matrix"]
        new["matrix"] = job, edit.drawn["matrix"][1], name
    old, name = edit.rename
    if old == "matrix" and new["matrix"] is not None:
        job, matrix, group = new["matrix"]
        new["matrix"] = {**job, "moved_from": group}, matrix, name
    elif old in new["root"] and name not in new["root"]:
        new["root"][name] = {**new["root"].pop(old), "moved_from": old}
    _edit_further(new, edit.further)
    return new


def _edit_further(new: dict[str, Any], what: str) -> None:
    """Edits of a kind that the draws rarely make by themselves."""
    name = next(iter(new["root"]), None)
    if what in ("pools", "limits"):
        tables = POOLS if what == "pools" else LIMITS
        new[what] = tables[tables.index(new[what]) - 1]
    elif what == "env":
        new["env"] = "E=two\n" if new["env"] == "E=one\n" else "E=one\n"
    elif what == "matrix" and new["matrix"] is not None:
        job, axes, group = new["matrix"]
        new["matrix"] = job, CELLS[axes == CELLS[0]], group
    elif what == "kind" and name is not None:
        job = new["root"][name]
        new["root"][name] = {**job, "schedule": "every 10s" if job["schedule"] == "always" else "always"}
    elif what == "rename" and name is not None:
        free = next(one for one in [*NAMES, "k", *(f"k{number}" for number in range(9))] if one not in new["root"])
        new["root"][free] = {**new["root"].pop(name), "moved_from": name}


def content(drawn: dict[str, Any], *, is_sound: bool) -> dict[str, str]:
    """The files of a project by path. Sound ones need and rename only what can be needed and renamed."""
    jobs = dict(drawn["root"])
    if drawn["matrix"] is not None:
        job, matrix, name = drawn["matrix"]
        jobs[name] = {**job, "matrix": matrix}
    if is_sound:
        names = [*jobs, *drawn["more"]]
        jobs = {name: _sound(name, job, names) for name, job in jobs.items()}
        drawn = {**drawn, "more": {name: _sound(name, job, names) for name, job in drawn["more"].items()}}
    root = {
        "project": "p", "include": ["more.json"], "vars": drawn["vars"], "defaults": drawn["defaults"], "pools": drawn["pools"],
        "limits": drawn["limits"], "templates": {"t": drawn["template"]}, "jobs": jobs,
    }  # fmt: skip
    return {
        "/p/root.json": json.dumps(root),
        "/p/more.json": json.dumps({"jobs": drawn["more"]}),
        "/p/e.env": drawn["env"],
    }


def _sound(name: str, job: dict[str, Any], names: list[str]) -> dict[str, Any]:
    job = dict(job)
    for need in job.get("needs", ()):
        if need not in names[: names.index(name)]:  # no circles
            del job["needs"]
            break
    moved = job.get("moved_from", [])
    if any(one.partition("[")[0] in names for one in ([moved] if isinstance(moved, str) else moved)):
        del job["moved_from"]
    return job


class Answer:
    """What a reader gives: the loaded files with the document for the store."""

    def __init__(self, loaded: Loaded) -> None:
        self.jobfile, self.files, self.folder = loaded.jobfile, loaded.files, loaded.folder
        self.globs = loaded.globs
        reading = reading_of(loaded, SALT)
        self.document, self.extras = reading.document, reading.extras


class SimulatedSupervisor:
    """A supervisor in virtual time that reads job files from memory and has the verbs `plan` and `apply`."""

    def __init__(self, seed: int, stage: Stage | None = None) -> None:
        acts = {"a": Act(lasts=seconds(3)), "b": Act(lasts=FOR_EVER), "c": Act(lasts=seconds(1), exit=Exit(code=1))}
        self.stage = stage or Stage(acts, seed=seed)
        self.disk = MemoryDisk({})
        self.reload = Reload(
            self.stage.engine,
            self.stage.clock,
            self.stage.tell,
            read=self._read,
            store=self.stage.store,
            accepted=lambda wanted, number: self.stage.store.begin(number, wanted.document, wanted.extras),
            listen=self.stage.events.append,
            marks=Marks(SALT, {}),
        )

    def _read(self, answer: Any) -> None:
        try:
            answer(Answer(load(["root.json"], files=self.disk, folder="/p")))
        except RepeaterError as error:
            answer(error)

    def restarted(self, files: dict[str, str]) -> SimulatedSupervisor:
        """The supervisor after a restart with these files."""
        simulated = SimulatedSupervisor(0, self.stage.again(after=1))
        simulated.disk = MemoryDisk(files)
        answer = Answer(load(["root.json"], files=simulated.disk, folder="/p"))
        jobfile, stage = answer.jobfile, simulated.stage
        stage.apply(*jobfile.jobs, pools=jobfile.pools, limits=jobfile.limits)
        stage.store.begin(stage.engine.generation, answer.document, answer.extras)
        simulated.reload.in_force(answer.files)
        return simulated

    # --- as the desk ---

    async def apply(self, wanted: ApplyRequest | None, **options: Any) -> Applied:
        return self._now(self.reload.ask, options)

    async def foresee(self, wanted: ApplyRequest | None, **options: Any) -> Foreseen:
        return self._now(self.reload.foresee, options)

    def _now(self, ask: Any, options: dict[str, Any]) -> Any:
        found: list[Any] = []
        ask(found.append, **{name: value for name, value in options.items() if name != "dry_run"})
        self.stage.clock.settle()
        (answer,) = found
        if isinstance(answer, RepeaterError):
            raise answer
        return answer

    def verb(self, run: Any, **args: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        items: list[dict[str, Any]] = []

        async def send(*more: dict[str, Any]) -> None:
            items.extend(more)

        given = {
            "files": ("root.json",),
            "set": (),
            "set_json": (),
            "only": (),
            "allow_removals": False,
            "dry_run": False,
            **args,
        }
        return items, dict(_result(run(self, given, send)))


def _result(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        for _ in range(1000):
            assert coroutine.send(None) is None, "nothing here waits for more than a turn"
    except StopIteration as end:
        return end.value
    raise AssertionError("it never ends")


BASE = ("job", "class", "from", "changes", "schedule")


def check(simulated: SimulatedSupervisor, files: dict[str, str], *, allow_removals: bool) -> None:
    engine, now = simulated.stage.engine, simulated.stage.clock.now().wall
    simulated.disk = MemoryDisk(files)
    before = {name: (job.spec, job.progress, job.next) for name, job in engine.jobs.items()}
    generation = engine.generation
    try:
        planned, result = simulated.verb(supervisor.plan, allow_removals=allow_removals)
    except RepeaterError as error:
        planned, result, problem = [], {}, str(error)
    else:
        problem = None
    assert {name: (job.spec, job.progress, job.next) for name, job in engine.jobs.items()} == before
    assert engine.generation == generation
    launches = len(simulated.stage.spawner.launches)
    try:
        applied, told = simulated.verb(supervisor.apply, allow_removals=allow_removals)
    except RepeaterError as error:
        said = problem if problem is not None else result["refused"]
        found = {"message": error.message, "hint": error.hint} if isinstance(error, ApplyRefused) else str(error)
    else:
        said = found = None
    if found is not None:
        assert said == found
        assert set(engine.jobs) == set(before)
        return
    assert result.pop("refused") is None
    assert result == told
    assert engine.generation == told["generation"]
    assert [{key: item[key] for key in BASE} for item in planned if item["class"] != "keep"] == applied
    started = {launch.env["RPR_JOB"] for launch in simulated.stage.spawner.launches[launches:]}
    assert engine.graph is not None
    assert {name: pool.slots for name, pool in engine.graph.pools.items()} == {
        name: table["slots"] for name, table in json.loads(files["/p/root.json"])["pools"].items()
    }
    if before:
        COUNTS.update(_kinds(planned, result))
    entries = {item["job"]: item for item in planned}
    assert set(engine.jobs) == {name for name, item in entries.items() if item["class"] != "remove"}
    for name, job in engine.jobs.items():
        has_ended = job.progress.last_end == now  # a fake process that is stopped ends in the same instant
        _check_entry(entries[name], job, now, is_quiet=name not in started and not has_ended)


COUNTS: Counter[str] = Counter()


def _kinds(planned: list[dict[str, Any]], result: dict[str, Any]) -> set[str]:
    """The kinds of edits that a plan shows."""
    changed = [item for item in planned if item["class"] != "keep"]
    changes = [change for item in changed for change in item["changes"]]
    found = {
        "edits": True,
        "pools": bool(result["pools"]),
        "limits": bool(result["limits"]),
        "matrices": any("[" in item["job"] for item in changed),
        "renames": any(item["from"] for item in changed),
        "kinds": any(change["key"] == "schedule" and "always" in (change["old"], change["new"]) for change in changes),
        "includes": any(item["job"] in ("n", "o") for item in changed),
        "env files": any(change["old"] == "(its former content)" for change in changes),
    }
    return {kind for kind, is_found in found.items() if is_found}


def _check_entry(item: dict[str, Any], job: Any, now: Any, *, is_quiet: bool) -> None:
    said = None if item["next"]["new"] is None else from_rfc3339(item["next"]["new"])
    found = None if job.next is None else job.next.due
    decided = (
        {row.due for row in job.recent.values()}
        | {held.slot.due for held in job.open}
        | {slot.due for slot in job.pending}
    )
    if said is not None and said <= now:
        assert said in decided or found == said or job.state not in (State.IDLE, State.ACTIVE), item
    elif is_quiet:
        if isinstance(job.spec.schedule, RateLimited):
            assert (said is None) == (found is None), item
        else:
            assert said == found, item
        counters = (item["runs"], item["successes"], item["failures"], item["done"])
        progress = job.progress
        done = None if progress.done is None else sentence(progress.done)
        assert counters == (progress.runs, progress.successes, progress.failures, done), item


STEPS = st.lists(st.tuples(EDITS, st.floats(0, 40), st.booleans()), min_size=3, max_size=6)


# Without shrinking: it takes minutes here, and the steps of a failure are printed as they were drawn.
@seed(1)
@settings(max_examples=220, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(STEPS, st.integers(0, 3), st.booleans())
def compare(steps: list[Any], jitter: int, back: bool) -> None:
    simulated, state, first = SimulatedSupervisor(jitter), None, None
    for edit, wait, allow_removals in steps:
        state = edited(state, edit)
        files = content(state, is_sound=edit.is_sound)
        first = first or files
        check(simulated, files, allow_removals=allow_removals)
        simulated.stage.advance(round(wait, 3))
    if back and first is not None:
        check(simulated, first, allow_removals=True)


@pytest.mark.all
@pytest.mark.slow
def test_apply_does_what_plan_shows() -> None:
    """At least 500 accepted edits are compared, and at least 20 of each kind. An edit may be of several."""
    COUNTS.clear()
    compare()
    assert COUNTS["edits"] >= 500
    kinds = ["pools", "limits", "matrices", "renames", "kinds", "includes", "env files"]
    assert {kind: COUNTS[kind] for kind in kinds if COUNTS[kind] < 20} == {}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(FILES)
def test_a_file_that_was_just_applied_changes_nothing(drawn: Any) -> None:
    simulated = SimulatedSupervisor(0)
    check(simulated, content(drawn, is_sound=True), allow_removals=True)
    _check_nothing_changes(simulated)


def _check_nothing_changes(simulated: SimulatedSupervisor) -> None:
    """The plan of the files in force is empty."""
    try:
        planned, result = simulated.verb(supervisor.plan)
    except RepeaterError:
        return
    assert {item["class"] for item in planned} <= {"keep"}
    assert (result["pools"], result["limits"], result["changed"]) == ([], [], 0)
