"""Expands documents to one complete table per job: variables, defaults, templates, matrix, `--set`.

A job has several layers, the weakest first: defaults, templates, the job itself, `--set`. Each layer is rendered with
the names that it can use; then the layers are merged, tables key by key. The layers are kept, so `origin` can find the
file and line of each value on demand. This module interprets only the keys `extends`, `with`, `params`, `matrix` and
`unset`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from repeater.errors import Problem, Severity
from repeater.jobfile.document import (
    Document,
    Findings,
    InputLimits,
    JsonText,
    Path,
    describe,
    dotted,
    has_template,
    join_key,
    omit,
    quote_value,
)
from repeater.jobfile.layers import ExpandedJob, Layer, merge, taken_back
from repeater.jobfile.matrix import BadMatrix, parse_cell, unfold
from repeater.jobfile.parse import check_tree
from repeater.jobfile.project import NameProject, name_project
from repeater.jobfile.template import Environ, Names, TemplateFailed, render
from repeater.jobfile.validate import admits_text, inherited_keys

if TYPE_CHECKING:
    from repeater.model.spec import JobSpec

TOP = ("project", "include", "vars", "defaults", "limits", "pools", "templates", "jobs")
_HOW = ("extends", "with", "params", "matrix", "unset")


class Expansion:
    """All documents of a job file, merged. Yields its jobs one by one. Problems are added to `findings`."""

    def __init__(
        self,
        documents: list[Document],
        findings: Findings,
        *,
        settings: Mapping[str, str],
        environ: Mapping[str, str],
        caps: InputLimits,
        folder: str,
        name: NameProject = name_project,
    ) -> None:
        self.problems = findings
        self.documents = [document for document in documents if isinstance(document.data, dict)]
        self.caps = caps
        self.jobs: dict[str, tuple[Document, Any]] = {}
        self.templates: dict[str, tuple[Document, Any]] = {}
        self.pools: dict[str, tuple[Document, Any]] = {}
        self.limits: dict[str, tuple[Document, Any]] = {}
        for document in self.documents:
            self._collect(document, "jobs", self.jobs)
            self._collect(document, "templates", self.templates)
            self._collect(document, "pools", self.pools)
            self._collect(document, "limits", self.limits)
        self.set = self._settings(settings)
        self.environ = Environ(environ)
        self.torn: set[Path] = (
            set()
        )  # jobs and templates with a missing template; their further problems are not reported
        self.project = name(self._project(), folder)
        self.names: dict[str, Any] = {"env": self.environ, "project": self.project}
        self.names["vars"] = self._variables()
        self.defaults = self._defaults()

    # --- problems and origins ---

    def report(
        self, document: Document, path: Path, message: str, hint: str | None = None, severity: Severity = "error"
    ) -> None:
        self.problems.add(document.problem(path, message, hint, severity))

    def origin(self, layers: tuple[Layer, ...], path: Path) -> Layer:
        """The layer of the value at `path` of a job, or the nearest one."""
        best, depth = layers[-1 if layers[-1].kind == "job" else -2], -1
        for layer in reversed(layers):
            reached = _reach(layer.raw, path)
            if reached > depth:
                best, depth = layer, reached
        return best

    def problem_of(self, spec: JobSpec, path: Path, message: str, hint: str | None, severity: Severity) -> Problem:
        """A problem with a value of a built job."""
        job = next((one for one in self.cells(spec.group) if one.name == spec.name), None)
        if job is None:
            return self.jobs[spec.group][0].problem(("jobs", spec.group, *path), message, hint, severity)
        layer = self.origin(job.layers, path)
        return layer.document.problem((*layer.base, *path), message, hint, severity)

    def report_job(
        self, job: ExpandedJob, path: Path, message: str, hint: str | None = None, severity: Severity = "error"
    ) -> None:
        """Add a problem with a value of a job; its position is the line that sets this value."""
        layer = self.origin(job.layers, path)
        self.report(layer.document, (*layer.base, *path), message, hint, severity)

    # --- the whole file ---

    def _collect(self, document: Document, key: str, into: dict[str, tuple[Document, Any]]) -> None:
        table = document.data.get(key)
        if not isinstance(table, dict):
            return
        for name, value in table.items():
            if name in into:
                other = into[name][0]
                line, _ = other.position((key, name))
                what = key[:-1]
                self.report(
                    document, (key, name), f"the {what} `{quote_value(name)}` is already defined in {other.name}:{line}"
                )
            else:
                into[name] = (document, value)

    def _project(self) -> str | None:
        """The value from the job files; None if there is none. An included file must not contain the key."""
        own = (document for document in self.documents if document.included_by is None)
        named = [document for document in own if isinstance(document.data.get("project"), str)]
        for document in named[1:]:
            first, name = named[0].data["project"], document.data["project"]
            if name != first:
                line, _ = named[0].position(("project",))
                self.report(
                    document,
                    ("project",),
                    f"found `{quote_value(name)}`, but {named[0].name}:{line} has `{quote_value(first)}`",
                    "all files of one command belong to one project",
                )
        return str(named[0].data["project"]) if named else None

    def _settings(self, settings: Mapping[str, str]) -> Document:
        """`--set` as an additional, last document: a key of the file, or else the name of a variable."""
        data: dict[str, Any] = {}
        document = Document("--set", data, dict)
        for key, text in settings.items():
            path = self._setting_path(key)
            if not all(path):
                self.problems.add(
                    Problem("--set", 0, 0, key, "found an empty part in the key, expected words with dots")
                )
                continue
            if path[0] == "vars":
                self._check_variable(document, path)
            table = data
            for part in path[:-1]:
                table = table.setdefault(part, {}) if isinstance(table.get(part, {}), dict) else {}
            try:
                table[path[-1]] = self._setting_value(path, text)
            except ValueError as error:
                self.problems.add(Problem(document.name, 0, 0, dotted(path), str(error)))
        for name in data.get("jobs", {}):
            if name not in self.jobs:
                self.report(document, ("jobs", name), f"unknown job `{quote_value(name)}`", nearest(name, self.jobs))
        check_tree(document, self.caps.depth)
        self.documents.append(document)
        return document

    def _check_variable(self, document: Document, path: tuple[str, ...]) -> None:
        """Reports a variable that no file declares, unless a template uses it."""
        known: dict[str, Any] = {}
        for one in self.documents:
            declared = one.data.get("vars")
            known = merge(known, declared) if isinstance(declared, dict) else known
        for depth, part in enumerate(path[1:], 2):
            if part not in known:
                if not any(_mentions(one.data, part) for one in self.documents):
                    hint = nearest(part, known) or f'declare it in `vars`: `{dotted(path[1:depth])} = ""`'
                    name = dotted(path[1:depth])
                    self.report(document, path[:depth], f"there is no variable `{quote_value(name)}`", hint)
                return
            below = known[part]
            if not isinstance(below, dict):
                return
            known = below

    def _setting_path(self, key: str) -> tuple[str, ...]:
        head, _, rest = key.partition(".")
        if head == "jobs":
            for name in sorted(self.jobs, key=len, reverse=True):
                if rest.startswith(f"{name}."):
                    return ("jobs", name, *rest.removeprefix(f"{name}.").split("."))
        path = tuple(key.split("."))
        return path if head in TOP else ("vars", *path)

    def _setting_value(self, path: tuple[str, ...], text: str) -> Any:
        """The value of an assignment: the JSON value of `--set-json`, or the text of `--set`.

        `--set` converts the text to a number or boolean if the file has one there, or if the schema allows no text.
        Raises ValueError if the schema requires a list or a table.
        """
        if isinstance(text, JsonText):
            try:
                return json.loads(text)
            except (ValueError, RecursionError):
                raise ValueError(f"found `{quote_value(text)}`, expected a value in JSON") from None
        old: Any = None
        for document in self.documents:
            found: Any = document.data
            for part in path:
                found = found.get(part) if isinstance(found, dict) else None
            old = old if found is None else found
        if path[0] == "vars" and isinstance(old, list | dict):
            key = dotted(path[1:])
            raise ValueError(
                f"found the text `{quote_value(text)}` for a variable that is {describe(old)} in the file, expected "
                f"`--set-json '{key}={'[…]' if isinstance(old, list) else '{…}'}'`"
            )
        is_number = isinstance(old, bool | int | float) if path[0] == "vars" else not admits_text(path, text)
        if is_number:
            with suppress(ValueError, RecursionError):
                value = json.loads(text)
                if isinstance(value, bool | int | float):
                    return value
        return text

    def _variables(self) -> Names:
        merged: dict[str, tuple[Document, Any]] = {}
        for document in self.documents:
            table = document.data.get("vars")
            for name, value in table.items() if isinstance(table, dict) else ():
                old = merged.get(name)
                both = old is not None and isinstance(old[1], dict) and isinstance(value, dict)
                merged[name] = (document, merge(old[1], value) if both and old else value)
        values = Names("vars", {})
        for name, (document, value) in merged.items():
            names = {"env": self.environ, "project": self.project, "vars": values}
            values[name] = self._rendered(value, names, document, ("vars", name))
        return values

    def _defaults(self) -> list[Layer]:
        return [
            Layer("defaults", document, ("defaults",), document.data["defaults"], self.names)
            for document in self.documents
            if isinstance(document.data.get("defaults"), dict)
        ]

    # --- the jobs ---

    def expand(self) -> Iterator[ExpandedJob]:
        """All jobs, in the order of the files. A job that cannot be expanded is reported and omitted."""
        left = self.caps.jobs
        for name, (document, raw) in self.jobs.items():
            if not isinstance(raw, dict):
                continue  # the schema says what is wrong
            for job in self.cells(name):
                left -= 1
                if left < 0:
                    self.report(document, ("jobs", name), f"more than {self.caps.jobs} jobs, the limit")
                    return
                yield job

    def cells(self, name: str) -> Iterator[ExpandedJob]:
        """The jobs of one entry of `jobs`: one job, or the cells of its matrix."""
        document, raw = self.jobs[name]
        own = Layer("job", document, ("jobs", name), raw, self.names)
        over = self.set.data.get("jobs", {}).get(name)
        top = (Layer("--set", self.set, ("jobs", name), over, self.names),) if isinstance(over, dict) else ()
        written = merge(raw, over) if top else raw
        matrix = written.get("matrix")
        cell = parse_cell(name) if name[-1:] == "]" else None
        if cell is not None or not isinstance(matrix, dict):
            group, pairs = cell or (name, ())
            parallel = matrix.get("max_parallel") if isinstance(matrix, dict) else None
            job = ExpandedJob(name, group, pairs, {}, (own, *top), parallel)
            yield self._filled(job, written, dict(pairs))
            return
        try:
            rendered = self._rendered(matrix, {**self.names, "matrix": None}, document, ("jobs", name, "matrix"))
            cells = unfold(rendered, self.caps.jobs)
        except BadMatrix as error:
            self.report(document, ("jobs", name, "matrix", *error.path), error.message)
            return
        even = rendered.get("stagger") == "even"
        for number, one in enumerate(cells):
            yield self._filled(ExpandedJob(
                one.name(name), name, one.axes, {}, (own, *top), rendered.get("max_parallel"),
                (number, len(cells)) if even else None, True,
            ), written, one.values)  # fmt: skip

    def _filled(self, job: ExpandedJob, written: dict[str, Any], matrix: Mapping[str, Any]) -> ExpandedJob:
        """The job with its layers and the merged table."""
        names = self.names
        own = job.layers
        has_names = self.defaults or matrix or "extends" in written or has_template(written)
        if not has_names and "with" not in written:
            job.table = {key: one for key, one in written.items() if key not in _HOW}
            return job
        if has_names:
            names = {**names, "job": Names("job", {"name": job.name, "group": job.group})}
            names["matrix"] = Names("matrix", matrix)
            own = tuple(Layer(one.kind, one.document, one.base, one.raw, names) for one in own)
        defaults = [Layer(one.kind, one.document, one.base, one.raw, names) for one in self.defaults]
        templates: list[Layer] = []
        if "extends" in written or "with" in written:
            templates = self._templates(written, own[0], names)
        layers = (*defaults, *templates, *own)
        table: dict[str, Any] = {}
        for layer in layers:
            rendered = self._rendered(layer.raw, layer.names, layer.document, layer.base, skip=_HOW, spread=True)
            if "unset" in layer.raw:
                table = self._unset(table, layer)
            table = merge(table, rendered) if table else rendered
        for key in _HOW:
            table.pop(key, None) if key in table else None
        job.table, job.layers = table, layers
        return job

    def _unset(self, table: dict[str, Any], layer: Layer) -> dict[str, Any]:
        """The table of the weaker layers without the keys that this layer unsets."""
        for number, path in taken_back(layer):
            if path[:1] and path[0] in inherited_keys():
                table = omit(table, path)
            else:
                at = (*layer.base, "unset") + ((number,) if isinstance(layer.raw["unset"], list) else ())
                expected = "a key that a job may inherit, such as `limit` or `env.NAME`"
                cause = f"found `{quote_value(dotted(path))}`, expected {expected}"
                self.report(layer.document, at, cause, nearest(str(path[0]) if path else "", inherited_keys()))
        return table

    def _rendered(
        self,
        value: Any,
        names: Mapping[str, Any],
        document: Document,
        path: Path,
        skip: tuple[str, ...] = (),
        *,
        spread: bool = False,
    ) -> Any:
        """The value with all templates rendered. A text that fails is reported and not changed.

        `spread`: a list item that is one expression with a list as its value is replaced by the items of that list.
        This is not done in the keys of a plugin.
        """
        if isinstance(value, str):
            if not has_template(value):
                return value
            try:
                return render(value, names)
            except TemplateFailed as error:
                self.report(document, path, f"cannot render `{quote_value(value)}`: {error}", error.hint)
                return value
        if isinstance(value, dict):
            if not has_template(value):
                return {key: one for key, one in value.items() if key not in skip} if skip else value
            spread = spread and "plugin" not in value
            return {
                key: self._rendered(
                    one, names, document, (*path, key), spread=spread and key not in ("executor", "plugins")
                )
                for key, one in value.items()
                if key not in skip
            }
        if isinstance(value, list) and has_template(value):
            items: list[Any] = []
            for number, one in enumerate(value):
                item = self._rendered(one, names, document, (*path, number))
                items += item if spread and isinstance(one, str) and isinstance(item, list) else [item]
            return items
        return value

    # --- templates ---

    def _templates(self, written: Mapping[str, Any], own: Layer, names: Mapping[str, Any]) -> list[Layer]:
        found: list[Layer] = []
        known: dict[str, None] = {}
        given = written.get("with", {})
        given = self._rendered(given, names, own.document, (*own.base, "with")) if isinstance(given, dict) else {}
        self._extend(written.get("extends"), own, given, names, (), found, known)
        for name in given:
            if name not in known:
                cause = f"`{quote_value(name)}` is not a parameter of the template"
                self.report(own.document, (*own.base, "with", name), cause, nearest(name, known))
        return found

    def _extend(
        self, extends: Any, user: Layer, given: Mapping[str, Any], names: Mapping[str, Any], chain: tuple[str, ...],
        found: list[Layer], known: dict[str, None],
    ) -> None:  # fmt: skip
        """Add the layers of the templates that `user` extends, after the layers that those templates extend."""
        for name in [extends] if isinstance(extends, str) else extends if isinstance(extends, list) else ():
            at = (*user.base, "extends")
            if not isinstance(name, str) or name not in self.templates:
                self.report(user.document, at, f"unknown template {describe(name)}", nearest(str(name), self.templates))
                self.torn.add(user.base)
                continue
            if name in chain:
                circle = " -> ".join([*chain[chain.index(name) :], name])
                self.report(user.document, at, f"template cycle: {circle}")
                continue
            document, raw = self.templates[name]
            if not isinstance(raw, dict):
                continue  # the schema says what is wrong
            base = ("templates", name)
            declared = raw.get("params", {})
            declared = declared if isinstance(declared, dict) else {}
            known.update(dict.fromkeys(declared))
            values = Names("params", {})
            for key, declaration in declared.items():
                rule = declaration if isinstance(declaration, dict) else {}
                if key in given:
                    values[key] = given[key]
                elif "default" in rule:
                    values[key] = self._rendered(rule["default"], names, document, (*base, "params", key, "default"))
                elif rule.get("required"):
                    self.report(user.document, at, f"the template `{name}` requires the parameter `{quote_value(key)}`",
                                f"set it with `with = {{ {key} = … }}`")  # fmt: skip
                    values[key] = ""
            inner = {**names, "params": values}
            layer = Layer(f"template {name}", document, base, raw, inner)
            if "extends" in raw:
                passed = self._rendered(raw.get("with", {}), inner, document, (*base, "with"))
                if not isinstance(passed, dict):
                    passed = {}
                # A template may pass a different value to another template under the same parameter name.
                passed = {
                    **passed,
                    **{key: value for key, value in given.items() if key not in declared or key not in passed},
                }
                self._extend(raw["extends"], layer, passed, names, (*chain, name), found, known)
            found.append(layer)


def _mentions(tree: Any, name: str) -> bool:
    """Whether a template in the tree contains this word."""
    if isinstance(tree, dict):
        return any(_mentions(one, name) for one in tree.values())
    if isinstance(tree, list):
        return any(_mentions(one, name) for one in tree)
    return isinstance(tree, str) and has_template(tree) and re.search(rf"\b{re.escape(name)}\b", tree) is not None


def nearest(name: str, names: Any) -> str | None:
    """A hint with the most similar name, or with all names."""
    if len(names) > 200:  # difflib takes 10 us for each
        alike = (
            one for one in names if abs(len(one) - len(name)) < 3 and (one[:3] == name[:3] or one[-3:] == name[-3:])
        )
        names = list(islice(alike, 200))
    import difflib

    near = difflib.get_close_matches(name, names, 1, 0.5)
    return f"did you mean `{near[0]}`?" if near else None


def _reach(tree: Any, path: Path) -> int:
    """The number of leading parts of `path` that exist in the tree."""
    for number, part in enumerate(path):
        if not (part in tree if isinstance(tree, dict) else join_key(tree, part) is not None):
            return number
        tree = join_key(tree, part)
    return len(path)


__all__ = ["Expansion", "nearest"]
