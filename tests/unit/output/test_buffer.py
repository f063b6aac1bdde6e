"""What is kept of output: the end of each run, in order, within its bounds."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repeater.output import buffer as module
from repeater.output.buffer import Chunk, OutputBuffer
from tests.fakes.clock import FakeClock


def test_pieces_of_all_runs_are_in_the_order_written() -> None:
    kept = OutputBuffer(FakeClock())
    kept.begin("1", "a", 100)
    kept.begin("2", "b", 100)
    kept.add("1", "stdout", b"one\n")
    kept.add("2", "stderr", b"two\n")
    kept.add("1", "stdout", b"three\n")
    assert [(piece.job, piece.data) for piece in kept.pieces()] == [("a", b"one\n"), ("b", b"two\n"), ("a", b"three\n")]
    assert [piece.data for piece in kept.pieces({"b"})] == [b"two\n"]
    assert [piece.data for piece in kept.pieces(run="1")] == [b"one\n", b"three\n"]


def test_since_chooses_by_the_time_of_writing() -> None:
    clock = FakeClock()
    kept = OutputBuffer(clock)
    kept.begin("1", "a", 100)
    kept.add("1", "stdout", b"early\n")
    clock.advance(timedelta(seconds=5))
    kept.add("1", "stdout", b"late\n")
    assert [piece.data for piece in kept.pieces(since=clock.now().wall)] == [b"late\n"]


def test_a_line_that_arrives_in_parts_is_one_piece() -> None:
    kept = OutputBuffer(FakeClock())
    kept.begin("1", "a", 100)
    for letter in (b"w", b"h", b"y", b"?\n", b"because"):
        kept.add("1", "stdout", letter)
    assert [piece.data for piece in kept.pieces()] == [b"why?\n", b"because"]


@given(st.integers(0, 50), st.lists(st.binary(min_size=1, max_size=30), max_size=60), st.booleans())
def test_the_tail_is_the_end_of_everything_written(most: int, chunks: list[bytes], over: bool) -> None:
    kept = OutputBuffer(FakeClock())
    kept.begin("1", "a", most)
    for chunk in chunks:
        kept.add("1", "stdout", chunk)
    if over:
        kept.end("1")
    whole = b"".join(chunks)
    assert kept.tail("1") == (whole[-most:] if most else b"")


def test_runs_that_are_over_make_room_for_later_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 10_000)
    kept = OutputBuffer(FakeClock())
    for number in range(100):
        kept.begin(str(number), "a", 1000)
        kept.add(str(number), "stdout", b"x" * 1000)
        kept.end(str(number))
    there = [number for number in range(100) if kept.knows(str(number))]
    assert there == list(range(94, 100))
    assert sum(len(piece.data) for piece in kept.pieces()) < 10_000


def test_many_small_lines_cost_no_more_than_the_bound_of_pieces() -> None:
    kept = OutputBuffer(FakeClock())
    kept.begin("1", "a", 1 << 20)
    for number in range(20_000):
        kept.add("1", "stdout" if number % 3 else "stderr", b"x\n")
    assert len(kept.pieces()) <= 4096


def test_a_listener_gets_each_piece_until_removed_even_if_none_is_kept() -> None:
    kept, heard = OutputBuffer(FakeClock()), list[Chunk]()
    kept.begin("1", "a", 0)
    deaf = kept.listen(heard.append)
    kept.add("1", "stdout", b"x")
    deaf()
    kept.add("1", "stdout", b"y")
    assert [piece.data for piece in heard] == [b"x"]
    assert kept.pieces() == []


def test_pieces_of_an_unknown_run_are_ignored() -> None:
    kept = OutputBuffer(FakeClock())
    kept.add("1", "stdout", b"x")
    kept.end("1")
    assert kept.tail("1") == b""
