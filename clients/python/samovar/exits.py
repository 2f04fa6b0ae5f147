"""The exit codes of `samovar`: one code for each thing to do next.

Knows the client's errors.
"""

import enum

from samovar.errors import (
    CallBroken,
    CredentialInvalid,
    EventsExpired,
    IdTaken,
    PermissionNotFound,
    ReaderTooSlow,
    RequestInvalid,
    SamovarError,
    ScopeMissing,
    SessionBusy,
    SessionNotFound,
    TenantDisabled,
    TurnLost,
    TurnNotFound,
)


class Exit(enum.IntEnum):
    """The exit codes; `meanings` has their words."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    NOT_FOUND = 5
    AGAIN = 6
    LOST = 7
    INTERRUPTED = 130
    READER_GONE = 141


MEANINGS = {
    Exit.DONE: "done",
    Exit.FAILED: "the turn failed or was interrupted, or the service cannot do it",
    Exit.USAGE: "called wrongly",
    Exit.UNREACHABLE: "no samovard was reached, or none answered in time",
    Exit.REFUSED: "the key is missing, is not valid or may not do this",
    Exit.NOT_FOUND: "there is no such session",
    Exit.AGAIN: "busy or going away: nothing ran, try again",
    Exit.LOST: "the turn began and its end is not known: tools may have run",
    Exit.INTERRUPTED: "Ctrl-C",
    Exit.READER_GONE: "the reader of the output has left",
}

#: For `--help`; the first character keeps the lines as they are.
EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:<3}  {MEANINGS[code]}" for code in Exit)

_CODES: tuple[tuple[tuple[type[SamovarError], ...], Exit], ...] = (
    ((CallBroken,), Exit.UNREACHABLE),
    ((RequestInvalid, IdTaken), Exit.USAGE),
    ((CredentialInvalid, ScopeMissing, TenantDisabled), Exit.REFUSED),
    ((SessionNotFound, TurnNotFound, PermissionNotFound), Exit.NOT_FOUND),
    ((TurnLost, ReaderTooSlow, EventsExpired), Exit.LOST),
    ((SessionBusy,), Exit.AGAIN),
)


def exit_code(error: SamovarError) -> Exit:
    """Return the exit code of a failed call."""
    for kinds, code in _CODES:
        if isinstance(error, kinds):
            return code
    if error.prompt_written:
        return Exit.LOST
    return Exit.FAILED if error.retry_delay is None else Exit.AGAIN
