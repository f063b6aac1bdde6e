"""`python -m tests.measure [ARGUMENT OF PYTEST ...]`: runs the suite and prints which share of each package it reaches.

Measured are all processes: supervisors, shims, workers, plugins, daemons and commands. A process that SIGKILL ends does not
report its lines.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from coverage import Coverage

from tests.measure import ROOT, measure

KEPT = ROOT / ".mutate" / "suite"
ENOUGH = 90.0


def main() -> int:
    arguments = sys.argv[1:]
    data = KEPT / "coverage"
    code = 0
    if arguments != ["--report"]:
        shutil.rmtree(KEPT, ignore_errors=True)
        code = measure(data, arguments)
    report(data)
    return code


def report(data: Path) -> None:
    """A line for each package, and for each file of which less than `ENOUGH` percent are reached."""
    coverage = Coverage(data_file=str(data), config_file=str(ROOT / "pyproject.toml"))
    coverage.load()
    coverage.json_report(outfile=str(data.with_name("report.json")))
    files = json.loads(data.with_name("report.json").read_text())["files"]
    packages: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path, file in files.items():
        packages[str(Path(path).parent)].append(file["summary"])
    print(f"\n{'package':28} {'lines':>7} {'reached':>8} {'branches':>9} {'reached':>8}")
    for package, summaries in sorted(packages.items()):
        _line(package, summaries)
    _line("all", [summary for summaries in packages.values() for summary in summaries])
    few = {path: file for path, file in sorted(files.items()) if _share([file["summary"]]) < ENOUGH}
    print(f"\n{len(few)} files with less than {ENOUGH:g} %:")
    for path, file in few.items():
        missing = ",".join(map(str, file["missing_lines"]))
        print(f"{path:40} {_share([file['summary']]):6.1f} %  {missing[:200]}")


def _line(name: str, summaries: list[dict[str, Any]]) -> None:
    lines, branches = (sum(one[key] for one in summaries) for key in ("num_statements", "num_branches"))
    reached, taken = (sum(one[key] for one in summaries) for key in ("covered_lines", "covered_branches"))
    print(f"{name:28} {lines:7} {_percent(reached, lines):6.1f} % {branches:9} {_percent(taken, branches):6.1f} %")


def _share(summaries: list[dict[str, Any]]) -> float:
    return _percent(sum(one["covered_lines"] for one in summaries), sum(one["num_statements"] for one in summaries))


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 100.0


if __name__ == "__main__":
    sys.exit(main())
