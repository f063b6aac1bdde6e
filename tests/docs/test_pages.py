"""What the pages say is true: job files are valid, commands print what is shown, links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, Block, anchors, blocks, links

UPDATE = bool(os.environ.get("UPDATE_DOCS"))  # writes what commands print into the pages, to be read and committed

FILES = [
    block
    for page in PAGES
    for block in blocks(page)
    if block.language in {"toml", "yaml", "json"} and block.name != "not a job file"
]
SESSIONS = [page for page in PAGES if any(block.language == "console" for block in blocks(page))]


@pytest.mark.parametrize("block", FILES, ids=str)
def test_a_job_file_in_the_docs_is_valid(block: Block, tmp_path: Path) -> None:
    from repeater.apps.job_files import load_job_files
    from repeater.errors import JobFileError

    text = block.text
    if not block.is_whole:
        assert block.language != "json", "a part of a job is shown as TOML or YAML"
        command = "" if re.search(r"^command\b", text, re.MULTILINE) else "command = 'true'\n"
        if block.language == "yaml":
            lines = (command.replace(" =", ":") + text).splitlines()
            text = "jobs:\n  example:\n" + "".join(f"    {line}\n" for line in lines)
        else:
            text = "[jobs.example]\n" + command + text
    file = tmp_path / (block.name if block.name.endswith(block.language) else f"jobs.{block.language}")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    if block.name.startswith("broken"):
        with pytest.raises(JobFileError):
            load_job_files([str(file)])
    else:
        load_job_files([str(file)])


@pytest.mark.slow
@pytest.mark.parametrize("page", SESSIONS, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_print_what_it_shows(page: Path, tmp_path: Path) -> None:
    session = Session(tmp_path)
    text = page.read_text()
    try:
        for block in blocks(page):
            if block.name and block.language in {"toml", "yaml", "json", "sh"}:
                session.write(block.name, block.text)
            if block.language == "console":
                told = "".join(session.replay(block))
                if UPDATE:
                    text = text.replace(f"```console\n{block.text}```", f"```console\n{told}```")
                else:
                    assert told == block.text, f"{block} shows something else"
    finally:
        session.close()
    if UPDATE:
        page.write_text(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    lost = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        place = (page.parent / target).resolve() if target else page
        if not place.exists() or (anchor and anchor not in anchors(place)):
            lost.append(link)
    assert not lost


def test_every_page_is_reached_from_the_index() -> None:
    seen, open_ = set(), [ROOT / "README.md"]
    while open_:
        page = open_.pop().resolve()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        open_ += [page.parent / link.partition("#")[0] for link in links(page) if not re.match(r"[a-z]+:|#", link)]
    assert [str(page.relative_to(ROOT)) for page in PAGES if page not in seen] == []


class Session:
    """A reader at a prompt, in an empty folder, typing what the page shows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "shop"
        self.folder.mkdir()
        self.status = 0
        self.env = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "TMPDIR": str(folder),
            "XDG_STATE_HOME": str(folder / "state"),
        }

    def write(self, name: str, text: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def replay(self, block: Block) -> Iterator[str]:
        """The block again, with what the commands print now. A shown line `...` stands for any number of lines, `...`
        in a line for any text.
        """
        command, shown = None, []
        for line in [*block.text.splitlines(keepends=True), "$ \n"]:
            if not line.startswith("$ "):
                shown.append(line)
                continue
            if command is not None:
                yield f"$ {command}\n"
                printed = self.run(command)
                yield "".join(shown) if _fits("".join(shown), printed) else printed
            command, shown = line[2:].rstrip("\n"), []

    def run(self, command: str) -> str:
        """Both streams. `$?` is the status of the command before."""
        done = subprocess.run(
            ["sh", "-c", f"(exit {self.status}); {command}"],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        self.status = done.returncode
        return done.stdout

    def close(self) -> None:
        """A supervisor that a page left in the background is gone afterwards, whatever else went wrong."""
        if (self.folder.parent / "state").exists():
            subprocess.run(
                ["rpr", "down", "--kill", "-q"], cwd=self.folder, env=self.env, capture_output=True, timeout=60
            )


def _fits(shown: str, printed: str) -> bool:
    parts = [
        r"(?:.*\n)*?" if line == "...\n" else re.escape(line).replace(re.escape("..."), ".*")
        for line in shown.splitlines(keepends=True)
    ]
    return re.fullmatch("".join(parts), printed) is not None
