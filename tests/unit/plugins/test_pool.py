"""The plugins of the jobs in force: started before a generation, replaced when they are others, ended when unused."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from repeater.errors import PluginBusy, PluginFailed
from repeater.model.plugins import Description
from repeater.model.spec import JobFile, JobSpec, Plugin, ProcessSpec, Stop
from repeater.plugins.pool import PluginPool, uses
from tests.unit.plugins.test_client import TALLY

MODULE = """
from repeater.plugins import StopCondition
class Says(StopCondition):
    description = "x"
    def met(self, tally):
        return "{words}"
"""


def describe(name: str, version: str = "1") -> Description:
    return Description("stop_condition", name, version, "x", "says:Says", answers=frozenset({"met"}))


def said(residents: PluginPool, name: str) -> str:
    until = time.monotonic() + 30
    while True:
        try:
            return str(residents.call("stop_condition", Plugin(name), "met", TALLY))
        except PluginBusy:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_another_version_takes_over_and_unused_processes_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "says.py"
    module.write_text(MODULE.format(words="one"))
    monkeypatch.syspath_prepend(str(tmp_path))
    residents = PluginPool([describe("a"), describe("b")])
    try:
        assert residents.update_catalog([describe("a")])
        assert (said(residents, "a"), said(residents, "b")) == ("one", "one")
        module.write_text(MODULE.format(words="another"))
        residents.prepare([describe("a"), describe("b")])
        assert said(residents, "a") == "one", "the same plugin goes on"
        assert not residents.update_catalog([describe("a", "2")])
        residents.prepare([describe("a", "2")])
        assert (said(residents, "a"), said(residents, "b")) == ("another", "one")
        job = JobSpec("j", ProcessSpec("x"), stop=Stop(plugins=(Plugin("a"),)))
        residents.retain_only(JobFile("p", (job,)))
        assert said(residents, "a") == "another"
        with pytest.raises(PluginFailed, match="cannot use stop condition plugin `b`: it is not loaded"):
            residents.call("stop_condition", Plugin("b"), "met", TALLY)
    finally:
        residents.close()


def test_every_use_in_a_job_counts() -> None:
    names = [Plugin(name) for name in "abcd"]
    job = JobSpec("j", ProcessSpec(""), names[0], stop=Stop(plugins=(names[1],)), executor=names[2])
    other = JobSpec("k", ProcessSpec("x"), executor=names[3])
    assert list(uses(JobFile("p", (job, other)))) == [
        ("schedule", names[0]), ("executor", names[2]), ("stop_condition", names[1]), ("executor", names[3])
    ]  # fmt: skip
