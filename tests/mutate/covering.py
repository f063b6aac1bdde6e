"""Which tests reach a line, and how long each takes. Measured once, and kept until the code or a test changes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from coverage import CoverageData

from tests.measure import ROOT, measure


class Timed(NamedTuple):
    seconds: float
    name: str


class Covering:
    """`modules` are those that the tests imported. A test that failed without a mutant is left out."""

    def __init__(self, data: Path) -> None:
        files = sorted(data.parent.glob("times-*.json"), key=lambda file: file.stat().st_mtime)
        records = [json.loads(file.read_text()) for file in files]
        self._seconds = {name: seconds for record in records for name, seconds in record["seconds"].items()}
        for name in {name for record in records for name in record["failed"]}:
            del self._seconds[name]
        self.modules = sorted({name for record in records for name in record["modules"]})
        self._data = CoverageData(str(data))
        self._data.read()
        self._lines: dict[str, dict[int, set[str]]] = {}

    def tests(self, path: str, lines: tuple[int, int]) -> list[Timed]:
        """The tests that reach one of the lines, the shortest first. A line that an import runs has those of its module,
        or all tests if they reach no other line there.
        """
        contexts = self._of(path)
        first, last = lines
        found = {name for line in range(first, last + 1) for name in contexts.get(line, ())}
        if "" in found:
            found = {name for names in contexts.values() if "" not in names for name in names} or set(self._seconds)
        return sorted(Timed(self._seconds[name], name) for name in found & self._seconds.keys())

    def _of(self, path: str) -> dict[int, set[str]]:
        if path not in self._lines:
            contexts = self._data.contexts_by_lineno(str(ROOT / path))
            self._lines[path] = {line: set(names) for line, names in contexts.items()}
        return self._lines[path]


def cover(folder: Path, tests: Sequence[str], sources: Sequence[Path]) -> Covering:
    """Measures all tests if `sources` are not those of the last time, else the files of tests that changed."""
    state, data = folder / "state.json", folder / "coverage"
    before = json.loads(state.read_text()) if state.exists() else {}
    now = {str(path.relative_to(ROOT)): _digest(path) for path in (*sources, *_files(tests))}
    changed = {path for path in before.keys() | now.keys() if before.get(path) != now.get(path)}
    if changed & {str(path.relative_to(ROOT)) for path in sources}:
        shutil.rmtree(folder, ignore_errors=True)
        chosen = list(tests)
    else:
        chosen = sorted(changed & now.keys())
    if chosen:
        print(f"measuring which lines are reached by {' '.join(chosen)}", flush=True)
        code = measure(data, ["-q", "-n", "0", "--no-header", *chosen])
        if code > 1:
            raise SystemExit(f"cannot measure the tests: pytest ended with {code}")
        state.write_text(json.dumps(now))
    return Covering(data)


def _files(tests: Sequence[str]) -> Iterator[Path]:
    for place in tests:
        path = ROOT / place
        yield from sorted(path.rglob("test_*.py")) if path.is_dir() else [path]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
