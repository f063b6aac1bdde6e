"""`make bench`: runs the benches interleaved, round by round, and prints medians, spreads and ratios.

`ARGS="--tiny"` checks that everything still runs, and says nothing about speed; `--json` prints the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench import burst, many, oneoff, reload
from bench.measure import Figure, noise
from bench.peers import Tools, tools

Reading = Mapping[str, tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Bench:
    """Contenders by name, ours first; `goals` are the most that ours may be: of itself, or of a peer's figure."""

    title: str
    contenders: Mapping[str, Callable[[Path], Reading]]
    goals: tuple[tuple[str, str | None, float], ...] = ()
    most_rounds: int = 99
    rounds: dict[str, dict[str, list[tuple[float, str]]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def run_round(self) -> None:
        for name, measure in self.contenders.items():
            with tempfile.TemporaryDirectory(prefix="rpr-bench-") as folder:
                for metric, reading in measure(Path(folder)).items():
                    self.rounds[metric][name].append(reading)

    def figure(self, metric: str, name: str) -> Figure | None:
        readings = self.rounds[metric].get(name)
        return Figure(tuple(value for value, _ in readings), readings[0][1]) if readings else None


def benches(kit: Tools, tiny: bool) -> dict[str, Bench]:
    jobs, seconds, saves, loaded = (5, 1.0, 2, 20) if tiny else (300, 10.0, 15, 10_000)

    def validate(name: str) -> Callable[[Path], Reading]:
        def measure(folder: Path) -> Reading:
            many.write(folder, loaded)
            return {**many.measure(kit, folder, name, loaded), **many.measure_idle(kit, folder, name, seconds)}

        return measure

    def start(name: str, spread: bool) -> Callable[[Path], Reading]:
        return lambda folder: burst.measure(kit, folder, name, jobs=jobs, seconds=seconds, spread=spread)

    runs = 20 if tiny else 2000

    def count(name: str, parallel: int) -> Callable[[Path], Reading]:
        return lambda folder: oneoff.back_to_back(kit, folder, name, runs, parallel)

    return {
        "count": Bench(
            f"`true` {runs} times, one after the other",
            {name: count(name, 1) for name in ("repeater", "xargs")},
            (("a run", "xargs", 1 / 0.9), ("peak memory", None, 40)),
        ),
        "parallel": Bench(
            f"`true` {runs} times, four at once",
            {name: count(name, 4) for name in ("repeater", "xargs")},
            (("a run", "xargs", 1 / 0.8),),
        ),
        "start-up": Bench(
            "a one-off command of one run, and an interpreter that does nothing",
            {
                name: lambda folder, name=name: oneoff.start_up(kit, folder, name, 3 if tiny else 10)
                for name in ("repeater", "python")
            },
            (("start-up", "python", 8),),
        ),
        "interval": Bench(
            "an interval of 10 ms",
            {"repeater": lambda folder: oneoff.interval(kit, folder, runs)},
            (("drift", None, 0.1), ("lateness p99", None, 5)),
            most_rounds=3,
        ),
        "spread": Bench(
            f"{jobs} jobs every second, spread over the second, output captured, {seconds:g} s a round",
            {name: start(name, True) for name in burst.CONTENDERS},
            (("lateness p99", None, 10), ("CPU", "APScheduler", 2), ("CPU", "cronstable", 0.5)),
        ),
        "burst": Bench(
            f"{jobs} jobs due in the same instant, every second, output captured, {seconds:g} s a round",
            {name: start(name, False) for name in burst.CONTENDERS},
            (("lateness p99", "APScheduler", 1),),
            most_rounds=3,
        ),
        "reload": Bench(
            "save to in force, beyond the debounce, with 10 jobs",
            {"repeater": lambda folder: reload.measure(kit, folder, 10, saves)},
            (("save to in force", None, 500),),
        ),
        "many": Bench(
            f"{loaded} distinct jobs: validate, then loaded and idle",
            {name: validate(name) for name in ("repeater", "cronstable")},
            (("validate", "cronstable", 0.25), ("peak memory", None, 120), ("idle CPU", None, 1)),
            most_rounds=3,
        ),
    }


def lines(bench: Bench) -> Iterator[str]:
    names = list(bench.contenders)
    yield f"\n{bench.title}"
    yield "".join(f"{text:<32}" for text in ("", *names)).rstrip()
    for metric in bench.rounds:
        figures = [bench.figure(metric, name) for name in names]
        yield "".join(f"{text!s:<32}" for text in (f"  {metric}", *(figure or "-" for figure in figures))).rstrip()
    for metric, peer, most in bench.goals:
        ours, other = bench.figure(metric, names[0]), bench.figure(metric, peer) if peer else None
        if ours and other and other.median:
            ratio = ours.median / other.median
            yield f"  {metric}: {ratio:.2f}x of {peer}, goal at most {most:g}x: {'met' if ratio <= most else 'MISSED'}"
        elif ours and not peer:
            met = "met" if ours.median <= most else "MISSED"
            yield f"  {metric}: {ours.median:.3g} {ours.unit}, goal at most {most:g} {ours.unit}: {met}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="count, parallel, start-up, interval, spread, burst, reload, many; default: all",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="one small round: does it still run?")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    kit = tools()
    chosen = {name: bench for name, bench in benches(kit, asked.tiny).items() if name in (asked.names or [name])}
    if unknown := set(asked.names) - set(chosen):
        parser.error(f"no bench is called `{unknown.pop()}`")
    count = 1 if asked.tiny else asked.rounds
    quiet = []
    for number in range(count):
        for name, bench in chosen.items():
            if number < bench.most_rounds:
                print(f"round {number + 1} of {min(count, bench.most_rounds)}: {name}", file=sys.stderr, flush=True)
                quiet.append(noise())
                bench.run_round()
    swing = Figure(tuple(value / sorted(quiet)[len(quiet) // 2] for value in quiet), "of its median")
    machine = {
        "date": datetime.now(UTC).date().isoformat(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "peers": kit.versions,
        "noise": swing.rounds,
    }
    if asked.json:
        figures = {name: {"title": bench.title, "rounds": bench.rounds} for name, bench in chosen.items()}
        print(json.dumps({"machine": machine, "benches": figures}, indent=2))
        return
    print(
        f"{machine['date']}, {machine['system']}, Python {machine['python']}; "
        + ", ".join(f"{k} {v}" for k, v in kit.versions.items())
    )
    print(f"Medians, with the least and the most of the rounds. Noise: a fixed piece of work took {swing}.")
    for bench in chosen.values():
        print("\n".join(lines(bench)))


main()
