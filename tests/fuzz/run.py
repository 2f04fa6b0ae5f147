"""Draw inputs of a target by a seed, count them, and keep one that crashed.

Each input has a draw of its own, by seed and number. One that crashes is made smaller, as long as
it crashes with the same error.
"""

import hashlib
import itertools
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from structlog.testing import capture_logs

from fuzz.target import Check, Target, TooLong, limited

Say = Callable[[int, int], None]

TOLD_EVERY = 200  # inputs
SMALLER = 1000  # tries to make a crash smaller


@dataclass(slots=True)
class Found:
    """The result of a target: inputs tried, the time of the clock and of the processor in seconds,
    and the input that crashed, if one did.

    `told` is the traceback of a crash, empty if there was none.
    """

    inputs: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    crash: Any = None
    told: str = ""

    def report(self) -> dict[str, object]:
        """Return each figure, with its bound where it has one."""
        return {
            "inputs": self.inputs,
            "crashes": {"value": int(bool(self.told)), "at_most": 0},
            "seconds": round(self.seconds, 1),
            "cpu_seconds": round(self.cpu_seconds, 1),
        }


def fuzz(target: Target, count: int, seed: int, say: Say = lambda tried, count: None) -> Found:
    """Try so many inputs, up to the first that crashes. Call `say` with how far it is."""
    found = Found()
    begin, busy = time.monotonic(), time.process_time()
    with target.checking() as check:
        while found.inputs < count and not found.told:
            with capture_logs():  # it keeps each line, so none of it for long
                _some(target, check, min(TOLD_EVERY, count - found.inputs), seed, found)
            found.seconds = time.monotonic() - begin
            found.cpu_seconds = time.process_time() - busy
            say(found.inputs, count)
    return found


def again(target: Target, tried: Any) -> Found:
    """Try one input."""
    with target.checking() as check, capture_logs():
        return Found(inputs=1, crash=tried, told=_crash(check, tried)[1])


def _some(target: Target, check: Check, count: int, seed: int, into: Found) -> None:
    for _ in range(count):
        drawn = target.draw(Random(f"{seed} {target.name} {into.inputs}"))
        into.inputs += 1
        if _crash(check, drawn)[0]:
            into.crash, into.told = _smallest(target.kind, check, drawn)
            break


def _crash(check: Check, drawn: Any) -> tuple[str, str]:
    """Return the kind of error that an input crashes with, and its traceback; empty for none."""
    try:
        with limited():
            check(drawn)
    except (Exception, TooLong) as error:
        return type(error).__name__, traceback.format_exc()
    return "", ""


def _smallest(shape: type[Any], check: Check, drawn: Any) -> tuple[Any, str]:
    """Return a small input that crashes as a large one does, and its traceback."""
    kind, told = _crash(check, drawn)
    tried = 0
    smaller = True
    while smaller and tried < SMALLER:
        smaller = False
        parts = _smaller(msgspec.to_builtins(drawn, builtin_types=(bytes,)))
        for part in itertools.islice(parts, SMALLER - tried):
            tried += 1
            made = _made(part, shape)
            now, text = _crash(check, made) if made is not None else ("", "")
            if now == kind:
                drawn, told, smaller = made, text, True
                break
    return drawn, told


def _made(part: Any, shape: type[Any]) -> Any:
    """Return an input, or None if the value is no longer a valid one."""
    try:
        return msgspec.convert(part, shape)
    except msgspec.ValidationError:
        return None


def _smaller(value: Any) -> Iterator[Any]:
    """Yield what is one step smaller than a value: a part less, or one part smaller."""
    if isinstance(value, dict):
        for name in value:
            yield from ({**value, name: part} for part in _smaller(value[name]))
        return
    size = len(value) if isinstance(value, list | tuple | str | bytes) else 0
    while size := size // 2:
        yield from (value[:at] + value[at + size :] for at in range(0, len(value), size))
    if isinstance(value, list | tuple):
        for at in range(len(value)):
            yield from ([*value[:at], part, *value[at + 1 :]] for part in _smaller(value[at]))


class _Kept(msgspec.Struct):
    target: str
    input: msgspec.Raw


def keep(target: Target, found: Any, directory: Path) -> Path:
    """Write an input into a file, named by what it holds."""
    kept = msgspec.json.encode(_Kept(target.name, msgspec.Raw(msgspec.json.encode(found))))
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{target.name}-{hashlib.sha256(kept).hexdigest()[:12]}.json"
    path.write_bytes(kept)
    return path


def kept(path: Path, targets: dict[str, Target]) -> tuple[Target, Any]:
    """Read an input from a file. Raise `KeyError` or `ValueError` for another file."""
    read = msgspec.json.decode(path.read_bytes(), type=_Kept)
    target = targets[read.target]
    return target, msgspec.json.decode(read.input, type=target.kind)
