"""The reference of every key, written from the schema: `rpr schema --format markdown`, `docs/reference/job-file.md`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from repeater.jobfile.validate import schema
from repeater.jobfile.write import toml_value

_HEAD = """\
# The keys of a job file

Written from the schema by `rpr schema --format markdown`; TOML (1.1), YAML (1.2 core) and JSON carry the same keys.
Durations: `500ms`, `30s`, `1h30m`, `2d`, `1w`; a bare number is an error. Sizes: `10MB`, `64KiB`. Unknown keys are
errors. Relative paths count from the folder of the first file. Precedence, the weakest first: built-in default,
`defaults`, templates, the job, `--set`.
"""
_TAIL = """
## Templates

Every text may hold Jinja2: `{{ … }}`, `{% if … %}`, one level of `{% for … %}`. A text that is one expression keeps the
type of its value: `"{{ vars.regions }}"` is a list. To write `{{` itself, use `{{ '{{' }}`.

| name | what it is |
|---|---|
| `vars.NAME` | a variable; one that stands above, in `vars` itself |
| `env("NAME", default)` | a variable of the environment that `rpr` was started with |
| `params.NAME` | in templates: a parameter |
| `matrix.NAME` | in jobs with a matrix: the cell's value |
| `job.name`, `job.group` | the job, and without its cell |
| `project` | the project |
| `run.nominal`, `run.due`, `run.attempt`, `run.id`, `run.trigger` | the run; in `command`, `env`, `cwd`, `stdin` only |

Filters of our own: `sh` quotes for the shell, `date("%F")` formats an instant, `tojson`. A result has at most 1 MiB.
Reading job files may take 10 s of CPU time with all templates; `RPR_MAX_RELOAD_TIME` is the limit.

Templates over `run` are rendered when the run starts. Those that only read fields of `run`, with the filters `date`,
`sh`, `tojson` and `default` and literals, are rendered at once. Any other is rendered in a process of its own, and all
of one run may take 250 ms of CPU time together; after that the slot fails: `cannot render …`.

## Env files

An `env_file` holds lines `NAME=value`, read as docker compose reads them, without interpolation: `$` is an ordinary
character.

- A line is `NAME=value` or `NAME: value`. Blanks around the separator and `export` before the name are ignored. Names
  are letters, digits, `_`, `.` and `-`, and do not begin with a digit. Lines end with LF, CRLF or CR.
- Blank lines and lines that begin with `#` are comments.
- Without quotes the value is the rest of the line without blanks at its end. A `#` after a blank begins a comment.
  Quotes and backslashes inside the value are ordinary characters.
- In single quotes everything is text, also line ends; only `\\'` is a quote.
- In double quotes `\\a \\b \\f \\n \\r \\t \\v \\\\ \\" \\$` and `\\0` with up to three octal digits are
  escapes. Any other backslash stays: `"^\\d+$"` is `^\\d+$`. The value may span lines.
- After a closing quote only blanks and a comment may follow.
- The last value of a name counts. A name without a separator is an error: nothing is taken from the environment of
  `rpr`.

The test tables of compose-go and python-dotenv give the same values, except: `$NAME` is not expanded, a name has no
quotes and no brackets, and the first wrong line is an error.

`env_file = { path = "local.env", required = false }` names a file that may be missing. It is read when it appears.

## Users

A job with `user` gets HOME, USER, LOGNAME and SHELL of that user, also with `env_mode = "clean"`. `env_file` and `env`
win.

## Numbers that become text

A number keeps its text where it becomes text: in `env`, `labels`, `command`, templates and the names of matrix cells.
`1.10` stays `1.10`, `0777` stays `0777`. A `umask` is text of octal digits, `"027"`; a number is an error unless it is
written as octal, `0o27`.

## Caps

