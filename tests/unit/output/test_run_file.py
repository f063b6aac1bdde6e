"""The text in the files of outputs: what is written is read back, and a long text keeps its beginning and its end."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from repeater.output import run_file
from repeater.output.run_file import Note

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
CHUNKS = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from(["stdout", "stderr"]),
        st.one_of(st.binary(min_size=1, max_size=40), st.sampled_from([b"\n", b"a\nb", b"x\n", b" stdout P \n"])),
    ),
    max_size=20,
)


def notes_of(chunks: list[tuple[int, str, bytes]]) -> list[Note]:
    """Chunks of one time and stream are one note, as in a file."""
    notes = [(NOW + timedelta(microseconds=at), stream, data) for at, stream, data in chunks]
    return [
        (at, stream, b"".join(data for *_, data in group))
        for (at, stream), group in groupby(notes, lambda note: note[:2])
    ]  # type: ignore[misc]


@given(CHUNKS)
def test_written_output_is_read_back(chunks: list[tuple[int, str, bytes]]) -> None:
    notes = notes_of(chunks)
    text = run_file.encoded(notes)
    assert list(run_file.decoded(text)) == notes
    assert run_file.raw_size(text) == sum(len(data) for *_, data in notes)


@given(CHUNKS, st.integers(0, 2000))
def test_a_text_that_was_cut_off_gives_what_is_before_the_cut(chunks: list[tuple[int, str, bytes]], cut: int) -> None:
    notes = notes_of(chunks)
    found = list(run_file.decoded(run_file.encoded(notes)[:cut]))
    for index, (at, stream, data) in enumerate(found):
        assert (at, stream) == notes[index][:2]
        assert notes[index][2].startswith(data)


@given(st.integers(1, 300), st.integers(300, 4000))
def test_a_shortened_text_shows_how_much_is_missing(lines: int, most: int) -> None:
    notes: list[Note] = [(NOW + timedelta(seconds=n), "stdout", b"line %d\n" % n) for n in range(lines)]
    text = run_file.encoded(notes)
    short = run_file.shortened(text, most)
    assert run_file.raw_size(short) == run_file.raw_size(text)
    assert len(short) <= most + 80
    kept = list(run_file.decoded(short))
    if len(text) > most:
        assert kept[0] == notes[0]
        assert kept[-1] == notes[-1]
        assert len([1 for _, stream, _ in kept if stream == "rpr"]) == 1


def test_shortening_again_counts_what_was_missing_before() -> None:
    notes: list[Note] = [(NOW, "stdout", b"%03d\n" % n) for n in range(1000)]
    text = b""
    for note in notes:
        text = run_file.shortened(text + run_file.encoded([note]), 2000)
    assert run_file.raw_size(text) == 4000


@given(st.integers(0, 10_000))
def test_a_file_of_any_length_is_a_gzip_file(size: int) -> None:
    text = b"x" * size
    assert gzip.decompress(run_file.compressed(text)) == run_file.uncompressed(run_file.compressed(text)) == text


def test_zcat_reads_a_file_and_half_a_file_is_read() -> None:
    text = run_file.encoded([(NOW, "stdout", b"%d\n" % n) for n in range(50_000)])
    data = run_file.compressed(text)
    assert gzip.decompress(data) == text
    half = run_file.uncompressed(data[: len(data) // 2])
    assert len(half) > len(text) // 4
    assert text.startswith(half)
    assert run_file.uncompressed(b"no gzip at all") == b""


@given(st.text(min_size=1, max_size=300))
def test_each_job_has_a_folder_of_its_own(job: str) -> None:
    name = run_file.folder_name(job)
    assert "/" not in name
    assert len(name.encode()) < 255
    assert run_file.job_name(name, [job]) == job


def test_a_job_named_dots_cannot_reach_outside_the_folder() -> None:
    assert run_file.folder_name("..") not in ("..", ".")
