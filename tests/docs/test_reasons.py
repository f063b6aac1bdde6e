"""The page of all codes says what the table of codes says."""

from __future__ import annotations

import re
from pathlib import Path

from repeater.model.reasons import FIELDS, fields_of

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "reasons.md"
ROW = re.compile(r"\| `(\w+)` \| (.*?) ?\| (.+) \|")


def rows() -> list[tuple[str, str, str]]:
    return [match.groups() for match in map(ROW.fullmatch, PAGE.read_text().splitlines()) if match]  # type: ignore[misc]


def test_the_page_has_every_code_once() -> None:
    assert sorted(code for code, _, _ in rows()) == sorted(FIELDS)


def test_the_page_names_the_fields_of_every_code() -> None:
    for code, fields, meaning in rows():
        assert fields == ", ".join(f"`{name}` {kind}" for name, kind in fields_of(code).items()), code  # type: ignore[arg-type]
        assert meaning.endswith("."), code
