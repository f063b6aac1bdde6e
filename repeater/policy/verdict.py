"""Whether a run succeeded: exit code and patterns in its output.

A pattern is searched in each line, without its end, while the output streams by; `^` and `$` are the ends of a line.
Output is read as UTF-8, what is not UTF-8 as U+FFFD. A line longer than the window is searched in windows that overlap
by half (each with a `^` and a `$` of its own), so a match of up to half a window is found wherever it lies. Memory is
bounded by the window, time by a limit for each search: a pattern that exceeds it twice is given up and named in
`problem`. The lines of a chunk are searched with one search, if that cannot give another answer than a search in each
line. The `Matcher` is fed by `output.router`, `judge` is asked by `engine.job`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from repeater.model.reasons import SUCCESS, Reason
from repeater.model.reasons import reason as because
from repeater.model.run import Exit, Verdict
from repeater.model.spec import Success
from repeater.policy.retry import status

if TYPE_CHECKING:
    import regex

    from repeater.model.reasons import ReasonCode

WINDOW = 64 * 1024
"""Bytes of a line that are searched at once. No more of a line is kept."""
SEARCH_LIMIT = 0.1
"""Seconds that one search may take; an ordinary one takes microseconds."""
PATTERN_MOST = 4096
"""Characters of a pattern."""
_FEW = 512
"""Bytes of lines below which a search in each line is as cheap."""
WRITTEN_OUT_MOST = 100_000
"""Parts of a pattern whose repeats are written out, as the library does: `(a{1000}){1000}` would take 250 MB."""


def judge(success: Success, exit: Exit, matched: frozenset[str], ended_by: Reason | None) -> Verdict:  # noqa: A002
    """The verdict on an attempt.

    A run that was ended from outside (`ended_by`, such as `timeout`) failed in any case. Otherwise a failure pattern
    in the output beats a success pattern, and that beats the exit code.
    """
    if ended_by is not None:
        return Verdict(False, ended_by)
    if "failure" in matched:
        return _FAILURE_PATTERN
    if "success" in matched:
        return _SUCCESS_PATTERN
    if status(exit) in success.exit_codes:
        return _EXIT_ZERO if exit.code == 0 else Verdict(True, _reason(exit, "success"))
    return _EXIT_ONE if exit.code == 1 else Verdict(False, _reason(exit, "exit" if exit.signal is None else "signal"))


def _reason(exit: Exit, code: ReasonCode) -> Reason:  # noqa: A002
    return because(code, exit=exit.code, signal=exit.signal)


_EXIT_ZERO = Verdict(True, SUCCESS)
_EXIT_ONE = Verdict(False, because("exit", exit=1))
_SUCCESS_PATTERN = Verdict(True, Reason("success_pattern"))
_FAILURE_PATTERN = Verdict(False, Reason("failure_pattern"))


EXECUTOR_FAILED = 125
"""The exit code of an executor plugin that failed itself, as with timeout(1) and docker."""


def of_executor(name: str, verdict: Verdict, exit: Exit) -> Verdict:  # noqa: A002
    """The verdict on an attempt that the executor plugin `name` ran: a failure of the plugin names it."""
    if verdict.success or exit.code != EXECUTOR_FAILED:
        return verdict
    return Verdict(False, because("executor_failed", plugin=name))


@lru_cache(maxsize=1024)
def compile_pattern(text: str, ignore_case: bool = False) -> regex.Pattern[str]:
    """The pattern, ready to search.

    Raises ValueError, with what is wrong and where, for a text that is not a regular expression.
    """
    import regex

    if len(text) > PATTERN_MOST:
        raise ValueError(f"the pattern has {len(text)} characters; the limit is {PATTERN_MOST} characters")
    if _expanded_size(text) > WRITTEN_OUT_MOST:
        raise ValueError(f"the pattern repeats too much: its expanded form exceeds {WRITTEN_OUT_MOST} elements")
    flags = regex.VERSION0 | (regex.IGNORECASE if ignore_case else 0)
    try:
        compiled: regex.Pattern[str] = regex.compile(text, flags)
    except (regex.error, ValueError, OverflowError, RecursionError) as error:
        cause = getattr(error, "msg", str(error))
        place = getattr(error, "pos", None)
        where = "" if place is None else f" at position {place}"
        shown = text if len(text) <= 100 else text[:97] + "..."
        raise ValueError(f"`{shown}` is not a regular expression: {cause}{where}") from None
    return compiled


_NOT_AT_ONCE = re.compile(
    r"""\(\?(?!:|P<|<?=)  # a negative look, an atomic group, a flag, a condition, a recursion
    | \(\*              # a verb
    | [*+?}]\+          # a possessive repeat
    | \\[AZzGKBXR]      # an end of the whole text, or what may take a newline with it
    | \{[eids<]         # a fuzzy match""",
    re.VERBOSE,
)


_NEGATIVE_WITHIN_LINE = re.compile(r"\(\?<?!(?:[\w ,:;=/@'\"<>#|-]|\\[dw.]|\.|[*+?](?!\+))*\)")
"""A negative look that no newline can match: at the end of a line it gives what it gives at the end of a text."""


@lru_cache(maxsize=1024)
def _compile_for_lines(text: str, ignore_case: bool) -> regex.Pattern[str] | None:
    """The pattern for a text of many lines: it matches there if it matches in one of them. None: there is no such one.

    What such a pattern finds may cross the end of a line, so a match has to be confirmed in its line.
    """
    if _NOT_AT_ONCE.search(_NEGATIVE_WITHIN_LINE.sub("", text)):
        return None
    import regex

    flags = regex.VERSION0 | regex.MULTILINE | (regex.IGNORECASE if ignore_case else 0)
    compiled: regex.Pattern[str] = regex.compile(text, flags)
    return compiled


_PART = r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(\d+)(?:,\d*)?\}|[*+?]|\s|(\()|(\))|."


