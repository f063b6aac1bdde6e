"""Former names of options work until 0.4 and print a warning."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from repeater.cli.commands import COMMANDS, RENAMED
from repeater.cli.group import LazyGroup

PAIRS = [(command, former, name) for command, names in RENAMED.items() for former, name in names.items()]


@pytest.mark.parametrize(("command", "former", "name"), PAIRS)
def test_a_former_option_is_not_in_the_help(command: str, former: str, name: str) -> None:
    text = CliRunner().invoke(LazyGroup(), [command, "--help"]).output
    assert name in text
    assert former not in text


@pytest.mark.parametrize(
    ("args", "limit", "warnings"),
    [
        (["--most", "3"], 3, 1),
        (["--most=3"], 3, 1),
        (["-n", "3"], 3, 0),
        (["--limit", "3"], 3, 0),
        (["--", "--most"], 25, 0),
    ],
)
def test_a_former_option_sets_the_value_and_warns(
    monkeypatch: pytest.MonkeyPatch, args: list[str], limit: int, warnings: int
) -> None:
    group = LazyGroup()
    history = group.get_command(click.Context(group), "history")
    assert history is not None
    seen: dict[str, object] = {}
    monkeypatch.setattr(history, "callback", lambda **values: seen.update(values))
    result = CliRunner().invoke(group, ["history", *args])
    assert result.exit_code == 0, result.output
    assert seen["limit"] == limit
    assert result.stderr.count("`--most` is now called `--limit`; the former name works until 0.4") == warnings


def test_each_renamed_option_exists() -> None:
    assert set(RENAMED) <= set(COMMANDS)
