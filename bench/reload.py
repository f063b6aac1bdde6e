"""From saving a job file to its new definition in force, beyond the debounce of 200 ms.

Each save adds a job that runs once and writes down when it began, so the figure holds everything: noticing, reading,
checking, planning, the claim, the start of the process. No peer watches its file: the quickest asks to be signalled.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from bench.bench import Bench, Goal, Size
from bench.measure import end
from bench.peers import Tools

DEBOUNCE = 0.2


def benches(kit: Tools, size: Size) -> dict[str, Bench]:
    return {
        f"reload-{jobs}": Bench(
            f"save to in force, beyond the debounce, with {jobs} jobs",
            {"repeater": lambda folder, jobs=jobs, saves=saves: measure(kit, folder, jobs, saves)},
            (Goal("save to in force", most=most),),
        )
        for jobs, saves, most in ((10, size(9, 2), 300), (size(10_000, 20), size(3, 1), 1500))
    }


def measure(tools: Tools, folder: Path, jobs: int, saves: int) -> dict[str, tuple[float, str]]:
    """Seconds from rename to effect, the median and the worst of some saves."""
    effects, file = folder / "effects", folder / "jobs.toml"
    quiet = "".join(f'[jobs.job-{n}]\ncommand = "true"\nschedule = "0 0 29 2 *"\n' for n in range(jobs))
    once = '[jobs.new-{n}]\ncommand = ["{stamp}", "{effects}"]\n'

    def save(number: int) -> float:
        text = "version = 1\n" + quiet + once.format(n=number, stamp=tools.stamp, effects=effects)
        (folder / "new").write_text(text)
        (folder / "new").rename(file)
        return time.time()

    save(0)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [tools.rpr, "apply", "jobs.toml", "--state-dir", str(folder / "state")],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    took = []
    try:
        _await(effects, 1, process)
        for number in range(1, saves + 1):
            time.sleep(0.4)
            saved = save(number)
            took.append(_await(effects, number + 1, process) - saved - DEBOUNCE)
    finally:
        end(process)
    took.sort()
    return {
        "save to in force": (took[len(took) // 2] * 1e3, "ms"),
        "worst save": (took[-1] * 1e3, "ms"),
    }


def _await(effects: Path, count: int, process: subprocess.Popen[bytes]) -> float:
    """When the effect number `count` happened, in seconds since 1970."""
    patience = time.monotonic() + 30
    while True:
        lines = effects.read_text().splitlines() if effects.exists() else []
        if len(lines) >= count:
            return float(lines[count - 1].split()[0])
        if process.poll() is not None or time.monotonic() > patience:
            log = (effects.parent / "log").read_text(errors="replace")
            raise RuntimeError(f"cannot measure: save {count - 1} had no effect\n{log[-2000:]}")
        time.sleep(0.005)
