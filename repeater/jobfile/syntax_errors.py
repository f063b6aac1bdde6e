"""Explains syntax errors: the problem, the position where it starts, and a correction.

A parser reports the position where it could not continue. That is often far behind the mistake: a text without its
closing quote ends at the end of the file. The functions here analyze the text around the reported position.
"""

from __future__ import annotations

import re

from repeater._lazy_dataclasses import dataclass
from repeater.jobfile.document import quote_value

_TRUTHS = {"yes": "true", "on": "true", "no": "false", "off": "false"}


@dataclass(frozen=True, slots=True)
class Broken:
    """A syntax error. `at` is the offset where it starts."""

    cause: str
    at: int
    hint: str | None = None
    is_template: bool = False


def _word(text: str, at: int) -> str:
    """The remaining value at `at`: up to a comma, a bracket, a comment or the end of the line."""
    return re.split(r"[\n\r,\]}#]", text[at : at + 200], maxsplit=1)[0].strip()


def _line(text: str, at: int) -> str:
    """The whole line around `at`."""
    return text[text.rfind("\n", 0, at) + 1 :].partition("\n")[0]


def _number(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _unclosed_text(at: int, quote: str) -> Broken:
    return Broken("the text that begins here is not closed", at, f"close it with `{quote}`")


def _wrong_word(word: str) -> str | None:
    """The hint for a word of another language: `True`, `yes`, `None`."""
    plain = word.lower()
    right = _TRUTHS.get(plain) or (plain if plain in ("true", "false") else None)
    if right:
        return f"write `{right}`"
    return "leave the key out" if plain in ("null", "none", "nil", "~") else None


# --- TOML -------------------------------------------------------------------------------------------------------

_TOML_TOKEN = re.compile(
    r"""
      (?P<skip>[ \t\r]+|\#[^\n]*)
    | (?P<newline>\n)
    | (?P<string>\"{3}(?:[^\\]|\\.)*?\"{3,5} | '{3}.*?'{3,5} | (?!\"{3}|'{3})(?:"(?:[^"\\\n]|\\.)*" | '[^'\n]*'))
    | (?P<open>[\[{])
    | (?P<close>[\]}])
    | (?P<quote>\"{3}|'{3}|["'])
    | (?P<word>[^\s\[\]{}"'\#]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_PAIRS = {"[": "]", "{": "}", "]": "[", "}": "{"}


def toml_broken(text: str, at: int, message: str) -> Broken | None:
    """An explanation of tomli's message at `at`. None: the message is clear."""
    for name, explain in _TOML.items():
        if message.startswith(name):
            return explain(text, at)
    return None


def _toml_before(text: str, at: int) -> tuple[int, int | None, list[int]]:
    """From the text before `at`: the start of the statement, an unclosed quote, and the open brackets."""
    start, stack, fresh = 0, list[int](), True
    for match in _TOML_TOKEN.finditer(text):
        if match.start() >= at:
            break
        kind = match.lastgroup
        if kind == "skip":
            continue
        if kind == "newline":
            fresh = fresh or not stack
            continue
        if fresh:
            start, fresh = match.start(), False
        if kind == "quote":
            return start, match.start(), stack
        if kind == "open":
            stack.append(match.start())
        elif kind == "close" and stack:
            stack.pop()
    return start, None, stack


def _toml_text(text: str, at: int) -> Broken | None:
    _, quote, _ = _toml_before(text, at)
    if quote is None:
        return None
    return _unclosed_text(quote, text[quote] * (3 if text.startswith(text[quote] * 3, quote) else 1))


def _toml_bracket(text: str, at: int) -> Broken | None:
    """A list or a table that is not closed, or a comma that is missing in it."""
    _, _, stack = _toml_before(text, at)
    if not stack:
        return None
    opened = text[stack[-1]]
    kind, closing = ("list", "]") if opened == "[" else ("table", "}")
    level = 0
    for match in _TOML_TOKEN.finditer(text, at):
        if match.lastgroup == "open":
            level += 1
        elif match.lastgroup == "close" and level:
            level -= 1
        elif match.lastgroup == "close":
            if match[0] == closing and match.start() > at:
                return Broken("a `,` is missing before this value", at)
            break
    return Broken(f"the {kind} that begins here is not closed", stack[-1], f"close it with `{closing}`")


def _toml_value(text: str, at: int) -> Broken | None:
    word = _word(text, at)
    if not word:
        is_end = text[at : at + 1] in ("", "\n", "\r", "#")
        return Broken("there is no value after `=`", at, 'an empty text is `""`') if is_end else None
    if word[0] in "“”„‘’«":
        return Broken(f"found the quote `{word[0]}`", at, "a text has the quotes `\"` or `'`")
    hint = _wrong_word(word)
    if hint is not None:
        return Broken(f"found `{quote_value(word)}`, which is not a value of TOML", at, hint)
    if re.match(r"[A-Za-z_*/.@~$%&!|>]", word):
        return Broken("found a text without quotes", at, _quoted(word))
    return None


def _quoted(word: str) -> str:
    quote = "'" if '"' in word or "\\" in word else '"'
    return f"put quotes around it: `{quote}{quote_value(word)}{quote}`"


def _toml_template(text: str, at: int) -> Broken | None:
    if text[max(at - 1, 0) : at + 1] != "{{":
        return None
    word = text[at - 1 :].partition("\n")[0].strip()
    return Broken("found a template without quotes", at - 1, _quoted(word))


def _toml_after(text: str, at: int) -> Broken | None:
    """Text follows a value on the same line."""
    rest, before = text[at:], text[:at].rstrip(" \t")
    if rest[:1] in (";", ","):
        return Broken(f"found `{rest[0]}` after the value", at, "remove it")
    if before != text[:at] and re.match(r"""[A-Za-z0-9_."'-]+\s*=""", rest):
        return Broken("a second key stands in this line", at, "begin a new line for each key")
    if before[-1:] in ("'", '"'):
        hint = "write a quote inside a text as `\\\"`, or put the text between `'`"
        return Broken("the text ends before this place", at, hint)
    start = max(text.rfind("=", 0, at), text.rfind("\n", 0, at)) + 1
    start += len(text[start:at]) - len(text[start:at].lstrip())
    word = _word(text, start)
    if re.match(r"[+-]?0[0-9]+$", word):
        return Broken(f"found `{quote_value(word)}`, a number that begins with `0`", start, _quoted(word))
    if re.fullmatch(r"[+-]?[0-9][0-9._xobeE+-]*", word):
        return Broken(f"found `{quote_value(word)}`, which is not a number", start)
    if re.match(r"[+-]?[0-9][^\s]*", word):
        return Broken("found a text without quotes", start, _quoted(word))
    return None


def _toml_equals(text: str, at: int) -> Broken | None:
    start, _, _ = _toml_before(text, at)
    key = quote_value(text[start:at].strip())
    if text[at : at + 1] == ":":
        return Broken("found `:` after a key", at, "TOML writes `key = value`; a file in YAML is named `.yaml`")
    if re.match(r"[+:?|]=", text[at:]):
        return Broken(f"found `{text[at : at + 2]}` after a key", at, "TOML writes `key = value`")
    if text[at : at + 1] in ("", "\n", "\r", "#"):
        return Broken(f"the key `{key}` has no value", start, "TOML writes `key = value`")
    return None


def _toml_statement(text: str, at: int) -> Broken | None:
    line = text[at:].partition("\n")[0]
    if line.startswith(("//", "--", ";", "/*")):
        return Broken(f"found `{line[: 1 if line[0] == ';' else 2]}`", at, "a comment begins with `#`")
    if line.startswith(("<<<<<<<", "=======", ">>>>>>>")):
        return Broken("found a mark of an unfinished merge", at, "resolve the conflict")
    if line.startswith("{"):
        return Broken("found `{`, expected a key or `[table]`", at, "a file in JSON is named `.json`")
    if re.match(r"(?:[-*0-9,/A-Za-z]+\s+){4}[-*0-9,/A-Za-z]+\s+\S|@[a-z]+\s+\S", line):
        hint = "a job has its own table: `[jobs.NAME]` with `schedule` and `command`"
        return Broken("found a line of a crontab", at, hint)
    return None


def _toml_header(text: str, at: int) -> Broken | None:
    start, _, _ = _toml_before(text, at)
    if text[at : at + 1] in ("", "\n", "\r", "#"):
        return Broken("the name of a table that begins here is not closed", start, "close it with `]`")
    return Broken(f"found `{quote_value(text[at])}` in the name of a table", at, "a name has no spaces")


def _toml_escape(text: str, at: int) -> Broken:
    at = max(text.rfind("\\", 0, at), 0)
    return Broken("found a `\\` that begins no escape", at, "write `\\\\`, or put the text between `'`")


def _toml_twice(text: str, at: int) -> Broken | None:
    start, _, _ = _toml_before(text, at)
    line = _line(text, start).strip()
    if line.startswith("["):
        name = line.strip("[] ")
        return Broken(
            f"the table `{quote_value(name)}` stands here twice", start, "put all its keys under the first one"
        )
    return Broken(f"the key `{quote_value(line.partition('=')[0].strip())}` stands here twice", start)


_TOML = {
    "Illegal character '\\n'": _toml_text,
    "Illegal character '\\r'": _toml_text,
    "Unterminated string": _toml_text,
    'Expected "\'"': _toml_text,
    "Expected '\"'": _toml_text,
    "Unclosed array": _toml_bracket,
    "Unclosed inline table": _toml_bracket,
    "Invalid value": _toml_value,
    "Invalid initial character for a key part": _toml_template,
    "Expected newline or end of document after a statement": _toml_after,
    "Expected '=' after a key": _toml_equals,
    "Invalid statement": _toml_statement,
    "Expected ']' at the end of a table declaration": _toml_header,
    "Unescaped '\\' in a string": _toml_escape,
    "Cannot overwrite a value": _toml_twice,
    "Cannot declare": _toml_twice,
}


# --- JSON -------------------------------------------------------------------------------------------------------

_JSON_TOKEN = re.compile(r'(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<open>[\[{])|(?P<close>[\]}])|(?P<quote>")', re.DOTALL)


def json_broken(text: str, at: int, message: str) -> Broken | None:
    """An explanation of the JSON parser's message at `at`. None: the message is clear."""
    if message.startswith(("Unterminated string", "Invalid control character")):
        return _json_text(text, at)
    if message.startswith("Invalid \\"):
        return Broken("found a `\\` that begins no escape", at, "write `\\\\`")
    if message.startswith("Extra data"):
        return Broken("found a second value, expected the end of the file", at)
    return _json_before(text, at, message) or _json_expected(text, at, message)


def _json_before(text: str, at: int, message: str) -> Broken | None:
    """An error that the character at `at` identifies, independent of the expected character."""
    end = len(text[:at].rstrip())
    before, found = text[end - 1 : end], text[at : at + 1]
    if message.startswith("Illegal trailing comma"):
        at, end, before = at + 1, at + 1, ","
        found = text[at:].lstrip()[:1]
    if not found.strip():
        return _json_open(text, len(text))
    if before == "," and found in "]}":
        return Broken(f"found a `,` before `{found}`", end - 1, "remove the last `,`")
    if found in "/#":
        return Broken(f"found `{found}`", at, "JSON has no comments; TOML and YAML have")
    if found in "'“”„‘’":
        return Broken(f"found the quote `{found}`", at, 'a text in JSON has the quotes `"`')
    return None


def _json_expected(text: str, at: int, message: str) -> Broken | None:
    end, found = len(text[:at].rstrip()), text[at : at + 1]
    if message.startswith("Expecting property name"):
        word = re.match(r"[\w.-]+", text[at:])
        if word:
            return Broken(
                f"found the key `{quote_value(word[0])}` without quotes", at, f'write `"{quote_value(word[0])}"`'
            )
        return Broken(f"found `{found}`, expected a key", at)
    if message.startswith("Expecting value"):
        return _json_value(text, at)
    if message.startswith("Expecting ':'"):
        return Broken("a `:` is missing after the key", end)
    if message.startswith("Expecting ','"):
        return _json_comma(text, at, end)
    return None


def _json_text(text: str, at: int) -> Broken | None:
    quote = at if text[at : at + 1] == '"' else None
    for match in _JSON_TOKEN.finditer(text):
        if match.start() > at:
            break
        if match.lastgroup == "quote" or match.end() > at:
            quote = match.start()
            break
    if text[at : at + 1] == "\t":
        return Broken("found a tab in a text", at, "write `\\t`")
    return None if quote is None else _unclosed_text(quote, '"')


def _json_stack(text: str, end: int) -> list[int]:
    stack: list[int] = []
    for match in _JSON_TOKEN.finditer(text, 0, end):
        if match.lastgroup == "open":
            stack.append(match.start())
        elif match.lastgroup == "close" and stack:
            stack.pop()
    return stack


def _json_open(text: str, end: int) -> Broken | None:
    stack = _json_stack(text, end)
    if not stack:
        return None
    closing = _PAIRS[text[stack[-1]]]
    return Broken(f"the `{text[stack[-1]]}` that stands here is not closed", stack[-1], f"close it with `{closing}`")


def _json_value(text: str, at: int) -> Broken | None:
    if text[at] in ",]}":
        return Broken(f"found `{text[at]}`, expected a value", at)
    word = _word(text, at)
    hint = _wrong_word(word)
    if hint == "leave the key out":
        hint = "write `null`"
    if hint is None and re.match(r"[+.]?[0-9.]", word):
        hint = "a number begins with a digit or `-`"
    return Broken(f"found `{quote_value(word)}`, expected a value", at, hint or _quoted(word))


def _json_comma(text: str, at: int, end: int) -> Broken:
    if text[at] in "]}":
        stack = _json_stack(text, at)
        opened = stack[-1] if stack else 0
        cause = f"found `{text[at]}`, expected `{_PAIRS[text[opened]]}` for the `{text[opened]}` of line"
        return Broken(f"{cause} {_number(text, opened)}", at)
    start = re.search(r"-?0[0-9]*$", text[:at])
    if start and text[at].isdigit():
        return Broken("found a number that begins with `0`", start.start(), _quoted(_word(text, start.start())))
    return Broken("a `,` is missing here", end)


# --- YAML -------------------------------------------------------------------------------------------------------

_YAML_KEY = re.compile(r"\s*(?:- +)*[^\s:#\"'\[{][^:#]*:(?:\s|$)")
_INDICATORS = {"*": "an alias", "&": "an anchor", "!": "a tag", "|": "a block of lines", ">": "a block of lines"}


def yaml_broken(text: str, at: int, context: int | None, message: str, last: tuple[int, int] | None) -> Broken | None:
    """An explanation of PyYAML's message at `at`, with its `context`. `last` is the extent of the last text in quotes.
    None: the message is clear.
    """
    if context is not None and ("end of stream" in message or "document separator" in message):
        return _unclosed_text(context, text[context]) if text[context : context + 1] in ("'", '"') else None
    if "escape" in message:
        at -= text[at - 1 : at] == "\\"
        return Broken("found a `\\` that begins no escape", at, "write `\\\\`, or put the text between `'`")
    if context is not None and "block scalar" in message:
        return yaml_indicator(text, context)
    found = _yaml_tab(text, at) or yaml_indicator(text, at) or _yaml_after_quotes(text, at, last)
    if found is not None:
        return found
    for part, explain in _YAML.items():
        if part in message:
            return explain(text, at, context)
    return None


def _yaml_tab(text: str, at: int) -> Broken | None:
    start = text.rfind("\n", 0, at) + 1
    space = re.compile(r"[ \t]*").match(text, start)
    if space is None or "\t" not in space[0] or at > space.end():
        return None
    where = start + space[0].index("\t")
    return Broken("found a tab at the beginning of a line", where, "YAML indents with spaces")


def yaml_indicator(text: str, at: int) -> Broken | None:
    """A text without quotes that starts with a character of the YAML syntax, at `at` or one character before."""
    for place in (at, at - 1):
        sign = text[place : place + 1]
        if not sign or sign not in "*&!|>%@`" or not _begins_value(text, place):
            continue
        word = re.split(r"\n|\s#", text[place : place + 200])[0].strip()
        meaning = f", which begins {_INDICATORS[sign]} in YAML" if sign in _INDICATORS else ""
        found = "a backtick" if sign == "`" else f"`{sign}`"
        return Broken(f"found {found} without quotes{meaning}", place, _quoted(word.rstrip(",]}")))
    if "{{" not in (text[at - 1 : at + 1], text[at : at + 2]):
        return None
    place = at if text[at : at + 2] == "{{" else at - 1
    word = re.split(r"\n|\s#", text[place : place + 200])[0].strip()
    cause = "found `{{` without quotes, which begins a table in YAML"
    return Broken(cause, place, _quoted(word), is_template=True)


def _begins_value(text: str, at: int) -> bool:
    """Whether the line before `at` has only the indicator of a key, an item or a collection."""
    before = text[text.rfind("\n", 0, at) + 1 : at].rstrip(" ")
    return before == "" or before[-1] in ":-,[{?"


def _yaml_after_quotes(text: str, at: int, last: tuple[int, int] | None) -> Broken | None:
    if last is None or at >= len(text) or text[last[1] : at].strip(" \n\r\t,]}"):
        return None
    start, end = last
    quote = text[start]
    if "\n" in text[start:end]:
        cause = f"the text that begins here ends in line {_number(text, end - 1)}, where more text follows"
        return Broken(cause, start, f"close it with `{quote}`")
    if text[at] in "]}":
        return Broken(f"found `{text[at]}` after a text", at, "remove it")
    inside = "''" if quote == "'" else '\\"'
    hint = f"put all of it between the quotes, and write a quote inside it as `{inside}`"
    return Broken("found more text after the closing quote", at, hint)


def _yaml_colon(text: str, at: int, _context: int | None) -> Broken:
    start = text.rfind("\n", 0, at) + 1
    line = _line(text, at)
    inner = re.match(r"(\s*(?:- +)*[^\s:#]+:\s+)[^\s\"'\[{|>&*!#]", line)
    if inner is not None and start + len(inner[1]) < at:
        begins = start + len(inner[1])
        word = re.split(r"\n|\s#", text[begins : begins + 200])[0].strip()
        return Broken("found `: ` in a text without quotes", begins, _quoted(word))
    above = [(one, number) for number, one in enumerate(text[:start].split("\n")[:-1]) if one.strip()]
    if _YAML_KEY.match(line) and above:
        over, number = above[-1]
        offset = sum(len(one) + 1 for one in text.split("\n")[:number])
        offset += len(over) - len(over.lstrip())
        if ":" not in over:
            key = quote_value(over.strip())
            return Broken(f"the key `{key}` has no `:`", offset, f"write `{key}:`")
        begins = start + len(line) - len(line.lstrip())
        hint = "indent keys of one table by the same number of spaces"
        return Broken("this line is indented more than the key above it", begins, hint)
    return Broken("found `: ` in a text without quotes", at, "put quotes around the whole text")


def _yaml_flow(text: str, at: int, context: int | None) -> Broken | None:
    if context is None:
        return None
    opened = text[context : context + 1]
    kind, closing = ("list", "]") if opened == "[" else ("table", "}")
    if "\n" not in text[context:at].rstrip() and _line(text, at).rstrip().endswith(closing):
        return Broken("a `,` is missing before this value", at)
    return Broken(f"the {kind} that begins here is not closed", context, f"close it with `{closing}`")


def _yaml_sign(text: str, at: int, _context: int | None) -> Broken:
    sign = text[at : at + 1]
    hint = "begin the list in the next line" if sign == "-" else _quoted(_word(text, at))
    return Broken(f"found `{sign} ` after a key", at, hint)


def _yaml_indent(text: str, at: int, _context: int | None) -> Broken | None:
    start = text.rfind("\n", 0, at) + 1
    if text[start:at].strip(" ") or not text[at : at + 1].strip():
        return None
    cause = f"this line is indented by {at - start} spaces, as no key above it"
    return Broken(cause, at, "indent keys of one table by the same number of spaces")


_YAML = {
    "mapping values are not allowed": _yaml_colon,
    "flow": _yaml_flow,
    "block sequence entries": _yaml_sign,
    "mapping keys are not allowed": _yaml_sign,
    "block mapping": _yaml_indent,
    "block collection": _yaml_indent,
    "document start": _yaml_indent,
}
