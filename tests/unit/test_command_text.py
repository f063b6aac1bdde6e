"""The command of a run as the history keeps it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repeater.errors import RepeaterError
from repeater.model.spec import ProcessSpec
from repeater.supervisor.launch import BaseEnvironment
from repeater.supervisor.sinks.masking import MOST_OF_A_COMMAND, command_text

INHERITED = BaseEnvironment({"TOKEN": "s3cret", "PATH": "/bin"})


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (("echo", "a b", "$x"), "echo 'a b' '$x'"),
        ("echo a | cat", "echo a | cat"),
        (("echo", "größe"), "echo 'größe'"),
        (("echo", "\udcff"), "echo '\\udcff'"),
        ((), None),
        ("", None),
    ],
)
def test_a_command_becomes_one_text(command: str | tuple[str, ...], text: str | None) -> None:
    assert command_text(ProcessSpec(command=command), INHERITED) == text


def test_secrets_in_a_command_are_masked() -> None:
    process = ProcessSpec(command="curl -H s3cret -u other", secrets=("TOKEN", "KEY"), env=(("KEY", "other"),))
    text = command_text(process, INHERITED)
    assert text is not None
    assert "s3cret" not in text
    assert "other" not in text


def test_a_secret_that_needs_quotes_is_masked() -> None:
    process = ProcessSpec(command=("echo", "it's $1"), secrets=("KEY",), env=(("KEY", "it's $1"),))
    assert command_text(process, INHERITED) == "echo '***'"


def test_a_secret_is_masked_before_a_long_command_is_cut() -> None:
    process = ProcessSpec(command="x" * (MOST_OF_A_COMMAND - 6) + "s3cret" * 3, secrets=("TOKEN",))
    text = command_text(process, INHERITED)
    assert text is not None
    assert "s3c" not in text


def test_an_unknown_user_makes_no_command_text() -> None:
    def unknown(_: str) -> dict[str, str]:
        raise RepeaterError("there is no such user")

    process = ProcessSpec(command="x", user="ghost", secrets=("TOKEN",))
    assert command_text(process, BaseEnvironment({}, unknown)) is None


@given(st.text(max_size=40), st.integers(0, 400))
def test_a_long_command_is_cut_to_valid_utf_8(piece: str, times: int) -> None:
    text = command_text(ProcessSpec(command=piece * times), INHERITED)
    if text is not None:
        data = text.encode("utf-8")
        assert len(data) <= MOST_OF_A_COMMAND
        assert text.endswith("…") or text.isascii() or (piece * times).encode("utf-8", "backslashreplace") == data
