"""Every kind of event has a writer, a reader and a row on the page, in the contract's words.

The one table is the contract's own: the `kind` of its `Event`.
"""

import ast
import enum
import inspect
import itertools
import re
import types
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

import samovar
import samovard
from samovar import events as client
from samovar.v1 import session_pb2 as pb
from samovard.core import events as core
from samovard.core.turn.event_log import Batch
from samovard.edge import wire

#: The classes of the events, by their fields in the contract: `turn_started` is `TurnStarted`.
KINDS = {
    field.name: "".join(word.title() for word in field.name.split("_"))
    for field in pb.Event.DESCRIPTOR.oneofs_by_name["kind"].fields
}
SERVER = Path(samovard.__file__).parent
PAGE = SERVER.parents[1] / "docs" / "concepts.md"
ROW = re.compile(r"^\| `(\w+)` \| `(\w+)` \| \S", re.MULTILINE)
TEXTS = (f"text-{number}" for number in itertools.count())
NUMBERS = itertools.count(2_000, 1_000)  # as nanoseconds, whole microseconds


def classes(module: types.ModuleType) -> dict[str, Any]:
    """Return the kinds of events that a module has, by name."""
    found = inspect.getmembers(module, inspect.isclass)
    return {n: c for n, c in found if issubclass(c, module.Event) and c is not module.Event}


def fields(kind: Any) -> set[str]:
    """Return the fields of a core's event without those that every event has."""
    return set(kind.__struct_fields__) - set(core.Event.__struct_fields__)


def client_fields(kind: Any) -> set[str]:
    return set(kind.__dataclass_fields__) - set(client.Event.__dataclass_fields__)


def contract_fields(name: str) -> set[str]:
    """Return the fields of a kind in the contract; `usage_updated` is a usage and nothing else."""
    message = pb.Event.DESCRIPTOR.fields_by_name[name].message_type
    assert message
    own = message.name == KINDS[name]
    return {field.name for field in message.fields} if own else {name.removesuffix("_updated")}


def sample(hint: Any) -> Any:
    """Return a value of a type that no other field of the event has."""
    if isinstance(hint, types.UnionType):
        return sample(hint.__args__[0])
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return list(hint)[-1]
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint(**{n: sample(h) for n, h in typing.get_type_hints(hint).items()})
    if typing.get_origin(hint) is tuple:
        return (next(TEXTS), next(TEXTS))
    if typing.get_origin(hint) is dict:
        return {next(TEXTS): sample(typing.get_args(hint)[1])}
    if hint in (str, bytes):
        return next(TEXTS) if hint is str else next(TEXTS).encode()
    return hint(next(NUMBERS))


def seen(value: Any) -> Any:
    """Return what a client is to see of a value: times are nanoseconds here, seconds there."""
    if isinstance(value, core.Timings):
        return {n: getattr(value, n) / 1e9 for n in value.__struct_fields__}
    if isinstance(value, msgspec.Struct):
        return {n: seen(getattr(value, n)) for n in value.__struct_fields__}
    if isinstance(value, dict):
        return {key: seen(held) for key, held in value.items()}
    return value.name if isinstance(value, enum.Enum) else value


def shown(value: Any) -> Any:
    """Return a client's value in the same form."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: shown(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {key: shown(held) for key, held in value.items()}
    return value.name if isinstance(value, enum.Enum) else value


def test_the_core_and_the_client_have_the_contracts_kinds() -> None:
    """No kind is missing on a side, none is there alone; the package exports all of them."""
    assert set(classes(core)) == set(classes(client)) == set(KINDS.values())
    assert set(KINDS.values()) <= set(samovar.__all__)


@pytest.mark.parametrize("name", KINDS)
def test_the_core_and_the_client_have_the_contracts_fields(name: str) -> None:
    """Each kind has the same fields everywhere."""
    ours, theirs = classes(core)[KINDS[name]], classes(client)[KINDS[name]]
    assert fields(ours) == client_fields(theirs) == contract_fields(name)


@pytest.mark.parametrize("name", ["Usage", "Timings"])
def test_what_events_hold_has_the_same_fields(name: str) -> None:
    """Sums and times, too."""
    ours, theirs = getattr(core, name), getattr(client, name)
    assert ours.__struct_fields__ == tuple(theirs.__dataclass_fields__)


@pytest.mark.parametrize("name", ["StartMode", "Outcome", "FailureCause", "Resolution"])
def test_words_are_the_same(name: str) -> None:
    """By name and number; only the client must have a word for what is not told."""
    ours = {word.name: word.value for word in getattr(core, name)}
    theirs = {word.name: word.value for word in getattr(client, name)}
    assert theirs == {"UNSPECIFIED": 0} | ours


@pytest.mark.parametrize("name", KINDS)
def test_a_client_reads_what_the_edge_writes(name: str) -> None:
    """With every field of an event set, every one of them arrives."""
    kind = classes(core)[KINDS[name]]
    event = kind(**{n: sample(h) for n, h in typing.get_type_hints(kind).items()})
    (response,) = wire.send_responses([Batch(7, 1_700_000_000.25, (event,), 10)])
    (written,) = response.events
    assert written.WhichOneof("kind") == name
    read = client.read(written)
    assert read
    assert type(read).__name__ == KINDS[name]
    assert (read.sequence, read.time) == (7, 1_700_000_000.25)
    assert (read.parent_tool_use_id, read.raw_json) == (event.parent_tool_use_id, event.raw)
    told = {n: seen(getattr(event, n)) for n in fields(kind)}
    assert {n: shown(getattr(read, n)) for n in client_fields(type(read))} == told


def test_the_core_or_an_agent_makes_every_kind() -> None:
    """No kind is only declared."""
    made = set()
    for room in ("agent", "core"):
        for path in (SERVER / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    made.add(ast.unparse(node.func).rpartition(".")[2])
    assert set(KINDS.values()) - made == set()


def test_every_kind_has_its_row_on_the_page() -> None:
    """By both its names, in the contract's order, and no other kind has one."""
    assert ROW.findall(PAGE.read_text()) == [*KINDS.items()]
