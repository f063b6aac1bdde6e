"""Real plugins in real processes: good ones answer, bad ones are named, ended, and left alone for a while."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from repeater.errors import PluginBusy, PluginFailed
from repeater.model.plugins import Description, Kind
from repeater.plugins import client
from repeater.plugins.client import QUICK, PluginChannel, PluginProcess, Refusal
from tests.unit.plugins.bad import MODULE

TRACK = {
    "job": "a", "anchor": "2030-01-01T00:00:00Z", "after": None, "last_end": None, "runs": 0, "failures_in_row": 0
}  # fmt: skip
TALLY = {
    "job": "a", "now": "2030-01-01T00:00:00Z", "elapsed_seconds": 1.5, "runs": 3, "successes": 1, "failures": 2, "streak": -2,
    "first_start": None, "last_start": None, "last_end": None, "last_success": None, "last": None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bad plugins, as the module `bad_plugins`."""
    path = tmp_path / "bad_plugins.py"
    path.write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return path


@pytest.fixture
def talk() -> Iterator[Callable[..., PluginChannel]]:
    talks: list[PluginChannel] = []

    def begin(name: str, kind: Kind = "schedule") -> PluginChannel:
        talks.append(PluginChannel(kind, f"bad_plugins:{name}", f"cannot use `{name}`"))
        talks[-1].ready()
        return talks[-1]

    yield begin
    for one in talks:
        one.close()


def test_a_plugin_describes_itself_and_answers(talk: Callable[..., PluginChannel]) -> None:
    good = talk("Good")
    told = good.ask("describe", "{}")
    assert (told["description"], told["version"], told["answers"]) == ("Every so many seconds", "9", ["next"])
    assert good.ask("next", '{"seconds": 5}', (TRACK,)) == "2030-01-01T00:00:05+00:00"
    assert good.ask("next", "{}", (TRACK,)) == "2030-01-01T00:00:10+00:00", "the default of the schema"
    assert good.ask("next", "{}", ({**TRACK, "after": "2030-01-01T01:00:00Z"},)) == "2030-01-01T01:00:10+00:00"
    condition = talk("Told", "stop_condition")
    assert condition.ask("met", "{}", (TALLY,)) == "3 2030 None"


def test_keys_that_a_plugin_refuses_are_reported_with_its_message(talk: Callable[..., PluginChannel]) -> None:
    picky = talk("Picky")
    picky.ask("make", '{"seconds": 12}')
    with pytest.raises(Refusal, match=r"^thirteen brings bad luck$"):
        picky.ask("make", '{"seconds": 13}')
    picky.ask("make", '{"seconds": 14}')


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Nowhere", "AttributeError: module 'bad_plugins' has no attribute 'Nowhere'"),
        (
            "Unrelated",
            "TypeError: `bad_plugins:Unrelated` is not a subclass of `repeater.plugins.Schedule`",
        ),
        ("function", "TypeError: `bad_plugins:function` is not a subclass of `repeater.plugins.Schedule`"),
        ("Yes", "TypeError: `bad_plugins:Yes` is not a subclass of `repeater.plugins.Schedule`"),
    ],
)
def test_an_object_that_is_not_a_plugin_is_refused_at_once(
    talk: Callable[..., PluginChannel], name: str, told: str
) -> None:
    with pytest.raises(PluginFailed) as caught:
        talk(name)
    assert caught.value.message == f"cannot use `{name}`: {told}"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Mute", "TypeError: it does not have a method `next`"),
        ("Nameless", "TypeError: it has no `description`"),
        ("NotPlain", "TypeError: its `schema` is not JSON: Object of type object is not JSON serializable"),
    ],
)
def test_a_plugin_without_a_valid_description_is_refused(
    talk: Callable[..., PluginChannel], name: str, told: str
) -> None:
    with pytest.raises(PluginFailed) as caught:
        talk(name).ask("describe", "{}")
    assert caught.value.message == f"cannot use `{name}`: {told}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "import nothing_of_this_name",
            "ModuleNotFoundError: No module named 'nothing_of_this_name' (bad_plugins.py:1)",
        ),
        ("x = (", "SyntaxError: '(' was never closed (bad_plugins.py, line 1)"),
        ("\n\nraise ValueError('not today')", "ValueError: not today (bad_plugins.py:3)"),
        ("import sys\nsys.exit(4)", "SystemExit: 4 (bad_plugins.py:2)"),
        ("import os\nos._exit(4)", "its process ended (exit 4)"),
        ("import os\nos.abort()", "its process ended (signal 6)"),
    ],
)
def test_an_import_that_fails_is_reported_with_its_place(
    module: Path, talk: Callable[..., PluginChannel], text: str, told: str
) -> None:
    module.write_text(text)
    with pytest.raises(PluginFailed) as caught:
        talk("Good")
    assert caught.value.message == f"cannot use `Good`: {told}"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Raises", "RuntimeError: no idea (bad_plugins.py:22)"),
        ("Naive", "TypeError: `next` gave datetime.datetime(2030, 1, 1, 0, 0) (datetime), which has no time zone"),
        ("Wordy", "TypeError: `next` gave 'soon' (str), expected a datetime or None"),
        ("Leaves", "SystemExit: bye (bad_plugins.py:52)"),
    ],
)
def test_an_invalid_answer_does_not_change_the_process(
    talk: Callable[..., PluginChannel], name: str, told: str
) -> None:
    bad = talk(name)
    for _ in range(2):
        with pytest.raises(PluginFailed) as caught:
            bad.ask("next", "{}", (TRACK,))
        assert caught.value.message == f"cannot use `{name}`: {told}"
        assert not bad.is_over


