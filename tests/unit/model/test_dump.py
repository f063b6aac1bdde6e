"""A dumped job, built again, is the same job: for every spec that a job file can mean."""

import json
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from repeater import _lazy_dataclasses as dataclasses
from repeater.jobfile.write import WRITERS
from repeater.model.dump import dump_file, dump_job, dump_json
from repeater.model.spec import (
    BACKOFF_FIELDS,
    LEAST_DISTANCE,
    Adaptive,
    Always,
    At,
    Backoff,
    CatchUp,
    Cron,
    Every,
    Growing,
    Hooks,
    HttpAware,
    Jitter,
    JobFile,
    JobSpec,
    Limit,
    LoadAware,
    Manual,
    Need,
    Once,
    OnChange,
    Output,
    Overlap,
    Plugin,
    Pool,
    Probe,
    ProcessSpec,
    RateLimited,
    Retry,
    Slowdown,
    Stop,
    Success,
    Termination,
)  # fmt: skip
from repeater.model.units import Rate
from repeater.policy.paths import check_glob, check_ignore
from tests.unit.jobfile.loading import road

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
BRACES = st.sampled_from(["{{", "{{ run.id }}", "{% x %}", "{#", "}}", "{{ '{{' }}", "{{.Names}} 'q' \"d\" \\"])
WORDS = st.one_of(TEXT, BRACES).filter(str.strip)
ANY = st.one_of(TEXT, BRACES)
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,9}", fullmatch=True)
LENGTHS = st.integers(1, 10**13).map(lambda number: timedelta(microseconds=number))
COUNTS = st.integers(1, 10**6)
INSTANTS = st.integers(600_000_000, 4_000_000_000).map(lambda second: datetime.fromtimestamp(second, UTC))
PATTERNS = st.sampled_from(["x", "^OK$", "a{2}", "{{3}}", "(?i)é", "\\d+"])
COMMANDS = st.one_of(WORDS, st.lists(ANY, min_size=1, max_size=3).filter(lambda one: one[0] != "").map(tuple))


def is_glob(text: str) -> bool:
    try:
        check_glob(text)
        check_ignore(text)
    except ValueError:
        return False
    return True


GLOBS = st.lists(WORDS.filter(is_glob), min_size=1, max_size=2).map(tuple)
PAIRS = st.dictionaries(NAMES, ANY, max_size=3).map(lambda table: tuple(sorted(table.items())))


DISTANCES = LENGTHS.filter(lambda length: length >= LEAST_DISTANCE)


def perhaps(values):
    return st.one_of(st.none(), values)


@st.composite
def backoffs(draw, lengths=LENGTHS):
    kind = draw(st.sampled_from(sorted(BACKOFF_FIELDS)))
    base, more = draw(lengths), draw(LENGTHS)
    fields = {
        "base": base, "max": max(timedelta(minutes=1), base) if kind == "fixed" else min(base + more, timedelta(days=36_000)),
        "increment": draw(LENGTHS), "multiplier": draw(st.floats(1, 1000)), "exponent": draw(st.floats(0, 100)),
        "jitter": draw(st.sampled_from(["none", "full", "equal"])),
    }  # fmt: skip
    default = {"multiplier": 3.0} if kind == "decorrelated-jitter" else {}
    return Backoff(kind, **(default | {key: fields[key] for key in fields if key in BACKOFF_FIELDS[kind] | {"max"}}))


