"""Globs and ignores as gitignore(5) and the shell have them."""

from __future__ import annotations

import pytest

from repeater.policy.paths import PathSet


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
def test_what_editors_and_tools_leave_is_ignored(name: str) -> None:
    assert f"/p/{name}" not in PathSet("/p", ("**",))


def test_a_folder_above_does_not_hide_the_project() -> None:
    assert "/home/node_modules/p/a.py" in PathSet("/home/node_modules/p", ("**/*.py",))


def test_roots_are_the_folders_before_the_first_wildcard() -> None:
    roots = dict(PathSet("/p", ("src/**/*.py", "*.toml", "a/b.txt", "/etc/x/*.conf", "d/*/e.c")).roots)
    assert roots == {"/p/src": True, "/p": False, "/p/a": False, "/p/a/b.txt": True, "/etc/x": False, "/p/d": True}


def test_too_many_choices_are_refused() -> None:
    paths = PathSet("/p", ("{a,b}" * 9,))
    with pytest.raises(ValueError, match="more than 256 choices"):
        paths.roots  # noqa: B018
