"""Property tests are the same in every run, have no deadline (the machine may be busy) and write nothing."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unit", deadline=None, derandomize=True, database=None)
settings.load_profile("unit")
