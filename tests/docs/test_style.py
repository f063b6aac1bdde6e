"""Plain English in help, messages, docs, schema descriptions, docstrings and comments. CONTRIBUTING has the guide.

The patterns find calques, personified processes and sentences without a verb. `NOT_YET` lists what is still to be
rewritten; a new file is not added to it.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click

from repeater.cli.commands import COMMANDS, ONE_OFF
from repeater.cli.oneoff.options import COMMANDS as ONE_OFF_COMMANDS
from tests.docs.pages import PAGES, ROOT, prose

# Path -> what is still to be rewritten there: "comments" (with docstrings), "messages", "patterns" or "length" of docs.
NOT_YET: dict[str, set[str]] = {}
# Names of modules that occur twice.
NOT_YET_UNIQUE = {
    "app", "context", "document", "foreign", "limits", "metrics", "options", "parse", "probes", "run", "settings", "spawn",
    "supervisor",
}  # fmt: skip

BANNED = re.compile(
    r"""\b(
    told | tells? | said | heard | hears? | born | dies | died | buries | buried | bury | mourns? | anew
    | whoever | whatever | somebody | nobody | everybody | anybody | house
    | (?<!there\ )(is|are|was|were)\ no(?!\ (longer|more))
    | so\ many | so\ long(?!\ as) | as\ it\ is | as\ they\ are | as\ it\ stands | of\ now | again\ and\ again
    | and\ (its|their)\ (kin|like) | and\ the\ like | in(to)?\ force | last\ words | without\ a\ word
    | roads?\ not\ taken | nothing\ but | but\ for | goes\ on | go\ on\ with | what\ becomes | what\ became
    | comes?\ into\ force | for\ ever | has\ to\ be\ known
    )\b""",
    re.VERBOSE | re.IGNORECASE,
)
# In a name of a test also words that are good elsewhere: `leaves nothing open`, `the words of a command`.
BANNED_IN_TEST_NAMES = re.compile(
    r"""(?<=_)(
    told | tells? | telling | said | heard | hears? | speaks? | words | mourns?
    | born | birth | dies? | died | dead | death | bury | buries | buried | kin | twins?
    | whoever | somebody | nobody | everybody | anybody | anew | houses? | keepers?
    | (is|are|was|were)_no(?!_(longer|more)) | in(to)?_force | so_many | so_long | as_(it|they)_(is|are|stands?)
    | leaves | goes | go_on | gone | went | comes? | came | stands? | says? | lives | for_ever
    | left_(alone|out) | let_go | (?<=^test_)wh(at|o|ose|ere)
    )(?=_|$)""",
    re.VERBOSE,
)
BAD_START = re.compile(
    r"(Only|Also|What|How|Where|Whether|Why|Which|Who|So|At|Not|There|Until|Then|That|These|Those|It|Its|They)\b"
)
IMPERATIVE = re.compile(
    r"""(
    Accept | Add | Allow | Append | Apply | Ask | Build | Cancel | Capture | Check | Clear | Colour |
    Continue | Count | Cut | Do | Drop | End | Exit | Explain | Fail | Follow | Force | Format | Give |
    Honour | Ignore | Include | Keep | Kill | Let | Limit | Listen | Load | Log | Omit | Override |
    Parse | Pass | Pause | Plan | Prefix | Print | Read | Record | Reload | Repeat | Replace | Report |
    Reserve | Reset | Restart | Resume | Retry | Return | Run | Search | Serve | Set | Show | Shut |
    Skip | Start | Stop | Store | Stream | Suppress | Treat | Trust | Use | Validate | Wait | Watch |
    Write
    )\ """,
    re.VERBOSE,
)
REPEATED_NAMES = {
    "__init__", "__main__", "main", "protocol", "server", "client", "clock", "events", "spec", "time", "text",
}  # fmt: skip
CALLERS = re.compile(r"\b(Called|Used) by\b")  # in a header: import-linter and grep know it, and it rots
LONGEST = 25
AVERAGE = 15
LONGEST_TEST_NAME = 70


def python_files() -> list[Path]:
    return sorted((ROOT / "repeater").rglob("*.py"))


def is_postponed(path: Path, kind: str) -> bool:
    name = str(path.relative_to(ROOT))
    return any(kind in kinds and (name == start or name.startswith(start + "/")) for start, kinds in NOT_YET.items())


def findings(text: str) -> list[str]:
    """The banned patterns in a text, without its inline code."""
    return [match[0] for match in BANNED.finditer(re.sub(r"``[^`]*``|`[^`\n]*`", "`", " ".join(text.split())))]


def docstrings(tree: ast.Module) -> dict[int, ast.Constant]:
    """Every string that is a statement, by its identity."""
    return {
        id(node.value): node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }


def comments(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], re.sub(r"(noqa|type|mypy|fmt):.*?(-|$)", "", token.string)


def remarks(path: Path) -> Iterator[tuple[int, str]]:
    """Docstrings and comments of a module, with their lines."""
    text = path.read_text()
    yield from ((node.lineno, str(node.value)) for node in docstrings(ast.parse(text)).values())
    yield from comments(text)


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """The other strings of a module with more than one word, with their lines."""
    tree = ast.parse(path.read_text())
    headers = docstrings(tree)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and " " in node.value
            and id(node) not in headers
        ):
            yield node.lineno, node.value


def sentences(page: Path) -> list[str]:
    """The sentences of a page: of paragraphs, list items, quotes and cells of tables."""
    text = re.sub(r"<!--.*?-->", "", prose(page), flags=re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    found: list[str] = []
    for paragraph in map(str.strip, re.split(r"\n\s*\n|\n(?=\s*(?:[-*] |\d+\. |\||#|>))", text)):
        if not paragraph or paragraph.startswith("#"):
            continue
        parts = paragraph.strip("|").split("|") if paragraph.startswith("|") else [paragraph]
        for part in parts:
            whole = " ".join(re.sub(r"^\s*(?:[-*>]|\d+\.)\s+", "", part).split())
            found += [one for one in re.split(r"(?<=[.!?])[)\"*_]*\s+(?=[^a-z])", whole) if words(one)]
    return found


def average(page: Path) -> float:
    """Words per sentence."""
    found = sentences(page)
    return sum(map(words, found)) / max(len(found), 1)


def words(sentence: str) -> int:
    return sum(bool(re.search(r"[\w`]", word)) for word in sentence.split())


def code_findings(kind: str) -> list[str]:
    """What is found in modules that are not postponed, with path and line."""
    read = remarks if kind == "comments" else messages
    return [
        f"{path.relative_to(ROOT)}:{line}: {', '.join(found)}"
        for path in python_files()
        if not is_postponed(path, kind)
        for line, text in read(path)
        if (found := findings(text) + (CALLERS.findall(text) if kind == "comments" else []))
    ]


def test_docstrings_and_comments_are_plain() -> None:
    assert "\n".join(code_findings("comments")) == ""


def test_messages_are_plain() -> None:
    assert "\n".join(code_findings("messages")) == ""


def test_comments_of_the_examples_are_plain() -> None:
    files = [ROOT / "jobs.example.toml", *sorted((ROOT / "docs" / "examples").glob("*.*"))]
    comments_of = {file.name: " ".join(re.findall(r"# (.*)$", file.read_text(), re.MULTILINE)) for file in files}
    assert {name: found for name, text in comments_of.items() if (found := findings(text))} == {}


def test_docs_are_plain() -> None:
    assert [
        (str(page.relative_to(ROOT)), found, one)
        for page in PAGES
        if not is_postponed(page, "patterns")
        for one in sentences(page)
        if (found := findings(one))
    ] == []


def test_sentences_of_docs_are_short() -> None:
    pages = [page for page in PAGES if not is_postponed(page, "length")]
    long = [(str(page.relative_to(ROOT)), one) for page in pages for one in sentences(page) if words(one) > LONGEST]
    assert long == []
    assert {str(page.relative_to(ROOT)): mean for page in pages if (mean := average(page)) > AVERAGE} == {}


def test_descriptions_of_the_schema_are_plain() -> None:
    def walk(node: object, path: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, dict):
            for key, value in node.items():
                if key in {"description", "markdownDescription", "title"} and isinstance(value, str):
                    yield path, value
                else:
                    yield from walk(value, f"{path}/{key}")
        elif isinstance(node, list):
            for number, value in enumerate(node):
                yield from walk(value, f"{path}/{number}")

    schema = json.loads((ROOT / "schemas" / "jobs.schema.json").read_text())
    assert [(path, found) for path, text in walk(schema, "") if (found := findings(text))] == []


def options() -> Iterator[tuple[str, str, bool]]:
    """Each option with its help, and whether it is a flag."""
    for name, (module, function, _, _) in (COMMANDS).items():
        for option in getattr(import_module(module), function).params:
            if isinstance(option, click.Option):
                yield f"rpr {name} {option.opts[-1]}", option.help or "", option.is_flag
    for one_off in ONE_OFF_COMMANDS.values():
        for own in one_off.options:
            yield f"rpr {one_off.name} {own.name}", own.words, not own.metavar


def test_help_of_an_option_is_an_imperative_sentence_with_an_object() -> None:
    """An option with a value may also name the value: `Directory of the state.`"""
    wrong = []
    for name, text, is_flag in options():
        plain = text.partition(" [default")[0]
        good = IMPERATIVE.match(plain) or (not is_flag and plain[:1].isupper() and not BAD_START.match(plain))
        if not (good and plain.endswith(".") and len(plain.split()) >= 3):
            wrong.append((name, text))
    assert wrong == []


def test_each_command_is_described_by_an_imperative_sentence() -> None:
    listed = {name: text for name, (_, _, text, _) in (COMMANDS).items()}
    listed |= {name: text for name, (text, _) in ONE_OFF.items()}
    assert {name: text for name, text in listed.items() if not IMPERATIVE.match(text)} == {}
    assert {name: text for name, text in listed.items() if not text.endswith((".", "…")) or findings(text)} == {}


def test_the_name_of_a_module_occurs_once() -> None:
    """A command and its parts in other packages share a name on purpose: `cli/status`, `control/status`."""
    commands = {name.replace("-", "_") for name in COMMANDS}
    names = Counter(path.stem for path in python_files())
    assert {name for name, count in names.items() if count > 1} - commands - REPEATED_NAMES <= NOT_YET_UNIQUE


def names_of_tests() -> Iterator[str]:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield node.name


def test_names_of_tests_are_short_and_plain() -> None:
    names = list(names_of_tests())
    assert len(names) > 1500
    assert [name for name in names if len(name) > LONGEST_TEST_NAME] == []
    assert {name: found[1] for name in names if (found := BANNED_IN_TEST_NAMES.search(name))} == {}


def test_the_list_of_postponed_files_shrinks() -> None:
    """Each entry of `NOT_YET` still has a finding."""
    finished = []
    for start, kinds in NOT_YET.items():
        files = [ROOT / start] if (ROOT / start).is_file() else sorted((ROOT / start).rglob("*.py"))
        for kind in kinds:
            match kind:
                case "comments":
                    left = any(findings(text) for path in files for _, text in remarks(path))
                case "messages":
                    left = any(findings(text) for path in files for _, text in messages(path))
                case "patterns":
                    left = any(findings(one) for path in files for one in sentences(path))
                case _:
                    left = any(average(path) > AVERAGE or max(map(words, sentences(path))) > LONGEST for path in files)
            if not left:
                finished.append((start, kind))
    assert finished == [], "take these off NOT_YET"
