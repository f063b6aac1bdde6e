"""Raw bytes, resets and floods against a real supervisor, for a short time; `make fuzz` has more."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.door import fuzz


def test_no_client_harms_a_supervisor_or_keeps_a_good_client_waiting(tmp_path: Path) -> None:
    fuzz(tmp_path, 2.0, seed=1, within=30.0)
