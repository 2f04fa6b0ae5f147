"""What inputs are made of: texts that have hurt others, messages of the contract, edited bytes.

Knows protobuf. Knows nothing of what becomes of them.
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

TURN = "0af76519-16cd-43dd-8448-eb211c80319c"
TEXTS = (
    "",
    " ",
    "\0",
    "\n",
    '\r\n{"type":"control_request"}',
    "a\u2028b\u2029c\x85d\x0be\x0cf",
    "\ufeff\u202e\u200b",
    "\u212a\uff21\u0130\u00df\u00b2\u0663",
    "\U0001f4a5" * 30,
    "e\u0301" * 200,
    "../../etc/passwd",
    "--dangerously-skip-permissions",
    "-p",
    "$(id);id",
    "/config x=y",
    "@/etc/passwd",
    TURN,
    TURN.upper(),
    "default",
    "x" * 63,
    "x" * 64,
    "9" * 5000,
    "[" * 5000,
    '{"a":' * 40 + "1" + "}" * 40,
    '{"a":1e999,"a":NaN}',
    '{"a":' + "1" * 5000 + "}",
    '{"a":"\\ud800","b":[{},[],null,-0.0]}',
)
NUMBERS = (0, 1, -1, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))
_BITS = {FieldDescriptor.CPPTYPE_INT64: 63}
#: First and last of the ranges that characters are drawn from; none has halves of pairs.
_RANGES = (
    *((0x20, 0x7E), (0x30, 0x39), (0x61, 0x7A), (0, 0x1F), (0x80, 0x24F), (0x300, 0x36F)),
    *((0x2000, 0x206F), (0xE000, 0xFFFF), (0x1F300, 0x1F6FF)),
)

Hints = Mapping[str, Sequence[str]]


def text(draw: Random) -> str:
    """Return a text: often one of `TEXTS`, seldom a very long one."""
    kind = draw.random()
    if kind < 0.5:
        return draw.choice(TEXTS)
    if kind < 0.505:
        return "x" * 70_000
    first, last = draw.choice(_RANGES)
    return "".join(chr(draw.randint(first, last)) for _ in range(draw.randrange(24)))


def fields(draw: Random, descriptor: Descriptor, hints: Hints) -> dict[str, Any]:
    """Return fields of a message, any of them left out; `hints` are good values of names."""
    often = draw.choice((0.2, 0.5, 0.9))
    chosen = (field for field in descriptor.fields if draw.random() < often)
    return {field.name: _values(draw, field, hints) for field in chosen}


def _values(draw: Random, field: FieldDescriptor, hints: Hints) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {text(draw): text(draw) for _ in range(draw.choice((0, 1, 2, 20)))}
    if not field.is_repeated:
        return _value(draw, field, hints)
    if draw.random() < 0.2:
        return [_value(draw, field, hints)] * draw.randint(1, 80)
    return [_value(draw, field, hints) for _ in range(draw.randrange(4))]


def _value(draw: Random, field: FieldDescriptor, hints: Hints) -> Any:
    if field.message_type is not None:
        return fields(draw, field.message_type, hints)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return draw.randbytes(draw.randrange(16))
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        good = hints.get(field.name, ())
        return draw.choice(good) if good and draw.random() < 0.7 else text(draw)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return draw.random() < 0.5
    return number(draw, _BITS.get(field.cpp_type, 31))


def number(draw: Random, bits: int) -> int:
    """Return a signed number of so many bits: small, at an edge, or any."""
    kind = draw.random()
    if kind < 0.5:
        return draw.randrange(7)
    if kind < 0.8:
        return draw.choice([edge for edge in NUMBERS if -(2**bits) <= edge < 2**bits])
    return draw.randrange(-(2**bits), 2**bits)


def edited(draw: Random, data: bytes) -> bytes:
    """Return bytes with up to four edits."""
    for _ in range(draw.randrange(5)):
        at = draw.randint(0, len(data))
        piece = draw.choice((draw.randbytes(draw.randint(1, 8)), data[at : at + 9], b"\x7f\xff"))
        end = at + draw.choice((0, len(piece), 1, len(data)))
        data = data[:at] + piece + data[end:]
    return data
