"""How a mutant is tried: in a copy, also in child processes, with a limit of time."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

import repeater
from tests.measure import ROOT
from tests.mutate import trying
from tests.mutate.covering import Timed
from tests.mutate.operators import Mutant
from tests.mutate.trying import Ground

PATH = str(Path(repeater.__file__).relative_to(ROOT))
TESTS = """
import subprocess, sys

def test_here():
    import repeater
    assert not hasattr(repeater, "changed")

def test_child():
    code = "import repeater; assert not hasattr(repeater, 'changed')"
    subprocess.run([sys.executable, "-c", code], env={}, check=True)
"""


@pytest.mark.slow
def test_a_mutant_is_found_in_any_process_and_a_loop_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SETUP", 10.0), ("LEAST", 1.0), ("SLACK", 0.0)):
        monkeypatch.setattr(trying, name, value)
    source = (ROOT / PATH).read_bytes()
    ground = Ground(tmp_path / "copy")
    file = ground.folder / "tests" / "mutate" / "test_of_mutants.py"
    file.write_text(TESTS)
    monkeypatch.chdir(ground.folder)
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # for the folders of the forks
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("PYTHONPATH", str(ground.folder))

    def tried(text: bytes, test: str) -> str:
        mutant = Mutant(PATH, (1, 1), len(source), len(source), text)
        return ground.try_(mutant, [Timed(1.0, f"tests/mutate/test_of_mutants.py::{test}")]).by

    assert tried(b"", "test_child") == ""
    assert tried(b"changed = 1\n", "test_child").endswith("::test_child")
    assert tried(b"while True: pass\n", "test_child").startswith(("a limit of time, in tests/", "tests/"))
    assert (ROOT / PATH).read_bytes() == source
    assert (ground.folder / PATH).read_bytes() == source
