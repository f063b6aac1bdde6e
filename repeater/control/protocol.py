"""The messages between `rpr` and a supervisor: JSON, one line each. Sans-IO: bytes in, values out.

    request   {"v": 2, "verb": "status", "args": {"jobs": ["poll*"]}}
    reply     {"item": {...}} for each thing of a listing or a stream, then one of
              {"done": {...}}   the result
              {"error": {"code": "...", "message": "...", "hint": "...", "exit": 2}}

A line has at most `LONGEST` bytes. The sender can be hostile: duplicate keys, NaN, very long numbers and very
deep nesting are refused, and so is each argument that a verb does not know. Client and server use this module.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypeAlias

from repeater._lazy_dataclasses import dataclass, field
from repeater.errors import ApplyRefused, RepeaterError, Unreachable, UsageError
from repeater.model.time import from_rfc3339
from repeater.wire.json_lines import LONGEST, BadMessage, clip, decode, encode

VERSION = 2
RENAMED: Mapping[tuple[str, str], str] = {("history", "most"): "limit"}
"""(verb, former name of an argument) -> name. A former name is refused, with the new name in the error."""
_OTHER_VERSION = "use the `rpr` that started the supervisor, or restart the supervisor with this `rpr`"
MOST_TEXTS = 20_000
LONGEST_TEXT = 4096

Kind: TypeAlias = Literal["text", "texts", "pairs", "flag", "count", "seconds", "time"]
Params: TypeAlias = Mapping[str, Kind]


@dataclass(frozen=True, slots=True)
class Request:
    """A request; its arguments are not checked yet."""

    verb: str
    args: Mapping[str, Any] = field(default_factory=dict)


def encode_request(verb: str, args: Mapping[str, Any]) -> bytes:
    given = {name: value for name, value in args.items() if value or (value == 0 and value is not False)}
    return encode({"v": VERSION, "verb": verb, "args": given})


def encode_error(error: RepeaterError) -> bytes:
    """The reply that ends a request that could not be carried out. What is too long is cut."""
    code = error.code if isinstance(error, BadMessage) else "refused"
    told = {"code": code, "message": error.message[: LONGEST // 16], "hint": error.hint, "exit": error.exit_code}
    return encode({"error": told})


def decode_request(line: bytes) -> Request:
    """A request, in the one version that there is. Raises BadMessage."""
    message = decode(line)
    version = message.get("v")
    if version != VERSION or isinstance(version, bool):
        raise BadMessage(
            "version",
            f"cannot use version `{clip(version)}` of the protocol: the supervisor speaks version {VERSION}",
            hint=_OTHER_VERSION,
        )
    unknown = sorted(set(message) - {"v", "verb", "args"})
    if unknown:
        raise BadMessage("malformed", f"cannot use the message: unknown key `{clip(unknown[0])}`")
    verb, args = message.get("verb"), message.get("args", {})
    if not isinstance(verb, str):
        raise BadMessage("malformed", "cannot use the message: the key `verb` is missing")
    if not isinstance(args, dict):
        raise BadMessage("malformed", "cannot use the message: `args` is not an object")
    return Request(verb, args)


def check_args(verb: str, params: Params, args: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter with its value: what was not given is empty (`""`, `()`, False, None). Raises BadMessage."""
    for name in args:
        if name not in params:
            near = difflib.get_close_matches(name, params, 1)
            hint = f"did you mean `{near[0]}`?" if near else None
            if new := RENAMED.get((verb, name)):
                hint = f"the argument is now called `{new}`"
            raise BadMessage("args", f"cannot carry out `{verb}`: unknown argument `{clip(name)}`", hint=hint)
    checked = {}
    for name, kind in params.items():
        if args.get(name) is None:
            checked[name] = _EMPTY[kind]
            continue
        value = _checked(kind, args[name])
        if value is None:
            raise BadMessage(
                "args", f"cannot carry out `{verb}`: found `{clip(args[name])}` for `{name}`, expected {_WORDS[kind]}"
            )
        checked[name] = value
    return checked


_EMPTY: dict[Kind, Any] = {
    "text": "", "texts": (), "pairs": (), "flag": False, "count": None, "seconds": None, "time": None,
}  # fmt: skip
_WORDS: dict[Kind, str] = {
    "text": f"a text of at most {LONGEST_TEXT} characters",
    "texts": f"a list of at most {MOST_TEXTS} texts",
    "pairs": "a list of pairs of texts",
    "flag": "true or false",
    "count": "a whole number from 0 to 1000000",
    "seconds": "a number of seconds, more than 0",
    "time": "a time like `2026-11-24T03:00:00Z`",
}


def _checked(kind: Kind, value: Any) -> Any:
    """The value as the verb wants it; None if it is not of this kind."""
    match kind:
        case "text":
            return value if _is_text(value) else None
        case "texts":
            fits = isinstance(value, list) and len(value) <= MOST_TEXTS and all(map(_is_text, value))
            return tuple(value) if fits else None
        case "pairs":
            fits = isinstance(value, list) and len(value) <= MOST_TEXTS and all(map(_is_pair, value))
            return tuple((key, text) for key, text in value) if fits else None
        case "flag":
            return value if isinstance(value, bool) else None
        case "count":
            return value if type(value) is int and 0 <= value <= 1_000_000 else None
        case "seconds":
            fits = type(value) in (int, float) and 0 < value <= 3_155_760_000 and math.isfinite(value)
            return float(value) if fits else None
        case "time":
            return _moment(value)


def _moment(value: Any) -> datetime | None:
    try:
        return from_rfc3339(value) if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TEXT and "\0" not in value


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_text, value))


def error_from(told: Any) -> RepeaterError:
    """The error of a reply, as one of our own, so that it is printed and ends the command as usual."""
    told = told if isinstance(told, dict) else {}
    message, hint = str(told.get("message", "the supervisor answered with an error")), told.get("hint")
    if told.get("code") == "version" and hint is None:  # a supervisor of 0.1.0 gives no hint
        hint = _OTHER_VERSION
    kinds = {2: UsageError, 5: ApplyRefused, 6: Unreachable}
    return kinds.get(told.get("exit", 1), RepeaterError)(message, hint=hint if isinstance(hint, str) else None)