@pytest.mark.parametrize(
    ("name", "told"), [("Exits", "its process ended (exit 7)"), ("Dies", "its process ended (signal 11)")]
)
def test_a_crash_is_reported_with_its_cause(talk: Callable[..., PluginChannel], name: str, told: str) -> None:
    bad = talk(name)
    with pytest.raises(PluginFailed) as caught:
        bad.ask("next", "{}", (TRACK,))
    assert caught.value.message == f"cannot use `{name}`: {told}"
    assert bad.is_over


@pytest.mark.parametrize("name", ["Hangs", "Spins"])
def test_an_answer_is_waited_for_no_longer_than_the_limit(talk: Callable[..., PluginChannel], name: str) -> None:
    bad = talk(name)
    began = time.monotonic()
    with pytest.raises(PluginFailed, match=r"it did not answer within 0\.2 s"):
        bad.ask("next", "{}", (TRACK,), 0.2)
    assert time.monotonic() - began < 15
    assert bad.is_over


def test_a_plugin_that_answers_true_gets_an_error_with_the_expected_type(talk: Callable[..., PluginChannel]) -> None:
    with pytest.raises(PluginFailed, match=r"TypeError: `met` gave True \(bool\), expected a reason or None"):
        talk("Yes", "stop_condition").ask("met", "{}", (TALLY,))


ASKS_AND_HANGS = """
import json, sys, time
from repeater.plugins.client import QUICK, PluginChannel
sys.path.insert(0, sys.argv[1])
bad = PluginChannel("schedule", "bad_plugins:Spins", "x")
bad.ready()
bad.send("next", "{}", (json.loads(sys.argv[2]),), 600)
print(bad._process.pid, flush=True)
time.sleep(600)
"""


