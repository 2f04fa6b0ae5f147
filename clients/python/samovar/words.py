"""Errors and foreign text as a person should see them, in the words of the command line.

Knows the client's errors, and nothing of where they are shown.
"""

import re
from collections.abc import Callable

from samovar.errors import (
    CallBroken,
    CredentialInvalid,
    DeadlineExceeded,
    EventsExpired,
    IdTaken,
    Internal,
    Misconfigured,
    PermissionNotFound,
    ReaderTooSlow,
    RequestInvalid,
    SamovarError,
    ScopeMissing,
    SessionBusy,
    SessionNotFound,
    TenantDisabled,
    TranscriptLost,
    TurnLost,
    TurnNotFound,
    TurnWithdrawn,
)
from samovar.reach import Place

#: Control characters, C0 and C1, except line feeds and tabs: a terminal would obey them.
_CONTROLS = {n: None for n in (*range(32), *range(127, 160)) if chr(n) not in "\n\t"}
#: gRPC's words for a status that an HTTP proxy or server answered with (grpcio 1.85.3).
_HTTP = re.compile(r"http2? header with status: (\d{3})")
#: The names of requests' fields on the command line.
_FIELDS = {
    "session_id": "the session's name",
    "turn_id": "the turn's id",
    "content": "the message",
    "spec.profile": "--profile",
    "spec.model": "--model",
    "spec.permission_policy": "--ask",
    "tenant_id": "--tenant",
    "interval": "--interval",
}


def said(error: SamovarError, place: Place, session: str = "") -> str:
    """Return on one line what went wrong and what to do; `session` is the one that was asked
    for.
    """
    for kind, words in _SAID.items():
        if isinstance(error, kind):
            return clean_line(words(error, f"the session {session}" if session else "the session"))
    if isinstance(error, CallBroken):
        return clean_line(_broken(error, place))
    again = "" if error.retry_delay is None else f"; try again in {error.retry_delay:.1f} s"
    return clean_line(f"{error}{_cause(error)}{again}")


Words = Callable[[SamovarError, str], str]
_SAID: dict[type[SamovarError], Words] = {
    CredentialInvalid: lambda error, session: (
        "the credential is not valid: set --api-key or SAMOVAR_API_KEY"
    ),
    ScopeMissing: lambda error, session: (
        f"the key lacks the scope {error.metadata.get('scope', '')}: ask the operator for one "
        "that has it"
    ),
    TenantDisabled: lambda error, session: "the tenant is disabled: ask the operator",
    RequestInvalid: lambda error, session: _invalid(error),
    SessionNotFound: lambda error, session: (
        f'{session} does not exist: "samovar sessions list" lists yours'
    ),
    TurnNotFound: lambda error, session: f"{session} has no such turn",
    PermissionNotFound: lambda error, session: "this permission is no longer asked for",
    IdTaken: lambda error, session: _taken(error, session),
    SessionBusy: lambda error, session: (
        f"{session} is busy, and no more turns may wait in it: try again when it has answered"
    ),
    Misconfigured: lambda error, session: f"{error}{_cause(error)}: tell the service's operator",
    TurnWithdrawn: lambda error, session: "the turn was interrupted before it began",
    TurnLost: lambda error, session: f"{error}{_cause(error)}: tools may have run",
    ReaderTooSlow: lambda error, session: (
        "the answer was not read fast enough, and the rest of it is lost"
    ),
    EventsExpired: lambda error, session: "the rest of the answer is no longer kept",
    TranscriptLost: lambda error, session: (
        f"the transcript of {session} is gone: close it, or begin another one"
    ),
    Internal: lambda error, session: _internal(error),
}


def _cause(error: SamovarError) -> str:
    return f" ({error.cause})" if error.cause else ""


def _invalid(error: SamovarError) -> str:
    told = (f"{_field(field)}: {what}" for field, what in error.violations)
    return "; ".join(told) or str(error)


def _field(name: str) -> str:
    """Return a field's name on the command line; the request as a whole is the message."""
    if not name or name.startswith("content"):
        return _FIELDS["content"]
    return _FIELDS.get(name, name)


def _taken(error: SamovarError, session: str) -> str:
    if error.metadata.get("field") == "turn_id":
        return "the turn's id stands for another message"
    differs = error.metadata.get("differs", "spec.profile,spec.model,spec.permission_policy")
    options = [_field(name) for name in differs.split(",")]
    names = ("profile", "model", "permissionPolicy")
    made = ", ".join(value for name in names if (value := error.metadata.get(name)))
    told = f" with {made}" if made else " otherwise"
    return (
        f"{session} exists and was made{told}: leave out {', '.join(options)}, or name "
        "another --session"
    )


def _internal(error: SamovarError) -> str:
    trace = error.metadata.get("traceId")
    found = f", who finds it as trace {trace}" if trace else ""
    ran = "; tools may have run" if error.prompt_written else ""
    return f"the service failed: {error}{_cause(error)}: tell its operator{found}{ran}"


def _broken(error: SamovarError, place: Place) -> str:
    """Return why a call broke that was not answered by a samovard."""
    if isinstance(error, DeadlineExceeded):
        return place.obstacle() or "no answer in time: the deadline has passed"
    if (answered := _HTTP.search(str(error))) is not None:
        return (
            f"what answers at {place.target} says HTTP {answered[1]}: another program, or a proxy "
            "in between"
        )
    if error.code.name == "UNIMPLEMENTED":
        return f"{place.target} does not serve this: is it the right address, and not too old?"
    if error.code.name in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return f"what answers at {place.target} refuses the call, and it is no samovard"
    broke = f"the call to {place.target} broke on the way: try again"
    return place.obstacle() or broke


def clean(text: str) -> str:
    """Return a text without the characters that a terminal would obey."""
    return text.translate(_CONTROLS)


def clean_line(text: str) -> str:
    """Return a text as one line without the characters that a terminal would obey."""
    return clean(" ".join(text.split()))
