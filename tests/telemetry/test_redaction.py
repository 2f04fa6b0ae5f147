"""What is left of the texts that others wrote."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samovard.telemetry.redaction import MAX_ERROR, error_text, without_secrets

KEY = "sk-ant-api03-0123456789abcdef"


@pytest.mark.parametrize(
    "secret",
    [
        KEY,
        f"Bearer {KEY}",
        "Bearer abc.def",
        "eyJhbGciOi.eyJzdWIi.c2ln",
        "samovar_0a1b2c_3d4e5f",
        "AIzaSyA-1234567890",
        "ya29.a0AfH6SM",
        "-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----",
    ],
)
def test_what_looks_like_a_credential_is_left_out(secret: str) -> None:
    """Wherever it stands."""
    assert without_secrets(f"the key {secret}") == "the key [...]"
    assert secret not in error_text(f"invalid x-api-key: {secret} (401)")


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("Credit balance is too low", "Credit balance is too low"),
        ("prompt is too long: 2 tokens > 1 maximum", "prompt is too long: 2 tokens > 1 maximum"),
        ("this organization's limit isn't enough", "this organization's limit isn't enough"),
        ("the value 'a canary's words' is bad", "the value [...]"),
        ("model not found", "model not found"),
        ("bad input: canary", "bad [...]"),
        ("expected object, got canary", "expected object, [...]"),
        ("must be one of ['canary']", "must be one of [...]"),
        ('400 {"error": "canary"}', "400 [...]"),
        ("`canary`", "[...]"),
        ("text=canary", "text[...]"),
        ("two\nlines\tand\x1b[0m", "two lines and?[...]"),
    ],
)
def test_an_error_is_told_up_to_where_it_may_quote(said: str, left: str) -> None:
    """What is behind a quote, a bracket, an equals sign or such a word may be the prompt's."""
    assert error_text(said) == left


@given(st.text())
def test_an_error_is_short_and_printable(said: str) -> None:
    """Whatever was said: at most 300 bytes of one line."""
    told = error_text(said * 9)
    assert len(told.encode()) <= MAX_ERROR
    assert told.isprintable()
