"""`make bench`: runs the benches interleaved, round by round, and prints medians, spreads, ratios and the noise.

`ARGS="--only NAME"` runs one bench, or every bench of the module of that name. `--tiny` checks that everything still
runs, with what is installed, and says nothing about speed. `--json` prints every round.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import platform
import signal
import sys
import tempfile
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path

import bench as package
from bench.bench import Bench, Size
from bench.measure import Figure, noise
from bench.peers import Tools, tools


def found(kit: Tools, size: Size, only: Collection[str]) -> Iterator[tuple[str, Bench]]:
    """The benches asked for, of every module of this folder that has some."""
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith("__"):
            continue
        make = getattr(importlib.import_module(f"bench.{module.name}"), "benches", None)
        for name, bench in make(kit, size).items() if make else ():
            if not only or name in only or module.name in only:
                contenders = {key: it for key, it in bench.contenders.items() if key not in kit.missing}
                yield name, Bench(bench.title, contenders, bench.goals, bench.most_rounds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="may be given again")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="one small round: does it still run?")
    parser.add_argument("--here", action="store_true", help="the rpr of this interpreter, not one freshly installed")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a peer that goes on would disturb everything after it
    kit = tools(here=asked.here or asked.tiny, fetch=not asked.tiny)
    chosen = dict(found(kit, Size(asked.tiny), asked.only))
    if not chosen:
        parser.error(f"no bench is called `{'`, `'.join(asked.only)}`")
    quiet, rounds = [], 1 if asked.tiny else asked.rounds
    for number in range(rounds):
        for name, bench in chosen.items():
            if number < bench.most_rounds:
                print(f"round {number + 1} of {min(rounds, bench.most_rounds)}: {name}", file=sys.stderr, flush=True)
                quiet.append(noise())
                run_round(bench)
    swing = Figure(tuple(value / sorted(quiet)[len(quiet) // 2] for value in quiet), "of its median")
    machine = {
        "date": datetime.now(UTC).date().isoformat(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {_processor()}",
        "python": platform.python_version(),
        "peers": kit.versions,
        "missing": sorted(kit.missing),
        "noise": swing.rounds,
    }
    if asked.json:
        figures = {name: {"title": bench.title, "rounds": bench.rounds} for name, bench in chosen.items()}
        print(json.dumps({"machine": machine, "benches": figures}, indent=2))
        return
    print(f"{machine['date']}, {machine['system']}, Python {machine['python']}")
    print(", ".join(f"{name} {version}" for name, version in kit.versions.items()))
    if kit.missing:
        print(f"not to be had here: {', '.join(sorted(kit.missing))}")
    print(f"Medians, with the least and the most of the rounds. Noise: a fixed piece of work took {swing}.")
    for bench in chosen.values():
        print("\n".join(bench.lines(is_judged=not asked.tiny)))


def run_round(bench: Bench) -> None:
    for name, measure in bench.contenders.items():
        with tempfile.TemporaryDirectory(prefix="rpr-bench-") as folder:
            for metric, reading in measure(Path(folder)).items():
                bench.rounds[metric][name].append(reading)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


main()