One file and all files together: 8 MiB. Depth: 50. Jobs: 20 000. `RPR_MAX_FILE_SIZE`, `RPR_MAX_TOTAL_SIZE`,
`RPR_MAX_DEPTH` and `RPR_MAX_JOBS` change them.

A running supervisor has changed files read by a process of its own, which may use 512 MiB and 10 s of CPU time; by the
clock six times as long, and half a minute at least. `RPR_MAX_RELOAD_MEMORY` and `RPR_MAX_RELOAD_TIME` change that. What
exceeds it is an error like any other: nothing changes.
"""
_SECTIONS = (
    ("schedule_every", "schedule = { every = … }"),
    ("schedule_cron", "schedule = { cron = … }"),
    ("schedule_at", "schedule = { at = … }"),
    ("schedule_watch", "schedule = { watch = … }"),
    ("schedule_backoff", "schedule = { backoff = … }"),
    ("schedule_rate", "schedule = { rate = … }"),
    ("adaptive", "schedule = { adaptive = { … } }"),
    ("load", "schedule = { load = { … } }"),
    ("schedule_plugin", "schedule = { plugin = … }"),
    ("http_aware", "http_aware = { … }"),
    ("probe", "ready and live"),
    ("need", "needs = { NAME = … }"),
)


def reference() -> str:
    """The whole page, as Markdown."""
    whole = schema()
    parts = [
        _HEAD,
        *_section("The file", whole),
        *_section("A limit", whole["properties"]["limits"]["additionalProperties"]),
        *_section("A pool", whole["properties"]["pools"]["additionalProperties"]),
    ]
    keys = whole["definitions"]["keys"]
    parts += _section("A job", keys)
    for key, node in keys["properties"].items():
        if "properties" in node:
            parts += _section(f"`{key}` of a job", node)
    parts += _section("A parameter of a template", keys["properties"]["params"]["additionalProperties"])
    for name, title in _SECTIONS:
        parts += _section(f"`{title}`" if "=" in title else title, whole["definitions"][name])
    return "\n".join([*parts, _TAIL])


def _section(title: str, node: Any) -> Iterator[str]:
    yield f"\n## {title}\n\n| key | meaning | value | default | example |\n|---|---|---|---|---|"
    for key, given in node["properties"].items():
        one = _annotated(given)
        default = "" if "default" not in one else f"`{_cell(toml_value(one['default']))}`"
        value = _cell(_value(one))
        meaning, example = _cell(one["description"]), f"`{_cell(toml_value(one['examples'][0]))}`"
        yield f"| `{key}` | {meaning} | {value} | {default} | {example} |"


def _annotated(node: Any) -> Any:
    """The node with the annotations of what it refers to, its own first."""
    if "$ref" not in node:
        return node
    target = _annotated(schema()["definitions"][node["$ref"].rpartition("/")[2]])
    return {**{key: target[key] for key in ("description", "default", "examples") if key in target}, **node}


def _value(node: Any) -> str:
    """What a key may hold, in words."""
    target = _resolved(node)
    if "enum" in target:
        return ", ".join(f"`{toml_value(one)}`" for one in target["enum"] if not str(one).startswith("SIG"))
    title = str(target.get("title", ""))
    if title[:1].islower() or title.startswith("`"):
        return title
    kinds = target.get("type", "object")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    words = {
        "object": "table",
        "array": "list",
        "integer": "whole number",
        "boolean": "`true`, `false`",
        "string": "text",
    }
    found = [words.get(kind, str(kind)) for kind in kinds if kind != "string" or target.get("pattern") != "\\{[{%]"]
    low, high = target.get("minimum"), target.get("maximum")
    span = f" from {low} to {high}" if low is not None and high is not None else ""
    return " or ".join(found) + span


def _resolved(node: Any) -> Any:
    merged = dict(node)
    while "$ref" in merged:
        target = schema()["definitions"][merged.pop("$ref").rpartition("/")[2]]
        merged = {**target, "description": merged.get("description", target.get("description"))}
    return merged


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
