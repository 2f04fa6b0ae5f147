"""Every class that the client exports can be handed to another process, or says that it cannot."""

import copy
import dataclasses
import enum
import inspect
import pickle
import types
import typing
from collections.abc import Mapping
from datetime import date
from typing import Any

import pytest

import samovar

PUBLIC = [value for value in map(vars(samovar).get, samovar.__all__) if inspect.isclass(value)]
#: They hold a connection.
CONNECTED = {
    samovar.AsyncClient,
    samovar.AsyncOperator,
    samovar.AsyncTurn,
    samovar.Client,
    samovar.Operator,
    samovar.Turn,
}
VALUES = [kind for kind in PUBLIC if dataclasses.is_dataclass(kind)]
ENUMS = [kind for kind in PUBLIC if issubclass(kind, enum.Enum)]
KEYWORDS = [kind for kind in PUBLIC if typing.is_typeddict(kind)]
ERRORS = [kind for kind in PUBLIC if issubclass(kind, Exception)]


def test_every_public_class_is_of_a_kind_that_is_tested() -> None:
    """A class is a value, an enum, an error, keywords, or holds a connection."""
    assert {*VALUES, *ENUMS, *ERRORS, *CONNECTED, *KEYWORDS} == set(PUBLIC)


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_pickles(kind: type[samovar.SamovarError]) -> None:
    """An error that comes from another process is the same, to the last attribute."""
    error = made(kind)
    error.add_note("a note")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert (str(again), again.args) == (str(error), error.args)
        assert vars(again) == vars(error)


@pytest.mark.parametrize("kind", [*VALUES, *ENUMS])
def test_a_value_pickles(kind: Any) -> None:
    """A value that comes from another process is equal, also one of a later server."""
    values = [made(kind)] if kind in VALUES else [*kind, kind(99)]
    for value in values:
        again = pickle.loads(pickle.dumps(value))
        assert type(again) is kind
        assert again == value


@pytest.mark.parametrize("kind", sorted(CONNECTED, key=repr))
def test_what_holds_a_connection_does_not_pickle(kind: type[Any]) -> None:
    """A client and a turn are of one process, and say so: what they hold may be a key."""
    with pytest.raises(TypeError, match="make one in each process"):
        pickle.dumps(connected(kind))


def connected(kind: type[Any]) -> Any:
    """Make a client or a turn, within no event loop."""
    if kind in (samovar.Turn, samovar.AsyncTurn):
        client = samovar.Client if kind is samovar.Turn else samovar.AsyncClient
        return client("localhost").send("Hello")
    return kind("localhost")


def made(wanted: Any) -> Any:
    """Make a value of a type, each of its fields filled."""
    if wanted in SIMPLE:
        return SIMPLE[wanted]
    of = typing.get_origin(wanted)
    if of in (types.UnionType, typing.Union):
        return made(typing.get_args(wanted)[0])
    if of is tuple:
        return tuple(made(part) for part in typing.get_args(wanted) if part is not ...)
    if of is Mapping:
        return dict([tuple(map(made, typing.get_args(wanted)))])
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        return list(wanted)[-1]
    hints = typing.get_type_hints(wanted.__init__)
    return wanted(**{name: made(hint) for name, hint in hints.items() if name != "return"})


SIMPLE = {
    date: date(2026, 11, 30),
    str: "s",
    int: 7,
    float: 1.5,
    bool: True,
    bytes: b"b",
    Any: "any",
}
