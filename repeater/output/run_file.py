"""The files with the output of runs: their names and their format, and how a long output is shortened.

`output/JOB/RUN.log` is the output of a live run, as text. When the run has ended it becomes `RUN.gz`, or
`RUN.failed.gz`, which `zcat` can read. JOB is the name of the job in the form of URLs, `poll%5Bregion%3Deu%5D`; a long
one ends with a hash. The text has the log format of Kubernetes (CRI), one record a line:

    2026-11-30T13:10:21.123456Z stdout F text of a line
    2026-11-30T13:10:21.123456Z stderr P the beginning of a line, which the next record of this stream continues

Records of the stream `rpr` are not output. They say how many bytes are missing there.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from typing import Literal
from urllib.parse import quote, unquote

from repeater.model.time import from_rfc3339
from repeater.output.buffer import Chunk
from repeater.policy.keep import BLOCK, HEAD

FOLDER = "output"
LIVE, FINE, FAILED, NEW = ".log", ".gz", ".failed.gz", ".new"
_LONGEST_NAME = 180
_LONGEST_RUN = 64
_STORED = BLOCK - 64  # bytes of a text that is not compressed
_STAMP = 27  # characters of a time
_PREFIX = _STAMP + len(" stdout F ")
_OPEN = re.compile(rb"^.{27} std(?:out|err) P ", re.MULTILINE)
_MISSING = re.compile(rb"^.{27} rpr F (\d+) bytes are missing here\n", re.MULTILINE)
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_AS_FOLDER = _READ | os.O_DIRECTORY

Note = tuple[datetime, Literal["stdout", "stderr", "rpr"], bytes]
"""Bytes that a run wrote at a time. Those of `rpr` are the digits of how many bytes are missing."""


@lru_cache(maxsize=4096)
def folder_name(job: str) -> str:
    """The name of the folder of a job."""
    name = quote(job, safe="")
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    if len(name) <= _LONGEST_NAME:
        return name
    from hashlib import sha256

    return f"{name[:_LONGEST_NAME]}~{sha256(job.encode()).hexdigest()[:16]}"


def job_name(folder: str, known: Iterable[str] = ()) -> str:
    """The job of a folder. A long name is found only among the `known` ones."""
    if "~" not in folder:
        return unquote(folder)
    return next((job for job in known if folder_name(job) == folder), unquote(folder))


def run_of(file: str) -> tuple[str, str]:
    """The run of a file and the kind of the file, which is `LIVE`, `FINE`, `FAILED`, or empty for any other file."""
    run, _, rest = file.partition(".")
    kind = f".{rest}"
    return (run, kind) if is_run(run) and kind in (LIVE, FINE, FAILED) else (file, "")


def is_run(text: str) -> bool:
    """Whether a text can be the id of a run, so that it can be the name of a file."""
    return text.isascii() and text.isalnum() and len(text) <= _LONGEST_RUN


def encoded(notes: Iterable[Note]) -> bytes:
    """The records of what a run wrote."""
    records = []
    for at, stream, data in notes:
        stamp = f"{at.isoformat(timespec='microseconds')[:26]}Z"
        if stream == "rpr":
            records.append(f"{stamp} rpr F {int(data)} bytes are missing here\n".encode())
            continue
        head = f"{stamp} {stream} F ".encode()
        end = data.rfind(b"\n") + 1
        if end:
            records.append(head + data[: end - 1].replace(b"\n", b"\n" + head) + b"\n")
        if end < len(data):
            records.append(f"{stamp} {stream} P ".encode() + data[end:] + b"\n")
    return b"".join(records)


def decoded(text: bytes) -> Iterator[Note]:
    """The inverse of `encoded`, up to where a text was cut off. Lines of the same time and stream come together."""
    last, held = b"", bytearray()
    for record in text.split(b"\n")[:-1]:
        head = record[: _PREFIX - 3]
        if head != last:
            if held:
                yield _note(last, bytes(held))
                held.clear()
            last = head
        if record[_STAMP : _STAMP + 7] == b" rpr F ":
            found = _MISSING.match(record + b"\n")
            if found is not None:
                yield from_stamp(record), "rpr", found[1]
            last = b""
        elif record[_STAMP : _STAMP + 4] == b" std":
            held += record[_PREFIX:]
            if record[_PREFIX - 2 : _PREFIX - 1] == b"F":
                held += b"\n"
    if held:
        yield _note(last, bytes(held))


def _note(head: bytes, data: bytes) -> Note:
    return from_stamp(head), "stderr" if head.endswith(b"stderr") else "stdout", data


def from_stamp(record: bytes) -> datetime:
    """The time of a record."""
    at = from_rfc3339(record[:_STAMP].decode("ascii", "replace"))
    assert at is not None
    return at


def raw_size(text: bytes) -> int:
    """How many bytes a run had written for these whole records, with those that are missing."""
    missing = sum(map(int, _MISSING.findall(text)))
    if missing:
        text = _MISSING.sub(b"", text)
    return missing + len(text) - _PREFIX * text.count(b"\n") - len(_OPEN.findall(text))


def shortened(text: bytes, most: int) -> bytes:
    """The first and last records, with `most` bytes together, and the number of bytes missing in between."""
    if len(text) <= most:
        return text
    begin = text.rfind(b"\n", 0, min(HEAD, most // 4)) + 1
    end = text.find(b"\n", len(text) - (most - begin)) + 1
    middle = text[begin:end]
    stamp = middle[:_STAMP].decode("ascii", "replace")
    return text[:begin] + f"{stamp} rpr F {raw_size(middle)} bytes are missing here\n".encode() + text[end:]


def compressed(text: bytes) -> bytes:
    """A gzip file (RFC 1952). A text that fits into one block of the disk is not compressed: it would not take less."""
    import zlib

    if len(text) < _STORED:
        size = len(text)
        head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x01" + struct.pack("<HH", size, size ^ 0xFFFF)
        return head + text + struct.pack("<II", zlib.crc32(text), size)
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(text) + packer.flush()


def uncompressed(data: bytes) -> bytes:
    """The text of a file. A truncated file gives the text before the cut."""
    import zlib

    opener = zlib.decompressobj(31)
    with contextlib.suppress(zlib.error):
        return opener.decompress(data)
    return b""


def open_folder(path: str | os.PathLike[str], *, inside: int | None = None) -> int:
    """A descriptor of a folder that is not a link. Raises OSError."""
    return os.open(path, _AS_FOLDER, dir_fd=inside)


def read_text(name: str, folder: int) -> bytes:
    """The records in a file. Raises OSError."""
    fd = os.open(name, _READ | os.O_NONBLOCK, dir_fd=folder)
    with open(fd, "rb") as file:
        data = file.read()
    if not name.endswith(LIVE):
        return uncompressed(data)
    return data[: data.rfind(b"\n") + 1]


def piece_of(note: Note, job: str, run: str, number: int = 0) -> Chunk:
    """A note of a file in the form of what is kept in memory."""
    at, stream, data = note
    if stream == "rpr":
        data = b"[rpr: %s bytes are missing here]\n" % data
    return Chunk(number, at, job, run, stream, data)
