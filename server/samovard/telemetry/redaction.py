"""Make texts of other programs safe for log lines and spans.

Knows what secrets look like, and how programs quote their input.
"""

import re

MAX_ERROR = 300  # bytes
_LEFT_OUT = "[...]"
_SECRET = re.compile(
    r"sk-ant-[\w-]{8,}|Bearer\s+\S+|eyJ[\w-]+\.[\w-]+\.[\w-]+|samovar_\w+_\w+"
    r"|AIza[\w-]{8,}|ya29\.[\w-]+|-----BEGIN.*",
    re.DOTALL,
)
# The text after a quote, a bracket, an equals sign or one of these words may be the prompt's. An
# apostrophe within a word is not a quote.
_ECHO = re.compile(
    r"""["`“‘«=<{\[]|(?<!\w)'|\b(?:near|got|given|received)\b|\b(?:found|input|value)\s*:""",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Return a text with everything that looks like a credential replaced by a mark."""
    return _SECRET.sub(_LEFT_OUT, text)


def error_text(text: str) -> str:
    """Return at most 300 printable bytes of an error, cut where it may quote its input."""
    text = without_secrets(" ".join(text.split()))
    if (echo := _ECHO.search(text)) is not None:
        text = text[: echo.start()] + _LEFT_OUT
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text.encode(errors="replace")[:MAX_ERROR].decode(errors="ignore")
