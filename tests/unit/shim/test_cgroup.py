"""Whether there is a cgroup that we may divide, from what the kernel says; and what is done when it is not so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from repeater.shim import cgroup
from repeater.shim.cgroup import MARK, NotDelegated, RunCgroups, locate

ROOT = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = (
    "33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)
CONTAINER = "812 811 0:26 /docker/0af3 /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n"
SPACE = "30 24 0:26 / /mnt/c\\040groups rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("mounts", "membership", "wanted"),
    [
        (ROOT, "0::/\n", ("/sys/fs/cgroup", "/")),
        (
            ROOT,
            "0::/system.slice/shop.service\n",
            ("/sys/fs/cgroup/system.slice/shop.service", "/system.slice/shop.service"),
        ),
        (HYBRID, "8:pids:/a\n4:memory:/b\n0::/c\n", ("/sys/fs/cgroup/unified/c", "/c")),
        (CONTAINER, "0::/docker/0af3\n", ("/sys/fs/cgroup", "/docker/0af3")),
        (CONTAINER, "0::/docker/0af3/x\n", ("/sys/fs/cgroup/x", "/docker/0af3/x")),
        (SPACE, "0::/a:b\n", ("/mnt/c groups/a:b", "/a:b")),
        (CONTAINER + ROOT, "0::/user.slice\n", ("/sys/fs/cgroup/user.slice", "/user.slice")),
    ],
)
def test_our_own_cgroup_is_found_wherever_it_is_mounted(mounts: str, membership: str, wanted: tuple[str, str]) -> None:
    assert locate(mounts, membership) == wanted


@pytest.mark.parametrize(
    ("mounts", "membership", "why"),
    [
        (ROOT, "8:pids:/a\n", "no cgroup v2"),
        (HYBRID.splitlines()[0], "0::/\n", "no cgroup v2 mount"),
        (CONTAINER, "0::/docker/0af31\n", "no cgroup v2 mount contains our"),
        (ROOT, "0::/../other\n", "outside this cgroup namespace"),
        (ROOT, "0::/gone (deleted)\n", "outside this cgroup namespace"),
        ("", "", "no cgroup v2"),
        ("nonsense\n\n - cgroup2 \n", "0::/\n", "no cgroup v2 mount"),
    ],
)
def test_a_cgroup_that_is_not_delegated_is_reported_with_its_reason(mounts: str, membership: str, why: str) -> None:
    with pytest.raises(NotDelegated, match=why):
        locate(mounts, membership)


def at(monkeypatch: pytest.MonkeyPatch, folder: Path, membership: str, *, marked: str = "", systemd: bool) -> None:
    """Be in a cgroup that looks like this folder."""
    mounts = f"1 0 0:1 / {folder} rw - cgroup2 cgroup2 rw\n"
    texts = {"/proc/self/mountinfo": mounts, "/proc/self/cgroup": f"0::{membership}\n"}
    here = Path(f"{folder}{membership}")
    here.mkdir(parents=True, exist_ok=True)
    for name in ("cgroup.procs", "cgroup.events", "cgroup.kill"):
        (here / name).touch()
    is_folder = os.path.isdir
    monkeypatch.setattr(cgroup, "_read", texts.__getitem__)
    monkeypatch.setattr(os, "getxattr", lambda path, name: _xattr(marked, path == str(here), name))
    monkeypatch.setattr(os.path, "isdir", lambda path: systemd if path == "/run/systemd/system" else is_folder(path))


def _xattr(marked: str, is_here: bool, name: str) -> bytes:
    if not is_here or name != marked:
        raise OSError("no data")
    return b"1"


@pytest.mark.parametrize("mark", ["user.delegate", "trusted.delegate"])
def test_a_cgroup_with_the_mark_of_systemd_is_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mark: str) -> None:
    at(monkeypatch, tmp_path, "/system.slice/shop.service", marked=mark, systemd=True)
    assert cgroup.delegated_root() == f"{tmp_path}/system.slice/shop.service"


def test_the_root_is_ours_only_where_systemd_does_not_own_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    at(monkeypatch, tmp_path, "", systemd=False)
    monkeypatch.setattr(cgroup, "locate", lambda *_: (str(tmp_path), "/"))
    assert cgroup.delegated_root() == str(tmp_path)
    at(monkeypatch, tmp_path, "", systemd=True)
    with pytest.raises(NotDelegated, match="not delegated"):
        cgroup.delegated_root()


@pytest.mark.parametrize("systemd", [True, False])
def test_a_cgroup_of_another_user_is_never_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, systemd: bool) -> None:
    at(monkeypatch, tmp_path, "/user.slice/session-1.scope", systemd=systemd)
    with pytest.raises(NotDelegated, match="not delegated"):
        cgroup.delegated_root()


def test_without_a_way_to_kill_a_cgroup_none_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    at(monkeypatch, tmp_path, "/a", marked="user.delegate", systemd=True)
    (tmp_path / "a" / "cgroup.kill").unlink()
    with pytest.raises(NotDelegated, match=r"Linux 5\.14"):
        cgroup.delegated_root()


def test_a_run_is_started_also_if_no_cgroup_can_be_made(tmp_path: Path) -> None:
    fences = RunCgroups(str(tmp_path / "gone"), "me")
    outcome, fence, why = fences.begin("run", lambda: 7)
    assert (outcome, fence) == (7, None)
    assert "gone" in why
    fences.close()


def test_a_folder_that_is_not_a_cgroup_is_not_used_and_is_removed(tmp_path: Path) -> None:
    fences = RunCgroups(str(tmp_path), "me")
    outcome, fence, why = fences.begin("run", lambda: 7)
    assert (outcome, fence) == (7, None)
    assert why
    fences.close()
    assert list(tmp_path.glob(f"{MARK}*")) == []
