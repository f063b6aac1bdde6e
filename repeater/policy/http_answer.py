"""The last answer of an HTTP server in the output of a run, found while the output streams by.

Answers are read as `curl -i`, `curl -v` (lines begin with `<`), `wget -S` (with two spaces) and HTTPie print them, also
through a pseudo-terminal with its colours. An answer is a status line, headers, a blank line and a body. Text in a body
is not taken for headers. A status line in a body begins another answer only if it ends as the first one did, and

- the body is as long as its `Content-Length` says, or
- the answer before is one that another follows (1xx, 3xx, 401, 407, 408, 425, 429, 5xx), or
- a `Date` header follows.

Headers in the last 64 KiB without any status line count too, because scripts print the headers that they need. Only the
end of the output is kept, so memory and time are bounded for any output. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum, auto

from repeater._lazy_dataclasses import dataclass

KEPT = 64 * 1024
"""Bytes that are kept of the end of a body."""

_LINE = 8192  # bytes; of a longer line only the end is looked at
_MOST_HEADERS = 200
_OTHER_LINES = 50  # lines among the headers that are none, after which there are no further headers
_FOLLOWED = frozenset({401, 407, 408, 425, 429})
_STATUS = re.compile(rb"(<[ \t]*|  )?HTTP/[0-9](?:\.[0-9])?[ \t]+([1-5][0-9]{2})(?:[ \t][^\n]{0,200})?")
_GLUED = re.compile(rb"HTTP/[0-9](?:\.[0-9])?[ \t]+([1-5][0-9]{2})(?:[ \t][ -~]{0,100})?$")
_HEADER = re.compile(rb"(<[ \t]*|  )?([A-Za-z][A-Za-z0-9_-]{2,60})[ \t]*:[ \t]*([^\n]{0,1000})")
_ESCAPE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,2000}(?:\x07|\x1b\\)|[@-Z\\^_])")
_METER = re.compile(rb"^.*--:--:--\s+[0-9.]+[kMGTP]?(?=[<>*{} ])")
_INTERESTING = re.compile(rb"http|retry-|rate-?limit|\x1b|date[ \t]*:|content-length", re.IGNORECASE)
_RELEVANT = re.compile(r"date|content-length|.*retry-after.*|.*rate-?limit.*")


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` is None where no status line was seen. `headers` are those that may say when to come again, with their
    values in order, names in small letters; `body` is the end of the text after them. `marked`: the lines began with
    the mark of a client that prints headers apart from the body (`curl -v`, `wget -S`).
    """

    status: int | None
    headers: dict[str, list[str]]
    body: str
    marked: bool = False


class _State(Enum):
    OUTSIDE = auto()
    HEADERS = auto()
    BODY = auto()
    PERHAPS = auto()


class _Block:
    """A status line and the headers after it. `ending` is the number of carriage returns at the end of each line."""

    __slots__ = ("ending", "headers", "prefix", "status")

    def __init__(self, status: int | None, prefix: bytes, ending: int) -> None:
        self.status = status
        self.prefix = prefix
        self.ending = ending
        self.headers: list[tuple[str, str, int]] = []

    @property
    def length(self) -> int | None:
        values = [value for name, value, _ in self.headers if name == "content-length"]
        return int(values[-1]) if values and values[-1].isdigit() and len(values[-1]) < 16 else None


