r"""Which paths a watch means: globs, less `.gitignore`-style ignores. Pure text, no file is touched.

Globs are relative to a folder: `*` and `?` stay inside one path part (and take dot files), `**` takes any
number of parts, `[a-z]` and `{py,toml}` choose. A glob whose last part has no wildcard also means everything
below it (`src`). Ignores follow gitignore(5): a name without `/` at any depth, `/` at the end for folders,
`!` takes back, the last one that fits decides, and nothing below an ignored folder can be taken back.

`check_glob` and `check_ignore` say what is wrong with one of them; a set of globs that passed can be used without an
error. The time of a match grows with the length of the path, never exponentially: each `*` and `**` but the last one of
its part takes the nearest place where what follows it fits (an atomic group), as fnmatch of the standard library does.
"""

from __future__ import annotations

import re
from functools import cached_property
from posixpath import join, normpath

from repeater._lazy_dataclasses import dataclass
from repeater.errors import one_line

DEFAULT_IGNORE = (
    ".git/", ".hg/", ".svn/", "__pycache__/", "*.pyc", "node_modules/", ".venv/", ".tox/",
    ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".idea/", ".DS_Store", "*~", ".*.sw?",
    ".*.swpx", "4913", ".#*", r"\#*#",
)  # fmt: skip
_WILD = re.compile(r"[*?\[{]")
_IN_CLASS = re.compile(r"[\[\\&|~]")
"""What a class of `re` may understand in another way than a glob."""
_MOST_CHOICES = 256
_MOST_BRACES = 50
_EXTENDED = re.compile(r"[@+?*!]\([^()/]*\)")
_LOOKS_LIKE_A_NAME = re.compile(r"\[(?:\.\.\.)?[A-Za-z_][A-Za-z0-9_]+\]|\[\[\.\.\.\w+\]\]")
LONGEST_GLOB = 1024
"""Characters of one glob or ignore."""


