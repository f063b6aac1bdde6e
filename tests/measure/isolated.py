"""`python -I -S isolated.py PACKAGES SCRIPT ...`: runs SCRIPT as it is, measured by coverage out of the folder PACKAGES."""

from __future__ import annotations

import runpy
import sys

_, packages, *sys.argv = sys.argv
sys.path.append(packages)
import coverage  # noqa: E402 - the path was just made

coverage.process_startup(slug="measure")
runpy.run_path(sys.argv[0], run_name="__main__")
