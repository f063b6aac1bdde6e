"""Plugins with the real `rpr`: the example packages, installed as users do, and packages that are broken in every way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Rpr
from tests.docs.pages import ROOT, blocks

EXAMPLES = ROOT / "docs" / "examples" / "plugins"

BROKEN = """
import os, sys, time
from repeater.plugins import Executor, Output, Schedule, StopCondition

class Base(Schedule):
    description = "Breaks when it is asked"

class Crashes(Base):
    def next(self, track):
        os.abort()

class Hangs(Base):
    def next(self, track):
        while True:
            time.sleep(60)

class Raises(Base):
    def next(self, track):
        raise RuntimeError("no idea")

class Wrong(Base):
    def next(self, track):
        return "soon"

class Drops(Output):
    description = "Breaks when it gets something"
    def record(self, record):
        os._exit(3)

class Doubts(StopCondition):
    description = "Breaks when it is asked"
    def met(self, tally):
        return 1 / 0

class Fails(Executor):
    description = "Breaks when it runs"
    def run(self, task):
        raise LookupError("nothing there")

class Lasts(Executor):
    description = "Runs for ever"
    def run(self, task):
        print("begun", flush=True)
        time.sleep(600)
"""
BROKEN_POINTS = """
[repeater.schedules]
crashes = broken_plugins:Crashes
hangs = broken_plugins:Hangs
raises = broken_plugins:Raises
wrong = broken_plugins:Wrong
no-import = not_there:Thing
[repeater.outputs]
drops = broken_plugins:Drops
[repeater.stop_conditions]
doubts = broken_plugins:Doubts
[repeater.executors]
fails = broken_plugins:Fails
lasts = broken_plugins:Lasts
"""


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two example packages, built and installed by pip, without a network."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("plugins")
    shutil.copytree(EXAMPLES, source, dirs_exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--isolated", "install", "--quiet", "--no-index"]
    argv = [*pip, "--no-build-isolation", "--no-deps", "--target", str(target)]
    done = subprocess.run([*argv, *map(str, sorted(source.iterdir()))], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def install(folder: Path, name: str, version: str, points: str) -> None:
    """What pip leaves of a package, but for its modules."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(points)


@pytest.fixture
def with_examples(rpr: Rpr, examples: Path) -> Rpr:
    rpr.env["PYTHONPATH"] = str(examples)
    return rpr


@pytest.fixture
def with_broken(rpr: Rpr, examples: Path, tmp_path: Path) -> Rpr:
    """Both, and a package whose plugins are broken."""
    folder = tmp_path / "site"
    install(folder, "broken-plugins", "0.1", BROKEN_POINTS)
    (folder / "broken_plugins.py").write_text(BROKEN)
    rpr.env["PYTHONPATH"] = f"{folder}{os.pathsep}{examples}"
    return rpr


