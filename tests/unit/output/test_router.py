"""What people and files see of runs, through real pipes and pseudo-terminals and a virtual clock."""

from __future__ import annotations

import os
import pty
import resource
import threading
import time
import tty
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from repeater.model.spec import JobSpec, ProcessSpec, Stop, Success
from repeater.model.spec import Output as OutputSpec
from repeater.output.router import OutputRouter
from tests.fakes.clock import FakeClock
from tests.fakes.text import text_of


def job(name: str = "web", **output: Any) -> JobSpec:
    return JobSpec(name, ProcessSpec("true"), output=OutputSpec(**output))


class Screen:
    """Two ends to write to, read all the time unless `stuck`."""

    def __init__(self, *, terminal: bool = False, stuck: bool = False, **more: Any) -> None:
        self.clock = FakeClock()
        self.resumed: list[str] = []
        self.warned: list[tuple[str, str]] = []
        self.gone: list[str] = []
        self._calls: list[Callable[[], None]] = []
        self._text = {"stdout": bytearray(), "stderr": bytearray()}
        self.readers: list[int] = []
        self._threads: list[threading.Thread] = []
        fds = []
        for _ in (0, 1):
            read, write = pty.openpty() if terminal else os.pipe()
            if terminal:
                tty.setraw(write)
            self.readers.append(read)
            fds.append(write)
        self._fds = fds
        self.output = OutputRouter(
            self.clock, self._calls.append, environ={}, resume=self.resumed.append,
            warn=lambda job, message: self.warned.append((job, str(text_of(message)))), on_closed=lambda stream, _: self.gone.append(stream),
            console=(fds[0], fds[1]), **more,
        )  # fmt: skip
        self.size = 0
        self.keep = True
        if not stuck:
            self.read()

    def read(self) -> None:
        for name, fd in zip(self._text, self.readers, strict=True):
            thread = threading.Thread(target=self._read, args=(name, fd))
            thread.start()
            self._threads.append(thread)

    def _read(self, name: str, fd: int) -> None:
        while True:
            try:
                data = os.read(fd, 1 << 16)
            except OSError:
                return
            if not data:
                return
            self.size += len(data)
            if self.keep:
                self._text[name] += data

    def loop(self) -> None:
        while self._calls:
            self._calls.pop(0)()
        self.clock.settle()

    def loop_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            self.loop()
            time.sleep(0.001)

    def stdout(self) -> str:
        return self._seen("stdout")

    def stderr(self) -> str:
        return self._seen("stderr")

    def _seen(self, name: str) -> str:
        self.output.flush()
        self.loop()
        time.sleep(0.01)
        return self._text[name].decode()

    def run(self, run: str, spec: JobSpec, *chunks: bytes) -> None:
        self.output.begin(run, spec)
        for chunk in chunks:
            self.output.write(run, "stdout", chunk)

    def close(self) -> None:
        self.output.close()
        self.loop()
        for fd in self._fds:
            os.close(fd)
        for thread in self._threads:
            thread.join(5)
        for fd in self.readers:
            os.close(fd)


@pytest.fixture
def screen() -> Iterator[Screen]:
    made = Screen()
    yield made
    made.close()


@pytest.fixture
def terminal() -> Iterator[Screen]:
    made = Screen(terminal=True)
    yield made
    made.close()


def test_every_line_carries_its_jobs_name_padded_to_the_longest(screen: Screen) -> None:
    screen.output.align(["web", "database"])
    screen.run("1", job("web"), b"one\ntwo\n")
    screen.run("2", job("database"), b"three\n")
    assert screen.stdout() == "web      | one\nweb      | two\ndatabase | three\n"


def test_stdout_and_stderr_stay_separate(screen: Screen) -> None:
    screen.output.begin("1", job())
    screen.output.write("1", "stdout", b"out\n")
    screen.output.write("1", "stderr", b"err\n")
    assert (screen.stdout(), screen.stderr()) == ("web | out\n", "web | err\n")


def test_a_very_long_name_is_cut(screen: Screen) -> None:
    screen.output.align(["x" * 60, "web"])
    screen.run("1", job("x" * 60), b"a\n")
    screen.run("2", job("web"), b"b\n")
    assert screen.stdout() == "x" * 23 + "… | a\n" + "web".ljust(24) + " | b\n"


def test_lines_that_arrive_in_pieces_are_shown_whole(screen: Screen) -> None:
    screen.run("1", job("a"), b"he", b"llo")
    screen.run("2", job("b"), b"other\n")
    screen.output.write("1", "stdout", b" world\nnext")
    screen.output.finish("1")
    assert screen.stdout() == "b | other\na | hello world\na | next\n"


