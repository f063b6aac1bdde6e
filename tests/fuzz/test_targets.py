"""Whatever bytes come, each reader of them answers with its own kind of error or takes them; `targets` says what is read."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.__main__ import mutated
from tests.fuzz.targets import TARGETS, WORDS, seeds

EXAMPLES = {"job-file": 250, "template": 250, "cron": 250, "http": 90}
"""`python -m tests.fuzz` has more time."""


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_it_began_with(name: str) -> None:
    for data in seeds(name):
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes(name: str) -> None:
    @settings(max_examples=EXAMPLES.get(name, 150) // 3)
    @given(st.binary(max_size=200))
    def bytes_(data: bytes) -> None:
        TARGETS[name](data)

    bytes_()


@pytest.mark.parametrize("name", TARGETS)
def test_almost_what_is_right(name: str) -> None:
    pool = seeds(name)

    @settings(max_examples=EXAMPLES.get(name, 150))
    @given(st.integers(0, 1 << 64))
    def almost(seed: int) -> None:
        TARGETS[name](mutated(random.Random(seed), pool, WORDS))

    almost()
