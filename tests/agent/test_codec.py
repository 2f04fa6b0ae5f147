"""Bytes to frames and values to lines."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.recordings import NAMES, recording

from samovard.agent import codec
from samovard.agent import frames as f
from samovard.agent.codec import Decoder
from samovard.core.process import Broken, Document, Image, Prompt, Text

MAX = 1 << 20
TURN = "0af76519-16cd-43dd-8448-eb211c80319c"


def shapes(decoder: Decoder, *pieces: bytes) -> list[tuple[type, bytes]]:
    return [(type(frame), line) for piece in pieces for frame, line in decoder.feed(piece)]


@pytest.mark.parametrize("name", NAMES)
def test_every_line_of_a_recording_has_a_frame(name: str) -> None:
    """Nothing that the real CLI wrote is unknown, noise or broken."""
    decoder = Decoder(MAX)
    found = shapes(decoder, recording(name).output)
    assert found
    assert f.Unknown not in {kind for kind, _ in found}
    assert (decoder.noise, decoder.failure, decoder.buffered) == (0, None, 0)


@pytest.mark.parametrize("name", NAMES)
def test_chunk_boundaries_do_not_matter(name: str) -> None:
    """A recording cut in two at any place, and in pieces of any size, is the same frames.

    Only the line that a cut goes through can feel it: each is cut at every byte."""
    output = recording(name).output
    whole = shapes(Decoder(MAX), output)
    for number, line in enumerate(output.splitlines(keepends=True)):
        for at in range(len(line) + 1):
            assert shapes(Decoder(MAX), line[:at], line[at:]) == [whole[number]]
    for size in (7, 64, 1000, 4096):
        pieces = [output[i : i + size] for i in range(0, len(output), size)]
        assert shapes(Decoder(MAX), *pieces) == whole


@given(st.lists(st.binary(min_size=1, max_size=8).filter(lambda b: b"\n" not in b), max_size=8))
def test_noise_is_skipped_and_counted(lines: list[bytes]) -> None:
    """Lines that do not begin with a brace are no frames."""
    noise = [line for line in lines if not line.startswith(b"{")]
    decoder = Decoder(MAX)
    assert shapes(decoder, b"".join(line + b"\n" for line in noise)) == []
    assert decoder.noise == sum(bool(line.strip()) for line in noise)
    assert decoder.failure is None


@pytest.mark.parametrize("bad", [b'{"type":', b'{"type":"user"} x', b'{"a":"\xff"}', b"{" * 5000])
def test_a_line_that_is_not_json_is_the_end(bad: bytes) -> None:
    """Frames before it are kept, nothing after it is read."""
    good = b'{"type":"keep_alive"}\n'
    decoder = Decoder(MAX)
    assert len(shapes(decoder, good + bad + b"\n" + good, good)) == 1
    assert decoder.failure is Broken.UNPARSABLE


@pytest.mark.parametrize("size", [10, 100])
def test_a_line_over_the_cap_is_the_end(size: int) -> None:
    """Whole or in pieces, a line may not be longer than the cap."""
    line = b'{"type":"user","x":"' + b"x" * 200 + b'"}\n'
    pieces = [line[i : i + size] for i in range(0, len(line), size)]
    for parts in ([line], pieces):
        decoder = Decoder(100)
        assert shapes(decoder, *parts) == []
        assert decoder.failure is Broken.LINE_TOO_LONG
        assert decoder.buffered == 0


def test_a_large_line_in_small_pieces_is_read_whole() -> None:
    """3 MB in pieces of 64 KiB are one frame."""
    text = "x" * 3_000_000
    line = msgspec.json.encode({"type": "result", "result": text}) + b"\n"
    decoder = Decoder(64 << 20)
    pieces = [line[i : i + 65536] for i in range(0, len(line), 65536)]
    frames = [frame for piece in pieces for frame, _ in decoder.feed(piece)]
    assert isinstance(frames[0], f.Result)
    assert frames[0].result == text


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (rb"a\ud83db", "a\ufffdb"),
        (rb"a\ude00b", "a\ufffdb"),
        (rb"\ud83d\ude00\ud83d", "\U0001f600\ufffd"),
        (rb"\\ud83d \ud83d", "\\ud83d \ufffd"),
    ],
)
def test_half_a_surrogate_pair_is_replaced(written: bytes, read: str) -> None:
    """What is no character becomes U+FFFD; pairs and escaped backslashes stay."""
    frame = codec.decode(b'{"type":"result","result":"' + written + b'"}')
    assert isinstance(frame, f.Result)
    assert frame.result == read


@pytest.mark.parametrize("number", [b"9" * 5000, b"1e999", b"-" + b"9" * 5000])
def test_a_number_beside_half_a_pair_is_not_read(number: bytes) -> None:
    """Python reads no number of any length; the delta has its half all the same."""
    delta = rb'"delta":{"type":"text_delta","text":"\ud83d"}'
    line = b'{"type":"stream_event","event":{"type":"content_block_delta",%s},"x":%s}\n'
    (frame, _), *_ = Decoder(MAX).feed(line % (delta, number))
    assert isinstance(frame, f.StreamEvent)
    assert frame.event.delta is not None
    assert frame.event.delta.text == "\ud83d"


@pytest.mark.parametrize(
    ("line", "kind", "subtype"),
    [
        (b'{"type":"new_thing","subtype":"x"}', "new_thing", "x"),
        (b'{"type":"result","num_turns":"many"}', "result", ""),
        (b'{"type":7}', "", ""),
        (b"{}", "", ""),
    ],
)
def test_what_has_no_name_is_unknown(line: bytes, kind: str, subtype: str) -> None:
    """An unknown type, and a known one of another shape, are frames without a name."""
    frame = codec.decode(line)
    assert isinstance(frame, f.Unknown)
    assert (frame.type, frame.subtype) == (kind, subtype)


def test_numbers_of_a_tools_input_stay_exact() -> None:
    """JSON is passed on as ASCII, its numbers as they were written."""
    raw = msgspec.Raw('{"n":12345678901234567890123,"t":"é😀"}'.encode())
    text = codec.ascii_json(raw)
    assert text.isascii()
    assert "12345678901234567890123" in text
    assert json.loads(text)["t"] == "é😀"


def parsed(line: bytes) -> Any:
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    return json.loads(line)


@given(st.text())
def test_a_message_is_one_line_whatever_it_says(text: str) -> None:
    """No text can end its line, change its type or become a command."""
    line = parsed(codec.message(Prompt(TURN, (Text(text.encode()),))))
    assert (line["type"], line["uuid"], line["client_composed"]) == ("user", TURN, True)
    assert line["message"] == {"role": "user", "content": [{"type": "text", "text": text}]}


def test_images_and_documents_are_base64() -> None:
    """Files go as base64 sources of their media types."""
    blocks = (Image("image/png", b"p"), Document("application/pdf", b"d", "t"))
    image, document = parsed(codec.message(Prompt(TURN, blocks)))["message"]["content"]
    assert image["source"] == {"type": "base64", "media_type": "image/png", "data": "cA=="}
    assert document["source"]["media_type"] == "application/pdf"
    assert document["title"] == "t"


def test_commands_have_the_clis_shapes() -> None:
    """Control requests and answers are as the CLI takes them."""
    request = parsed(codec.initialize("i", "be kind"))["request"]
    assert request == {"subtype": "initialize", "appendSystemPrompt": "be kind"}
    assert "appendSystemPrompt" not in parsed(codec.initialize("i", ""))["request"]
    assert parsed(codec.interrupt("i"))["request"]["cancel_queued"] is True
    given = parsed(codec.allow("r", msgspec.Raw(b'{"n":12345678901234567890123}')))["response"]
    assert (given["subtype"], given["request_id"]) == ("success", "r")
    # And nothing that would hold beyond this call.
    updated = {"n": 12345678901234567890123}
    assert given["response"] == {"behavior": "allow", "updatedInput": updated}
    denied = parsed(codec.deny("r", "no"))["response"]
    assert (denied["request_id"], denied["response"]["behavior"]) == ("r", "deny")
    assert parsed(codec.refuse("r", "no"))["response"]["subtype"] == "error"
