"""Tokens are counted from an answer as it passes."""

import json

import pytest

from samovard.agent.broker import usage
from samovard.agent.broker.usage import Tokens, UsageReader

BEGIN = {"input_tokens": 7, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 3}
STREAM = "".join(
    f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
    for event in (
        {"type": "message_start", "message": {"usage": BEGIN | {"output_tokens": 1}}},
        {"type": "content_block_delta", "delta": {"text": 'the "usage" of words'}},
        {"type": "message_delta", "usage": {"output_tokens": 40}},
        {"type": "message_delta", "usage": {"output_tokens": 42, "input_tokens": 7}},
        {"type": "message_stop"},
    )
).encode()
TOKENS = Tokens(input=7, output=42, cache_read=2, cache_write=3)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
def test_it_does_not_matter_how_a_stream_is_cut(size: int) -> None:
    """Each count is the last that was told, once."""
    reader = UsageReader()
    for begin in range(0, len(STREAM), size):
        reader.feed(STREAM[begin : begin + size])
    reader.end()
    assert reader.tokens == TOKENS


def test_an_answer_that_is_no_stream_is_read_at_its_end() -> None:
    """It is one line without an end."""
    reader = UsageReader()
    reader.feed(json.dumps({"type": "message", "usage": {"output_tokens": 9}}).encode())
    reader.end()
    assert reader.tokens.counted() == {"output": 9}


def test_a_line_that_is_too_long_is_not_kept() -> None:
    """What follows it is read."""
    reader = UsageReader()
    for _ in range(40):
        reader.feed(b'"usage"' + b"x" * 10_000)
        assert len(reader._line) <= usage.MAX_LINE
    reader.feed(b"\n" + STREAM)
    reader.end()
    assert reader.tokens == TOKENS


@pytest.mark.parametrize(
    "line",
    [b'"usage"', b'data: {"usage": 7}', b'{"usage": {"output_tokens": "x"}}', b'\xff"usage"\n'],
)
def test_what_is_no_usage_counts_nothing(line: bytes) -> None:
    """Whatever an answer says."""
    reader = UsageReader()
    reader.feed(line)
    reader.end()
    assert reader.tokens.counted() == {}
