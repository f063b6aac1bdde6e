r"""Which paths a watch means: globs, less `.gitignore`-style ignores. Pure text, no file is touched.

Globs are relative to a folder: `*` and `?` stay inside one path part (and take dot files), `**` takes any
number of parts, `[a-z]` and `{py,toml}` choose. A glob whose last part has no wildcard also means everything
below it (`src`). Ignores follow gitignore(5): a name without `/` at any depth, `/` at the end for folders,
`!` takes back, the last one that fits decides, and nothing below an ignored folder can be taken back. Used by
`adapters.files` and its fake.
"""

from __future__ import annotations

import re
from functools import cached_property
from posixpath import join, normpath

from repeater.dataclass import dataclass

DEFAULT_IGNORE = (
    ".git/", ".hg/", ".svn/", "__pycache__/", "*.pyc", "node_modules/", ".venv/", ".tox/",
    ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".idea/", ".DS_Store", "*~", ".*.sw?",
    ".*.swpx", "4913", ".#*", r"\#*#",
)  # fmt: skip
_WILD = re.compile(r"[*?\[{]")
_MOST_CHOICES = 256


@dataclass(frozen=True)
class PathSet:
    """The files that `globs` mean below `folder` (absolute), without those that `ignore` names.

    `DEFAULT_IGNORE` stands before `ignore`, so `!.venv/` takes one of them back. Raises ValueError for braces
    that give more than 256 choices, when it is first used.
    """

    folder: str
    globs: tuple[str, ...]
    ignore: tuple[str, ...] = ()

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
                if rest and not _WILD.search(rest):
                    path = join(root, rest)
                    found[path] = True
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


def _is_below(path: str, folder: str) -> bool:
    return folder == "/" or path.startswith(folder.rstrip("/") + "/")


def _split(folder: str, glob: str) -> tuple[str, str]:
    """The folder before the first part with a wildcard (or before the last part), and the rest."""
    parts = normpath(join(folder, glob)).split("/")
    fixed = 0
    while fixed < len(parts) - 1 and not _WILD.search(parts[fixed]):
        fixed += 1
    return "/".join(parts[:fixed]) or "/", "/".join(parts[fixed:])


def _pattern(folder: str, glob: str) -> re.Pattern[str]:
    root, rest = _split(folder, glob)
    below = "" if _WILD.search(rest.rpartition("/")[2]) else "(?:/.+)?"
    return re.compile(re.escape(root.rstrip("/")) + "/" + _translate(rest) + below, re.DOTALL)


def _choices(glob: str) -> list[str]:
    """The globs that the braces of one glob stand for."""
    open_ = glob.find("{")
    close = glob.find("}", open_)
    if open_ < 0 or close < 0:
        return [glob]
    found = [
        glob[:open_] + choice + rest
        for rest in _choices(glob[close + 1 :])
        for choice in glob[open_ + 1 : close].split(",")
    ]
    if len(found) > _MOST_CHOICES:
        raise ValueError(f"cannot watch `{glob[:40]}`: its braces give more than {_MOST_CHOICES} choices")
    return found


def _translate(glob: str) -> str:
    """A glob as a regular expression over `/`-separated paths."""
    out, parts = [], glob.split("/")
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            out.append(".+" if last else "(?:[^/]+/)*")
        else:
            out.append(_translate_part(part) + ("" if last else "/"))
    return "".join(out)


def _translate_part(part: str) -> str:
    out, at = "", 0
    while at < len(part):
        char = part[at]
        close = part.find("]", at + 2) if char == "[" else -1
        if char == "*":
            out += "" if out.endswith("[^/]*") else "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif close > 0:
            inside = part[at + 1 : close].replace("\\", r"\\").replace("[", r"\[")
            negated = inside[0] in "!^" and len(inside) > 1
            out += f"[^/{inside[1:]}]" if negated else f"[{inside}]"
            at = close
        elif char == "\\" and at + 1 < len(part):
            at += 1
            out += re.escape(part[at])
        else:
            out += re.escape(char)
        at += 1
    return out


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