def lives(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_plugin_does_not_outlive_its_client_even_after_a_kill(tmp_path: Path) -> None:
    asker = subprocess.Popen(
        [sys.executable, "-c", ASKS_AND_HANGS, str(tmp_path), json.dumps(TRACK)], stdout=subprocess.PIPE
    )
    assert asker.stdout is not None
    pid = int(asker.stdout.readline())
    assert lives(pid)
    asker.kill()
    asker.communicate()
    until = time.monotonic() + 30
    while lives(pid):
        assert time.monotonic() < until
        time.sleep(0.01)


FORKS = """
import os, sys, time
def leave(end):
    with open(os.environ["REPEATER_TEST_PIDS"], "a") as file:
        file.write(f"{os.getpid()}\\n")
    end()
if os.fork() == 0:  # a child in the session, which lives on
    leave(lambda: time.sleep(600))
if os.fork() == 0:  # a daemon in a session of its own, whose parent is gone
    os.setsid()
    if os.fork() == 0:
        leave(lambda: time.sleep(600))
    os._exit(0)
if os.fork() == 0:  # a copy that goes on with the import
    leave(lambda: None)
os.wait()
while len(open(os.environ["REPEATER_TEST_PIDS"]).read().split()) < 3:
    time.sleep(0.001)
"""


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ("", None),
        ("raise ValueError('no')", "ValueError: no (bad_plugins.py:"),
        ("os._exit(4)", "its process ended (exit 4)"),
        ("os._exit(0)", "its process ended (exit 0)"),
    ],
)
def test_a_plugin_that_forks_at_import_is_cleaned_up(
    module: Path, talk: Callable[..., PluginChannel], monkeypatch: pytest.MonkeyPatch, last: str, told: str | None
) -> None:
    pids = module.with_name("pids")
    pids.touch()
    monkeypatch.setenv("REPEATER_TEST_PIDS", str(pids))
    module.write_text(MODULE + FORKS + last)
    began = time.monotonic()
    if told is None:
        good = talk("Good")
        assert good.ask("next", "{}", (TRACK,)) == "2030-01-01T00:00:10+00:00"
        good.close()
    else:
        with pytest.raises(PluginFailed) as caught:
            talk("Good")
        assert caught.value.message.startswith(f"cannot use `Good`: {told}")
    assert time.monotonic() - began < client.START_LIMIT, "what holds the pipe open must not delay the answer"
    found = [int(pid) for pid in pids.read_text().split()]
    assert len(found) == 3
    until = time.monotonic() + 30
    while any(map(lives, found)):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_children_of_a_plugin_do_not_outlive_the_kill_of_its_client(tmp_path: Path, module: Path) -> None:
    pids = tmp_path / "pids"
    pids.touch()
    module.write_text(MODULE + FORKS)
    asker = subprocess.Popen(
        [sys.executable, "-c", ASKS_AND_HANGS, str(tmp_path), json.dumps(TRACK)],
        stdout=subprocess.PIPE,
        env={**os.environ, "REPEATER_TEST_PIDS": str(pids)},
    )
    assert asker.stdout is not None
    asker.stdout.readline()
    asker.kill()
    asker.communicate()
    until = time.monotonic() + 30
    while any(lives(int(pid)) for pid in pids.read_text().split()):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_an_import_that_hangs_takes_no_longer_than_the_limit(
    module: Path, monkeypatch: pytest.MonkeyPatch, talk: Callable[..., PluginChannel]
) -> None:
    assert client.START_LIMIT == 10
    monkeypatch.setattr(client, "START_LIMIT", 0.5)
    module.write_text("import time\ntime.sleep(600)")
    began = time.monotonic()
    with pytest.raises(PluginFailed, match=r"it did not answer within 0\.5 s"):
        talk("Good")
    assert time.monotonic() - began < 8


def test_a_plugin_is_not_under_the_limits_of_the_reload_worker(
    talk: Callable[..., PluginChannel],
) -> None:
    limits = {one: resource.getrlimit(one) for one in (resource.RLIMIT_AS, resource.RLIMIT_CPU)}
    resource.setrlimit(resource.RLIMIT_CPU, (1_000_000, limits[resource.RLIMIT_CPU][1]))
    try:
        told = talk("Limits", "stop_condition").ask("met", "{}", (TALLY,))
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, limits[resource.RLIMIT_CPU])
    assert told == str([hard for _, hard in limits.values()])


# --- a resident ---------------------------------------------------------------------------------------------------


@pytest.fixture
def resident() -> Iterator[Callable[..., PluginProcess]]:
    made: list[PluginProcess] = []

    def begin(name: str, clock: Callable[[], float] = time.monotonic) -> PluginProcess:
        made.append(PluginProcess(Description("schedule", name.lower(), "1", "x", f"bad_plugins:{name}"), clock))
        made[-1].start()
        return made[-1]

    yield begin
    for one in made:
        one.close()


