"""`python -m tests.mutate`: a sample of mutants, and which of them no test notices.

A mutant is a small change to one line. The tests that reach the line run against it, the shortest first, until one fails.
The packages and tests are those of `[tool.mutate]` in pyproject.toml. What changes nothing that anybody could notice is in
`equivalents.toml`, by the text of the line.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatch
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from tests.measure import ROOT
from tests.mutate.covering import Covering, Timed, cover
from tests.mutate.operators import Mutant, mutants
from tests.mutate.trying import Ground, Outcome, prepare

KEPT = ROOT / ".mutate"
SURVIVORS = KEPT / "survivors.json"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description=__doc__)
    parser.add_argument("paths", nargs="*", metavar="PATTERN", help="only files like `*/policy/*`")
    parser.add_argument("--seed", type=int, default=None, help="chooses the sample; default: by chance")
    parser.add_argument("--size", type=int, default=300, help="mutants of the sample (300); 0 for all")
    parser.add_argument("--again", action="store_true", help="the survivors of the last time, and no others")
    parser.add_argument("--workers", type=int, default=2, help="processes (2)")
    asked = parser.parse_args()
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutate"]
    sources = [path for place in table["sources"] for path in sorted(ROOT.glob(place))]
    covering = cover(KEPT, table["tests"], sources)
    equal = _equivalents()
    chosen = [path for path in sources if not asked.paths or any(fnmatch(str(path), one) for one in asked.paths)]
    every = [one for path in chosen for one in mutants(str(path.relative_to(ROOT)), path.read_bytes())]
    if asked.again:
        former = {tuple(one) for one in json.loads(SURVIVORS.read_text())}
        sample = [one for one in every if (one.path, *_difference(one)) in former]
    else:
        seed = asked.seed if asked.seed is not None else random.randrange(1 << 32)
        sample = random.Random(seed).sample(every, min(asked.size or len(every), len(every)))
        print(f"{len(sample)} of {len(every)} mutants, --seed {seed}", flush=True)
    tried = [one for one in sample if _difference(one) not in equal]
    outcomes = _try_all(tried, covering, asked.workers)
    survivors = [outcome.mutant for outcome in outcomes if not outcome.by]
    KEPT.mkdir(exist_ok=True)
    SURVIVORS.write_text(json.dumps([(one.path, *_difference(one)) for one in survivors], indent=1))
    _report(outcomes, len(sample) - len(tried))
    return 0


def _try_all(tried: Sequence[Mutant], covering: Covering, workers: int) -> list[Outcome]:
    prepare(covering.modules)
    fork = multiprocessing.get_context("fork")
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        grounds = fork.SimpleQueue()
        for number in range(workers):
            grounds.put(Path(folder, str(number)))
        todo = [(one, covering.tests(one.path, one.lines)) for one in tried]
        with fork.Pool(workers, _begin, (grounds, todo)) as pool:
            for outcome in pool.imap_unordered(_try, range(len(todo))):
                outcomes.append(outcome)
                if not outcome.by:
                    _show(outcome)
                with (KEPT / "log").open("a") as log:
                    log.write(
                        f"{outcome.seconds:6.1f} s {outcome.tests:5} tests {_place(outcome.mutant)} "
                        f"{' => '.join(_difference(outcome.mutant))} :: {outcome.by}\n"
                    )
    return outcomes


_ground: Ground
_todo: Sequence[tuple[Mutant, list[Timed]]]


def _begin(grounds: SimpleQueue[Path], todo: Sequence[tuple[Mutant, list[Timed]]]) -> None:
    global _ground, _todo
    _ground, _todo = Ground(grounds.get()), todo
    _ground.enter()


def _try(index: int) -> Outcome:
    return _ground.try_(*_todo[index])


def _equivalents() -> set[tuple[str, str]]:
    table = tomllib.loads(Path(__file__).with_name("equivalents.toml").read_text())
    return {(" ".join(one["line"].split()), " ".join(one["mutant"].split())) for one in table.get("equivalent", ())}


def _difference(mutant: Mutant) -> tuple[str, str]:
    return mutant.difference((ROOT / mutant.path).read_bytes())


def _place(mutant: Mutant) -> str:
    return f"{mutant.path}:{mutant.line((ROOT / mutant.path).read_bytes())}"


def _show(outcome: Outcome) -> None:
    before, after = _difference(outcome.mutant)
    reached = f"{outcome.tests} tests reach it" if outcome.tests else "no test reaches it"
    print(f"\n{_place(outcome.mutant)}: {reached}\n  - {before}\n  + {after}", flush=True)


def _report(outcomes: Sequence[Outcome], equal: int) -> None:
    tried = Counter(str(Path(outcome.mutant.path).parent) for outcome in outcomes)
    died = Counter(str(Path(outcome.mutant.path).parent) for outcome in outcomes if outcome.by)
    print()
    for package in sorted(tried):
        print(f"{package:32} {died[package]:4} of {tried[package]:4} died")
    rate = 100 * died.total() / max(1, tried.total())
    print(f"{'all':32} {died.total():4} of {tried.total():4} died, {rate:.1f} %; {equal} equivalent ones were left out")


if __name__ == "__main__":
    began = time.monotonic()
    code = main()
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(code)
