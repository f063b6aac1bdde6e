from __future__ import annotations

import pytest

from repeater.output.terminal import NameColors, colored, cut_here, visible, visible_text, wants_color


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"plain \ttext\n", b"plain \ttext\n"),
        ("ünïcode 漢字 🎉".encode(), "ünïcode 漢字 🎉".encode()),
        (b"\x1b[31mred\x1b[0m", rb"\x1b[31mred\x1b[0m"),
        (b"\x1b]0;title\x07", rb"\x1b]0;title\x07"),
        (b"a\rb\x08\x00\x7f", rb"a\x0db\x08\x00\x7f"),
        (b"windows\r\nline\r\n", b"windows\nline\n"),
        ("\x9b31m".encode(), rb"\x9b31m"),
        (b"\x9b31m \xff\xfe", rb"\x9b31m \xff\xfe"),
        ("evil \u202etxt.exe \u2066".encode(), rb"evil \u202etxt.exe \u2066"),
        (b"\xed\xa0\x80", rb"\xed\xa0\x80"),
    ],
)
def test_control_sequences_are_made_visible(written: bytes, shown: bytes) -> None:
    assert visible(written) == shown


def test_names_stay_on_one_line() -> None:
    assert visible_text("a\nb\x1b[2J") == r"a\nb\x1b[2J"


@pytest.mark.parametrize("text", ["a", "aü", "a漢", "a🎉", "üüüü"])
def test_a_character_is_never_cut_in_two(text: str) -> None:
    data = text.encode()
    for length in range(len(data) + 1):
        part = data[:length]
        part[: cut_here(part)].decode()
        assert length - cut_here(part) <= 3
    assert cut_here(data) == len(data)


def test_bytes_that_are_not_text_are_not_held_back() -> None:
    assert cut_here(b"\x80\x80\x80\x80") == 4
    assert cut_here(b"\xff") in {0, 1}
    assert cut_here(b"") == 0


def test_no_color_beats_force_color_beats_the_terminal() -> None:
    closed = -1
    assert not wants_color(closed, {})
    assert wants_color(closed, {"FORCE_COLOR": "1"})
    assert not wants_color(closed, {"FORCE_COLOR": "1", "NO_COLOR": "1"})
    assert wants_color(closed, {"FORCE_COLOR": "1", "NO_COLOR": ""})


def test_a_name_has_the_same_color_in_each_process() -> None:
    assert NameColors().code("backup") == NameColors().code("backup")
    assert colored("x", "31") == "\x1b[31mx\x1b[0m"


@pytest.mark.parametrize("first", range(0, 100, 10))
def test_the_first_ten_names_have_ten_colors(first: int) -> None:
    colors = NameColors()
    names = [f"job{first + number}" for number in range(10)]
    codes = [colors.code(name) for name in names]
    assert len(set(codes)) == 10
    assert [colors.code(name) for name in names] == codes
    assert colors.code("eleventh") in codes


def test_colors_of_names_are_readable_on_light_and_dark_backgrounds() -> None:
    steps = (0, 95, 135, 175, 215, 255)
    colors = NameColors()
    for number in range(10):
        index = int(colors.code(f"job{number}").rpartition(";")[2]) - 16
        rgb = [steps[part] / 255 for part in (index // 36, index // 6 % 6, index % 6)]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in rgb]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert 1.05 / (luminance + 0.05) >= 3, f"too light for a light background: {index + 16}"
        assert (luminance + 0.05) / 0.05 >= 3, f"too dark for a dark background: {index + 16}"
