"""The reference of commands names every command that there is; what it shows of them is compared by `test_pages`."""

from __future__ import annotations

import re

from repeater.cli.main import COMMANDS
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "reference" / "commands.md"


def test_every_command_has_its_section_in_the_order_of_the_help() -> None:
    assert re.findall(r"^## rpr (\S+)$", PAGE.read_text(), re.MULTILINE) == list(COMMANDS)


def test_every_command_shows_its_whole_help() -> None:
    shown = {line for block in blocks(PAGE) if block.language == "console" for line in block.text.splitlines()}
    assert {f"$ rpr {name} --help" for name in COMMANDS} <= shown
