"""The errors that a call can fail with: one class for each reaction that a caller can have.

Each class has a `reason` of `errors.proto`; `edge/status` maps it to a status code. `cause` is a
kebab-case word for people and charts. The set of causes is open: do not branch on it.
"""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

#: A status with more bad fields exceeds gRPC's limit for one status: the client would receive
#: RESOURCE_EXHAUSTED without a reason (measured with grpcio 1.85.3: 64 fields are 16 KB).
MAX_VIOLATIONS = 16

#: Why the outcome of a turn is unknown, by cause.
_LOST = {
    "already-run": "the agent has run this turn before",
    "closed": "the session was closed",
    "drained": "the service went away",
    "line-too-long": "the agent wrote a line that is too long",
    "process-died": "its process died",
    "process-limit": "the agent had more processes than it may",
    "server-restarted": "the service ended while it ran",
    "stalled": "the agent made no progress",
    "store-down": "the store does not answer",
    "unproven": "the agent did not prove that it stopped",
}


class SamovarError(Exception):
    """A failure that is returned to the caller.

    `metadata` is sent to the caller unchanged: never put a path, a prompt, a credential or
    another tenant's name into it. `retry_after` is in seconds. `prompt_written` is True if the
    agent has received the prompt.
    """

    reason: ClassVar[str] = "INTERNAL"
    prompt_written: bool = False  # no ClassVar: some errors know it only when they are raised

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
        # One text for all causes: a caller must not learn which credentials exist.
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
    """The request has invalid fields: `violations` are pairs of a field and a description.

    Only the first `MAX_VIOLATIONS` are kept; the message counts the others.
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
    """The session's running turn has no such open request, or it was answered differently."""

    reason = "PERMISSION_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("no such permission request is open")


class Difference(NamedTuple):
    """A field that differs; `values` are the stored value and the requested value.

    `values` is None for free text, which error messages must not repeat.
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
        """Both values, by the field's name in camel case; empty if `values` is None."""
        if self.values is None:
            return {}
        _, _, name = self.field.rpartition(".")
        # Lower camel case is the convention for the keys of gRPC's `ErrorInfo.metadata`.
        camel = "".join(word.capitalize() for word in name.split("_"))
        given, asked = self.values
        return {camel[0].lower() + camel[1:]: given, f"asked{camel}": asked}


class IdTaken(SamovarError):
    """The id is already used for something that differs; `differences` are the fields."""

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
    """The session has a running turn and its queue is full."""

    reason = "SESSION_BUSY"

    def __init__(self, turn_id: str) -> None:
        super().__init__("the session is busy and its queue is full", metadata={"turnId": turn_id})


class Misconfigured(SamovarError):
    """Only the operator can fix the cause; the caller cannot."""

    reason = "MISCONFIGURED"


class EventsExpired(SamovarError):
    """The next event has been dropped from the event log."""

    reason = "EVENTS_EXPIRED"


class QueueFull(SamovarError):
    """The tenant's queue is full; `subject` names the tenant."""

    reason = "QUEUE_FULL"

    def __init__(self, tenant: str, most: int, retry_after: float) -> None:
        message = f"as many turns of the tenant wait as may: {most}"
        super().__init__(message, retry_after=retry_after)
        self.subject = f"tenant:{tenant}"


class QuotaExceeded(SamovarError):
    """The tenant has used up the quota that `subject` names; the quota may renew by itself."""

    reason = "QUOTA_EXCEEDED"

    def __init__(self, subject: str, message: str, *, cause: str, retry_after: float) -> None:
        super().__init__(message, cause=cause, retry_after=retry_after)
        self.subject = subject


class NoProcess(SamovarError):
    """No process was available in time."""

    reason = "NO_PROCESS"


class Draining(SamovarError):
    """The server is shutting down."""

    reason = "DRAINING"

    def __init__(self) -> None:
        super().__init__("the server is going away", retry_after=1.0)


class TurnWithdrawn(SamovarError):
    """The turn was withdrawn by a client or by the server before its prompt was written."""

    reason = "TURN_WITHDRAWN"

    def __init__(self) -> None:
        super().__init__("the turn was withdrawn before it began")


class TurnLost(SamovarError):
    """The turn began and its outcome is unknown; the message contains what is known."""

    reason = "TURN_LOST"
    prompt_written = True

    def __init__(self, cause: str, metadata: Mapping[str, str]) -> None:
        why = _LOST.get(cause, cause)  # the set of causes is open
        exit = f" ({metadata['exit']})" if "exit" in metadata else ""
        message = f"the turn began and its end is not known: {why}{exit}"
        super().__init__(message, cause=cause, metadata=metadata)


class ReaderTooSlow(SamovarError):
    """The client did not read the stream fast enough."""

    reason = "READER_TOO_SLOW"
    prompt_written = True


class TranscriptLost(SamovarError):
    """The session's transcript is gone."""

    reason = "TRANSCRIPT_LOST"

    def __init__(self) -> None:
        super().__init__("the session's transcript is gone; close the session to start over")


class Internal(SamovarError):
    """The service or the agent violated an invariant: a defect."""

    reason = "INTERNAL"


class ProtocolViolated(Internal):
    """The agent broke the protocol after the prompt was written."""

    prompt_written = True

    def __init__(self) -> None:
        super().__init__("the agent broke its protocol", cause="protocol-violated")