class AnswerReader:
    """Reads one stream. `feed` takes what was printed, `answer` gives the last answer so far."""

    __slots__ = ("_block", "_body", "_count", "_later", "_middle", "_others", "_rest", "_row", "_state", "_whole")

    def __init__(self) -> None:
        self._state = _State.OUTSIDE
        self._block = _Block(None, b"", 0)
        self._later: _Block | None = None
        self._body = bytearray()
        self._count = 0  # bytes of the body
        self._others = 0  # lines among headers that are none
        self._row: int | None = None  # where the row of headers without a status line began
        self._whole = False  # the body before `_later` has the length that was announced
        self._rest = b""
        self._middle = False  # `_rest` is not the beginning of its line

    def feed(self, data: bytes) -> None:
        data = self._rest + data
        cut = data.rfind(b"\n") + 1
        if self._is_plain(data, cut):
            if cut:
                self._keep(data[:cut])
                self._row = None
        else:
            for line in _lines(data[:cut]):
                self._take(line)
                self._middle = False
        if cut:
            self._middle = False
        self._rest = data[cut:]
        if len(self._rest) > _LINE:
            self._keep(self._rest[:-256])
            self._rest, self._middle = self._rest[-256:], True

    def answer(self) -> Answer:
        """The last answer; call it once, when the output is complete."""
        if self._rest:
            self._take(self._rest)
            self._rest = b""
        if self._state is _State.PERHAPS:
            self._decide()
        first = 0 if self._block.status is not None else self._count - KEPT
        headers: dict[str, list[str]] = {}
        for name, value, place in self._block.headers:
            if place >= first:
                headers.setdefault(name, []).append(value)
        body = _ESCAPE.sub(b"", bytes(self._body[-KEPT:]))
        return Answer(self._block.status, headers, body.decode(errors="replace"), bool(self._block.prefix))

    def _is_plain(self, data: bytes, cut: int) -> bool:
        """Whether the lines can neither be headers nor begin an answer, so that they need not be looked at."""
        if not cut or self._state in (_State.HEADERS, _State.PERHAPS):
            return not cut
        if self._state is _State.BODY:
            return b"HTTP" not in data and b"\x1b" not in data
        return _INTERESTING.search(data) is None

    def _take(self, raw: bytes) -> None:
        line = raw.removesuffix(b"\n")
        bare = line.rstrip(b"\r")
        ending = len(line) - len(bare)
        if b"\x1b" in bare:
            bare = _ESCAPE.sub(b"", bare)
        bare = bare.rpartition(b"\r")[2]
        if b"--:--:--" in bare:
            bare = _METER.sub(b"", bare)
        if self._state is _State.BODY:
            self._take_of_body(raw, bare, ending)
            return
        if self._state is _State.PERHAPS:
            self._take_perhaps(raw, bare, ending)
            return
        found = None if self._middle else _STATUS.fullmatch(bare)
        if found is not None:
            self._begin(_Block(int(found[2]), (found[1] or b"").strip() or found[1] or b"", ending))
        elif self._state is _State.HEADERS:
            self._take_of_headers(raw, bare)
        else:
            self._take_outside(raw, bare)

    def _begin(self, block: _Block) -> None:
        self._block, self._later = block, None
        self._state = _State.HEADERS
        self._body.clear()
        self._count = self._others = 0

    def _take_outside(self, raw: bytes, bare: bytes) -> None:
        found = None if self._middle else _HEADER.fullmatch(bare)
        self._keep(raw)
        if found is None:
            self._row = None
            return
        row = self._row = self._count if self._row is None else self._row
        headers, name = self._block.headers, found[2].decode().lower()
        if _RELEVANT.fullmatch(name):
            # a header that was printed before, apart from this row, has been replaced
            headers[:] = [one for one in headers[-_MOST_HEADERS:] if one[0] != name or one[2] >= row]
            headers.append((name, _text(found[3]), self._count))

    def _take_of_headers(self, raw: bytes, bare: bytes) -> None:
        block = self._block
        if bare.strip() == block.prefix.strip():
            self._state = _State.BODY
        elif block.prefix and not bare.startswith(block.prefix):
            if block.prefix == b"  ":
                self._state = _State.BODY
                self._keep(raw)
        elif (found := _HEADER.fullmatch(bare)) is not None:
            self._note(block, found)
        else:
            self._others += 1
            if self._others > _OTHER_LINES:
                self._state = _State.BODY
                self._keep(raw)

    def _take_of_body(self, raw: bytes, bare: bytes, ending: int) -> None:
        block = self._block
        found = None if self._middle else _STATUS.fullmatch(bare)
        if found is not None:
            prefix = (found[1] or b"").strip() or found[1] or b""
            if prefix and prefix == block.prefix:
                self._begin(_Block(int(found[2]), prefix, ending))
                return
            place, status = self._count, int(found[2])
        elif ending and (glued := _GLUED.search(bare)) is not None and not block.prefix:
            # a body without a line end at its end: the next answer follows on the same line
            place, status, prefix = self._count + glued.start(), int(glued[1]), b""
        else:
            self._keep(raw)
            return
        length = block.length
        within = length is not None and self._body.strip() and place < length
        if prefix == block.prefix and ending == block.ending and not within:
            self._later = _Block(status, prefix, ending)
            self._state = _State.PERHAPS
            self._whole = length is not None and place >= length
        self._keep(raw)

    def _take_perhaps(self, raw: bytes, bare: bytes, ending: int) -> None:
        later = self._later
        assert later is not None
        if not bare.strip():
            self._decide()
            return
        found = _HEADER.fullmatch(bare)
        if found is not None and ending == later.ending and not found[1]:
            self._note(later, found)
            self._keep(raw)
            return
        self._later, self._state = None, _State.BODY
        self._take_of_body(raw, bare, ending)

    def _decide(self) -> None:
        """Decide whether the block that began in a body is another answer, at its end."""
        later, status = self._later, self._block.status or 0
        assert later is not None
        follows = status in _FOLLOWED or status < 200 or 300 <= status < 400 or status >= 500
        if follows or self._whole or any(name == "date" for name, _, _ in later.headers):
            self._begin(later)
        self._later, self._state = None, _State.BODY

    def _note(self, block: _Block, found: re.Match[bytes]) -> None:
        name = found[2].decode().lower()
        if len(block.headers) < _MOST_HEADERS and _RELEVANT.fullmatch(name):
            block.headers.append((name, _text(found[3]), 0))

    def _keep(self, data: bytes) -> None:
        self._count += len(data)
        self._body += data[-KEPT:]
        if len(self._body) > 2 * KEPT:
            del self._body[:-KEPT]


def joined(stderr: Answer, stdout: Answer) -> Answer:
    """The last answer of a run whose headers may be on one stream and the body on the other, as with `curl -v`."""
    if stdout.status is not None and not stderr.marked:
        return stdout
    if stderr.status is not None:
        return Answer(stderr.status, stderr.headers, stdout.body or stderr.body)
    return Answer(None, stderr.headers | stdout.headers, f"{stderr.body}\n{stdout.body}")


def _lines(data: bytes) -> Iterable[bytes]:
    """Lines that end with a line feed; a carriage return alone, as progress meters print, ends none."""
    return (line + b"\n" for line in data.removesuffix(b"\n").split(b"\n"))


def _text(value: bytes) -> str:
    return value.decode(errors="replace").strip()
