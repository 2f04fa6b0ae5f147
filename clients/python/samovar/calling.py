"""What commands do around a call: make a client, and end with an error's words and code."""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import NoReturn

import grpc
import typer

import samovar
from samovar import streams
from samovar.errors import SamovarError
from samovar.exits import Exit, exit_code
from samovar.reach import Place
from samovar.transport import Shown, Tls, Transport
from samovar.words import said


@contextlib.contextmanager
def calling(
    target: str, api_key: str | None, shown: Shown, as_json: bool = False, session: str = ""
) -> Iterator[samovar.Client]:
    """Yield a client for a command; an error in the block ends the program."""
    place = Place(target, shown)
    tls = check(place, api_key, as_json=as_json)
    with (
        failing(place, as_json, session),
        samovar.Client(target, api_key=api_key, tls=tls) as made,
    ):
        yield made


@contextlib.contextmanager
def failing(
    place: Place, as_json: bool = False, session: str = "", said: Callable[..., str] = said
) -> Iterator[None]:
    """Exit with the code and the words of an error in the block."""
    try:
        yield
    except SamovarError as error:
        fail(said(error, place, session), exit_code(error), error, as_json=as_json)
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None


def check(place: Place, api_key: str | None = None, *, as_json: bool = False) -> Tls | None:
    """Return the TLS to use.

    Exit if an address, a key or a certificate is not valid, or if a secret would be shown to the
    network.
    """
    try:
        place.check()
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise ValueError("the key holds a line break, or a letter beyond ASCII: no key does")
        return Transport(place.target, api_key, place.shown.read()).tls
    except ValueError as error:
        fail(str(error), Exit.USAGE, as_json=as_json)


def fail(
    message: str, code: Exit, error: SamovarError | None = None, *, as_json: bool = False
) -> NoReturn:
    """Print one line, or one JSON object on stdout, and exit."""
    if as_json:
        print(json.dumps(_failure(message, code, error)))
    else:
        streams.tell(f"samovar: {message}")
    raise typer.Exit(code)


def _failure(message: str, code: Exit, error: SamovarError | None) -> dict[str, object]:
    if error is None:
        name = "INVALID_ARGUMENT" if code is Exit.USAGE else "UNKNOWN"
        error = SamovarError(message, code=grpc.StatusCode[name])
    return {
        "event": "Failure",
        "reason": error.reason,
        "code": error.code.name,
        "message": message,
        "retry_delay": error.retry_delay,
        "prompt_written": error.prompt_written,
    }
