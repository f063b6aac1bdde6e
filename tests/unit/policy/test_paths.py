"""Globs and ignores as gitignore(5) and the shell have them."""

from __future__ import annotations

import re
from contextlib import suppress
from posixpath import join, normpath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repeater.policy.paths import PathSet, check_glob, find_doubt


@pytest.mark.parametrize(
    ("glob", "hits", "misses"),
    [
        ("*.py", ["a.py", ".hidden.py"], ["src/a.py", "a.pyx", "a.txt"]),
        ("src/*.py", ["src/a.py"], ["src/x/a.py", "a.py"]),
        ("src/**/*.py", ["src/a.py", "src/x/y/a.py"], ["a.py", "srcs/a.py", "src/a.txt"]),
        ("**/*.py", ["a.py", "x/y/a.py"], ["a.pyc"]),
        ("src/**", ["src/a", "src/x/y"], ["src", "a"]),
        ("src", ["src", "src/a", "src/x/y"], ["srcs", "x/src"]),
        ("src/a.py", ["src/a.py"], ["src/a.pyc", "src/b.py"]),
        ("a?.txt", ["ab.txt"], ["a.txt", "abc.txt", "a/.txt"]),
        ("[ab].txt", ["a.txt", "b.txt"], ["c.txt"]),
        ("[!ab].txt", ["c.txt"], ["a.txt", "/.txt"]),
        ("*.{py,toml}", ["a.py", "a.toml"], ["a.txt"]),
        ("{src,lib}/**/*.{c,h}", ["src/a.c", "lib/x/a.h"], ["inc/a.h"]),
        ("../other/*.py", ["../other/a.py"], ["other/a.py"]),
        ("/etc/*.conf", ["/etc/a.conf"], ["etc/a.conf"]),
        ("a+b (c).txt", ["a+b (c).txt"], ["aab c.txt"]),
        ("**", ["a", "x/y"], []),
    ],
)
def test_a_glob_means_these_paths_and_no_others(glob: str, hits: list[str], misses: list[str]) -> None:
    paths = PathSet("/home/me/project", (glob,))

    def path(name: str) -> str:
        if name.startswith("../"):
            return "/home/me/" + name[3:]
        return name if name.startswith("/etc") else f"/home/me/project/{name}"

    assert [name for name in hits if path(name) not in paths] == []
    assert [name for name in misses if path(name) in paths] == []


@pytest.mark.parametrize(
    ("ignore", "hidden", "seen"),
    [
        (["*.log"], ["a.log", "x/b.log"], ["a.txt"]),
        (["/a.log"], ["a.log"], ["x/a.log"]),
        (["build/"], ["build/a", "x/build/y/a"], ["build"]),
        (["x/*.c"], ["x/a.c"], ["a.c", "y/x/a.c", "x/y/a.c"]),
        (["*.log", "!keep.log"], ["a.log"], ["keep.log"]),
        (["out/", "!out/keep"], ["out/keep"], []),
        (["!*.pyc"], [], ["a.pyc"]),
        (["# comment", "", "  "], [], ["# comment"]),
    ],
)
def test_ignores_follow_gitignore(ignore: list[str], hidden: list[str], seen: list[str]) -> None:
    paths = PathSet("/p", ("**",), tuple(ignore))
    assert [name for name in hidden if f"/p/{name}" in paths] == []
    assert [name for name in seen if f"/p/{name}" not in paths] == []


@pytest.mark.parametrize(
    "name",
    [
        ".git/HEAD",
        "x/__pycache__/a.pyc",
        "node_modules/m/i.js",
        ".venv/bin/x",
        "a.py~",
        ".a.py.swp",
        "4913",
        "#a#",
        ".#a",
    ],
)
def test_temporary_files_of_editors_and_tools_are_ignored(name: str) -> None:
    assert f"/p/{name}" not in PathSet("/p", ("**",))


def test_a_folder_above_does_not_hide_the_project() -> None:
    assert "/home/node_modules/p/a.py" in PathSet("/home/node_modules/p", ("**/*.py",))


def test_roots_are_the_folders_before_the_first_wildcard() -> None:
    roots = dict(PathSet("/p", ("src/**/*.py", "*.toml", "a/b.txt", "/etc/x/*.conf", "d/*/e.c")).roots)
    assert roots == {"/p/src": True, "/p": False, "/p/a": False, "/p/a/b.txt": True, "/etc/x": False, "/p/d": True}


