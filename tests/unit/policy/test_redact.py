from __future__ import annotations

from base64 import b64encode

from hypothesis import given
from hypothesis import strategies as st

from repeater.policy.redact import Mask, mask_text, secret_forms


def masked(chunks: list[bytes], *values: str) -> bytes:
    mask = Mask(secret_forms(values))
    return b"".join(map(mask.feed, chunks)) + mask.flush()


def test_a_secret_is_hidden_wherever_chunks_break_it() -> None:
    text = b"token=hunter22;"
    for cut in range(len(text)):
        assert masked([text[:cut], text[cut:]], "hunter22") == b"token=***;"


def test_base64_and_url_forms_are_hidden_too() -> None:
    assert masked([b64encode(b"p ss/word")], "p ss/word") == b"***"
    assert masked([b"?key=p%20ss%2Fword"], "p ss/word") == b"?key=***"


def test_the_longer_of_two_secrets_wins() -> None:
    assert masked([b"abcdefgh"], "abcd", "abcdefgh") == b"***"


def test_values_too_short_to_be_secrets_are_not_redacted() -> None:
    assert masked([b"yes, 1"], "yes", "1") == b"yes, 1"


def test_output_that_cannot_begin_a_secret_is_shown_at_once() -> None:
    mask = Mask(secret_forms(["hunter22"]))
    assert mask.feed(b"prompt> ") == b"prompt> "
    assert mask.feed(b"hun") == b""
    assert mask.feed(b"gry") == b"hungry"


@given(st.lists(st.binary(max_size=12), max_size=12))
def test_other_bytes_pass_unchanged(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    if b"hunter22" not in whole:
        assert masked(chunks, "hunter22") == whole


@given(st.lists(st.sampled_from([b"hunter22", b"hun", b"ter22", b"h", b"2", b"\n"]), max_size=20))
def test_no_chunking_lets_a_secret_through(chunks: list[bytes]) -> None:
    assert b"hunter22" not in masked(chunks, "hunter22")


def test_a_text_is_masked_as_a_whole() -> None:
    assert mask_text("cannot run `curl -H hunter22`", secret_forms(["hunter22"])) == "cannot run `curl -H ***`"
