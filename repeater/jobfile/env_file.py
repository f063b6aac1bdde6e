r"""The lines of an env file: `NAME=value`, as Docker and systemd read them, less their differences.

`export` before a name, `#` comments, blank lines; single quotes take everything as it is, double quotes know
`\n \t \r \" \\ \$`; without quotes a value ends before ` #`.
Nothing is expanded: what is written is what counts.
"""

from __future__ import annotations

import re

from repeater.model.spec import Pairs

_LINE = re.compile(
    r"""(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)\s*=\s*
        (?:'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*)"|(?P<plain>(?!(?<=\s)\#)[^'"\s](?:.*?))?)\s*(?:(?<!\S)\#.*)?""",
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def parse_env(content: bytes) -> Pairs:
    """The variables, a later line wins. Raises ValueError that names the line."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
    values: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if match is None or "\0" in stripped:
            raise ValueError(f"line {number} is not `NAME=value`")
        if match["double"] is not None:
            value = re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), match["double"])
        else:
            value = match["single"] if match["single"] is not None else match["plain"] or ""
        values[match["name"]] = value
    return tuple(values.items())
