"""An exception in a writer's thread costs the call that raised it: the thread goes on, and the exception is reported."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from repeater.model.spec import JobSpec, ProcessSpec
from repeater.model.spec import Output as OutputSpec
from repeater.output.background_writer import FULL, Console, Writer
from repeater.output.logfile import LogFile
from repeater.output.router import OutputRouter
from tests.fakes.clock import FakeClock
from tests.fakes.text import text_of


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [ZeroDivisionError("a fault"), MemoryError(), SystemExit(1), KeyboardInterrupt()])
def test_a_call_that_raises_is_reported_and_the_next_is_made(error: BaseException) -> None:
    reported: list[tuple[str, BaseException]] = []
    made: list[int] = []
    writer = Writer("test", lambda: None, lambda job, fault: reported.append((job, fault)))
    writer.put(failing(error), 10, "bad")
    writer.put(lambda: made.append(1), 10, "good")
    assert writer.flush(10)
    writer.put(lambda: made.append(2), 10, "good")
    assert writer.close(10)
    assert made == [1, 2]
    assert reported == [("bad", error)]
    assert writer.waiting == 0


def test_a_failure_of_what_is_called_when_there_is_room_ends_nothing() -> None:
    made: list[int] = []
    writer = Writer("test", failing(ZeroDivisionError()), failing(ZeroDivisionError()))
    writer.put(lambda: None, 2 * FULL)
    assert writer.flush(10)
    writer.put(lambda: made.append(1), 1)
    assert writer.close(10)
    assert made == [1]


class Sinks:
    """Two jobs, each with a file; the console is a file too."""

    def __init__(self, folder: Path, reports_faults: bool = True) -> None:
        self.folder = folder
        self.calls: list[Callable[[], None]] = []
        self.faults: list[tuple[str, str]] = []
        self.warnings: list[tuple[str, str]] = []
        self.output = OutputRouter(
            FakeClock(),
            self.calls.append,
            environ={},
            warn=lambda job, reason: self.warnings.append((job, str(text_of(reason)))),
            console=str(folder / "console"),
        )
        if reports_faults:
            self.output.fault = lambda job, error: self.faults.append((job, str(error)))
        for name in ("bad", "good"):
            spec = JobSpec(name, ProcessSpec("true"), output=OutputSpec(file=str(folder / name)))
            self.output.begin(name, spec)

    def end(self) -> None:
        self.output.close()
        for call in self.calls:
            call()


@pytest.mark.parametrize("reports_faults", [True, False])
def test_output_of_a_job_that_cannot_be_written_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports_faults: bool
) -> None:
    write, show = LogFile.write, Console.show

    def write_file(file: LogFile, data: bytes) -> None:
        if file.path.endswith("bad"):
            raise ZeroDivisionError("file")
        write(file, data)

    def show_piece(console: Console, pieces: tuple[object, ...]) -> None:
        if "bad" in str(pieces):
            raise ZeroDivisionError("console")
        show(console, pieces)  # type: ignore[arg-type]

    monkeypatch.setattr(LogFile, "write", write_file)
    monkeypatch.setattr(Console, "show", show_piece)
    sinks = Sinks(tmp_path, reports_faults)
    for text in (b"one\n", b"two\n"):
        for name in ("bad", "good"):
            sinks.output.write(name, "stdout", text)
    sinks.end()
    assert (tmp_path / "good").read_bytes() == b"one\ntwo\n"
    assert (tmp_path / "console").read_bytes() == b"good | one\ngood | two\n"
    if reports_faults:
        assert sorted(sinks.faults) == [("bad", "console"), ("bad", "console"), ("bad", "file"), ("bad", "file")]
    else:
        assert [job for job, _ in sinks.warnings] == ["bad"]
        assert sinks.warnings[0][1].startswith("cannot write output: ZeroDivisionError: ")


def test_an_unread_fifo_stops_no_other_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "bad")
    sinks = Sinks(tmp_path)
    for name in ("bad", "good"):
        sinks.output.write(name, "stdout", b"text\n")
    sinks.end()
    assert (tmp_path / "good").read_bytes() == b"text\n"
    assert [job for job, _ in sinks.warnings] == ["bad"]


def test_a_fifo_with_a_reader_that_is_too_slow_stops_no_other_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "bad")
    reader = os.open(tmp_path / "bad", os.O_RDONLY | os.O_NONBLOCK)
    sinks = Sinks(tmp_path)
    try:
        sinks.output.write("bad", "stdout", b"x" * (1 << 19) + b"\n")
        sinks.output.write("good", "stdout", b"text\n")
        sinks.end()
        assert os.read(reader, 100) == b"x" * 100
    finally:
        os.close(reader)
    assert (tmp_path / "good").read_bytes() == b"text\n"
    assert [job for job, _ in sinks.warnings] == ["bad"]
