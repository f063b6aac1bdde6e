"""Syntax errors in plain words, with the place where the fault began."""

import pytest

from repeater.errors import JobFileError
from repeater.jobfile.document import InputLimits
from repeater.jobfile.parse import read_document

TOML = [
    ('k = "x\nm = "y"\n', "1:5", "the text that begins here is not closed", 'close it with `"`'),
    ("k = 'x\n", "1:5", "the text that begins here is not closed", "close it with `'`"),
    ('a = 1\nk = """x\nm = "y"\n', "2:5", "the text that begins here is not closed", 'close it with `"""`'),
    ('[k\nm = "x"\n', "1:1", "the name of a table that begins here is not closed", "close it with `]`"),
    ('k = ["x", "y"\nm = 1\n[t]\n', "1:5", "the list that begins here is not closed", "close it with `]`"),
    ('k = { a = 3\nm = "x"\n', "1:5", "the table that begins here is not closed", "close it with `}`"),
    ('k = { a = "1" b = "2" }\n', "1:15", "a `,` is missing before this value", None),
    ("k = [\n1\n2\n]\n", "3:1", "a `,` is missing before this value", None),
    ("k = x\n", "1:5", "found a text without quotes", 'put quotes around it: `"x"`'),
    ("k = */5 * * * * # c\n", "1:5", "found a text without quotes", 'put quotes around it: `"*/5 * * * *"`'),
    ('k = say "x"\n', "1:5", "found a text without quotes", "put quotes around it: `'say \"x\"'`"),
    ("k = 5s\n", "1:5", "found a text without quotes", 'put quotes around it: `"5s"`'),
    ("k = {{ vars.x }}\n", "1:5", "found a template without quotes", 'put quotes around it: `"{{ vars.x }}"`'),
    ("k = yes\n", "1:5", "found `yes`, which is not a value of TOML", "write `true`"),
    ("k = Off\n", "1:5", "found `Off`, which is not a value of TOML", "write `false`"),
    ("k = null\n", "1:5", "found `null`, which is not a value of TOML", "leave the key out"),
    ("k = “x”\n", "1:5", "found the quote `“`", "a text has the quotes `\"` or `'`"),
    ("k = 05\n", "1:5", "found `05`, a number that begins with `0`", 'put quotes around it: `"05"`'),
    ("k = \n", "1:5", "there is no value after `=`", 'an empty text is `""`'),
    ('k = "x" m = "y"\n', "1:9", "a second key stands in this line", "begin a new line for each key"),
    (
        'k = "say "x""\n',
        "1:11",
        "the text ends before this place",
        "write a quote inside a text as `\\\"`, or put the text between `'`",
    ),
    ('k = "x";\n', "1:8", "found `;` after the value", "remove it"),
    ('k = "x",\n', "1:8", "found `,` after the value", "remove it"),
    ('k = "\\d"\n', "1:6", "found a `\\` that begins no escape", "write `\\\\`, or put the text between `'`"),
    ('k: "x"\n', "1:2", "found `:` after a key", "TOML writes `key = value`; a file in YAML is named `.yaml`"),
    ("k += 1\n", "1:3", "found `+=` after a key", "TOML writes `key = value`"),
    ("a = 1\nk.b\n", "2:1", "the key `k.b` has no value", "TOML writes `key = value`"),
    ('{"k": 1}', "1:1", "found `{`, expected a key or `[table]`", "a file in JSON is named `.json`"),
    ("// c\n", "1:1", "found `//`", "a comment begins with `#`"),
    ("<<<<<<< HEAD\n", "1:1", "found a mark of an unfinished merge", "resolve the conflict"),
    (
        "*/5 * * * * /bin/x\n",
        "1:1",
        "found a line of a crontab",
        "a job has its own table: `[jobs.NAME]` with `schedule` and `command`",
    ),
    ("[my job]\n", "1:5", "found `j` in the name of a table", "a name has no spaces"),
    ("a = 1\nk = 1\nk = [2,\n3]\n", "3:1", "the key `k` stands here twice", None),
    ("[k.a]\n[k.a]\n", "2:1", "the table `k.a` stands here twice", "put all its keys under the first one"),
]
YAML = [
    ('k: "x\nm: y\n', "1:4", "the text that begins here is not closed", 'close it with `"`'),
    ("k: 'x\n", "1:4", "the text that begins here is not closed", "close it with `'`"),
    (
        'k: "every 5s\nb: 1\nm: "y"\n',
        "1:4",
        "the text that begins here ends in line 3, where more text follows",
        'close it with `"`',
    ),
    ("k:\n\ta: 1\n", "2:1", "found a tab at the beginning of a line", "YAML indents with spaces"),
    ("k:\n  a: x\n\tb: y\n", "3:1", "found a tab at the beginning of a line", "YAML indents with spaces"),
    (
        "k: */5 * * * *\n",
        "1:4",
        "found `*` without quotes, which begins an alias in YAML",
        'put quotes around it: `"*/5 * * * *"`',
    ),
    (
        "k: {{ vars.x }} y # c\n",
        "1:4",
        "found `{{` without quotes, which begins a table in YAML",
        'put quotes around it: `"{{ vars.x }} y"`',
    ),
    ("k: @daily\n", "1:4", "found `@` without quotes", 'put quotes around it: `"@daily"`'),
    ("k: %x\n", "1:4", "found `%` without quotes", 'put quotes around it: `"%x"`'),
    ("k: `x`\n", "1:4", "found a backtick without quotes", 'put quotes around it: `"`x`"`'),
    (
        "k: | grep x\nm: 1\n",
        "1:4",
        "found `|` without quotes, which begins a block of lines in YAML",
        'put quotes around it: `"| grep x"`',
    ),
    ("k: echo a: b\n", "1:4", "found `: ` in a text without quotes", 'put quotes around it: `"echo a: b"`'),
    ("j:\n  - k: say x: y\n", "2:8", "found `: ` in a text without quotes", 'put quotes around it: `"say x: y"`'),
    (
        "k:\n  a: x\n    b: y\n",
        "3:5",
        "this line is indented more than the key above it",
        "indent keys of one table by the same number of spaces",
    ),
    (
        "k:\n  a: x\n b: y\n",
        "3:2",
        "this line is indented by 1 spaces, as no key above it",
        "indent keys of one table by the same number of spaces",
    ),
    ("k:\n  a\n    b: x\n", "2:3", "the key `a` has no `:`", "write `a:`"),
    ("k: [x, y\nm: 1\n", "1:4", "the list that begins here is not closed", "close it with `]`"),
    ("k: {a: x\nm:\n  b: y\n", "1:4", "the table that begins here is not closed", "close it with `}`"),
    (
        'k: "x" y\n',
        "1:8",
        "found more text after the closing quote",
        'put all of it between the quotes, and write a quote inside it as `\\"`',
    ),
    ('k: "x"}\n', "1:7", "found `}` after a text", "remove it"),
    ("k: - x\n", "1:4", "found `- ` after a key", "begin the list in the next line"),
    ('k: "\\q"\n', "1:5", "found a `\\` that begins no escape", "write `\\\\`, or put the text between `'`"),
]
JSON = [
    ('{"k": "x"\n, "m": "y\n}', "2:8", "the text that begins here is not closed", 'close it with `"`'),
    ('{"k": {"a": 1,}}', "1:14", "found a `,` before `}`", "remove the last `,`"),
    ('{"k": [1,\n]}', "1:9", "found a `,` before `]`", "remove the last `,`"),
    ('{"k": "x"\n "m": 1}', "1:10", "a `,` is missing here", None),
    ('{"k": [1 2]}', "1:9", "a `,` is missing here", None),
    ('{"k": {"a": 1}', "1:1", "the `{` that stands here is not closed", "close it with `}`"),
    ('{"k": [1\n', "1:7", "the `[` that stands here is not closed", "close it with `]`"),
    ('{\n"k": {"a": 1]}', "2:13", "found `]`, expected `}` for the `{` of line 2", None),
    ("{'k': 1}", "1:2", "found the quote `'`", 'a text in JSON has the quotes `"`'),
    ("{k: 1}", "1:2", "found the key `k` without quotes", 'write `"k"`'),
    ('{"k": 1 // c\n}', "1:9", "found `/`", "JSON has no comments; TOML and YAML have"),
    ('{"k": True}', "1:7", "found `True`, expected a value", "write `true`"),
    ('{"k": yes}', "1:7", "found `yes`, expected a value", "write `true`"),
    ('{"k": None}', "1:7", "found `None`, expected a value", "write `null`"),
    ('{"k": x}', "1:7", "found `x`, expected a value", 'put quotes around it: `"x"`'),
    ('{"k": .5}', "1:7", "found `.5`, expected a value", "a number begins with a digit or `-`"),
    ('{"k": 05}', "1:7", "found a number that begins with `0`", 'put quotes around it: `"05"`'),
    ('{"k": "a\tb"}', "1:9", "found a tab in a text", "write `\\t`"),
    ('{"k": "\\d"}', "1:8", "found a `\\` that begins no escape", "write `\\\\`"),
    ('{"k" 1}', "1:5", "a `:` is missing after the key", None),
    ('{"k": 1} x', "1:10", "found a second value, expected the end of the file", None),
]
CASES = [
    *(("TOML", *case) for case in TOML),
    *(("YAML", *case) for case in YAML),
    *(("JSON", *case) for case in JSON),
]
SOUND = {
    "f.toml": '# c\n[jobs.a]\ncommand = ["x", \'y\']\nenv = { A = "1", B = """\n2""" }\n[jobs.b]\ncommand = "a \\"b\\""\n',
    "f.yaml": 'jobs:\n  a:\n    command: ["x", \'y\']  # c\n    env: {A: "1"}\n  b:\n    command: |\n      a: b\n    stdin: "c"\n',
    "f.json": '{"jobs": {"a": {"command": ["x", "y"], "nice": 1,\n "env": {"A": "1"}},\n "b": {"command": "a \\"b\\""}}}\n',
}


@pytest.mark.parametrize(("language", "text", "place", "cause", "hint"), CASES)
def test_a_syntax_error_names_the_fault_where_it_began(language, text, place, cause, hint):
    name = f"f.{language.lower()}"
    with pytest.raises(JobFileError) as caught:
        read_document(name, text.encode(), InputLimits())
    (problem,) = caught.value.problems
    assert problem.message == f"not {language}: {cause}"
    assert (problem.place(), problem.hint) == (f"{name}:{place}", hint)


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("more", ["", '"', "'", "[", "}", ":", "\\", "\t", " ", "*", "{{", "\n", "x", ",", "#"])
def test_a_damaged_file_is_read_or_refused_inside_its_text(name, more):
    whole = SOUND[name]
    lines = whole.count("\n") + 2
    for at in range(len(whole)):
        for text in (whole[:at] + more, whole[:at] + more + whole[at:], whole[:at] + more + whole[at + 1 :]):
            try:
                read_document(name, text.encode(), InputLimits())
            except JobFileError as error:
                (problem,) = error.problems
                assert problem.line <= lines, text
                assert problem.line or "empty" in problem.message, text
