"""A job that prints a gigabyte: how fast it passes, beside `cat` through a pipe to a file, and in how much memory."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from bench.bench import Bench, Goal, Reading, Size
from bench.measure import lasting, resident_mb
from bench.peers import HOME, Tools

LINE = b"2026-11-25T12:00:00Z INFO request handled in 12 ms by worker 7, status 200, path /api/v1/things\n"


_PATTERN = Goal("rate", least=0.25, of="cat", ours="with a pattern")


def benches(kit: Tools, size: Size) -> dict[str, Bench]:
    megabytes = size(1000, 4)
    return {
        "flow": Bench(
            f"a job that prints {megabytes} MB of lines",
            {
                "to a file": lambda folder: repeater(kit, folder, megabytes, file=True),
                "to the console": lambda folder: repeater(kit, folder, megabytes, file=False),
                "with a pattern": lambda folder: repeater(
                    kit, folder, megabytes, file=True, pattern="never there [0-9]+"
                ),
                "cat": lambda folder: cat(folder, megabytes),
            },
            (Goal("rate", least=0.5, of="cat"), Goal("more memory", most=20), _PATTERN),
        )
    }


def _source(megabytes: int) -> Path:
    path = HOME / f"lines-{megabytes}"
    if not path.exists():
        block = LINE * (1_000_000 // len(LINE) + 1)
        with path.open("wb") as file:
            for _ in range(megabytes):
                file.write(block[:1_000_000])
    return path


def cat(folder: Path, megabytes: int) -> Reading:
    """`cat FILE | cat >OTHER`: what a pipe and a file take."""
    source = _source(megabytes)
    began = time.perf_counter()
    subprocess.run(f"cat {source} | cat >{folder}/copy", shell=True, check=True)
    return {"rate": (megabytes / (time.perf_counter() - began), "MB/s")}


def repeater(kit: Tools, folder: Path, megabytes: int, *, file: bool, pattern: str = "") -> Reading:
    """From the first byte to the last; the console is a file, too."""
    source, began, ended = _source(megabytes), folder / "began", folder / "ended"
    where = f'{{ mode = "suppress", file = "{folder}/out", max_size = "2GB" }}' if file else '{ mode = "stream" }'
    success = f'success = {{ pattern = "{pattern}" }}\n' if pattern else ""
    (folder / "jobs.toml").write_text(
        f'version = 1\n[jobs.loud]\ncommand = "date +%s.%N >{began}; sleep 0.5; cat {source}; date +%s.%N >{ended}"\n'
        f'output = {where}\n{success}[jobs.stays]\ncommand = "true"\nschedule = "0 0 29 2 *"\n'
    )
    with (folder / "console").open("wb") as console:
        process = subprocess.Popen(
            [kit.rpr, "apply", "jobs.toml", "--state-dir", str(folder / "state")],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    try:
        _await(began, process)
        time.sleep(0.2)
        parts = lasting(process.pid, "cat")[:1]
        before = most = resident_mb(parts)
        while not ended.exists() or not ended.read_text():
            most = max(most, resident_mb(parts))
            time.sleep(0.02)
            if process.poll() is not None:
                raise RuntimeError("cannot measure: rpr ended")
        took = float(ended.read_text()) - float(began.read_text()) - 0.5
    finally:
        process.terminate()
        process.wait()
    wanted, found = megabytes * 1_000_000, (folder / ("out" if file else "console")).stat().st_size
    if found < wanted:
        raise RuntimeError(f"cannot measure: {wanted - found} bytes are missing")
    return {"rate": (megabytes / took, "MB/s"), "more memory": (most - before, "MB")}


def _await(path: Path, process: subprocess.Popen[bytes]) -> None:
    patience = time.monotonic() + 30
    while not path.exists():
        if process.poll() is not None or time.monotonic() > patience:
            raise RuntimeError("cannot measure: the job does not start")
        time.sleep(0.005)
