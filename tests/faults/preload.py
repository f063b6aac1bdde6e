"""Faults of clock and disk for a process and its children: the handle of `preload.c`."""

from __future__ import annotations

import mmap
import struct
import subprocess
import sys
from datetime import timedelta
from pathlib import Path


class Shim:
    """`env` is what a process needs to be under it. Orders take effect at once, in all processes."""

    def __init__(self, library: Path, orders: Path) -> None:
        orders.write_bytes(bytes(24))
        self.env = {"LD_PRELOAD": str(library), "REPEATER_SHIM": str(orders)}
        with orders.open("r+b") as file:
            self._orders = mmap.mmap(file.fileno(), 24)

    def works(self) -> bool:
        """Whether a process under it sees another time of day and the same monotonic clock."""
        self.set_clock(timedelta(days=1000))
        script = "import time; print(time.time(), time.monotonic())"
        done = [
            subprocess.run([sys.executable, "-Sc", script], env=env, capture_output=True, text=True).stdout.split()
            for env in ({}, self.env)
        ]
        self.set_clock(timedelta(0))
        if [len(words) for words in done] != [2, 2]:
            return False
        (wall, mono), (its_wall, its_mono) = ([float(word) for word in words] for words in done)
        return its_wall - wall > 86_400 * 999 and its_mono - mono < 1000

    def set_clock(self, ahead: timedelta) -> None:
        """The time of day is this much ahead of the real one, or behind it."""
        struct.pack_into("q", self._orders, 0, ahead // timedelta(microseconds=1) * 1000)

    def set_sync(self, *, delay: timedelta = timedelta(0), error: int = 0) -> None:
        """Syncing to disk takes longer, or fails."""
        struct.pack_into("qq", self._orders, 8, delay // timedelta(microseconds=1), error)

    def close(self) -> None:
        self._orders.close()
