"""Numbers that keep their text: `1.10`, `0777`, `1e3`.

A number of a job file can become text: in `env`, in a command, in a label, in the name of a matrix cell, in a template.
There `3.10` must not become `3.1`. `str()` of these numbers returns the text of the file; otherwise they behave like
numbers. A number whose text is the canonical one is a plain `int` or `float`.
"""

from __future__ import annotations

from typing import Any, Self


class WrittenInt(int):
    """A whole number and its text."""

    text: str

    def __new__(cls, value: int, text: str) -> Self:
        number = super().__new__(cls, value)
        number.text = text
        return number

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int(self),)


class WrittenFloat(float):
    """A number with a fraction or an exponent, and its text."""

    text: str

    def __new__(cls, value: float, text: str) -> Self:
        number = super().__new__(cls, value)
        number.text = text
        return number

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[Any, ...]:
        return float, (float(self),)


def written_int(text: str, base: int = 10) -> int:
    """The whole number in `text`. Raises ValueError."""
    value = int(text, base)
    return value if base == 10 and str(value) == text else WrittenInt(value, text)


def written_float(text: str) -> float:
    """The number in `text`. Raises ValueError."""
    value = float(text)
    return value if repr(value) == text else WrittenFloat(value, text)