def test_a_prompt_is_shown_early_and_its_rest_follows_on_the_same_line(screen: Screen) -> None:
    screen.run("1", job("a"), b"password: ")
    assert screen.stdout() == ""
    screen.clock.advance(timedelta(milliseconds=100))
    assert screen.stdout() == "a | password: "
    screen.output.write("1", "stdout", b"ok\ndone\n")
    assert screen.stdout() == "a | password: ok\na | done\n"


def test_an_unfinished_line_is_ended_before_another_job_writes(screen: Screen) -> None:
    screen.run("1", job("a"), b"password: ")
    screen.clock.advance(timedelta(seconds=1))
    screen.run("2", job("b"), b"hello\n")
    screen.output.write("1", "stdout", b"\nnext\n")
    assert screen.stdout() == "a | password: \nb | hello\na | next\n"


def test_an_unfinished_line_is_ended_at_the_end_of_the_run(screen: Screen) -> None:
    screen.run("1", job("a"), b"working")
    screen.clock.advance(timedelta(seconds=1))
    screen.output.finish("1")
    assert screen.stdout() == "a | working\n"


def test_messages_of_rpr_stay_in_order_with_the_rest(terminal: Screen) -> None:
    terminal.run("1", job("a"), b"one\n")
    terminal.output.say("rpr: reloaded")
    assert terminal.stderr() == "rpr: reloaded\n"


def test_a_terminal_gets_colors_and_no_escapes_of_jobs(terminal: Screen) -> None:
    terminal.run("1", job("a"), b"\x1b[31mred\x07\r\n")
    assert terminal.stdout() == "\x1b[38;5;62ma |\x1b[0m \\x1b[31mred\\x07\n"


def test_a_pipe_gets_the_bytes_of_jobs_untouched(screen: Screen) -> None:
    screen.run("1", job("a"), b"\x1b[31mred\r\n")
    assert screen.stdout() == "a | \x1b[31mred\r\n"


def test_plain_passes_bytes_on_and_nothing_else() -> None:
    screen = Screen(plain=True)
    screen.run("1", job("a"), b"one\ntw", b"o")
    screen.output.finish("1")
    assert screen.stdout() == "one\ntwo"
    screen.close()


def test_suppressed_output_is_kept_but_not_shown(screen: Screen) -> None:
    screen.run("1", job(mode="suppress"), b"secret\n")
    assert screen.output.tail("1") == b"secret\n"
    screen.output.finish("1")
    assert screen.stdout() == ""
    assert screen.output.tail("1") == b"secret\n"


def test_aggregated_output_is_shown_at_the_end_and_in_one_piece(screen: Screen) -> None:
    screen.run("1", job("a", mode="aggregate"), b"one\n")
    screen.run("2", job("b"), b"between\n")
    screen.output.write("1", "stderr", b"err\n")
    screen.output.write("1", "stdout", b"two")
    assert screen.stdout() == "b | between\n"
    screen.output.finish("1")
    assert (screen.stdout(), screen.stderr()) == ("b | between\na | one\na | two\n", "a | err\n")


def test_much_aggregated_output_is_kept_on_disk_and_written_whole(screen: Screen) -> None:
    line = b"x" * 99 + b"\n"
    screen.output.begin("1", job("a", mode="aggregate"))
    for _ in range(100):
        screen.output.write("1", "stdout", line * 100)
    screen.output.finish("1")
    assert screen.stdout() == ("a | " + line.decode()) * 10_000


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 200_000])
def test_a_long_line_in_aggregated_output_is_one_line(screen: Screen, size: int) -> None:
    line = "ü" * size
    screen.run("1", job("a", mode="aggregate"), line.encode(), b"\nend\n\n", b"last")
    screen.output.finish("1")
    assert screen.stdout() == f"a | {line}\na | end\na | \na | last\n"


def test_timestamps_begin_every_line(screen: Screen, tmp_path: Path) -> None:
    spec = job("a", timestamps=True, file=str(tmp_path / "log"))
    screen.run("1", spec, b"one\ntw", b"o\n")
    screen.output.finish("1")
    stamp = "2026-01-01T00:00:00Z "
    assert screen.stdout() == f"a | {stamp}one\na | {stamp}two\n"
    assert (tmp_path / "log").read_text() == f"{stamp}one\n{stamp}two\n"