def _expanded_size(text: str) -> int:
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

    __slots__ = ("_at_once", "_found", "_lines", "_searches", "_window", "problem")

    def __init__(self, success: Success, stop_pattern: str | None = None, *, window: int = WINDOW) -> None:
        self.problem: Reason | None = None
        self._window = window
        self._found: set[str] = set()
        # stdout and stderr are searched apart: a line of one is never joined with the other's
        self._lines = {"stdout": bytearray(), "stderr": bytearray()}
        wanted = {"success": success.pattern, "failure": success.failure_pattern, "stop": stop_pattern}
        self._searches: dict[str, tuple[Any, frozenset[str]]] = {}
        self._at_once: dict[str, Any] = {}
        for name, text in wanted.items():
            if text is not None:
                both = success.stderr or name == "stop"
                streams = frozenset(self._lines) if both else frozenset({"stdout"})
                self._searches[name] = compile_pattern(text, success.ignore_case), streams
                self._at_once[name] = _compile_for_lines(text, success.ignore_case)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to look for, so that output need not be fed."""
        return not self._searches

    def feed(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        """Takes the next bytes of a stream, of any size."""
        if not self._reads(stream):
            return
        first, last = data.find(b"\n"), data.rfind(b"\n")
        if last - first > _FEW and self._has_no_long_line(data, first, last):
            self._feed_lines(stream, data[: first + 1])  # the end of a line that is held
            self._search_at_once(stream, data[first + 1 : last + 1])
            self._feed_lines(stream, data[last + 1 :])
        else:
            self._feed_lines(stream, data)

    def _feed_lines(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
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

    def _has_no_long_line(self, data: bytes, first: int, last: int) -> bool:
        """Whether no line between two newlines is longer than the window."""
        at = first
        while last - at > self._window:
            at, before = data.rfind(b"\n", at + 1, at + 1 + self._window), at
            if at <= before:
                return False
        return True

    def _search_at_once(self, stream: Literal["stdout", "stderr"], lines: bytes) -> None:
        """Search whole lines, each with its end."""
        text = lines.decode(errors="replace").replace("\r\n", "\n")
        rest = len(text)  # from here on line by line
        for name, (pattern, streams) in self._searches.items():
            if stream in streams and rest:
                at_once = self._at_once[name]
                rest = min(rest, _first_line(pattern, text) if at_once is None else _first_candidate(at_once, text))
        if rest < len(text):
            self._feed_lines(stream, text[rest:].encode())

    def _search(self, stream: str, line: bytes) -> None:
        text = line.decode(errors="replace").removesuffix("\r")
        for name, (pattern, streams) in list(self._searches.items()):
            if stream not in streams:
                continue
            hit = _search_with_deadline(pattern, text)
            if hit is None:
                self.problem = because("pattern_too_slow", pattern=pattern.pattern, limit=SEARCH_LIMIT)
            elif hit:
                self._found.add(name)
            if hit is not False:
                del self._searches[name]


def _first_candidate(pattern: Any, text: str) -> int:
    """Where the first line begins in which the pattern may be; the length of the text if in none."""
    try:
        hit = pattern.search(text, timeout=SEARCH_LIMIT)
    except TimeoutError:
        return 0  # one line of them takes long: which one is found out line by line
    return len(text) if hit is None else text.rfind("\n", 0, hit.start()) + 1


def _first_line(pattern: Any, text: str) -> int:
    """The same for a pattern that has to be searched in each line: the first that matches, or takes long."""
    start, search = 0, pattern.search
    for line in text.split("\n"):
        try:
            if search(line, timeout=SEARCH_LIMIT) is not None and start < len(text):
                return start
        except TimeoutError:
            return start
        start += len(line) + 1
    return len(text)


def _search_with_deadline(pattern: Any, text: str) -> bool | None:
    """Whether the pattern is in the text; None if two searches take too long (a busy machine may delay one)."""
    for _ in range(2):
        try:
            return pattern.search(text, timeout=SEARCH_LIMIT) is not None
        except TimeoutError:
            continue
    return None
