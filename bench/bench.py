"""What a bench is. A file of this folder that has a function `benches` is one that `make bench` runs:

    def benches(kit: Tools, size: Size) -> dict[str, Bench]

`kit` says where the programs are (`bench.peers`), `size` how much to do. Each contender gets an empty folder and gives
a reading for each thing that it measured, `{"CPU": (0.5, "cores")}`; a contender named as a peer that is not installed
is left out. Measure with `bench.measure`, from the outside: effects, /proc, wait4.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.measure import Figure

Reading = Mapping[str, tuple[float, str]]
"""Value and unit of each thing that one contender was measured at, once."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Size:
    """`tiny`: does it still run? Its figures say nothing."""

    tiny: bool = False

    def __call__(self, full: T, tiny: T) -> T:
        return tiny if self.tiny else full


@dataclass(frozen=True, slots=True)
class Goal:
    """How much ours may be (`most`) or has to be (`least`): in the unit of the metric, or times the figure of the peer
    that `of` names. `ours` is the contender that is judged, the first if none is named.
    """

    metric: str
    most: float | None = None
    least: float | None = None
    of: str | None = None
    ours: str | None = None

    def verdict(self, ours: Figure | None, other: Figure | None) -> str | None:
        """A line for people; None when one of the figures is missing."""
        if ours is None or (self.of and (other is None or not other.median)):
            return None
        value = ours.median / other.median if self.of and other else ours.median
        unit = f"x of {self.of}" if self.of else f" {ours.unit}"
        wanted = f"at most {self.most:g}" if self.most is not None else f"at least {self.least:g}"
        met = value <= self.most if self.most is not None else value >= (self.least or 0)
        whose = f" of {self.ours}" if self.ours else ""
        return f"{self.metric}{whose}: {value:.3g}{unit}, goal {wanted}: {'met' if met else 'MISSED'}"


@dataclass(frozen=True, slots=True)
class Bench:
    """Contenders by name, ours first. `most_rounds` is for what takes minutes."""

    title: str
    contenders: Mapping[str, Callable[[Path], Reading]]
    goals: tuple[Goal, ...] = ()
    most_rounds: int = 99
    rounds: dict[str, dict[str, list[tuple[float, str]]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def figure(self, metric: str, name: str) -> Figure | None:
        readings = self.rounds[metric].get(name) if metric in self.rounds else None
        return Figure(tuple(value for value, _ in readings), readings[0][1]) if readings else None

    def lines(self, *, is_judged: bool) -> Iterator[str]:
        names = list(self.contenders)
        yield f"\n{self.title}"
        yield "".join(f"{text:<32}" for text in ("", *names)).rstrip()
        for metric in self.rounds:
            figures = [self.figure(metric, name) for name in names]
            yield "".join(f"{text!s:<32}" for text in (f"  {metric}", *(figure or "-" for figure in figures))).rstrip()
        for goal in self.goals if is_judged else ():
            ours = self.figure(goal.metric, goal.ours or names[0])
            other = self.figure(goal.metric, goal.of) if goal.of else None
            if (verdict := goal.verdict(ours, other)) is not None:
                yield f"  {verdict}"
