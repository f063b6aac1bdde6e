"""Validates tables with the schema and makes messages for all faults. The only module that imports jsonschema.

jsonschema needs 0.2 ms per job, so it is used only for tables that are not certainly valid (`jobfile.fast_schema`).
Messages contain the found value, the allowed values, and the nearest name for an unknown key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from repeater._lazy_dataclasses import dataclass
from repeater.jobfile.document import Path, describe, has_template, join_key, quote_value
from repeater.jobfile.fast_schema import Sure, compile_fast_check
from repeater.jobfile.schema import schema

HOW = ("extends", "with", "params", "matrix", "unset")
"""The keys that control the expansion of a job."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A violation of the schema by the value at `path`, with the text of a message and of a hint."""

    path: Path
    message: str
    hint: str | None = None


def check_shell(data: Mapping[str, Any], *, included: bool = False) -> Iterator[Fault]:
    """The faults of a document before expansion, without its jobs, which are checked after expansion.

    Values with templates are not checked.
    """
    shell = dict(data)
    if included and "project" in shell:
        yield Fault(("project",), "found `project` in an included file, expected it in the first file only")
        del shell["project"]
    jobs = shell.pop("jobs", {})
    for fault in () if _sure("#")(shell) else _faults(shell, "#"):
        if not _held_by_template(shell, fault.path):
            yield fault
    if not isinstance(jobs, dict):
        cause = f"found {describe(jobs)}, expected a table of jobs by name"
        yield Fault(("jobs",), cause, _form(("jobs",), jobs, {}))
        return
    names = _sure("#/definitions/job_name")
    for name, job in jobs.items():
        if not names(name):
            yield Fault(
                ("jobs", name),
                f"found the name `{quote_value(name)}`, expected {_describe_definition('job_name')}",
                _name(name),
            )
        if not isinstance(job, dict):
            cause = f"found {describe(job)}, expected a job: a table with a `command`"
            yield Fault(("jobs", name), cause, _form(("jobs", name), job, {}))


def check_strategy(job: Mapping[str, Any]) -> Iterator[Fault]:
    """The faults of the keys that control the expansion of a job, which its expanded table does not contain."""
    how = {key: job[key] for key in HOW if key in job}
    if how and not _sure("#/definitions/job")({"command": "x", **how}):
        for fault in _faults({"command": "x", **how}, "#/definitions/job"):
            if not _held_by_template(how, fault.path):
                yield fault


@cache
def inherited_keys() -> frozenset[str]:
    """The keys that a job may inherit from `defaults` or from a template."""
    return frozenset(schema()["definitions"]["keys"]["properties"]) - set(HOW) - {"moved_from"}


def admits_text(path: tuple[str, ...], text: str) -> bool:
    """Whether the key at `path`, from the top of the file, may have this text as its value."""
    return _sure_at(schema(), path)(text)


def _sure_at(node: Any, path: tuple[str, ...]) -> Sure:
    while "$ref" in node:
        node = _at(node["$ref"])
    if not path:
        return compile_fast_check(node, _sure)
    below = [node.get("properties", {}).get(path[0])]
    more = node.get("additionalProperties")
    if below == [None]:
        below = [more if isinstance(more, dict) else None]
    parts = [one for one in below if one is not None]
    for one in node.get("allOf", ()):
        return _sure_at(one, path) if not parts else _sure_at(parts[0], path[1:])
    return _sure_at(parts[0], path[1:]) if parts else lambda _: True


def check_job(table: Mapping[str, Any]) -> Iterator[Fault]:
    """The faults of a complete job."""
    if not _sure("#/definitions/job")(table):
        yield from _faults(table, "#/definitions/job")


def check_keys(rule: Mapping[str, Any], keys: Mapping[str, Any]) -> Iterator[Fault]:
    """The faults of a plugin's keys by the plugin's schema. Unknown keys are faults unless the schema allows them."""
    found: dict[tuple[Path, str], Fault] = {}
    for error in _draft7({"additionalProperties": False, "properties": {}, **rule}).iter_errors(keys):
        for fault in _as_problem(error):
            found.setdefault((fault.path, fault.message), fault)
    yield from found.values()