@pytest.fixture
def server() -> Iterator[str]:
    """Says `hello` on `/ok`, 503 on everything else."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"hello\n" if self.path == "/ok" else b"too much\n"
            self.send_response(200 if self.path == "/ok" else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()
    thread.join()


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_installed_plugins_are_listed_and_explained(with_examples: Rpr) -> None:
    with_examples("plugins").is_(
        out=(
            "KIND            NAME          VERSION  PACKAGE                  STATE  DESCRIPTION\n"
            "schedule        office-hours  1.0.0    repeater-example-times   ok     Every so many minutes during office"
            " hours, not at weekends and not on holidays\n"
            "executor        http          1.0.0    repeater-example-places  ok     Makes a request; a status from 400 on"
            " is a failure\n"
            "output          jsonl         1.0.0    repeater-example-places  ok     Appends the row of each slot to a"
            " file, as a line of JSON\n"
            "stop_condition  error-budget  1.0.0    repeater-example-times   ok     Done when more than a share of all"
            " runs has failed\n"
        )
    )
    with_examples("plugins", "http").is_(
        out=(
            "http 1.0.0: Makes a request; a status from 400 on is a failure\n"
            "  from repeater_example_places:Http of repeater-example-places\n"
            '  use: executor = { plugin = "http" }\n'
            "  url (string, required): What is asked for\n"
            '  method (default "GET"): How\n'
            "  headers (object): Of the request\n"
            "  seconds (number, default 30): How long it may keep silent\n"
        )
    )
    with_examples("plugins", "htp").is_(
        err="rpr: cannot show plugin `htp`: it is not installed\nhint: `rpr plugins` lists the installed plugins\n",
        code=2,
    )


def test_without_plugins_there_is_nothing_to_list(rpr: Rpr) -> None:
    rpr("plugins").is_(out="no plugins are installed\n")


def test_a_distribution_that_is_broken_is_a_warning_with_its_name(with_broken: Rpr, tmp_path: Path) -> None:
    install(tmp_path / "site", "unrelated", "2.0", "[console_scripts]\nno equals sign\n")
    cause = "cannot read the entry points of the distribution `unrelated`: "
    listed = with_broken("plugins", "raises")
    assert listed.code == 0
    assert listed.err.startswith(f"rpr: warning: {cause}")
    with_broken.write("a.toml", 'version = 1\n[jobs.a]\ncommand = "true"\nschedule = { plugin = "raises" }\n')
    checked = with_broken("validate", "a.toml")
    assert checked.code == 0
    assert f"warning: {cause}" in checked.err
    assert checked.err.count(cause) == 1


def test_a_broken_plugin_is_listed_with_its_fault_beside_the_others(with_broken: Rpr) -> None:
    listed = with_broken("plugins", "--json")
    assert (listed.err, listed.code) == ("", 1)
    found = {row["name"]: row for row in map(json.loads, listed.out.splitlines())}
    assert {name: row["state"] for name, row in found.items() if row["state"] != "ok"} == {"no-import": "broken"}
    assert found["no-import"]["problem"] == (
        "cannot use schedule plugin `no-import` (of `broken-plugins` 0.1):"
        " ModuleNotFoundError: No module named 'not_there'"
    )
    assert found["office-hours"]["schema"]["properties"]["minutes"]["default"] == 60
    assert (found["jsonl"]["kind"], found["jsonl"]["package"]) == ("output", "repeater-example-places")


def test_all_problems_of_plugins_are_reported_at_once_with_their_place(with_broken: Rpr) -> None:
    with_broken.write(
        "jobs.toml",
        """[jobs.name]
command = "true"
schedule = { plugin = "office-hour" }
stop = { plugins = ["nothing-like-it"] }

[jobs.keys]
executor = { plugin = "http", url = "ftp://example.com", methods = "GET" }
schedule = { plugin = "office-hours", minutes = "30" }

[jobs.refused]
command = "true"
schedule = { plugin = "office-hours", opens = "18:00" }

[jobs.required]
executor = "http"

[jobs.broken]
command = "true"
schedule = { plugin = "no-import" }
""",
    )
    with_broken("validate", "jobs.toml").is_(
        err=(
            "jobs.toml:3:14: jobs.name.schedule.plugin: unknown schedule plugin `office-hour`"
            " (did you mean `office-hours`?)\n"
            "jobs.toml:4:21: jobs.name.stop.plugins[0]: unknown stop condition plugin `nothing-like-it`"
            " (known: `doubts`, `error-budget`)\n"
            "jobs.toml:7:31: jobs.keys.executor.url: found `ftp://example.com`, expected another value\n"
            "jobs.toml:7:58: jobs.keys.executor.methods: unknown key `methods` (did you mean `method`?)\n"
            "jobs.toml:8:39: jobs.keys.schedule.minutes: found `30`, expected a whole number\n"
            "jobs.toml:12:1: jobs.refused.schedule: the office opens at 18:00, after it closes at 17:00\n"
            "jobs.toml:15:1: jobs.required.executor: missing `url`\n"
            "jobs.toml:19:14: jobs.broken.schedule.plugin: cannot use schedule plugin `no-import`"
            " (of `broken-plugins` 0.1): ModuleNotFoundError: No module named 'not_there'\n"
        ),
        code=2,
    )


def test_the_four_kinds_work_together_and_are_known_before_they_run(with_examples: Rpr, server: str) -> None:
    rows = with_examples.folder / "rows.jsonl"
    with_examples.write(
        "jobs.toml",
        f"""version = 1
project = "four"

[jobs.office]
command = "true"
schedule = {{ plugin = "office-hours", minutes = 240, timezone = "Europe/Berlin", holidays = ["2026-03-30"] }}
enabled = false

[jobs.ask]
executor = {{ plugin = "http", url = "{server}/ok" }}
schedule = "every 100ms"
success = {{ pattern = "^hello$" }}
stop = {{ times = 2 }}
output = {{ plugins = [{{ plugin = "jsonl", file = "{rows}" }}] }}

