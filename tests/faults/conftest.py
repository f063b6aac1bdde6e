"""What tests of faults share: the ground on which they are made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Rpr
from tests.faults.ground import Ground


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground(Rpr(tmp_path))
    yield made
    made.end()