def check_rule(rule: Any) -> str | None:
    """The problem of a plugin's schema; None if it is valid."""
    import jsonschema

    try:
        jsonschema.Draft7Validator.check_schema(rule)
    except jsonschema.SchemaError as error:
        place = ".".join(map(str, error.absolute_path))
        return f"its schema is not a draft-07 schema: {place + ': ' if place else ''}{error.message}"
    if not isinstance(rule, dict) or rule.get("type", "object") != "object":
        return "its schema does not describe a table"
    if "$ref" in json.dumps(rule):
        try:
            list(_draft7(rule).iter_errors({}))
        except Exception as error:  # noqa: BLE001 - of several libraries
            return f"its schema has an unknown `$ref`: {error}"
    return None


def _draft7(rule: Mapping[str, Any]) -> Any:
    """A validator that never loads remote references."""
    import jsonschema
    import referencing

    return jsonschema.Draft7Validator(rule, registry=referencing.Registry())


@cache
def _sure(pointer: str) -> Sure:
    return compile_fast_check(_at(pointer), _sure)


def _at(pointer: str) -> Any:
    node: Any = schema()
    for part in pointer.removeprefix("#").split("/")[1:]:
        node = node[part]
    return node


def _held_by_template(tree: Any, path: Path) -> bool:
    for part in path:
        tree = join_key(tree, part)
        if isinstance(tree, str) and has_template(tree):
            return True
    return False


# --- faults, in words -------------------------------------------------------------------------------------------


@cache
def _validator(pointer: str) -> Any:
    import jsonschema

    whole = schema()
    if pointer != "#":
        whole = {"$schema": whole["$schema"], "$ref": pointer, "definitions": whole["definitions"]}
    return jsonschema.Draft7Validator(whole)


def _faults(value: Any, pointer: str) -> Iterator[Fault]:
    found: dict[tuple[Path, str], Fault] = {}
    for error in _validator(pointer).iter_errors(value):
        for fault in _as_problem(error):
            if fault.hint is None and fault.path == tuple(error.absolute_path):
                hint = _form(fault.path, error.instance, error.schema)
                fault = Fault(fault.path, fault.message, hint)  # noqa: PLW2901
            found.setdefault((fault.path, fault.message), fault)
    yield from found.values()


def _form(path: Path, found: Any, schema_: Mapping[str, Any]) -> str | None:
    from repeater.jobfile.values import value_hint

    return value_hint(path, found, schema_)


def _name(name: Any) -> str | None:
    from repeater.jobfile.values import name_hint

    return name_hint(name)


def _as_problem(error: Any) -> Iterator[Fault]:
    path: Path = tuple(error.absolute_path)
    rule, value, found = error.validator, error.validator_value, error.instance
    title = error.schema.get("title", "")
    words = title if title.startswith("`") or title[:1].islower() else ""
    if "propertyNames" in error.absolute_schema_path:
        yield _bad_name(error, path, words)
    elif rule == "additionalProperties":
        known = error.schema.get("properties", {})
        beside = next(
            (
                key
                for key in ("every", "cron", "at", "watch", "backoff", "rate", "adaptive", "load", "plugin")
                if key in known
            ),
            None,
        )
        for key in sorted(set(found) - set(known)):
            also = (
                f" beside `{beside}`" if beside and "/then/" in "/".join(map(str, error.absolute_schema_path)) else ""
            )
            yield Fault(
                (*path, key), f"unknown key `{quote_value(key)}`{also}", _key_hint(key, found[key], known, path)
            )
    elif rule == "anyOf" and all("required" in one for one in value):
        yield Fault(path, f"missing `{value[0]['required'][0]}`")
    elif rule == "required":
        missing = next(key for key in value if key not in found)
        yield Fault(path, f"missing `{missing}`")
    elif rule == "enum":
        allowed = [one for one in value if not str(one).startswith("SIG")]
        import difflib

        cause, hint = f"found {describe(found)}, expected {_one_of_message(allowed)}", _form(path, found, error.schema)
        near = difflib.get_close_matches(str(found), map(str, value), 1)
        yield Fault(path, cause, hint or (f"did you mean `{near[0]}`?" if near else None))
    elif rule in ("minimum", "maximum") and not words:
        low, high = error.schema.get("minimum"), error.schema.get("maximum")
        yield Fault(path, f"found {describe(found)}, expected a number from {low} to {high}")
    elif rule == "maximum":
        yield Fault(path, f"found {describe(found)}, expected at most `{value}`")
    elif rule in ("minItems", "maxItems") and not words:
        yield Fault(
            path,
            f"found {describe(found)} of {len(found)}, "
            f"expected {'at least' if rule == 'minItems' else 'at most'} {value}",
        )
    elif rule == "type" and not words:
        yield Fault(path, f"found {describe(found)}, expected {_types(value)}")
    else:
        empty = rule == "minItems" and not found
        is_choice = rule == "oneOf" and isinstance(found, dict)
        given = [key for one in value for key in one.get("required", ()) if key in found] if is_choice else []
        named = " and ".join(f"`{key}`" for key in given) if len(given) > 1 else describe(found)
        hint = _duration_hint(str(found)) if _is_duration(error.schema) else None
        expected = words or _pattern_words(error)
        yield Fault(path, f"found {'an empty list' if empty else named}, expected {expected}", hint)


