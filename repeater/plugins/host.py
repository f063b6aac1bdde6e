"""The main module of a plugin process: reads requests, calls the plugin, writes responses. Standard library only.

    python -m repeater.plugins.host serve FD      requests and responses as lines of JSON, until standard input closes
    python -m repeater.plugins.host run           one run of an executor; the request is a line on standard input

It must not outlive the process that started it. A thread waits for the end of standard input and then ends the process,
even during a call of the plugin. If the plugin blocks that thread by holding the interpreter lock, a watchdog of
`faulthandler` ends the process.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import IO, Any

from repeater.plugins import KINDS, Executor, Output, Plugin, Run, Schedule, StopCondition, Tally, Task, Track

FAILED = 125
"""The exit code of a run whose plugin failed. Also defined in `policy.verdict`."""
_ROUNDS = 50
"""Maximum number of rounds that kill the descendants of a plugin."""
_LONGEST = 500
"""Characters of an explanation."""
_INSTANTS = ("anchor", "after", "last_end", "now", "first_start", "last_start", "last_success", "nominal", "due")


class Refused(Exception):
    """The plugin refused its keys. The text is shown to the user."""


def load(kind: str, target: str) -> type[Plugin]:
    """The class at `module:name`. Raises the exceptions of its import, and TypeError if it is not a plugin."""
    from importlib import import_module

    module, _, name = target.partition(":")
    found: Any = import_module(module)
    for part in name.split(".") if name else ():
        found = getattr(found, part)
    base = KINDS[kind]
    if not isinstance(found, type) or not issubclass(found, base):
        raise TypeError(f"`{target}` is not a subclass of `repeater.plugins.{base.__name__}`")
    return found


def describe(kind: str, plugin: type[Plugin]) -> dict[str, Any]:
    """The description of a plugin as plain data. Raises TypeError if it is invalid."""
    for name, kind_of_value in (("description", str), ("version", str), ("schema", Mapping), ("waits_for_end", bool)):
        if not isinstance(getattr(plugin, name, False), kind_of_value):
            raise TypeError(f"its `{name}` is not {_NAMES[kind_of_value]}")
    if not plugin.description.strip():
        raise TypeError("it has no `description`")
    questions = [name for name in vars(KINDS[kind]) if callable(vars(KINDS[kind])[name]) and not name.startswith("_")]
    answers = [name for name in questions if getattr(plugin, name) is not getattr(KINDS[kind], name)]
    if not answers or answers == ["close"]:
        raise TypeError(f"it does not have a method {' or '.join(f'`{name}`' for name in questions)}")
    try:
        schema = json.loads(json.dumps(dict(plugin.schema), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(f"its `schema` is not JSON: {error}") from None
    return {
        "description": " ".join(plugin.description.split()),
        "version": plugin.version,
        "schema": schema,
        "answers": answers,
        "waits_for_end": getattr(plugin, "waits_for_end", False),
    }


_NAMES: dict[Any, str] = {str: "a text", Mapping: "a mapping", bool: "true or false"}


def make(plugin: type[Plugin], keys: Mapping[str, Any]) -> Plugin:
    """An instance for these keys. Raises Refused if the plugin does not accept them."""
    properties = plugin.schema.get("properties", {})
    defaults = {key: one["default"] for key, one in properties.items() if isinstance(one, dict) and "default" in one}
    try:
        return plugin({**defaults, **keys})
    except ValueError as error:
        raise Refused(str(error) or "the plugin does not accept these keys") from None


class Host:
    """One plugin and its instances, by the text of their keys."""

    def __init__(self, kind: str, target: str) -> None:
        self._kind = kind
        self._class = load(kind, target)
        self._made: dict[str, Plugin] = {}

    def answer(self, question: str, keys: str, arguments: list[Any]) -> Any:
        """The response as plain data."""
        if question == "describe":
            return describe(self._kind, self._class)
        plugin = self._made.get(keys)
        if plugin is None:
            plugin = self._made[keys] = make(self._class, json.loads(keys))
        if question == "make":
            return None
        if isinstance(plugin, Schedule):
            return _instant_out(plugin.next(Track(**_instants_in(arguments[0]))))
        if isinstance(plugin, StopCondition):
            return _reason_out(plugin.met(Tally(**_instants_in(arguments[0]))))
        assert isinstance(plugin, Output)
        if question == "close":
            del self._made[keys]
            return plugin.close()
        for item in arguments[0]:
            _deliver(plugin, item)
        return None


def _deliver(plugin: Output, item: list[Any]) -> None:
    match item:
        case ["begin", job, run]:
            plugin.begin(Run(job, run))
        case ["chunk", job, run, stream, data]:
            plugin.chunk(Run(job, run), stream, data.encode("latin-1"))
        case ["record", record]:
            plugin.record(record)


def _instants_in(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: datetime.fromisoformat(value) if name in _INSTANTS and value is not None else value
        for name, value in fields.items()
    }


def _instant_out(answer: object) -> str | None:
    if answer is None:
        return None
    if not isinstance(answer, datetime):
        raise TypeError(f"`next` gave {_shown(answer)}, expected a datetime or None")
    if answer.tzinfo is None:
        raise TypeError(f"`next` gave {_shown(answer)}, which has no time zone")
    return answer.astimezone(UTC).isoformat()


def _reason_out(answer: object) -> str | None:
    if answer is not None and not isinstance(answer, str):
        raise TypeError(f"`met` gave {_shown(answer)}, expected a reason or None")
    return answer


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - `repr` is code of the plugin
        text = "?"
    return f"{text[:80]} ({type(value).__name__})"


def explained(error: BaseException) -> str:
    """An exception in one line: its type and text, and the last position in code of the plugin."""
    import traceback

    text = " ".join(str(error).split())
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    frames = [frame for frame in frames if "importlib" not in frame.filename]
    position = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""  # noqa: PTH119
    return message[:_LONGEST] + position


# --- serving ----------------------------------------------------------------------------------------------------


def serve(out: int) -> None:
    """Respond to requests until standard input closes. The first line names the plugin."""
    questions: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    source = os.fdopen(os.dup(0), "rb")
    _silence()
    _lift_limits()
    _take_orphans_in()
    threading.Thread(target=_read, args=(source, questions), daemon=True).start()
    os.set_inheritable(out, False)  # children of the plugin must not keep the pipe open
    answers = os.fdopen(out, "wb")
    begin = json.loads(questions.get())
    sys.path[:] = begin["path"]
    host: Host | None = None

    def first() -> None:
        nonlocal host
        host = Host(begin["kind"], begin["target"])

    _answer(answers, begin["limit"], first)
    while host is not None:
        asked = json.loads(questions.get())
        call = partial(host.answer, asked["question"], asked["keys"], asked["arguments"])
        _answer(answers, asked["limit"], call)


def _answer(answers: IO[bytes], limit: float, call: Callable[[], Any]) -> None:
    import faulthandler

    pid = os.getpid()

    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(2 * limit + 5, exit=True, file=nowhere)
        response: dict[str, Any]
        try:
            response = {"answer": call()}
        except Refused as refusal:
            response = {"refused": " ".join(str(refusal).split())[:_LONGEST]}
        except BaseException as error:  # noqa: BLE001 - also SystemExit, because the plugin raised it
            response = {"failed": explained(error)}
        if os.getpid() != pid:
            os._exit(0)  # a child that the plugin made with fork() returned here
        faulthandler.cancel_dump_traceback_later()
    answers.write(json.dumps(response).encode() + b"\n")
    answers.flush()


def _read(source: IO[bytes], questions: queue.SimpleQueue[bytes]) -> None:
    for line in source:
        questions.put(line)
    with contextlib.suppress(Exception):
        _kill_offspring()
    os._exit(0)  # there are no more requests


def _take_orphans_in() -> None:
    """Make this process a subreaper (prctl(2)), so that orphaned descendants are found at the end."""
    import ctypes

    pr_set_child_subreaper = 36
    with contextlib.suppress(OSError, AttributeError):  # not on Linux
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def _kill_offspring() -> None:
    """Kill all descendants of the plugin."""
    from repeater.shim import process_tree

    for _ in range(_ROUNDS):
        found = list(process_tree.descendants(os.getpid(), token=False))
        for member in found:
            process_tree.send(member, signal.SIGKILL)
        if not found:
            return
        time.sleep(0.001)


def _lift_limits() -> None:
    """Raise the limits of the process that reads job files (`apps.reload_worker`), which do not apply to plugins."""
    import resource

    for limit in (resource.RLIMIT_AS, resource.RLIMIT_CPU):
        hard = resource.getrlimit(limit)[1]
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(limit, (hard, hard))


def _silence() -> None:
    """Discard the output of a resident plugin. With `RPR_DEBUG=1` it goes to standard error."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    if os.environ.get("RPR_DEBUG") == "1":
        os.dup2(2, 1)
    else:
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
    os.close(nothing)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks


# --- running ----------------------------------------------------------------------------------------------------


def run() -> int:
    """One run of an executor: the exit code of this process."""
    request = json.loads(sys.stdin.buffer.readline())
    sys.path[:] = request["path"]
    signal.signal(signal.SIGTERM, _terminated)
    name = request["name"]
    try:
        plugin = make(load("executor", request["target"]), json.loads(request["keys"]))
        assert isinstance(plugin, Executor)
        code = plugin.run(Task(**_instants_in(request["task"])))
        if code is None:
            return 0
        if type(code) is not int or not 0 <= code < FAILED:
            raise TypeError(f"`run` gave {_shown(code)}, expected an exit code from 0 to {FAILED - 1}")
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - the plugin may raise anything
        with contextlib.suppress(OSError):
            if not isinstance(error, Refused):
                _print_traceback(error)
            sys.stderr.write(f"rpr: executor plugin `{name}` failed: {explained(error)}\n")
            sys.stderr.flush()
        return FAILED
    return code


def _print_traceback(error: BaseException) -> None:
    import traceback

    sys.stdout.flush()
    traceback.print_exception(error, limit=-20)


def _terminated(number: int, _: object) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    if sys.argv[1] == "run":
        sys.exit(run())
    serve(int(sys.argv[2]))