[jobs.busy]
executor = {{ plugin = "http", url = "{server}/busy" }}
schedule = "every 50ms"
stop = {{ plugins = [{{ plugin = "error-budget", runs = 3 }}] }}
output = {{ mode = "aggregate", plugins = [{{ plugin = "jsonl", file = "{rows}", only = "failures" }}] }}
""",
    )
    office = (with_examples.folder / "jobs.toml").read_text().partition("enabled = false\n")[0]
    with_examples.write("open.toml", office)
    begin = ("--from", "2026-03-27T12:30:00Z", "--json")
    coming = with_examples("next", "open.toml", "-n", "3", "--job", "office", *begin)
    starts = [json.loads(line)["due"] for line in coming.out.splitlines()]
    assert starts == ["2026-03-31T07:00:00Z", "2026-03-31T11:00:00Z", "2026-04-01T07:00:00Z"], coming.err
    simulated = with_examples("simulate", "open.toml", "--for", "96h", *begin)
    slots = [row["nominal"] for row in map(json.loads, simulated.out.splitlines()) if row["job"] == "office"]
    assert slots == starts[:2]

    applied = with_examples("apply", "--quiet", "jobs.toml")
    assert applied.code == 1, applied.err
    assert sorted(applied.out.splitlines()) == [
        "ask    | hello", "ask    | hello", "busy   | too much", "busy   | too much", "busy   | too much"
    ]  # fmt: skip
    history = [
        row for row in map(json.loads, with_examples("history", "--json", "-n", "1000").out.splitlines()) if row["run"]
    ]
    told = [(row["job"], row["reason"]) for row in history]
    assert told.count(("ask", "output matched pattern")) == 2
    assert told.count(("busy", "exit 1")) == 3
    written = [json.loads(line) for line in rows.read_text().splitlines()]
    assert {(row["job"], row["run"]) for row in written if row["run"]} == {(row["job"], row["run"]) for row in history}
    assert {row["outcome"] for row in written if row["run"]} == {"success", "failed"}


def test_a_forecast_shows_the_other_jobs_when_a_plugin_fails(with_broken: Rpr) -> None:
    with_broken.write(
        "jobs.toml",
        """[jobs.a]
command = "true"
schedule = { plugin = "raises" }
[jobs.b]
command = "true"
schedule = { cron = "0 3 * * *" }
""",
    )
    shown = with_broken("next", "jobs.toml", "-n", "1", "--from", "2026-12-10")
    assert shown.out.splitlines()[0] == "a  unknown"
    assert shown.out.splitlines()[1].startswith("b  2026-12-10 03:00:00Z")
    assert shown.err.startswith("rpr: warning: a: cannot use schedule plugin `raises`: RuntimeError: no idea (broken_")
    assert shown.code == 1
    planned = with_broken("plan", "jobs.toml")
    assert planned.out.splitlines()[0] == "+ a  is new; plugin raises"
    assert (planned.err, planned.code) == ("", 0)


@pytest.mark.slow
def test_plugins_that_break_later_are_named_and_affect_no_other_job(with_broken: Rpr) -> None:
    names = ("crashes", "hangs", "raises", "wrong")
    uses = "\n".join(f'[jobs.{name}]\ncommand = "true"\nschedule = {{ plugin = "{name}" }}\n' for name in names)
    with_broken.write(
        "jobs.toml",
        f"""version = 1
project = "broken"

{uses}
[jobs.well]
command = "echo well"
schedule = "every 200ms"
stop = {{ plugins = ["doubts"], times = 8 }}
output = {{ plugins = ["drops"] }}

[jobs.fails]
executor = "fails"

