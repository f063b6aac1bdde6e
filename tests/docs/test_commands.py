"""The reference of commands names every command that there is; what it shows of them is compared by `test_pages`."""

from __future__ import annotations

import re

from repeater.cli.commands import COMMANDS, CONTROL
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "reference" / "commands.md"
CONTROL_PAGE = ROOT / "docs" / "reference" / "control.md"


NAMES = [name for name in COMMANDS if name not in CONTROL]


def test_every_command_has_its_section_in_the_order_of_the_help() -> None:
    assert re.findall(r"^## rpr (\S+)$", PAGE.read_text(), re.MULTILINE) == NAMES


def test_every_command_shows_its_whole_help() -> None:
    shown = {line for block in blocks(PAGE) if block.language == "console" for line in block.text.splitlines()}
    assert {f"$ rpr {name} --help" for name in NAMES} <= shown


def test_the_commands_for_a_running_supervisor_have_their_page() -> None:
    assert re.findall(r"^## rpr (\S+)$", CONTROL_PAGE.read_text(), re.MULTILINE) == list(CONTROL)
    shown = {line for block in blocks(CONTROL_PAGE) if block.language == "console" for line in block.text.splitlines()}
    assert {f"$ rpr {name} --help" for name in CONTROL} <= shown
