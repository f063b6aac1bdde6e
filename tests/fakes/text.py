"""Reasons as short texts, for tests that compare many of them."""

from __future__ import annotations

from repeater.model.reasons import Reason
from repeater.sentences import sentence


def text_of(reason: Reason | None) -> str | None:
    """The code of a reason without fields, else its sentence."""
    if reason is None:
        return None
    return sentence(reason) if reason.detail else reason.code
