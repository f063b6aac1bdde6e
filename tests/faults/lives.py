"""Lives of the real supervisor that end by `kill -9`: at a chosen step, or at a random instant, again and again.

Run as a program, so that what a test kills is a process of its own: `python -m tests.faults.lives FOLDER KILLS SEED`
kills at random and prints what it saw as JSON; with the name of a step in place of the last two, it kills itself there.
A life is forked from a process that has read everything already, which makes five hundred of them affordable. The parts
are those of `rpr apply`; for a step, the store is one that dies at that call.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from repeater.apps import supervisor as supervisor_root
from repeater.apps.options import SupervisorOptions
from repeater.apps.reload_worker import load_selected
from repeater.apps.supervisor import supervise
from repeater.model.run import INTERIM, Progress, SlotRecord
from repeater.store import reader as store_reader
from repeater.store import store
from repeater.store.mapping import to_epoch_us_or_none

STEPS = ("before the claim", "after the claim", "after the spawn", "running", "after the exit", "after the record")
JOBS = "jobs.toml"


def options_for(folder: Path, on_death: Literal["kill", "keep"]) -> SupervisorOptions:
    return SupervisorOptions(
        (str(folder / JOBS),), watch=False, keep_alive=True, state_dir=str(folder / "state"), on_death=on_death
    )


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying_store(step: str) -> type[store.SqliteStore]:
    """A store of a supervisor that is killed when it comes to this step of a run of job `a`."""

    class Dying(store.SqliteStore):
        def claim(
            self,
            row: SlotRecord,
            progress: Progress,
            then: Callable[[Exception | None], None],
            command: Callable[[], str | None] = lambda: None,
        ) -> None:
            def told(error: Exception | None) -> None:
                if step == "after the claim":
                    die()
                then(error)

            if step == "before the claim":
                self.flush()
                die()
            super().claim(row, progress, told, command)

        def started(self, row: SlotRecord, pid: int) -> None:
            if step == "after the spawn":
                die()
            super().started(row, pid)
            if step == "running":
                self.flush()
                threading.Timer(0.1, die).start()

        def record(self, row: SlotRecord, progress: Progress) -> None:
            if step == "after the exit" and row.run is not None:
                die()
            super().record(row, progress)
            if step == "after the record" and row.run is not None:
                self.flush()
                die()

    return Dying


def die_at(folder: Path, step: str, on_death: Literal["kill", "keep"]) -> None:
    supervisor_root.SqliteStore = dying_store(step)  # type: ignore[misc]
    options = options_for(folder, on_death)
    supervise(options, load_selected(options.files))


class Lives:
    """Kills at random; `report` is what was seen."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.draw = random.Random(seed)
        self.loaded = load_selected((str(folder / JOBS),))
        self.decided: dict[tuple[str, int], str] = {}
        self.report: dict[str, Any] = {"kills": 0, "by_itself": [], "changed": [], "gone": []}

    def one(self) -> None:
        """Half of them are killed on their way to readiness, half after it."""
        pid, ready = self.begin(self.draw.choice(["kill", "keep"]))
        if self.draw.random() < 0.5:
            select.select([ready], [], [], 20)
        os.close(ready)
        time.sleep(self.draw.uniform(0.0, 0.3))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            self.report["by_itself"].append(status)
        self.report["kills"] += 1
        self.compare()

    def last(self) -> None:
        """In good order, with time to decide what was open."""
        pid, ready = self.begin("kill")
        select.select([ready], [], [], 60)
        os.close(ready)
        time.sleep(1.0)
        for _ in range(2):
            os.kill(pid, signal.SIGTERM)
            time.sleep(0.1)
        self.report["left_with"] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.compare()

    def begin(self, on_death: Literal["kill", "keep"]) -> tuple[int, int]:
        """The pid of a life, and a descriptor that can be read when it is ready, or over."""
        ready, tell = os.pipe()
        pid = os.fork()
        if pid:
            os.close(tell)
            return pid, ready
        os.close(ready)
        out = os.open(self.folder / "out", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        code = 70
        try:
            code = supervise(options_for(self.folder, on_death), self.loaded, lambda _: os.close(tell))
        except BaseException as error:  # noqa: BLE001 - the parent has to hear of it
            os.write(2, f"DEFECT {error!r}\n".encode())
        finally:
            os._exit(code)

    def compare(self) -> None:
        """What was decided stays, as it was."""
        reader = store_reader.open_reader(self.folder / "state")
        if reader is None:
            return
        try:
            found = {(row.job, to_epoch_us_or_none(row.nominal) or 0): row.state for row in reader.rows(most=100_000)}
        finally:
            reader.close()
        for slot, state in self.decided.items():
            if slot not in found:
                self.report["gone"].append(slot)
            elif found[slot] != state:
                self.report["changed"].append((slot, state, found[slot]))
        self.decided = {slot: state for slot, state in found.items() if state not in INTERIM}


def main() -> None:
    folder = Path(sys.argv[1])
    if sys.argv[2] in STEPS:
        die_at(folder, sys.argv[2], "keep" if sys.argv[3] == "keep" else "kill")
        return
    lives = Lives(folder, int(sys.argv[3]))
    for _ in range(int(sys.argv[2])):
        lives.one()
    lives.last()
    print(json.dumps(lives.report))


if __name__ == "__main__":
    main()
