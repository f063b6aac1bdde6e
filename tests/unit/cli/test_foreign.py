"""Commands and options of other programs get a sentence. Nothing destructive is suggested by likeness."""

import re
import shlex

import click
import pytest
from click.testing import CliRunner

from repeater.cli.commands import COMMANDS, ONE_OFF
from repeater.cli.foreign import _COMMANDS, command_hint
from repeater.cli.group import _ALL, explain, rpr
from repeater.cli.oneoff.options import COMMANDS as TABLE
from repeater.cli.oneoff.parse import parse
from repeater.control.commands import unknown
from repeater.errors import UsageError
from repeater.model.likeness import DESTRUCTIVE

FOREIGN = [
    ("run", "rpr trigger JOB"), ("exec", "rpr trigger JOB"), ("list", "rpr status"), ("ls", "rpr status"), ("show", "rpr why JOB"),
    ("up", "rpr apply"), ("unpause", "rpr resume JOB"), ("enable", "rpr start JOB"), ("disable", "rpr pause JOB"), ("help", "rpr --help"),
    ("check", "rpr validate"), ("test", "rpr validate"), ("kill", "rpr stop JOB"), ("log", "rpr logs JOB"), ("tail", "rpr logs -f"),
    ("add", "rpr init"), ("now", "rpr trigger JOB"), ("diff", "rpr plan"), ("reread", "rpr reload"), ("ping", "rpr health"),
    ("list-timers", "rpr next"), ("retry", "rpr exponential"), ("describe", "rpr render"), ("EXEC", "rpr trigger JOB"),
]  # fmt: skip
OPTIONS = [
    ("apply -f jobs.toml", "name the file without an option: `rpr apply jobs.toml`"),
    ("validate --config jobs.toml", "name the file without an option: `rpr validate jobs.toml`"),
    ("-f jobs.toml apply", "name the file after the command: `rpr apply jobs.toml`"),
    ("status -f jobs.toml", "write `--file FILE`"),
    ("logs --job web", "name the job without an option: `rpr logs JOB`"),
    ("trigger --job web", "name the job without an option: `rpr trigger JOB`"),
    ("apply --job web", "`rpr apply --only JOB` limits it to some jobs"),
    ("stop --all", "`rpr stop '*'` means all jobs"),
    ("apply --background", "write `--detach`"),
    ("status -o json", "write `--json`"),
    ("apply --var a=1", "write `--set NAME=VALUE`"),
    ("logs --lines 5", "write `-n N`"),
    ("validate --formt json", "did you mean `--format`?"),
]
ONE_OFFS = [
    ("exponential", "--base", "write `--base-delay`"),
    ("exponential", "--retries", "write `--attempts`"),
    ("watch", "--glob", "name the files without an option: `rpr watch 'src/**' -- make`"),
    ("interval", "--interval", "write `--every`"),
    ("interval", "--count", "write `--times`"),
    ("interval", "--command", "the command comes last: `rpr interval … -- COMMAND`"),
    ("interval", "--evry", "did you mean `--every`?"),
]


def hint(line: str) -> str:
    try:
        rpr.main(shlex.split(line), prog_name="rpr", standalone_mode=False)
    except click.ClickException as error:
        return str(explain(error)[1])
    raise AssertionError(line)


@pytest.mark.parametrize(("word", "ours"), FOREIGN)
def test_a_command_of_another_program_names_ours(word, ours):
    assert f"`{ours}" in hint(word)


@pytest.mark.parametrize(("line", "sentence"), OPTIONS)
def test_an_option_of_another_program_names_ours(line, sentence):
    assert hint(line) == sentence


@pytest.mark.parametrize(("command", "option", "sentence"), ONE_OFFS)
def test_a_foreign_option_of_a_one_off_command_names_ours(command, option, sentence):
    with pytest.raises(UsageError) as caught:
        parse(TABLE[command], [option, "x"])
    assert caught.value.hint == sentence


def test_no_foreign_command_has_the_name_of_ours():
    assert not {word for words in _COMMANDS for word in words.split()} & set(_ALL)


@pytest.mark.parametrize("word", sorted({word for words in _COMMANDS for word in words.split()}))
def test_a_sentence_names_commands_and_options_that_exist(word):
    for line in re.findall(r"`rpr ([^`]+)`", command_hint(word)):
        command, *rest = line.split(" -- ")[0].split()
        if command in ("--help", "COMMAND"):
            continue
        assert command in COMMANDS or command in ONE_OFF
        listed = (
            {flag for option in TABLE[command].options for flag in option.flags}
            if command in ONE_OFF
            else CliRunner().invoke(rpr, [command, "--help"]).output
        )
        assert all(one in listed for one in rest if one.startswith("-"))


def misspelled(word: str) -> set[str]:
    """The word with a letter left out, doubled, or two letters exchanged."""
    out = {word[:at] + word[at + 1 :] for at in range(len(word))}
    twice = {word[:at] + word[at] + word[at:] for at in range(len(word))}
    swapped = {word[:at] + word[at : at + 2][::-1] + word[at + 2 :] for at in range(len(word) - 1)}
    return {one for one in out | twice | swapped if len(one) > 1 and one not in _ALL}


@pytest.mark.parametrize("name", sorted(one for one in DESTRUCTIVE if one[0] != "-"))
def test_no_destructive_command_is_suggested_by_likeness(name):
    for word in sorted(misspelled(name)):
        assert "did you mean" not in hint(word) or not set(re.findall("[a-z-]+", hint(word))) & DESTRUCTIVE
        near = unknown(word).hint
        assert near is None or not set(re.findall("[a-z_]+", near)) & DESTRUCTIVE


@pytest.mark.parametrize(
    "line", ["down --kil", "down --nwo", "trigger --forc web", "apply --allow-removal", "apply --alow-remote"]
)
def test_no_destructive_option_is_suggested_by_likeness(line):
    command = line.split()[0]
    assert hint(line) == f"see `rpr {command} --help`"


def test_a_mistyped_command_still_gets_the_nearest_one():
    assert hint("aply") == "did you mean `rpr apply`?"
    assert unknown("statu").hint == "did you mean `status`?"
