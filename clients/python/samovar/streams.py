"""A command line's standard files: a problem with them is one line, never a traceback.

Knows what the operating system does to them. Knows no command.
"""

import contextlib
import os
import sys
from collections.abc import Callable
from typing import NoReturn

GONE = 141  # what a shell returns for a program that SIGPIPE ended


def run(program: str, app: Callable[[], object], *, traces: bool = False) -> NoReturn:
    """Run a command line and exit with its code, once all that it printed is written.

    `open_missing` comes before it. A defect is one line, unless a log needs its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        # Characters that an old terminal cannot show are escaped.
        _reconfigured(stream, errors="backslashreplace")
    try:
        code = _code_of(app)
        sys.stdout.flush()
    except BrokenPipeError:
        code = GONE
    except OSError as error:
        code = 1
        where = f"{error.filename}: " if error.filename is not None else ""
        tell(f"{program}: {where}{error.strerror or repr(error)}")
    except Exception as error:
        if traces or sys.flags.dev_mode:
            raise
        code = 1
        tell(f"{program}: a defect of its own, {error!r}: python -X dev shows where")
    _leave(code)


def tell(line: str) -> None:
    """Print a line to stderr, if that can be done."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def is_text(value: str) -> bool:
    """True if no byte of it was read as a surrogate, which nothing could write again."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def open_missing() -> None:
    """Open /dev/null as each standard file that the caller closed.

    Otherwise the next file to be opened, perhaps the database, takes its number and gets what
    is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  # for good


def keep_stderr() -> None:
    """Keep stderr to what Python prints: what libraries write to descriptor 2 is dropped.

    gRPC decides at its import whether it logs there, before any code of a program can say so.
    """
    own = open(  # noqa: SIM115  # for good
        os.dup(2), "w", encoding=sys.stderr.encoding, errors="backslashreplace", buffering=1
    )
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    sys.stderr = own


def _code_of(app: Callable[[], object]) -> int:
    try:
        app()
    except SystemExit as ended:
        # Typer and Rich both exit with 1 where a reader has gone.
        if isinstance(ended.__context__, BrokenPipeError):
            return GONE
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def _reconfigured(stream: object, **options: str) -> None:
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(**options)


def _leave(code: int) -> NoReturn:
    """Exit with this code, whatever is left unwritten."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (OSError, ValueError):
            # Python's own flush at exit would change the code to 120.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # for good
    sys.exit(code)
