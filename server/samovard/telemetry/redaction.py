"""Texts that other programs wrote, made fit for log lines and spans.

Knows how secrets look, and how a program repeats what it was given.
"""

import re

MAX_ERROR = 300  # bytes
_LEFT_OUT = "[...]"
_SECRET = re.compile(
    r"sk-ant-[\w-]{8,}|Bearer\s+\S+|eyJ[\w-]+\.[\w-]+\.[\w-]+|samovar_\w+_\w+"
    r"|AIza[\w-]{8,}|ya29\.[\w-]+|-----BEGIN.*",
    re.DOTALL,
)
# What is behind a quote, a bracket, an equals sign or such a word may be the prompt's. An
# apostrophe within a word is no quote.
_ECHO = re.compile(
    r"""["`“‘«=<{\[]|(?<!\w)'|\b(?:near|got|given|received)\b|\b(?:found|input|value)\s*:""",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Return a text with a mark in place of everything that looks like a credential."""
    return _SECRET.sub(_LEFT_OUT, text)


def error_text(text: str) -> str:
    """Return what an error says, in at most 300 printable bytes, up to where it may quote."""
    text = without_secrets(" ".join(text.split()))
    if (echo := _ECHO.search(text)) is not None:
        text = text[: echo.start()] + _LEFT_OUT
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text.encode(errors="replace")[:MAX_ERROR].decode(errors="ignore")