[jobs.lasts]
executor = "lasts"
timeout = "300ms"
stop_timeout = "5s"
""",
    )
    running = with_broken.start("apply", "jobs.toml")
    try:
        until(lambda: '"done"' in with_broken("status", "--json", "well").out)
        status = [json.loads(line) for line in with_broken("status", "--json").out.splitlines()]
        why = with_broken("why", "crashes").out
    finally:
        running.terminate()
        _, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert "Traceback" not in err.replace("fails   | Traceback", "")
    states = {row["job"]: (row["state"], row["why"]) for row in status if "job" in row}
    assert states["well"][0] == "done"
    for name, cause in (
        ("crashes", "its process ended (signal 6)"),
        ("hangs", ""),
        ("raises", "RuntimeError: no idea (broken_plugins.py:"),
        ("wrong", "TypeError: `next` gave 'soon' (str), expected a datetime or None"),
    ):
        told = f"cannot use schedule plugin `{name}`: {cause}"
        assert states[name] == ("idle", states[name][1])
        assert states[name][1].startswith(told), states[name]
        assert name == "hangs" or f"rpr: {name}: warning: {told}" in err, err
    assert "its schedule plugin failed and will be retried" in why
    assert "cannot use stop condition plugin `doubts`: ZeroDivisionError" in err
    assert "cannot use output plugin `drops`: its process ended (exit 3); an item was lost" in err
    rows = {}
    for line in with_broken("history", "--json", "-n", "1000").out.splitlines():
        row = json.loads(line)
        rows.setdefault(row["job"], []).append(row["reason"] if row["detail"] else row["reason_code"])
    assert rows["well"].count("success") == 8
    assert set(rows["well"]) <= {"success", "overlap", "missed"}, "a busy machine may be late"
    assert rows["fails"] == ["executor plugin `fails` failed; its output has the reason"]
    assert rows["lasts"] == ["timed out after 300ms"]
    assert "fails   | rpr: executor plugin `fails` failed: LookupError: nothing there" in err


@pytest.mark.slow
def test_a_supervisor_in_the_background_keeps_its_plugins_over_a_reload(with_examples: Rpr) -> None:
    text = """version = 1
project = "kept"

[jobs.a]
command = "true"
schedule = { plugin = "office-hours", minutes = 1, opens = "00:00", closes = "23:59" }
"""
    with_examples.write("jobs.toml", text)
    try:
        assert with_examples("apply", "--detach", "--quiet", "jobs.toml").code == 0
        before = json.loads(with_examples("status", "--json").out.splitlines()[0])
        assert before["next"] is not None
        with_examples.write("jobs.toml", text + '\n[jobs.b]\ncommand = "true"\nschedule = "manual"\n')
        with_examples("reload")
        after = [json.loads(line) for line in with_examples("status", "--json").out.splitlines()]
        assert {row["job"] for row in after if "job" in row} == {"a", "b"}
        with_examples.write("jobs.toml", text.replace("minutes = 1", "minutes = 0"))
        refused = with_examples("reload")
        assert "jobs.a.schedule.minutes: found `0`, expected a number from 1 to 720" in refused.err
    finally:
        with_examples("down")


def test_a_command_without_plugins_loads_none(rpr: Rpr) -> None:
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "true"\nschedule = "every 1m"\n')
    code = """
import sys
from repeater.cli.main import run
code = run(["validate", "jobs.toml"]) or run(["next", "jobs.toml"])
loaded = {"importlib.metadata", "subprocess", "repeater.plugins", "repeater.plugins.catalog"} & set(sys.modules)
sys.exit(code or (str(loaded) if loaded else 0))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=rpr.folder, env=rpr.env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_the_plugin_of_the_guide_works_and_the_pages_hold_valid_files(with_examples: Rpr, tmp_path: Path) -> None:
    guide, reference = (ROOT / "docs" / page for page in ("how-to/write-a-plugin.md", "reference/plugins.md"))
    module, test = (block.text for block in blocks(guide) if block.language == "python")
    package, listed, coming = (block.text for block in blocks(guide) if block.language == "text")
    folder = tmp_path / "site"
    install(folder, "repeater-month", "1.0.0", "[repeater.schedules]\nfirst-workday = repeater_month:FirstWorkday\n")
    (folder / "repeater_month.py").write_text(module)
    assert 'first-workday = "repeater_month:FirstWorkday"' in package
    with_examples.env["PYTHONPATH"] += f"{os.pathsep}{folder}"
    assert with_examples("plugins", "first-workday").out == listed.partition("$ rpr plugins first-workday\n")[2]
    files = [block.text for page in (guide, reference) for block in blocks(page) if block.language == "toml"]
    for number, text in enumerate(files):
        with_examples.write(f"{number}.toml", text)
    checked = with_examples("validate", "--each", *(f"{number}.toml" for number in range(len(files))))
    assert (checked.code, len(files)) == (0, 2), checked.err
    shown = with_examples("next", "0.toml", "-n", "2", "--from", "2026-12-10")
    for line, wanted in zip(coming.splitlines()[1:], shown.out.splitlines(), strict=True):
        assert wanted.startswith(line.rstrip("…"))
    names: dict[str, Any] = {}
    exec(compile(module + test.replace("from repeater_month import FirstWorkday", ""), "guide", "exec"), names)
    names["test_a_month_that_begins_on_a_saturday_starts_on_monday"]()
