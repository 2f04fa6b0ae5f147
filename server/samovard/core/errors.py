"""Why a call fails: one class for each thing that a caller can do about it.

Each class has a `reason` of `errors.proto`; which status code that is, `edge/status`
knows. `cause` is an open kebab-case word for people and charts, never branched on.
"""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

#: A status that names more bad fields is larger than what gRPC takes of one: the caller is told
#: RESOURCE_EXHAUSTED instead, without a reason (measured, grpcio 1.85.3: 64 fields are 16 KB).
MAX_VIOLATIONS = 16

#: Why the end of a turn is not known, by cause.
_LOST = {
    "already-run": "the agent has run this turn before",
    "closed": "the session was closed",
    "drained": "the service went away",
    "line-too-long": "the agent wrote a line that is too long",
    "process-died": "its process died",
    "server-restarted": "the service ended while it ran",
    "stalled": "the agent made no progress",
    "store-down": "the store does not answer",
    "unproven": "the agent did not prove that it stopped",
}


class SamovarError(Exception):
    """A failure that a caller is told, with its data.

    `metadata` is told to the caller as it is: never put a path, a prompt, a
    credential or another tenant's name into it. `retry_after` is in seconds.
    """

    reason: ClassVar[str] = "INTERNAL"
    prompt_written: bool = False

    def __init__(
        self,
        message: str,
        *,
        cause: str = "",
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause
        self.retry_after = retry_after
        self.metadata = dict(metadata or {})

    def __repr__(self) -> str:
        cause = f" ({self.cause})" if self.cause else ""
        return f"{self.reason}{cause}: {self.message}"


class CredentialInvalid(SamovarError):
    """The credential is missing, malformed, unknown, expired or revoked."""

    reason = "CREDENTIAL_INVALID"

    def __init__(self) -> None:
        # One text for all causes: which it was is never said.
        super().__init__("the credential is not valid")


class ScopeMissing(SamovarError):
    """The credential lacks a scope."""

    reason = "SCOPE_MISSING"

    def __init__(self, scope: str) -> None:
        super().__init__("the credential lacks a scope", metadata={"scope": scope})


class TenantDisabled(SamovarError):
    """The operator has disabled the tenant."""

    reason = "TENANT_DISABLED"

    def __init__(self) -> None:
        super().__init__("the tenant is disabled")


class RequestInvalid(SamovarError):
    """Some fields are bad: `violations` are pairs of field and what is wrong with it.

    They are the first `MAX_VIOLATIONS`; the message counts the others.
    """

    reason = "REQUEST_INVALID"

    def __init__(self, *violations: tuple[str, str]) -> None:
        self.violations = violations[:MAX_VIOLATIONS]
        told = [f"{field}: {what}" for field, what in self.violations]
        if more := len(violations[MAX_VIOLATIONS:]):
            told.append(f"and {more} more")
        super().__init__("; ".join(told))


class SessionNotFound(SamovarError):
    """The tenant has no such session."""

    reason = "SESSION_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("the session does not exist; send with a spec to create it")


class TurnNotFound(SamovarError):
    """The session has no such turn."""

    reason = "TURN_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("the session has no such turn")


class PermissionNotFound(SamovarError):
    """The session's running turn has no such permission request, or another answer to it."""

    reason = "PERMISSION_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("no such permission request is open")


class Difference(NamedTuple):
    """A field that differs; `values` are what it is and what it was asked to be.

    Of a text there are none: no message repeats it.
    """

    field: str
    values: tuple[str, str] | None = None

    def __str__(self) -> str:
        if self.values is None:
            return self.field
        given, asked = (value or "unset" for value in self.values)
        return f"{self.field} is {given}, not {asked}"

    @property
    def metadata(self) -> dict[str, str]:
        """Both values, by a name in camel case."""
        if self.values is None:
            return {}
        _, _, name = self.field.rpartition(".")
        camel = "".join(word.capitalize() for word in name.split("_"))
        given, asked = self.values
        return {camel[0].lower() + camel[1:]: given, f"asked{camel}": asked}


class IdTaken(SamovarError):
    """The id stands for something else already; `differences` say in what."""

    reason = "ID_TAKEN"

    def __init__(self, field: str, *differences: Difference) -> None:
        told = ", ".join(map(str, differences))
        metadata = {"field": field, "differs": ",".join(d.field for d in differences)}
        for difference in differences:
            metadata |= difference.metadata
        super().__init__(
            f"the {field} stands for something that differs: {told}", metadata=metadata
        )


class SessionBusy(SamovarError):
    """No more turns may wait behind the session's running one."""

    reason = "SESSION_BUSY"

    def __init__(self, turn_id: str) -> None:
        super().__init__("the session is busy and its queue is full", metadata={"turnId": turn_id})


class Misconfigured(SamovarError):
    """The operator must act: the caller cannot."""

    reason = "MISCONFIGURED"


class EventsExpired(SamovarError):
    """The next event is no longer held."""

    reason = "EVENTS_EXPIRED"


class QueueFull(SamovarError):
    """As many turns of the tenant wait as may; `subject` names the tenant."""

    reason = "QUEUE_FULL"

    def __init__(self, tenant: str, most: int) -> None:
        super().__init__(f"as many turns of the tenant wait as may: {most}", retry_after=1.0)
        self.subject = f"tenant:{tenant}"


class QuotaExceeded(SamovarError):
    """The tenant has used up something, which `subject` names; it may renew by itself."""

    reason = "QUOTA_EXCEEDED"

    def __init__(self, subject: str, message: str, *, cause: str, retry_after: float) -> None:
        super().__init__(message, cause=cause, retry_after=retry_after)
        self.subject = subject


class NoProcess(SamovarError):
    """No process could be had in time."""

    reason = "NO_PROCESS"


class Draining(SamovarError):
    """The server is going away."""

    reason = "DRAINING"

    def __init__(self) -> None:
        super().__init__("the server is going away", retry_after=1.0)


class TurnWithdrawn(SamovarError):
    """Somebody stopped the turn while it still waited."""

    reason = "TURN_WITHDRAWN"

    def __init__(self) -> None:
        super().__init__("the turn was withdrawn before it began")


class TurnLost(SamovarError):
    """The turn began and how it ended is not known; the message says what is known of it."""

    reason = "TURN_LOST"
    prompt_written = True

    def __init__(self, cause: str, metadata: Mapping[str, str]) -> None:
        why = _LOST.get(cause, cause)
        exit = f" ({metadata['exit']})" if "exit" in metadata else ""
        message = f"the turn began and its end is not known: {why}{exit}"
        super().__init__(message, cause=cause, metadata=metadata)


class ReaderTooSlow(SamovarError):
    """The stream was not read fast enough."""

    reason = "READER_TOO_SLOW"
    prompt_written = True


class TranscriptLost(SamovarError):
    """The session's transcript is gone."""

    reason = "TRANSCRIPT_LOST"

    def __init__(self) -> None:
        super().__init__("the session's transcript is gone; close the session to start over")


class Internal(SamovarError):
    """The service or the agent broke a rule of its own."""

    reason = "INTERNAL"


class ProtocolViolated(Internal):
    """The agent broke the protocol after the prompt was written."""

    prompt_written = True

    def __init__(self) -> None:
        super().__init__("the agent broke its protocol", cause="protocol-violated")
