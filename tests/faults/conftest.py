"""What tests of faults share: the ground on which they are made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Rpr
from tests.faults.ground import Ground
from tests.faults.preload import Shim


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground(Rpr(tmp_path))
    yield made
    made.end()


@pytest.fixture(scope="session")
def shim_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`shim.c`, compiled; the test is skipped where that cannot be, or where nothing can be loaded before libc."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or sys.maxsize < 2**32 or compiler is None:
        pytest.skip("there is no C compiler here, or no 64-bit Linux")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    source = Path(__file__).with_name("preload.c")
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, source], capture_output=True, text=True, env=os.environ
    )
    if done.returncode != 0:
        pytest.skip(f"the library cannot be compiled here: {done.stderr[-200:]}")
    return library


@pytest.fixture
def shim(shim_library: Path, tmp_path: Path) -> Iterator[Shim]:
    made = Shim(shim_library, tmp_path / ".shim")
    if not made.works():
        pytest.skip("libraries cannot be loaded before others here")
    yield made
    made.close()
