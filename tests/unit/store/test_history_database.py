"""The files of a state directory before the database is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from repeater.errors import StateUnavailable
from repeater.store.history_database import check_present


@pytest.mark.parametrize("name", ["state.db", "state.db-wal", "state.db-shm", "open"])
def test_a_symbolic_link_in_place_of_a_file_of_the_database_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateUnavailable, match="it is a symbolic link"):
        check_present(tmp_path / "state.db", tmp_path / "open")


def test_a_database_that_is_empty_or_deleted_is_refused(tmp_path: Path) -> None:
    path, marker = tmp_path / "state.db", tmp_path / "open"
    check_present(path, marker)
    marker.touch()
    with pytest.raises(StateUnavailable, match="has been deleted"):
        check_present(path, marker)
    path.touch()
    with pytest.raises(StateUnavailable, match="is empty"):
        check_present(path, marker)
    path.write_bytes(b"x")
    check_present(path, marker)