@dataclass(frozen=True)
class PathSet:
    """The files that `globs` mean below `folder` (absolute), without those that `ignore` names.

    `DEFAULT_IGNORE` stands before `ignore`, so `!.venv/` takes one of them back. `check` raises ValueError for globs
    that cannot be understood.
    """

    folder: str
    globs: tuple[str, ...]
    ignore: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises ValueError for a glob or an ignore that cannot be understood."""
        for glob in self.globs:
            check_glob(glob)
        for line in self.ignore:
            check_ignore(line)

    def __contains__(self, path: str) -> bool:
        """Whether an absolute path is meant. The globs themselves decide nothing about whether it exists."""
        for root, pattern in self._patterns:
            if pattern.fullmatch(path):
                base = self.folder if _is_below(path, self.folder) else root
                return not self._is_ignored(path[len(base) :].lstrip("/"))
        return False

    def hides(self, path: str) -> bool:
        """Whether a path would be ignored if it is, or was, a folder."""
        return self._is_ignored(path.removeprefix(self.folder.rstrip("/") + "/") + "/.")

    @cached_property
    def roots(self) -> tuple[tuple[str, bool], ...]:
        """The folders to look at, each with whether what is below its folders counts too.

        Without wildcards a glob
        may be a file: its folder is one root, and the path itself, in case it is a folder, another.
        """
        found: dict[str, bool] = {}
        for glob in self.globs:
            for choice in _choices(glob):
                root, rest = _split(self.folder, choice)
                deep = "/" in rest or "**" in rest
                found[root] = found.get(root, False) or deep
                if not _WILD.search(rest):
                    found[join(root, rest) if rest else root] = True
        return tuple(found.items())

    @cached_property
    def _patterns(self) -> tuple[tuple[str, re.Pattern[str]], ...]:
        return tuple(
            (_split(self.folder, choice)[0], _pattern(self.folder, choice))
            for glob in self.globs
            for choice in _choices(glob)
        )

    @cached_property
    def _rules(self) -> tuple[tuple[bool, bool, re.Pattern[str]], ...]:
        return tuple(rule for line in (*DEFAULT_IGNORE, *self.ignore) if (rule := _ignore_rule(line)))

    def _is_ignored(self, relative: str) -> bool:
        parts = relative.split("/")
        for depth in range(1, len(parts) + 1):
            path, is_folder = "/".join(parts[:depth]), depth < len(parts)
            ignored = False
            for takes_back, folders_only, pattern in self._rules:
                if (is_folder or not folders_only) and pattern.fullmatch(path):
                    ignored = not takes_back
            if ignored:
                return True
        return False


def check_glob(glob: str) -> None:
    """Raises ValueError with what was found and what is allowed."""
    _check_text(glob)
    if glob.count("{") > _MOST_BRACES:
        raise ValueError(f"found `{_clip(glob)}`, which has more than {_MOST_BRACES} braces")
    _check_dialect(glob)
    choices = _choices(glob)
    if len(choices) > _MOST_CHOICES:
        raise ValueError(f"found `{_clip(glob)}`, whose braces give more than {_MOST_CHOICES} choices")
    for choice in choices:
        _check_classes(glob, choice)
        _check_pattern(glob, _translate(choice))


def find_doubt(glob: str) -> str | None:
    """A part of the glob that is a class of characters, but looks like the name of a directory: `[slug]`."""
    return next((part for part in glob.split("/") if _LOOKS_LIKE_A_NAME.fullmatch(part)), None)


def check_ignore(line: str) -> None:
    """Raises ValueError with what was found and what is allowed."""
    _check_text(line)
    try:
        _ignore_rule(line)
    except re.error as error:
        raise ValueError(_not_a_glob(line, error)) from None


def _check_text(glob: str) -> None:
    if len(glob) > LONGEST_GLOB:
        raise ValueError(f"found a glob of {len(glob)} characters; the limit is {LONGEST_GLOB}")
    if "\0" in glob:
        raise ValueError(f"found `{_clip(glob)}`, which contains a zero character, not allowed in paths")


def _check_dialect(glob: str) -> None:
    """Raises ValueError for the syntax of other tools, which would match nothing here."""
    if glob.startswith("!"):
        raise ValueError(f"found `{_clip(glob)}`, which matches nothing: a glob cannot exclude files, an ignore can")
    if re.match("~[^/]*/", glob):
        raise ValueError(f"found `{_clip(glob)}`, but `~` is not expanded: write the whole path, or use `env('HOME')`")
    if _EXTENDED.search(glob):
        raise ValueError(f"found `{_clip(glob)}`, but `@(…)` and its variants are not supported: write `{{a,b}}`")


def _check_classes(glob: str, choice: str) -> None:
    for part in choice.split("/"):
        at = part.find("[")
        while at >= 0:
            if part[:at].endswith("\\"):
                at = part.find("[", at + 1)
                continue
            close = part.find("]", at + 2)
            if close < 0:
                raise ValueError(f"found `{_clip(glob)}`, whose `[` has no `]`: write `[[]` for the character `[`")
            at = part.find("[", close)


def _check_pattern(glob: str, pattern: str) -> None:
    try:
        re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise ValueError(_not_a_glob(glob, error)) from None


def _not_a_glob(glob: str, error: re.error) -> str:
    cause = error.msg.replace("bad character range", "the range is backwards:")
    return f"found `{_clip(glob)}`, which is not a glob: {cause}"


def _clip(text: str) -> str:
    line = one_line(text[:200])
    return line if len(line) <= 60 else line[:57] + "..."


def _is_below(path: str, folder: str) -> bool:
    return folder == "/" or path.startswith(folder.rstrip("/") + "/")


def _split(folder: str, glob: str) -> tuple[str, str]:
    """The directory before the first part of `glob` with a wildcard (or before its last part), and the rest of `glob`.

    `folder` is a path and not a glob: its wildcard characters are literal. A glob of only `.`, `..` and `/` names a
    directory; its rest is empty.
    """
    parts = normpath(glob).split("/")
    if parts[-1] in ("", ".", ".."):
        return normpath(join(folder, glob)), ""
    fixed = 0
    while fixed < len(parts) - 1 and not _WILD.search(parts[fixed]):
        fixed += 1
    return normpath(join(folder, "/".join(parts[:fixed]) or ("/" if fixed else "."))), "/".join(parts[fixed:])


def _pattern(folder: str, glob: str) -> re.Pattern[str]:
    root, rest = _split(folder, glob)
    below = "" if _WILD.search(rest.rpartition("/")[2]) else "(?:/.+)?"
    return re.compile(re.escape(root.rstrip("/")) + (rest and "/" + _translate(rest)) + below, re.DOTALL)


def _choices(glob: str) -> list[str]:
    """The globs that the braces of one glob stand for, at most one more than `_MOST_CHOICES`."""
    found = [""]
    while True:
        open_ = glob.find("{")
        close = glob.find("}", open_)
        if open_ < 0 or close < 0:
            return [start + glob for start in found]
        choices = glob[open_ + 1 : close].split(",")
        found = [start + glob[:open_] + choice for start in found for choice in choices][: _MOST_CHOICES + 1]
        glob = glob[close + 1 :]


def _translate(glob: str) -> str:
    """A glob as a regular expression over `/`-separated paths."""
    chunks: list[list[str]] = [[]]  # the parts between `**`
    parts = glob.split("/")
    open_end = parts[-1] == "**"
    for part in parts[:-1] if open_end else parts:
        if part == "**":
            chunks.append([])
        else:
            chunks[-1].append(_translate_part(part))
    if open_end:
        chunks.append([".+"])
    first, last = "/".join(chunks[0]), "/".join(chunks[-1])
    if len(chunks) == 1:
        return first
    middle = "".join(rf"(?>(?:[^/]+/)*?{'/'.join(chunk)}/)" for chunk in chunks[1:-1] if chunk)
    any_depth = "" if open_end else "(?:[^/]+/)*"
    return (first + "/" if chunks[0] else "") + middle + any_depth + last


def _translate_part(part: str) -> str:
    """One part: what stands before the first `*`, then each piece at its nearest place, and the last one at the end."""
    pieces: list[str] = [""]
    at = 0
    while at < len(part):
        char = part[at]
        close = part.find("]", at + 2) if char == "[" else -1
        if char == "*":
            if pieces[-1] or len(pieces) == 1:
                pieces.append("")
        elif char == "?":
            pieces[-1] += "[^/]"
        elif close > 0:
            inside = _IN_CLASS.sub(r"\\\g<0>", part[at + 1 : close]).replace("--", r"-\-")
            negated = inside[0] in "!^" and len(inside) > 1
            pieces[-1] += f"(?!/)[^{inside[1:]}]" if negated else f"(?!/)[{inside}]"
            at = close
        elif char == "\\" and at + 1 < len(part):
            at += 1
            pieces[-1] += re.escape(part[at])
        else:
            pieces[-1] += re.escape(char)
        at += 1
    if len(pieces) == 1:
        return pieces[0]
    first, *middle, last = pieces
    return first + "".join(f"(?>[^/]*?{piece})" for piece in middle) + f"[^/]*{last}"


def _ignore_rule(line: str) -> tuple[bool, bool, re.Pattern[str]] | None:
    line = line.rstrip()
    if not line or line.startswith("#"):
        return None
    takes_back = line.startswith("!")
    line = line[takes_back:]
    folders_only = line.endswith("/")
    line = line.rstrip("/")
    anchored = "/" in line
    line = line.lstrip("/")
    if not line:
        return None
    return (
        takes_back,
        folders_only,
        re.compile(("" if anchored else "(?:.*/)?") + _translate(line), re.DOTALL),
    )
