"""A pytest plugin: makes each test the context of the lines that it reaches, and writes how long each test took."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from coverage import Coverage

from tests.measure import MEASURING, TEST, TIMES, hand_on

_seconds: dict[str, float] = {}
_failed: set[str] = set()


def pytest_configure() -> None:
    hand_on(MEASURING)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    _switch(item.nodeid)
    try:
        return (yield)
    finally:
        _switch("")


def _switch(test: str) -> None:
    os.environ[TEST] = test
    measuring = Coverage.current()
    if measuring is not None:
        measuring.switch_context(test)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _failed.add(report.nodeid)
    _seconds[report.nodeid] = _seconds.get(report.nodeid, 0.0) + report.duration


def pytest_sessionfinish() -> None:
    """The modules are those that a process may import before it runs tests again."""
    record = {"seconds": _seconds, "failed": sorted(_failed), "modules": sorted(sys.modules)}
    Path(os.environ[TIMES], f"times-{os.getpid()}.json").write_text(json.dumps(record))


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """A worker of xdist ends without its exit functions."""
    measuring = Coverage.current()
    if measuring is not None:
        measuring.stop()
        measuring.save()
