"""P5, P6: a reload is all or nothing, fires nothing for the past, and what did not change does not notice it.

Files are broken and saved in every way that people and programs do, while services and timers run. What the jobs did is
read from the lines that they wrote themselves.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from tests.faults.effects import effectful, grid, mark
from tests.faults.ground import Ground, Supervisor, wait_for

EDITING = float(os.environ.get("EDIT_SECONDS", "4"))
"""Seconds of a hundred edits each; `EDIT_SECONDS=30` is the promise, what `make test` has time for proves the same."""
GROWTH = 150e6
"""Bytes that a supervisor may grow by while its files are edited."""
STALL = timedelta(seconds=3)
"""Between two starts of a job that is due every second: it may be two late."""
SERVICES, TIMERS = 8, 12
SERVICE = effectful("exec sleep 600").partition("; code=")[0]


def twenty() -> str:
    """Eight services and twelve jobs that are due every second."""
    services = [f"[jobs.service-{n}]\ncommand = {json.dumps(SERVICE)}\nschedule = 'always'\n" for n in range(SERVICES)]
    timers = [
        f"[jobs.timer-{n}]\ncommand = {json.dumps(mark('start'))}\nschedule = 'every 1s'\n" for n in range(TIMERS)
    ]
    return "".join(services + timers)


class Twenty:
    """The jobs of `twenty` under a supervisor, and what must have come of them."""

    def __init__(self, ground: Ground, *args: str) -> None:
        self.ground = ground
        self.supervisor = ground.apply(twenty(), *args, env={"RPR_MAX_RELOAD_TIME": "1s"})
        self.supervisor.until_ready()
        wait_for(lambda: len({effect.job for effect in ground.effects.starts()}) == 20, "all twenty")
        self.pids = self._service_pids()
        self.before = self.supervisor.holds()

    def _service_pids(self) -> dict[str, int]:
        return {found.job: found.pid for found in self.ground.living() if found.job.startswith("service")}

    def did_not_notice(self) -> None:
        """No service was started again or changed its pid, no second was run twice, and none later than `STALL`."""
        starts, now = self.ground.effects.starts, datetime.now(UTC)
        timers = {f"timer-{number}" for number in range(TIMERS)}
        wait_for(lambda: {one.job for one in starts() if one.nominal > now} >= timers, "all go on")
        assert self._service_pids() == self.pids
        assert len(self.pids) == SERVICES
        assert Counter(one.job for one in starts() if one.job.startswith("service")) == dict.fromkeys(self.pids, 1)
        assert self.ground.effects.twice() == []
        for timer in timers:
            slots = [one.nominal for one in starts(timer)]
            due = grid(slots[0], slots[-1], timedelta(seconds=1))
            assert set(slots) <= set(due), "a start that is not on the grid of seconds"
            assert max(after - before for before, after in pairwise(slots)) <= STALL, f"{timer}: {slots}"
        assert self.supervisor.holds().memory - self.before.memory < GROWTH

    @property
    def generation(self) -> int:
        return generation(self.supervisor)


def generation(supervisor: Supervisor) -> int:
    """The last one that was told to be in force."""
    return max(map(int, re.findall(r"generation (\d+) active", supervisor.err)), default=1)


# --- P5: broken files -------------------------------------------------------------------------------------------

GOOD = "version = 1\nproject = 'ground'\n"
LONG = f"vars = {{ a = '{'ab' * 100_000}' }}\n"
BROKEN: dict[str, Callable[[str], bytes | None]] = {
    "empty": lambda good: b"",
    "half": lambda good: good[: len(good) // 2].rpartition("=")[0].encode(),
    "a line cut off": lambda good: good[:-9].encode(),
    "only a comment": lambda good: b"# nothing\n",
    "no TOML": lambda good: b"jobs:\n  a: { command: x }\n",
    "zero bytes": lambda good: bytes(4096),
    "UTF-16": lambda good: good.encode("utf-16"),
    "not UTF-8": lambda good: good.encode() + b"# \xff\xfe\n",
    "an unknown key": lambda good: (good + "comand = 'x'\n").encode(),
    "an unknown table": lambda good: (good + "[job.x]\ncommand = 'x'\n").encode(),
    "a key twice": lambda good: (good + "[jobs.timer-0]\ncommand = 'x'\n").encode(),
    "no command": lambda good: (good + "[jobs.new]\nschedule = 'once'\n").encode(),
    "a wrong type": lambda good: (good + "[jobs.new]\ncommand = 5\n").encode(),
    "a wrong duration": lambda good: good.replace("every 1s", "every 1", 1).encode(),
    "a wrong cron": lambda good: good.replace("every 1s", "61 * * * *", 1).encode(),
    "a wrong pattern": lambda good: (good + "[jobs.new]\ncommand = 'x'\nsuccess = { pattern = '(' }\n").encode(),
    "a need of nobody": lambda good: (good + "[jobs.new]\ncommand = 'x'\nneeds = ['nobody']\n").encode(),
    "a circle of needs": lambda good: (
        good + "[jobs.n]\ncommand = 'x'\nneeds = ['m']\n[jobs.m]\ncommand = 'x'\nneeds = ['n']\n"
    ).encode(),
    "a missing include": lambda good: good.replace("version = 1", "version = 1\ninclude = ['none.toml']", 1).encode(),
    "an include of itself": lambda good: good.replace("version = 1", "version = 1\ninclude = ['jobs.toml']", 1).encode(),
    "a name that is none": lambda good: (good + "[jobs.'a b']\ncommand = 'x'\n").encode(),
    "an undefined variable": lambda good: (good + "[jobs.new]\ncommand = '{{ vars.none }}'\n").encode(),
    "a bomb": lambda good: (good + "[jobs.new]\ncommand = \"{{ 'x' * 10**9 }}\"\n").encode(),
    "a slow loop": lambda good: (
        LONG
        + good
        + '[jobs.new]\ncommand = "{% for i in range(1000) %}'
        + "{{ vars.a | replace('a', 'b') | unique | list | length }}" * 9
        + '{% endfor %}"\n'
    ).encode(),
    "deep": lambda good: (good + "x = " + "[" * 100_000).encode(),
    "a newer version": lambda good: good.replace("version = 1", "version = 99", 1).encode(),
    "most jobs gone": lambda good: f"{GOOD}[jobs.service-0]\ncommand = {json.dumps(SERVICE)}\nschedule = 'always'\n".encode(),
    "larger than allowed": lambda good: (good + "# " + "x" * (8 << 20)).encode(),
    "gone": lambda good: None,
}  # fmt: skip


@pytest.mark.slow
def test_no_kind_of_broken_file_is_noticed_by_any_job(ground: Ground) -> None:
    run = Twenty(ground)
    path = ground.folder / "jobs.toml"
    good = path.read_text()
    assert len(BROKEN) >= 25
    for kind, breaks in BROKEN.items():
        content = breaks(good)
        told = run.supervisor.err.count("remains active")
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        wait_for(
            lambda told=told: run.supervisor.err.count("remains active") > told,
            lambda kind=kind: f"{kind} is told: {run.supervisor.err[-2000:]}",
        )
        assert "Traceback" not in run.supervisor.err
    assert run.generation == 1
    path.write_text(good + f"[jobs.last]\ncommand = {json.dumps(mark('start'))}\n")
    wait_for(lambda: ground.effects.starts("last"), "the mended file is in force")
    assert run.generation == 2
    run.did_not_notice()


def test_one_broken_job_keeps_all_others_of_the_file_out(ground: Ground) -> None:
    ground.apply("[jobs.old]\ncommand = 'sleep 600'\nschedule = 'always'\n").until_ready()
    ground.write(
        f"[jobs.old]\ncommand = 'sleep 601'\nschedule = 'always'\n[jobs.new]\ncommand = {json.dumps(mark('start'))}\n"
        "[jobs.bad]\ncommand = 5\n"
    )
    ground.begun[0].until_err("remains active")
    assert not any("601" in found.command for found in ground.living())
    assert ground.jobs_living() == {"old"}
    assert ground.effects.all() == []


# --- every way to save ------------------------------------------------------------------------------------------


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def byte_by_byte(path: Path, text: str) -> None:
    with path.open("wb", buffering=0) as file:
        half = len(text) // 2
        for part in (text[:half], text[half:]):
            file.write(part.encode())
            time.sleep(0.1)


def slowly(path: Path, text: str) -> None:
    """The half that is a whole file stays for longer than anybody waits."""
    with path.open("wb", buffering=0) as file:
        file.write(text[: len(text) // 2].encode())
        time.sleep(0.9)
        file.write(text[len(text) // 2 :].encode())


def renamed(path: Path, text: str) -> None:
    (path.parent / ".new").write_text(text)
    (path.parent / ".new").rename(path)


def like_vim(path: Path, text: str) -> None:
    """`:w` with `backupcopy=no`: the old file is moved away, a new one is written, the old one is removed."""
    (path.parent / "4913").touch()
    (path.parent / "4913").unlink()
    backup = path.with_name(path.name + "~")
    path.rename(backup)
    path.write_text(text)
    backup.unlink()


def like_vim_in_place(path: Path, text: str) -> None:
    """`:w` with `backupcopy=yes`: the old content is copied away, the file is written over."""
    backup = path.with_name(path.name + "~")
    shutil.copy2(path, backup)
    with path.open("r+b", buffering=0) as file:
        file.truncate(0)
        file.write(text.encode())
        os.fsync(file.fileno())
    backup.unlink()


def like_emacs(path: Path, text: str) -> None:
    """A lock that is a link to nowhere, an autosave, and the old file kept under another name."""
    lock, autosave = path.with_name(".#" + path.name), path.with_name(f"#{path.name}#")
    lock.symlink_to("user@host.1234:5678")
    autosave.write_text(text)
    path.rename(path.with_name(path.name + "~"))
    path.write_text(text)
    autosave.unlink()
    lock.unlink()


def like_nano(path: Path, text: str) -> None:
    swap = path.with_name(f".{path.name}.swp")
    swap.write_bytes(b"b0nano")
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    os.write(fd, text.encode())
    os.close(fd)
    swap.unlink()


def with_sed(path: Path, text: str) -> None:
    path.with_name("wanted").write_text(text)
    subprocess.run(["sed", "-i", "-e", "r wanted", "-e", "d", path.name], cwd=path.parent, check=True)
    path.write_text(text) if path.read_text() != text else None


def copied_over(path: Path, text: str) -> None:
    other = path.with_name("other")
    other.write_text(text)
    subprocess.run(["cp", "-p", "other", path.name], cwd=path.parent, check=True)


def gone_and_back(path: Path, text: str) -> None:
    path.unlink()
    time.sleep(0.5)
    path.write_text(text)


def linked(path: Path, text: str) -> None:
    """Another file under a second name, and that name in its place."""
    other = path.with_name("hard")
    other.unlink(missing_ok=True)
    other.write_text(text)
    other.with_name("hard2").unlink(missing_ok=True)
    os.link(other, other.with_name("hard2"))
    other.with_name("hard2").rename(path)


def with_an_old_date(path: Path, text: str) -> None:
    """As unpacking and synchronising do: the file that comes is older than the one that was there, and as long."""
    renamed(path, text)
    os.utime(path, (1, 1))


STYLES = [
    in_place, byte_by_byte, slowly, renamed, like_vim, like_vim_in_place, like_emacs, like_nano, with_sed, copied_over,
    gone_and_back, linked, with_an_old_date,
]  # fmt: skip


@pytest.mark.slow
def test_a_saved_file_becomes_active_once_by_every_way_to_save(ground: Ground) -> None:
    keep = f"[jobs.keep]\ncommand = {json.dumps(SERVICE)}\nschedule = 'always'\n"
    run = ground.apply(keep)
    run.until_ready()
    path = ground.folder / "jobs.toml"
    for number, save in enumerate(STYLES, 2):
        name = save.__name__.replace("_", "-")
        save(path, f"{GOOD}{keep}[jobs.{name}]\ncommand = {json.dumps(mark('start'))}\n")
        wait_for(lambda name=name: ground.effects.starts(name), lambda name=name: f"{name} in force: {run.err}")
        wait_for(lambda number=number: generation(run) >= number, lambda name=name: f"{name} is told: {run.err}")
        assert generation(run) == number, name
    assert Counter(one.job for one in ground.effects.starts()) == dict.fromkeys(
        ["keep", *(save.__name__.replace("_", "-") for save in STYLES)], 1
    )


def test_a_mounted_volume_that_is_swapped_as_a_whole_becomes_active(ground: Ground) -> None:
    """As Kubernetes updates a ConfigMap: `jobs.toml -> ..data/jobs.toml`, `..data -> ..2026_1`, and a rename."""

    def swap(number: int) -> None:
        version = ground.folder / f"..2026_{number}"
        version.mkdir()
        (version / "jobs.toml").write_text(f"{GOOD}[jobs.job-{number}]\ncommand = {json.dumps(mark('start'))}\n")
        (ground.folder / "..data_tmp").symlink_to(version.name)
        (ground.folder / "..data_tmp").rename(ground.folder / "..data")
        if number > 1:
            shutil.rmtree(ground.folder / f"..2026_{number - 1}")

    swap(1)
    (ground.folder / "jobs.toml").symlink_to("..data/jobs.toml")
    run = ground.apply(None, "--keep-alive")
    for number in range(2, 6):
        wait_for(lambda number=number: ground.effects.starts(f"job-{number - 1}"), lambda: run.err)
        swap(number)
    wait_for(lambda: ground.effects.starts("job-5"), lambda: run.err)
    assert ground.effects.twice() == []


@pytest.mark.slow
def test_a_hundred_edits_a_second_affect_the_edited_job_only(ground: Ground) -> None:
    run = Twenty(ground)
    path = ground.folder / "jobs.toml"
    good = path.read_text()
    over = threading.Event()
    edits = 0

    def edit() -> None:
        nonlocal edits
        begun = time.monotonic()
        while not over.is_set():
            edits += 1
            text = good + f"[jobs.edited]\ncommand = 'true'\nschedule = 'manual'\nlabels = {{ edit = '{edits}' }}\n"
            (renamed if edits % 3 else in_place)(path, text)
            over.wait(max(0.0, begun + edits / 100 - time.monotonic()))

    editor = threading.Thread(target=edit)
    editor.start()
    try:
        time.sleep(EDITING)
    finally:
        over.set()
        editor.join()
    path.write_text(good + f"[jobs.last]\ncommand = {json.dumps(mark('start'))}\n")
    wait_for(lambda: ground.effects.starts("last"), lambda: f"the last edit is in force: {run.supervisor.err}")
    assert edits > 20 * EDITING, "the machine is too slow for this test"
    assert 2 <= run.generation <= EDITING + 4, "at most one generation for two seconds of edits"
    run.did_not_notice()


# --- P6: nothing for the past -----------------------------------------------------------------------------------


def test_a_reload_fires_nothing_that_was_due_before_it(ground: Ground) -> None:
    now = datetime.now(UTC)
    past = now - timedelta(minutes=1)
    daily = f"{past.minute} {past.hour} * * *"
    start = json.dumps(mark("start"))

    def jobs(edit: int) -> str:
        cron = daily if edit else "0 0 29 2 *"
        at = past if edit else now + timedelta(days=1)
        return f"""
            [jobs.once]
            command = {start}
            labels = {{ edit = "{edit}" }}
            [jobs.daily]
            command = {start}
            schedule = {{ cron = "{cron}" }}
            catch_up = "all"
            labels = {{ edit = "{edit}" }}
            [jobs.hourly]
            command = {start}
            schedule = {{ every = "{1 + edit}h", immediate = false }}
            catch_up = "latest"
            [jobs.at]
            command = {start}
            schedule = {{ at = "{at.isoformat()}" }}
            [jobs.manual]
            command = {start}
            schedule = "manual"
            description = "edit {edit}"
        """

    run = ground.apply(jobs(0), "--keep-alive")
    run.until_ready()
    wait_for(lambda: ground.effects.starts("once"), "once")
    for edit in range(1, 5):
        ground.write(jobs(edit))
        wait_for(lambda edit=edit: generation(run) == edit + 1, lambda: run.err)
    time.sleep(1)
    assert Counter(one.job for one in ground.effects.starts()) == {"once": 1}


def test_a_job_that_is_retimed_starts_strictly_after_the_reload(ground: Ground) -> None:
    start = json.dumps(mark("start"))
    run = ground.apply(f"[jobs.a]\ncommand = {start}\nschedule = {{ every = '1h', immediate = false }}\n")
    run.until_ready()
    time.sleep(0.3)
    saved = datetime.now(UTC)
    ground.write(f"[jobs.a]\ncommand = {start}\nschedule = {{ every = '1s', immediate = false }}\n")
    wait_for(lambda: len(ground.effects.starts("a")) >= 2, lambda: run.err)
    slots = [one.nominal for one in ground.effects.starts("a")]
    assert slots[0] > saved
    assert slots == sorted(set(slots))


def test_a_reader_that_is_killed_again_and_again_costs_no_job_anything(ground: Ground) -> None:
    run = Twenty(ground)
    path = ground.folder / "jobs.toml"
    good = path.read_text()
    supervisor: Supervisor = run.supervisor

    def readers() -> list[int]:
        return [found.pid for found in ground.living() if not found.job and " -P -c import sys" in found.command]

    for number in range(5):
        path.write_text(good + f"# edit {number}\n")
        wait_for(readers, lambda: f"a reader: {supervisor.err}")
        for pid in readers():
            os.kill(pid, 9)
    path.write_text(good + f"[jobs.last]\ncommand = {json.dumps(mark('start'))}\n")
    wait_for(lambda: ground.effects.starts("last"), lambda: supervisor.err)
    run.did_not_notice()
    supervisor.kill()
    wait_for(lambda: not readers(), "the reader goes with its supervisor")