def _bad_name(error: Any, path: Path, words: str) -> Fault:
    name = error.instance
    if error.validator == "not":
        return Fault((*path, name), f"found `{quote_value(name)}`, expected {words}")
    if error.validator == "enum":
        return Fault(
            (*path, name),
            f"unknown {words.removeprefix('a ')} `{quote_value(name)}`",
            _allowed_keys(name, error.validator_value),
        )
    return Fault(
        (*path, name),
        f"found the name `{quote_value(name)}`, expected {words}",
        _name(name) if "letters" in words else None,
    )


def _duration_hint(text: str) -> str | None:
    from repeater.jobfile.hints import duration_hint

    return duration_hint(text)


def _is_duration(node: Mapping[str, Any]) -> bool:
    return any(node is one for name, one in schema()["definitions"].items() if name.startswith("duration"))


def _key_hint(key: str, value: Any, known: Any, path: Path) -> str | None:
    """The hint for an unknown key: the equivalent of a key of another program, the nearest name, or the table to which
    the key belongs.
    """
    import difflib

    from repeater.jobfile.foreign import foreign_key
    from repeater.jobfile.hints import key_hint

    hint = foreign_key(key, value, _table_at(known, path))
    if hint is not None:
        return hint
    near = difflib.get_close_matches(key, known, 1, 0.85)
    if near:
        return f"did you mean `{near[0]}`?"
    return key_hint(key, known) or _allowed_keys(key, known)


def _table_at(known: Any, path: Path) -> str:
    """The name by which `foreign` knows the table that has the keys `known`."""
    if "jobs" in known:
        return "top"
    if "command" in known:
        return "job"
    if path and path[0] in ("limits", "pools") and len(path) == 2:
        return str(path[0])[:-1]
    if "needs" in path[-2:-1]:
        return "need"
    return str(path[-1]) if path else ""


def _allowed_keys(key: str, known: Any) -> str | None:
    import difflib

    begin_so = [one for one in known if one.startswith(f"{key}_")]
    near = begin_so if len(begin_so) == 1 else difflib.get_close_matches(key, known, 1, 0.7)
    if near:
        return f"did you mean `{near[0]}`?"
    return f"known: {', '.join(f'`{one}`' for one in sorted(known))}" if 0 < len(known) <= 12 else None


def _one_of_message(values: list[Any]) -> str:
    words = [describe(value) for value in values]
    return words[0] if len(words) == 1 else "one of " + ", ".join(words)


def _types(value: Any) -> str:
    names = {"object": "a table", "array": "a list", "string": "text", "integer": "a whole number",
             "number": "a number", "boolean": "`true` or `false`"}  # fmt: skip
    return " or ".join(names[one] for one in ([value] if isinstance(value, str) else value))


def _pattern_words(error: Any) -> str:
    return (
        f"a value like {_one_of_message(error.schema['examples'])}" if error.schema.get("examples") else "another value"
    )


def _describe_definition(definition: str) -> str:
    return str(schema()["definitions"][definition]["title"])
