"""The HTTP answer in the output of one stream."""

from __future__ import annotations

from repeater.policy.http_answer import Answer, AnswerReader


def read_answer(output: bytes) -> Answer:
    """The last answer in the output."""
    reader = AnswerReader()
    reader.feed(output)
    return reader.answer()
