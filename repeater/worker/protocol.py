"""A process of our own that works on questions under limits, and is kept warm between them.

It is a fresh interpreter, not a fork of this one, which has threads. Questions and answers are frames of bytes: their
length, then they themselves. What the work is, nobody here knows. `parent` is the side that asks and must never wait,
`child` the side that works and may die of it. Used by `app` only.
"""

from __future__ import annotations

import os
import struct
import sys

from repeater._lazy_dataclasses import dataclass

HEAD = struct.Struct("!I")
"""What stands before each frame: how many bytes it has."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a process may use for one question: bytes beyond what it has when it begins, seconds of CPU, seconds.

    After `grace` more seconds of CPU the process is ended if its work does not notice that the time is over.
    """

    memory: int
    cpu: float
    wall: float
    grace: float = 3.0

    @property
    def time_exceeded_message(self) -> str:
        return f"it takes more than {self.cpu:g}s of CPU time"

    @property
    def memory_exceeded_message(self) -> str:
        return f"it needs more than {self.memory >> 20} MiB of memory"


def command(module: str) -> list[str]:
    """The words that start `main` of a module of repeater, in this interpreter.

    The folder it is started in is no place for modules: there may be a `yaml.py` in it.
    """
    home = os.path.abspath(__file__)
    for _ in range(3):
        home = os.path.dirname(home)
    return [sys.executable, "-P", "-c", f"import sys; sys.path.append({home!r}); from {module} import main; main()"]