def answer_of(one: PluginProcess, *, within: float = 30) -> object:
    """An answer, as soon as there is one."""
    until = time.monotonic() + within
    while True:
        try:
            return one.ask("next", "{}", (TRACK,))
        except PluginFailed:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def test_a_resident_that_was_killed_returns_after_a_rest(
    resident: Callable[..., PluginProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "REST", 0.05)
    good = resident("Good")
    assert answer_of(good) == "2030-01-01T00:00:10+00:00"
    assert good._talk is not None
    os.kill(good._talk._process.pid, 9)
    good._talk._process.wait()
    with pytest.raises(PluginFailed, match=r"cannot use schedule plugin `good`: its process ended \(signal 9\)"):
        good.ask("next", "{}", (TRACK,))
    assert answer_of(good) == "2030-01-01T00:00:10+00:00"


def test_a_plugin_that_hangs_is_killed_and_rests_longer_each_time(
    resident: Callable[..., PluginProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "CALL_LIMIT", 0.3)
    now = [0.0]
    bad = resident("Hangs", lambda: now[0])
    rests = []
    for _ in range(3):
        while bad._talk is None:  # it is being started
            with pytest.raises(PluginFailed):
                bad.ask("next", "{}", (TRACK,))
            time.sleep(0.005)
        asked = time.monotonic()
        for _ in range(100):
            with pytest.raises(PluginBusy, match="it has not answered yet"):
                bad.ask("next", "{}", (TRACK,))
        with pytest.raises(PluginBusy, match="it has not answered yet"):
            bad.ask("next", "{}", ({**TRACK, "job": "another"},))
        now[0] += 0.31
        with pytest.raises(PluginFailed, match=r"it did not answer within 0\.3 s"):
            bad.ask("next", "{}", ({**TRACK, "job": "another"},))
        for _ in range(100):
            with pytest.raises(PluginFailed, match=r"it did not answer within 0\.3 s"):
                bad.ask("next", "{}", (TRACK,))
        assert time.monotonic() - asked < 2, "nobody waits for it more than once"
        rests.append(bad._rests_until - now[0])
        now[0] = bad._rests_until
    assert rests == pytest.approx([1, 2, 4])


def test_a_late_answer_is_used_when_the_same_is_requested_again(
    resident: Callable[..., PluginProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "WAIT", 0.0)
    good = resident("Good", lambda: 0.0)
    other = {**TRACK, "anchor": "2031-01-01T00:00:00Z"}
    answers: dict[str, object] = {}
    end = time.monotonic() + 30
    while len(answers) < 2:
        assert time.monotonic() < end
        for track in (TRACK, other):
            with contextlib.suppress(PluginBusy):
                answers[str(track["anchor"])] = good.ask("next", "{}", (track,))
    assert answers == {
        "2030-01-01T00:00:00Z": "2030-01-01T00:00:10+00:00",
        "2031-01-01T00:00:00Z": "2031-01-01T00:00:10+00:00",
    }


def test_a_plugin_that_is_slow_again_and_again_rests_too(
    resident: Callable[..., PluginProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "SLOWNESS", 0.2)
    slow = resident("Slow")
    answers = 0
    while slow._talk is not None:
        with contextlib.suppress(PluginBusy):
            slow.ask("next", "{}", (TRACK,))
            answers += 1
    assert answers < 12
    with pytest.raises(PluginFailed, match="it is too slow"):
        slow.ask("next", "{}", (TRACK,))


def test_an_ordinary_plugin_never_counts_as_slow(resident: Callable[..., PluginProcess]) -> None:
    ticks = count()
    good = resident("Good", lambda: next(ticks) * QUICK / 4)  # each answer takes half of what is allowed
    for _ in range(300):
        answer_of(good)
    assert good._slow == 0


def test_a_resident_whose_plugin_cannot_be_loaded_reports_it_each_time(
    resident: Callable[..., PluginProcess],
) -> None:
    bad = resident("Nowhere")
    for _ in range(3):
        with pytest.raises(PluginFailed, match="has no attribute 'Nowhere'"):
            bad.ask("next", "{}", (TRACK,))


def test_messages_to_a_plugin_are_plain_json(talk: Callable[..., PluginChannel]) -> None:
    keys = json.dumps({"seconds": 1, "text": "\u2028 ü \\n"})
    assert talk("Good").ask("next", keys, (TRACK,)) == "2030-01-01T00:00:01+00:00"