@st.composite
def every(draw):
    distance = draw(DISTANCES)
    offset = draw(st.one_of(st.just(timedelta(0)), st.just(distance / 2)))
    jitter = draw(st.one_of(
        st.none(),
        st.builds(Jitter, st.just(distance // 2), st.none(), st.sampled_from(["stable", "random"])),
        st.builds(lambda share, mode: Jitter(None, share, mode), SHARES, st.sampled_from(["stable", "random"])),
    ))  # fmt: skip
    return Every(
        distance,
        draw(st.booleans()),
        draw(st.booleans()),
        jitter,
        timedelta(microseconds=offset // timedelta(microseconds=1)),
    )


SHARES = st.integers(0, 100_000).map(lambda thousandth: Fraction(thousandth, 100_000))
CRON = st.builds(
    Cron, st.sampled_from(["0 3 * * *", "*/5 * * * *", "30 4 1 1 *"]), st.none(), st.sampled_from(["UTC", "Europe/Berlin"]),
    st.sampled_from(["or", "and"]), st.sampled_from(["next", "shift", "skip"]), st.sampled_from(["first", "second", "both", "skip"]),
    st.one_of(st.none(), st.builds(lambda share: Jitter(None, share), SHARES)),
)  # fmt: skip
BOUNDS = st.lists(DISTANCES, min_size=3, max_size=3).map(sorted)
TARGETS = SHARES.filter(bool)
ADAPTIVE = st.builds(
    lambda bounds, *rest: Adaptive(bounds[1], bounds[0], bounds[2], *rest),
    BOUNDS, perhaps(LENGTHS), st.floats(1, 1000), st.floats(0, 1), TARGETS,
)  # fmt: skip
LOAD = st.builds(
    lambda bounds, *rest: LoadAware(bounds[1], bounds[0], bounds[2], *rest),
    BOUNDS,
    TARGETS,
    TARGETS,
    st.floats(0.001, 1000),
)
RATES = st.builds(Rate, COUNTS, LENGTHS)
RATED = st.one_of(
    RATES.map(RateLimited),
    st.builds(
        lambda rate, offsets: RateLimited(Rate(9, rate.window), (timedelta(0), *sorted(offsets))),
        RATES,
        st.lists(LENGTHS, max_size=4),
    ),
)
TIMED = st.one_of(
    st.just(Once()), st.just(Manual()), every(), CRON, st.builds(At, INSTANTS), st.builds(OnChange, GLOBS, GLOBS, LENGTHS),
    st.builds(Growing, backoffs(DISTANCES)), ADAPTIVE, LOAD, RATED,
    st.deferred(lambda: PLUGINS),
)  # fmt: skip
CODES = st.lists(st.integers(0, 255), min_size=1, max_size=3).map(lambda codes: tuple(sorted(set(codes))))
SETTINGS = st.recursive(
    st.one_of(ANY, st.booleans(), st.integers(-9, 9), st.floats(0.25, 9)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(NAMES, inner, max_size=2)), max_leaves=4,
)  # fmt: skip
PLUGINS = st.builds(Plugin.of, st.sampled_from(["sun", "local moon"]), st.dictionaries(NAMES, SETTINGS, max_size=3))
USES = st.lists(PLUGINS, max_size=2).map(tuple)
PROBES = st.one_of(
    st.builds(Probe, http=st.just("http://h/{{x}}"), every=LENGTHS, timeout=LENGTHS, failures=COUNTS),
    st.builds(Probe, tcp=st.just("h:1")), st.builds(Probe, exec=COMMANDS), st.builds(Probe, log=PATTERNS),
)  # fmt: skip
LIMITS = st.one_of(st.just((-1, -1)), st.integers(0, 10**9).map(lambda n: (n, n)), st.integers(0, 10**9).map(lambda n: (n, -1)), st.integers(0, 99).map(lambda n: (n, n + 1)))  # fmt: skip

PROCESSES = st.builds(
    ProcessSpec, COMMANDS, shell=st.sampled_from([("/bin/sh", "-c"), ("bash", "-c"), ("python3", "-I", "-c")]),
    cwd=st.sampled_from(["/", "/p", "/p/a b", "/{{x}}"]), env=PAIRS, env_mode=st.sampled_from(["inherit", "clean"]), stdin=ANY,
    user=perhaps(NAMES), group=perhaps(st.just("0")), umask=perhaps(st.integers(0, 0o777)), nice=st.integers(-20, 19),
    rlimits=st.dictionaries(st.sampled_from(["as", "core", "nofile"]), LIMITS).map(lambda t: tuple(sorted(t.items()))),
    secrets=st.lists(NAMES, max_size=2, unique=True).map(sorted).map(tuple),
)  # fmt: skip
EXITS = st.lists(st.integers(0, 255), min_size=1, max_size=3, unique=True).map(lambda codes: tuple(sorted(codes)))
STOPS = st.builds(
    Stop, perhaps(COUNTS), perhaps(COUNTS), perhaps(COUNTS), perhaps(COUNTS), perhaps(LENGTHS), perhaps(INSTANTS),
    st.booleans(), st.booleans(), perhaps(PATTERNS), st.booleans(), USES, perhaps(EXITS), perhaps(EXITS),
)  # fmt: skip
OVERLAPS = st.one_of(
    st.sampled_from(["skip", "latest", "first", "queue", "replace", "allow"]).map(Overlap),
    COUNTS.map(lambda most: Overlap("queue", queue_max=most)), COUNTS.map(lambda most: Overlap("allow", max_instances=most)),
)  # fmt: skip
ANSWERS = st.builds(
    lambda most, least, json, success, *rest: HttpAware(max(most, least), min(most, least), True, json, json and success, *rest),
    LENGTHS, LENGTHS, st.booleans(), st.booleans(),
    st.lists(WORDS.filter(lambda word: ":" not in word) | st.just("a.b:ms"), max_size=2).map(tuple), st.booleans(),
)  # fmt: skip
OUTPUTS = st.one_of(
    st.builds(Output, st.sampled_from(["stream", "aggregate", "suppress"]), timestamps=st.booleans(), capture=st.integers(0, 1 << 40), plugins=USES),
    st.builds(Output, file=st.just("/p/log"), max_size=st.integers(0, 1 << 40), backups=st.integers(0, 1000)),
)  # fmt: skip
REST = {
    "description": ANY, "labels": PAIRS, "enabled": st.booleans(), "stop": STOPS,
    "ending": st.builds(Termination, perhaps(LENGTHS), st.sampled_from(["TERM", "INT", "KILL"]), LENGTHS, LENGTHS),
    "retry": st.builds(Retry, COUNTS, backoffs(), perhaps(CODES)), "slowdown": perhaps(st.builds(Slowdown, backoffs(), perhaps(CODES))),
    "success": st.builds(Success, CODES, perhaps(PATTERNS), perhaps(PATTERNS), st.booleans(), st.booleans()),
    "overlap": OVERLAPS,
    "catch_up": st.builds(CatchUp, st.sampled_from(["skip", "latest", "earliest", "all"]), LENGTHS, COUNTS, perhaps(LENGTHS)),
    "delivery": st.sampled_from(["at-most-once", "at-least-once"]), "pool": st.sampled_from([None, "db"]), "limit": st.sampled_from([None, "api"]), "http_aware": perhaps(ANSWERS), "output": OUTPUTS,
    "hooks": st.builds(Hooks, perhaps(COMMANDS), perhaps(COMMANDS), perhaps(COMMANDS), perhaps(COMMANDS)),
    "executor": perhaps(PLUGINS), "moved_from": st.sampled_from([None, "old", "old[r=x]"]),
    "needs": st.lists(st.builds(
        Need, st.just("other"), st.sampled_from(["started", "healthy", "completed", "succeeded", "failed"]),
        st.one_of(st.sampled_from(["ever", "same_slot"]), LENGTHS), st.booleans(), st.booleans(), st.booleans(), perhaps(LENGTHS),
    ), max_size=1).map(tuple),
}  # fmt: skip
TIMED_JOBS = st.builds(JobSpec, st.just("a"), PROCESSES, TIMED, group=st.just("a"), **REST)
SERVICES = st.builds(
    JobSpec, st.just("a[r=x,s=1]"), PROCESSES, st.just(Always()), group=st.just("a"), cell=st.just((("r", "x"), ("s", "1"))),
    max_parallel=perhaps(COUNTS), restart=st.sampled_from(["always", "on-failure", "never"]), watch=GLOBS, watch_ignore=GLOBS, ready=perhaps(PROBES), live=perhaps(PROBES), **REST,
)  # fmt: skip
OTHER = JobSpec("other", ProcessSpec("x", cwd="/p"), Always(), group="other", ready=Probe(tcp="h:1"))


@settings(max_examples=80, deadline=None)
@given(st.one_of(TIMED_JOBS, SERVICES), st.sampled_from(sorted(WRITERS)))
def test_a_dumped_job_built_again_is_the_same(spec, form):
    before = JobFile("p", (spec, OTHER), (Pool("db", 2),), (Limit("api", Rate(5000, timedelta(hours=1))),))
    text = WRITERS[form](dump_file(before))
    assert road(text, name=f"jobs.{form}").jobfile == before


@settings(max_examples=80, deadline=None)
@given(st.one_of(TIMED_JOBS, SERVICES))
def test_the_text_of_a_job_is_its_dump_as_json(spec):
    assert dump_json(spec) == json.dumps(dump_job(spec), ensure_ascii=False)


def test_nothing_at_its_default_is_dumped():
    assert dump_job(JobSpec("a", ProcessSpec("x"))) == {"command": "x"}


def fields_that_leave_a_trace(strategy, plain, of):
    """The names of fields that, changed alone, change what is dumped; every field that `strategy` changes must."""
    seen = set()

    @settings(max_examples=100, deadline=None, database=None)
    @given(strategy)
    def look(value):
        for field in dataclasses.fields(value):
            if field.name not in seen and getattr(value, field.name) != getattr(plain, field.name):
                changed = dataclasses.replace(plain, **{field.name: getattr(value, field.name)})
                if dump_job(of(changed)) != dump_job(of(plain)):
                    seen.add(field.name)

    look()
    return seen


def test_every_field_of_a_spec_changes_the_dump():
    """A field that `dump_job` forgets would make a reload miss its change."""
    plain = JobSpec("a", ProcessSpec("x"))
    seen = fields_that_leave_a_trace(TIMED_JOBS | SERVICES, plain, lambda spec: spec)
    in_key = {"name", "group", "cell"}
    assert seen == {field.name for field in dataclasses.fields(JobSpec)} - in_key
    seen = fields_that_leave_a_trace(PROCESSES, plain.process, lambda process: JobSpec("a", process))
    seen |= {"late", "env_file", "env_from_files"}  # how a text is meant, and files: not for a strategy
    assert seen == {field.name for field in dataclasses.fields(ProcessSpec)}
