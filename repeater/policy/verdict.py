"""Whether a run succeeded: exit code and patterns in its output.

A pattern is searched in each line, without its end, while the output streams by; `^` and `$` are the ends of a line.
Output is read as UTF-8, what is not UTF-8 as U+FFFD. A line longer than the window is searched in windows that overlap
by half (each with a `^` and a `$` of its own), so a match of up to half a window is found wherever it lies. Memory is
bounded by the window, time by a limit for each search: a pattern that exceeds it twice is given up and named in
`problem`. The `Matcher` is fed by `observe.output`, `judge` is asked by `engine.job`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from repeater.model.run import Exit, Verdict
from repeater.model.spec import Success
from repeater.policy.retry import status

if TYPE_CHECKING:
    import regex

WINDOW = 64 * 1024
"""Bytes of a line that are searched at once, and the most that is kept of one."""
SEARCH_LIMIT = 0.1
"""Seconds that one search may take; an ordinary one takes microseconds."""
PATTERN_MOST = 4096
"""Characters of a pattern."""
WRITTEN_OUT_MOST = 100_000
"""Parts of a pattern whose repeats are written out, as the library does: `(a{1000}){1000}` would take 250 MB."""


def judge(success: Success, exit: Exit, matched: frozenset[str], ended_by: str | None) -> Verdict:  # noqa: A002
    """The verdict on an attempt.

    A run that was ended from outside (`ended_by`, e.g. `timed out after 2s`) failed whatever it said or returned. Else
    a failure pattern that was found beats a success pattern that was found, which beats the exit code.
    """
    if ended_by is not None:
        return Verdict(False, ended_by)
    if "failure" in matched:
        return Verdict(False, "output matched failure_pattern")
    if "success" in matched:
        return Verdict(True, "output matched pattern")
    if exit.signal is None and exit.code in success.exit_codes:
        return Verdict(True, str(exit))
    if exit.signal is not None and status(exit) in success.exit_codes:
        return Verdict(True, str(exit))
    return Verdict(False, str(exit))


EXECUTOR_FAILED = 125
"""The exit code that says that an executor plugin failed, not what it was to run; as timeout(1) and docker use it."""


def of_executor(name: str, verdict: Verdict, exit: Exit) -> Verdict:  # noqa: A002
    """The verdict on an attempt that the executor plugin `name` ran: a failure of the plugin names it."""
    if verdict.success or exit.code != EXECUTOR_FAILED:
        return verdict
    return Verdict(False, f"executor plugin `{name}` failed, its output says why")


@lru_cache(maxsize=1024)
def compile_pattern(text: str, ignore_case: bool = False) -> regex.Pattern[str]:
    """The pattern, ready to search.

    Raises ValueError, with what is wrong and where, for a text that is no regular expression.
    """
    import regex

    if len(text) > PATTERN_MOST:
        raise ValueError(f"the pattern has {len(text)} characters, the most allowed are {PATTERN_MOST}")
    if _written_out(text) > WRITTEN_OUT_MOST:
        raise ValueError(f"the pattern repeats too much: written out it has more than {WRITTEN_OUT_MOST} parts")
    flags = regex.VERSION0 | (regex.IGNORECASE if ignore_case else 0)
    try:
        compiled: regex.Pattern[str] = regex.compile(text, flags)
    except (regex.error, ValueError, OverflowError, RecursionError) as error:
        cause = getattr(error, "msg", str(error))
        place = getattr(error, "pos", None)
        where = "" if place is None else f" at position {place}"
        shown = text if len(text) <= 100 else text[:97] + "..."
        raise ValueError(f"`{shown}` is no regular expression: {cause}{where}") from None
    return compiled


_PART = r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(\d+)(?:,\d*)?\}|[*+?]|\s|(\()|(\))|."


def _written_out(text: str) -> int:
    """About how many parts a pattern has when each `{n}` is n times what stands before it."""
    groups, last = [0], 0
    for part in re.finditer(_PART, text, re.DOTALL):
        count, opens, closes = part.groups()
        if count is not None:
            more = last * (max(1, int(count[:9])) - 1)
            groups[-1] += more
            last = min(last + more, 10 * WRITTEN_OUT_MOST)
        elif opens:
            groups.append(0)
            last = 0
        elif closes:
            last = groups.pop() if len(groups) > 1 else 0
            groups[-1] += last
        elif part[0] not in "*+?" and not part[0].isspace():
            groups[-1] += 1
            last = 1
    return sum(groups)


class Matcher:
    """Looks for a job's patterns in the output of one run, chunk by chunk.

    `found()` may be asked at any time; what it names stays found. `problem` says which pattern was given up and why,
    None if all is well.
    """

    __slots__ = ("_found", "_lines", "_searches", "_window", "problem")

    def __init__(self, success: Success, stop_pattern: str | None = None, *, window: int = WINDOW) -> None:
        self.problem: str | None = None
        self._window = window
        self._found: set[str] = set()
        # stdout and stderr are searched apart: a line of one is never joined with the other's
        self._lines = {"stdout": bytearray(), "stderr": bytearray()}
        wanted = {"success": success.pattern, "failure": success.failure_pattern, "stop": stop_pattern}
        self._searches: dict[str, tuple[Any, frozenset[str]]] = {}
        for name, text in wanted.items():
            if text is not None:
                both = success.stderr or name == "stop"
                streams = frozenset(self._lines) if both else frozenset({"stdout"})
                self._searches[name] = compile_pattern(text, success.ignore_case), streams

    @property
    def idle(self) -> bool:
        """Whether nothing is left to look for, so that output need not be fed."""
        return not self._searches

    def feed(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        """Takes the next bytes of a stream, of any size."""
        if not self._reads(stream):
            return
        line = self._lines[stream]
        start = 0
        while self._searches and start < len(data):
            end = data.find(b"\n", start)
            stop = len(data) if end < 0 else end
            taken = data[start : min(stop, start + self._window - len(line))]
            line += taken
            start += len(taken)
            if start == end:
                self._search(stream, bytes(line))
                line.clear()
                start += 1
            elif len(line) >= self._window:
                self._search(stream, bytes(line))
                del line[: -(self._window // 2)]

    def found(self) -> frozenset[str]:
        """`success`, `failure`, `stop`: those found so far. A last line needs no end to count."""
        for stream in ("stdout", "stderr"):
            line = self._lines[stream]
            if line:
                self._search(stream, bytes(line))
        return frozenset(self._found)

    def _reads(self, stream: str) -> bool:
        return any(stream in streams for _, streams in self._searches.values())

    def _search(self, stream: str, line: bytes) -> None:
        text = line.decode(errors="replace").removesuffix("\r")
        for name, (pattern, streams) in list(self._searches.items()):
            if stream not in streams:
                continue
            hit = _search_twice(pattern, text)
            if hit is None:
                self.problem = f"cannot match `{pattern.pattern}`: a line took longer than {SEARCH_LIMIT:g}s, given up"
            elif hit:
                self._found.add(name)
            if hit is not False:
                del self._searches[name]


def _search_twice(pattern: Any, text: str) -> bool | None:
    """Whether the pattern is in the text; None when it takes too long. Twice, as a busy machine may stop us once."""
    for _ in range(2):
        try:
            return pattern.search(text, timeout=SEARCH_LIMIT) is not None
        except TimeoutError:
            continue
    return None
