"""Flags are a job file: whatever they say, the job that `--as-job` prints is built into the same spec."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repeater.cli.oneoff.document import table_of
from repeater.cli.oneoff.options import COMMANDS, COMMON, Command, Option
from repeater.cli.oneoff.parse import parse
from repeater.cli.oneoff.run import NAMES, build_spec, limits_of
from repeater.cli.oneoff.show import as_job
from repeater.errors import UsageError
from repeater.jobfile.load import load
from repeater.model.spec import Every
from repeater.settings import resolve
from tests.fakes.filesystem import MemoryDisk

DEFAULTS = resolve({})
DURATIONS = st.sampled_from(["1us", "20ms", "1s", "90s", "1h30m", "2d"])
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
VALUES: dict[str, st.SearchStrategy[str]] = {
    "DURATION": DURATIONS,
    "N": st.integers(1, 10**6).map(str),
    "NUMBER": st.sampled_from(["1", "1.5", "2", "10"]),
    "TIME": st.sampled_from(["2027-01-01", "2026-11-24T03:00:00+02:00", "18:30"]),
    "REGEX": st.sampled_from(["ok", "(?i)a|b", r"\d+\.", "{{ x }}"]),
    "DIR": st.sampled_from([".", "sub", "/tmp", "../up", "{{ a }}"]),
    "FILE": st.sampled_from(["out.txt", "/tmp/out", "a b"]),
    "NAME=VALUE": st.tuples(st.sampled_from(["A", "B", "LONG_NAME"]), TEXT).map("=".join),
    "NAME": st.sampled_from(["api", "http-api.example.com", "a b"]),
    "NAME,NAME": st.sampled_from(["retry", "a.b, c"]),
    "EXPRESSION": st.sampled_from(["0 9 * * 1-5", "@daily", "*/5 * * * *"]),
    "ZONE": st.sampled_from(["UTC", "Europe/Berlin"]),
    "GLOB": st.sampled_from(["*.tmp", "b/**"]),
    "PERCENT": st.sampled_from(["70", "0.5", "33.3%", "100%"]),
    "N/DURATION": st.sampled_from(["100/1h", "1/10ms", "7/m"]),
    "DURATION,DURATION": st.sampled_from(["0", "0,10m", "0s, 1s, 2s"]),
    "KIND": st.sampled_from(["full", "equal"]),
    "CODE,CODE": st.sampled_from(["75", "1,2", "0, 130"]),
    "DURATION|PERCENT": st.sampled_from(["10%", "1us", "100%"]),
}


def usable(command: Command) -> list[Option]:
    return [option for option in command.options if option.key]


NAMED = st.sampled_from(list(COMMANDS))


@st.composite
def lines(draw: st.DrawFn, names: st.SearchStrategy[str] = NAMED) -> list[str]:
    command = COMMANDS[draw(names)]
    options = usable(command)
    chosen = draw(st.lists(st.sampled_from(options), max_size=6, unique_by=lambda option: option.key))
    needed = [option for option in command.own if option.needed]
    words = [command.name]
    if command.name == "rate-limit":
        needed = [option for option in command.own if option.name == "--rate"]
    for option in [*needed, *(option for option in chosen if option not in needed)]:
        words.append(option.name)
        if option.metavar:
            words.append(draw(VALUES[option.metavar]))
    if "--resource-id" in words:
        words += ["--daemon", *draw(st.sampled_from([[], ["--fail-closed"]]))]
        words += [] if command.name == "rate-limit" else ["--rate", draw(VALUES["N/DURATION"])]
    if command.name == "watch":
        words += draw(st.lists(st.sampled_from(["*.py", "src/**", "{{ x }}"]), min_size=1, max_size=2))
    flags = draw(st.sets(st.sampled_from(["--shell", "--interleave"] if command.name == "count" else ["--shell"])))
    first = st.sampled_from(["echo", "/usr/bin/printf", "./run.sh", "{{ run }}", "a b", "-x"])
    return [*words, *flags, "--", draw(first), *draw(st.lists(TEXT, max_size=3))]


def spec_of(words: list[str]) -> tuple[Any, Any, str]:
    table = table_of(parse(COMMANDS[NAMES[words[0]]], words[1:]), DEFAULTS)
    return build_spec(table, "/there"), limits_of(table), as_job(table)


@settings(max_examples=400, deadline=None)
@given(lines())
def test_the_job_file_that_flags_print_gives_the_same_spec(words: list[str]) -> None:
    try:
        spec, limits, text = spec_of(words)
    except UsageError:
        return  # a jitter above the interval and the like; the tests of messages have them
    files = MemoryDisk({"/there/jobs.toml": text})
    read = load(["jobs.toml"], files=files, folder="/there")
    assert read.jobfile.jobs == (spec,)
    assert read.jobfile.limits == limits


def test_most_lines_that_are_drawn_are_valid() -> None:
    valid = 0

    @settings(max_examples=100, deadline=None, database=None)
    @given(lines())
    def count(words: list[str]) -> None:
        nonlocal valid
        try:
            spec_of(words)
        except UsageError:
            return
        valid += 1

    count()
    assert valid > 50


@pytest.mark.parametrize("name", COMMANDS)
def test_no_two_options_of_a_command_share_a_flag(name: str) -> None:
    flags = [flag for option in COMMANDS[name].options for flag in option.flags]
    assert len(flags) == len(set(flags))


def test_every_option_has_a_help_and_fills_a_key_or_is_read_by_rpr() -> None:
    for options in [group for _, group in COMMON] + [command.own for command in COMMANDS.values()]:
        for option in options:
            assert option.words.endswith((".", ").")) or option.words.endswith("."), option.name


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(list(COMMANDS)),
    st.lists(st.text(max_size=8) | st.sampled_from(["--", "-t", "--every", "-q", "1s"])),
)
def test_no_arguments_make_the_parser_crash(name: str, words: list[str]) -> None:
    with contextlib.suppress(UsageError):
        parse(COMMANDS[name], words)


@pytest.mark.parametrize("name", COMMANDS)
def test_lines_of_every_command_are_drawn_and_some_are_valid(name: str) -> None:
    found = 0

    @settings(max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(lines(st.just(name)))
    def count(words: list[str]) -> None:
        nonlocal found
        with contextlib.suppress(UsageError):
            assert spec_of(words)[0].process.command
            found += 1

    count()
    assert found


@pytest.mark.parametrize(
    ("rate", "every"),
    [
        (["--rate", "100/1h"], timedelta(seconds=36)),
        (["--limit", "4", "--window", "2s"], timedelta(milliseconds=500)),
        (["--rate", "7/1h"], timedelta(seconds=514, microseconds=285_715)),  # never more than the rate allows
    ],
)
def test_even_spaces_the_starts_of_a_rate(rate: list[str], every: timedelta) -> None:
    spec, _, _ = spec_of(["rl", *rate, "--even", "--", "x"])
    assert spec.schedule == Every(every)


@pytest.mark.parametrize("other", [["--retry-pattern", "0,1s"], ["--show-next"]])
def test_even_excludes_options_that_need_a_limit(other: list[str]) -> None:
    with pytest.raises(UsageError, match=f"cannot use `--even` with `{other[0]}`"):
        spec_of(["rl", "--rate", "100/1h", "--even", *other, "--", "x"])