def test_files_hold_the_bytes_of_both_streams(screen: Screen, tmp_path: Path) -> None:
    spec = job("a", mode="suppress", file=str(tmp_path / "log"))
    screen.output.begin("1", spec)
    screen.output.write("1", "stdout", b"\x00out")
    screen.output.write("1", "stderr", b"\xfferr")
    screen.output.begin("2", spec)
    screen.output.finish("1")
    screen.output.write("2", "stdout", b"more")
    screen.output.finish("2")
    screen.output.flush()
    assert (tmp_path / "log").read_bytes() == b"\x00out\xfferrmore"


def test_trouble_with_a_file_is_reported_with_its_job(screen: Screen, tmp_path: Path) -> None:
    screen.run("1", job("a", file=str(tmp_path)), b"x\n")
    screen.output.flush()
    screen.loop()
    assert screen.warned == [("a", f"cannot write `{tmp_path}`: Is a directory")]


def test_the_tail_is_the_end_of_what_was_written(screen: Screen) -> None:
    screen.output.begin("1", job(mode="suppress", capture=10))
    for number in range(1000):
        screen.output.write("1", "stdout", f"{number:04}".encode())
    screen.output.finish("1")
    assert screen.output.tail("1") == b"9709980999"
    assert screen.output.tail("nobody") == b""


def test_patterns_are_found_over_chunks(screen: Screen) -> None:
    spec = JobSpec("a", ProcessSpec("true"), success=Success(pattern="all good"), stop=Stop(pattern="stop now"))
    screen.run("1", spec, b"all go", b"od\nstop ", b"now\n")
    assert screen.output.finish("1") == {"success", "stop"}


def test_output_of_unknown_and_ended_runs_is_dropped(screen: Screen) -> None:
    screen.run("1", job("a"), b"x\n")
    screen.output.finish("1")
    assert screen.output.write("1", "stdout", b"late\n")
    assert screen.output.finish("1") == frozenset()
    assert screen.stdout() == "a | x\n"


def test_a_stuck_terminal_pauses_the_run_and_never_the_caller() -> None:
    screen = Screen(stuck=True)
    screen.output.begin("1", job("a"))
    began = time.monotonic()
    written = 0
    while screen.output.write("1", "stdout", b"x" * 999 + b"\n"):
        written += 1000
        assert written < 3_000_000
    assert time.monotonic() - began < 2
    screen.read()
    screen.loop_until(lambda: screen.resumed == ["1"])
    assert screen.output.write("1", "stdout", b"again\n")
    assert screen.stdout().endswith("a | again\n")
    screen.close()


def test_a_run_that_ended_while_it_was_paused_is_not_resumed() -> None:
    screen = Screen(stuck=True)
    screen.output.begin("1", job("a"))
    while screen.output.write("1", "stdout", b"x" * 9_999 + b"\n"):
        pass
    screen.output.finish("1")
    screen.read()
    screen.output.flush()
    screen.loop()
    assert screen.resumed == []
    screen.close()


def test_output_unread_for_too_long_is_dropped_and_that_is_reported() -> None:
    screen = Screen(stuck=True)
    for number in range(400):  # many short runs: each may write once before it is paused
        screen.run(str(number), job("a"), b"x" * 65_535 + b"\n")
        screen.output.finish(str(number))
    screen.read()
    screen.loop_until(lambda: b"bytes of output were dropped" in screen._text["stderr"])
    assert 15_000_000 < screen.size < 25_000_000
    screen.close()


def test_a_reader_that_disconnects_is_reported_once_and_blocks_nothing() -> None:
    screen = Screen(stuck=True)
    os.close(screen.readers[0])
    screen.output.begin("1", job("a"))
    for _ in range(2000):
        assert screen.output.write("1", "stdout", b"x" * 999 + b"\n") or screen.output.flush() is None
    screen.output.flush()
    screen.loop()
    assert screen.gone == ["stdout"]
    screen.output.say("still here")
    screen.output.flush()
    assert os.read(screen.readers[1], 100) == b"still here\n"
    screen.readers[0] = os.open("/dev/null", os.O_RDONLY)
    screen.close()


@pytest.mark.slow
def test_a_line_of_a_hundred_megabytes_is_passed_on_in_pieces() -> None:
    screen = Screen()
    screen.keep = False
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    screen.output.begin("1", job("a"))
    for _ in range(1600):
        screen.output.write("1", "stdout", b"x" * 65_536)
        if screen.output._console.is_full:
            screen.output.flush()
    screen.output.finish("1")
    screen.output.flush()
    screen.loop_until(lambda: screen.size >= 1600 * 65_536 + len("a | \n"))
    assert screen.size == 1600 * 65_536 + len("a | \n")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
    screen.close()
