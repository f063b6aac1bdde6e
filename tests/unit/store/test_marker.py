"""The marker beside the database, as it is written and read."""

from __future__ import annotations

from pathlib import Path

import pytest

from repeater.store.marker import Marker


def test_a_marker_returns_the_written_text_and_number(tmp_path: Path) -> None:
    marker = Marker(tmp_path / "open")
    assert marker.read() == ("", None)
    marker.write("open", 7)
    assert marker.read() == ("open", 7)
    marker.note(1234)
    assert marker.read() == ("open", 1234)
    marker.write("closed", 1235)
    assert marker.read() == ("closed", 1235)
    marker.close()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ("", None)),
        ("\n", ("", None)),
        ("open", ("open", None)),
        ("open x\n", ("open", None)),
        ("open 1 2\n", ("open", 1)),
    ],
)
def test_a_marker_without_a_number_is_read(tmp_path: Path, text: str, found: tuple[str, int | None]) -> None:
    (tmp_path / "open").write_text(text)
    assert Marker(tmp_path / "open").read() == found
