"""Reads the documentation as the tests see it: pages, fenced blocks, links, headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from repeater._lazy_dataclasses import dataclass

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_BLOCK = re.compile(r"^(?P<fence>```+)(?P<info>[^`\n]*)\n(?P<text>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
# Keys that stand at the top of a job file; a block that has none of them is part of one job.
_TOP = re.compile(
    r"^(?:\[(?:jobs|defaults|pools|templates)\b|(?:version|project|include|vars|defaults|jobs|pools|templates) *[:=])",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. `language` and `name` are the words of its info string: a named block is a file of that name."""

    page: Path
    line: int
    language: str
    name: str
    text: str

    @property
    def is_whole(self) -> bool:
        """Whether it is a job file, not only some keys of a job."""
        return _TOP.search(self.text) is not None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    for match in _BLOCK.finditer(text):
        language, _, name = match["info"].strip().partition(" ")
        yield Block(page, text.count("\n", 0, match.start()) + 1, language, name.strip(), match["text"])


def prose(page: Path) -> str:
    """The page without its blocks and inline code."""
    return re.sub(r"`[^`\n]*`", "`", _BLOCK.sub("", page.read_text()))


def links(page: Path) -> list[str]:
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """The names that headings get: lower case, spaces to dashes, other signs dropped."""
    headings = _HEADING.findall(_BLOCK.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