@pytest.mark.parametrize(
    ("glob", "cause"),
    [
        ("src/[z-a]*.py", "the range is backwards"),
        ("a\0*", "zero character"),
        ("{a,b}" * 9, "more than 256 choices"),
        ("{a}" * 51, "more than 50 braces"),
        ("a" * 1025, "1025 characters"),
        ("{[z-a],b}", "the range is backwards"),
        ("!src/x", "matches nothing: a glob cannot exclude files"),
        ("~/conf/*", "`~` is not expanded"),
        ("~me/conf/*", "`~` is not expanded"),
        ("*.@(a|b)", "not supported: write `{a,b}`"),
        ("src/!(a)/x", "not supported"),
        ("src/[", r"whose `\[` has no `\]`"),
        ("{a,[b/c}", r"whose `\[` has no `\]`"),
    ],
)
def test_a_glob_that_cannot_be_understood_is_refused(glob: str, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        check_glob(glob)
    with pytest.raises(ValueError, match=cause):
        PathSet("/p", ("ok", glob)).check()


@pytest.mark.parametrize("glob", ["a~", "x/~", "a!b", "a@b", "[[]slug]/x", r"src/\[", "src/[]]", "f(x).txt"])
def test_a_glob_with_characters_of_other_dialects_is_accepted(glob: str) -> None:
    check_glob(glob)


@pytest.mark.parametrize("folder", ["/p/br[1]", "/p/a*b", "/p/{x,y}", "/p/what?", "/p/[a", "/p/sp ace", "/"])
@pytest.mark.parametrize(
    ("glob", "hits", "misses"),
    [
        ("src/*.py", ["src/a.py"], ["a.py"]),
        ("**/*.py", ["a.py", "x/a.py"], ["a.txt"]),
        ("src", ["src", "src/a"], ["x"]),
        (".", ["a", "x/y"], []),
        ("./src/../lib/*", ["lib/a"], ["src/a"]),
    ],
)
def test_the_directory_of_a_watch_is_literal(folder: str, glob: str, hits: list[str], misses: list[str]) -> None:
    paths = PathSet(folder, (glob,))
    assert [name for name in hits if join(folder, name) not in paths] == []
    assert [name for name in misses if join(folder, name) in paths] == []
    assert "/p/other/src/a.py" not in paths or folder == "/"
    assert all(root == folder or root.startswith(folder.rstrip("/") + "/") for root, _ in paths.roots)


def test_a_glob_upwards_starts_at_the_literal_directory() -> None:
    assert "/p/x[2]/a.py" in PathSet("/p/br[1]", ("../x[[]2]/*.py",))
    assert "/p/other" in PathSet("/p/br[1]", ("..",))
    assert PathSet("/p/br[1]", ("../*.py",)).roots == (("/p", False),)


@pytest.mark.parametrize(
    ("glob", "doubt"),
    [
        ("app/[slug]/x", "[slug]"),
        ("app/[...rest]/x", "[...rest]"),
        ("app/[[...rest]]/x", "[[...rest]]"),
        ("app/[a-z]/x", None),
        ("app/[[]slug]/x", None),
        ("[ab].txt", None),
        ("[!ab]/x", None),
    ],
)
def test_a_class_that_looks_like_a_directory_name_is_in_doubt(glob: str, doubt: str | None) -> None:
    assert find_doubt(glob) == doubt


def test_a_bad_ignore_is_refused() -> None:
    for line in ("[z-a]/", "!x/[z-a]", "a\0"):
        with pytest.raises(ValueError, match="found "):
            PathSet("/p", ("ok",), (line,)).check()


GLOBS = st.text(st.sampled_from("ab/*?[]!^-{},\\.&|~ \0"), max_size=16)
PATHS = st.text(st.sampled_from("ab./-[]&\n"), max_size=16)


@given(glob=GLOBS, ignore=GLOBS, path=PATHS)
@settings(max_examples=300, deadline=None)
def test_an_accepted_glob_matches_without_an_exception(glob: str, ignore: str, path: str) -> None:
    found = PathSet("/p", (glob,), (ignore,))
    with suppress(ValueError):
        found.check()
        assert (f"/p/{path}" in found) in (True, False)
        found.hides(f"/p/{path}")
        assert found.roots


@given(
    glob=st.lists(st.sampled_from(["a", "b", "*", "**", "/", "/**/", "?", "[ab]", "[!a]"]), min_size=1, max_size=8).map(
        lambda parts: "".join(parts).lstrip("/") or "a"
    ),
    path=st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=5).map("/".join),
)
@settings(max_examples=300, deadline=None)
def test_a_glob_matches_by_its_definition(glob: str, path: str) -> None:
    whole = normpath(join("/p", glob)).removeprefix("/p").removeprefix("/")
    fits = by_definition(whole.split("/"), path.split("/"))
    assert (f"/p/{path}" in PathSet("/p", (glob,), ("!**",))) == fits


def by_definition(glob: list[str], path: list[str]) -> bool:
    """Tries every way. A last part without a wildcard also means what is below it."""
    if not glob:
        return not path
    if glob == ["**"]:
        return bool(path)
    if glob[0] == "**":
        return by_definition(glob[1:], path) or (bool(path) and by_definition(glob, path[1:]))
    if not path or not part_by_definition(glob[0], path[0]):
        return False
    if len(glob) == 1 and not set("*?[") & set(glob[0]):
        return True
    return by_definition(glob[1:], path[1:])


def part_by_definition(glob: str, part: str) -> bool:
    return (
        re.fullmatch(
            "".join({"*": ".*", "?": "."}.get(one, one.replace("[!", "[^")) for one in re.findall(r"\[.*?\]|.", glob)),
            part,
        )
        is not None
    )


@pytest.mark.parametrize("glob", ["*a" * 20 + "*b", "**/a*/" * 12 + "b", "**/*/" * 20 + "b", "{**/*a*,b}/" * 3 + "c"])
def test_a_match_takes_little_time_for_any_glob(glob: str) -> None:
    """With backtracking each of these takes longer than the universe will last."""
    paths = PathSet("/p", (glob,), ("*a" * 20 + "*b", "**/a*/" * 12 + "b"))
    for path in ("a" * 250, "/".join(["aa"] * 300), "a/" * 500 + "a"):
        assert f"/p/{path}" not in paths
