"""The frames and limits of a worker process, which handles requests and is reused.

The worker is a new interpreter, not a fork, because this process has threads. A request or a response is a frame: its
length, then its bytes. `client` must never block. `server` may crash or be killed because of a request. This package
does not know the content of the frames.
"""

from __future__ import annotations

import os
import struct
import sys

from repeater._lazy_dataclasses import dataclass

HEAD = struct.Struct("!I")
"""The header of each frame: its length in bytes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Resources for one request. `memory`: bytes above the size at the first request; `cpu`, `wall`: seconds.

    If the work ignores the CPU limit, the process is killed after `grace` further seconds of CPU.
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
    """The argv that runs `main` of a module of repeater with this interpreter.

    The current directory is not on the module path, because it may contain files such as `yaml.py`.
    """
    home = os.path.abspath(__file__)
    for _ in range(3):
        home = os.path.dirname(home)
    return [sys.executable, "-P", "-c", f"import sys; sys.path.append({home!r}); from {module} import main; main()"]
