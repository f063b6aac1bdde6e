"""The pictures of the state tables in the docs are drawn from the tables."""

from __future__ import annotations

import importlib
import os
import re

import pytest

from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "explanation" / "architecture.md"
MODULES = re.findall(r"<!-- drawn from ([\w.]+) -->", PAGE.read_text())


def draw(module: str) -> str:
    """A mermaid diagram of a module's `TABLE`, moves that lead back to the same state left out."""
    table = importlib.import_module(module).TABLE
    events: dict[tuple[str, str], list[str]] = {}
    for (before, event), (_, after) in table.items():
        if before is not after:
            events.setdefault((before.name, after.name), []).append(event.name.lower().replace("_", " "))
    moves = [f"    {before} --> {after}: {', '.join(names)}" for (before, after), names in events.items()]
    first = next(iter(table))[0].name
    return "\n".join(["```mermaid", "stateDiagram-v2", f"    [*] --> {first}", *moves, "```"])


@pytest.mark.parametrize("module", MODULES)
def test_the_picture_is_that_of_the_table(module: str) -> None:
    text = PAGE.read_text()
    mark = f"<!-- drawn from {module} -->\n"
    head, tail = text.split(mark)
    shown = re.match(r"\n?```mermaid\n.*?```", tail, re.DOTALL)
    if os.environ.get("UPDATE_DOCS"):
        rest = tail[shown.end() :] if shown else tail
        PAGE.write_text(f"{head}{mark}\n{draw(module)}{rest}" if shown else f"{head}{mark}\n{draw(module)}\n{rest}")
        return
    assert shown, "no picture: run with UPDATE_DOCS=1"
    assert shown[0].strip() == draw(module)


def test_both_tables_are_drawn() -> None:
    assert MODULES == ["repeater.engine.attempt", "repeater.engine.job_states"]
