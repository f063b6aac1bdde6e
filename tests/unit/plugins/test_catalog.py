"""The plugins that are installed: found in real folders of distributions, and loaded side by side."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from repeater.errors import PluginFailed
from repeater.plugins import client
from repeater.plugins.catalog import InstalledPlugins

MODULE = """
import time
from repeater.plugins import Schedule
{first}
class Good(Schedule):
    description = "Now"
    def next(self, track):
        return None
"""


@pytest.fixture
def plugins() -> Iterator[InstalledPlugins]:
    found = InstalledPlugins()
    yield found
    found.close()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a distribution with these entry points, and a module for each of `modules`."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def begin(name: str, points: str | bytes, version: str = "1.0", **modules: str) -> None:
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (folder / "entry_points.txt").write_bytes(points if isinstance(points, bytes) else points.encode())
        for module, first in modules.items():
            (tmp_path / f"{module}.py").write_text(MODULE.format(first=first))

    return begin


@pytest.mark.parametrize("points", ["[repeater.schedules]\nno equals sign\n", b"[x]\na = b:\xff\n", b"\xff\xfe"])
def test_a_broken_file_of_another_distribution_is_a_warning(
    install: Callable[..., None], plugins: InstalledPlugins, points: str | bytes
) -> None:
    install("unrelated", points)
    install("mine", "[repeater.schedules]\ngood = one_plugin:Good\n", one_plugin="")
    assert plugins.describe("schedule", "good").distribution == "mine"
    (warning,) = plugins.warnings
    assert warning.startswith("cannot read the entry points of the distribution `unrelated`: ")


def test_entry_points_with_extras_load(install: Callable[..., None], plugins: InstalledPlugins) -> None:
    install("mine", "[repeater.schedules]\ngood = one_plugin:Good [fast,cheap]\n", one_plugin="")
    found = plugins.describe("schedule", "good")
    assert (found.target, found.distribution, found.version) == ("one_plugin:Good", "mine", "1.0")


def test_of_two_distributions_of_one_name_the_first_counts(
    install: Callable[..., None], plugins: InstalledPlugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("my.own", "[repeater.schedules]\ngood = one_plugin:Good\n", one_plugin="")
    later = tmp_path / "later"
    later.mkdir()
    (later / "my_own-0.9.dist-info").mkdir()
    (later / "my_own-0.9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: my_own\nVersion: 0.9\n")
    (later / "my_own-0.9.dist-info" / "entry_points.txt").write_text("[repeater.schedules]\ngood = gone:Good\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(later)])
    assert [entry.version for entry in plugins.entries() if entry.name == "good"] == ["1.0"]


@pytest.mark.slow
def test_plugins_are_loaded_side_by_side(
    install: Callable[..., None], plugins: InstalledPlugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "START_LIMIT", 6.0)
    points = "".join(f"slow{number} = hanging{number}:Good\n" for number in range(6))
    install(
        "mine",
        f"[repeater.schedules]\n{points}good = one_plugin:Good\n",
        one_plugin="",
        **{f"hanging{number}": "time.sleep(600)" for number in range(6)},
    )
    began = time.monotonic()
    plugins.expect(("schedule", name) for name in plugins.names("schedule"))
    assert plugins.describe("schedule", "good").description == "Now"
    for number in range(6):
        with pytest.raises(PluginFailed, match="did not answer within 6 s"):
            plugins.describe("schedule", f"slow{number}")
    assert time.monotonic() - began < 24, "six times the limit, had they been loaded one after the other"
