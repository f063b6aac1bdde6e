"""Generates the reference of all keys from the schema: `rpr schema --format markdown`, docs/reference/job-file.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from repeater.jobfile.schema import schema
from repeater.jobfile.write import toml_value

_HEAD = """\
# The keys of a job file

`rpr schema --format markdown` writes this page from the schema. TOML (1.1), YAML (1.2 core) and JSON have the same
keys.

- Durations: `500ms`, `30s`, `1h30m`, `2d`, `1w`. A bare number is an error.
- Sizes: `10MB`, `64KiB`.
- Unknown keys are errors.
- Relative paths start at the directory of the first file.
- Precedence, from the weakest: built-in default, `defaults`, templates, the job, `--set`.
"""
_TAIL = """
## Templates

Every text may contain Jinja2: `{{ … }}`, `{% if … %}`, one level of `{% for … %}`. A text that is one expression keeps
the type of its value: `"{{ vars.regions }}"` is a list. To write `{{` itself, use `{{ '{{' }}`.

| name | meaning |
|---|---|
| `vars.NAME` | a variable; inside `vars`, only variables above it |
| `env("NAME", default)` | a variable of the environment of `rpr` |
| `params.NAME` | in templates: a parameter |
| `matrix.NAME` | in jobs with a matrix: the value of the cell |
| `job.name`, `job.group` | the name of the job, and the name without its cell |
| `project` | the project |
| `run.nominal`, `run.due`, `run.attempt`, `run.id`, `run.trigger` | the run; only in `command`, `env`, `cwd`, `stdin` |

Additional filters: `sh` quotes for the shell, `date("%F")` formats an instant, `tojson` writes JSON. A result may have
at most 1 MiB. Reading job files may take 10 s of CPU time, including all templates. `RPR_MAX_RELOAD_TIME` changes this
limit.

Templates that use `run` are rendered when the run starts. A template that only reads fields of `run` is rendered in
the supervisor. It may use literals and the filters `date`, `sh`, `tojson` and `default`. Any other template is rendered
in
a
separate process. All templates of one run may take 250 ms of CPU time together. If they take longer, the slot fails:
`cannot render …`.

## Env files

An `env_file` contains lines `NAME=value`. The format is that of docker compose without interpolation: `$` is an
ordinary character.

- A line is `NAME=value` or `NAME: value`. Blanks around the separator and `export` before the name are ignored. Names
  consist of letters, digits, `_`, `.` and `-`, and do not begin with a digit. Lines end with LF, CRLF or CR.
- Blank lines and lines that begin with `#` are comments.
- Without quotes, the value is the rest of the line without trailing blanks. A `#` after a blank begins a comment.
  Quotes and backslashes inside the value are ordinary characters.
- In single quotes every character is text, including line ends. Only `\\'` is a quote.
- In double quotes `\\a \\b \\f \\n \\r \\t \\v \\\\ \\" \\$` and `\\0` with up to three octal digits are
  escapes. Any other backslash stays: `"^\\d+$"` is `^\\d+$`. The value may span lines.
- After a closing quote only blanks and a comment may follow.
- The last value of a name counts. A name without a separator is an error. No value is taken from the environment of
  `rpr`.

The test tables of compose-go and python-dotenv give the same values, with three exceptions. `$NAME` is not expanded.
A name has no quotes and no brackets. The first wrong line is an error.

`env_file = { path = "local.env", required = false }` names a file that may be missing. The file is read once it exists.

## Users

A job with `user` gets HOME, USER, LOGNAME and SHELL of that user, also with `env_mode = "clean"`. `env_file` and `env`
override them.

## Numbers that become text

A number keeps its spelling where it becomes text: in `env`, `labels`, `command`, templates and the names of matrix
cells. `1.10` stays `1.10`, `0777` stays `0777`. A `umask` is a text of octal digits, `"027"`. A number is an error,
unless it is written in octal notation: `0o27`.

## Size limits

| limit | value | variable |
|---|---|---|
| one file | 8 MiB | `RPR_MAX_FILE_SIZE` |
| all files together | 8 MiB | `RPR_MAX_TOTAL_SIZE` |
| nesting depth | 50 | `RPR_MAX_DEPTH` |
| jobs | 20 000 | `RPR_MAX_JOBS` |
| memory of a reload | 512 MiB | `RPR_MAX_RELOAD_MEMORY` |
| CPU time of a reload | 10 s | `RPR_MAX_RELOAD_TIME` |

A running supervisor reads changed files in a separate process, which has the last two limits. A reload may take six
times its CPU limit in real time, and at least 30 s. A reload that exceeds a limit is an error: the active jobs do not
change.
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
    ("keep", "output.keep = { … }"),
    ("probe", "ready and live"),
    ("need", "needs = { NAME = … }"),
)


def reference() -> str:
    """Returns the page as Markdown."""
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
    """Returns the node with the annotations of its `$ref`; its own annotations take precedence."""
    if "$ref" not in node:
        return node
    target = _annotated(schema()["definitions"][node["$ref"].rpartition("/")[2]])
    return {**{key: target[key] for key in ("description", "default", "examples") if key in target}, **node}


def _value(node: Any) -> str:
    """Describes the values that a key accepts."""
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
