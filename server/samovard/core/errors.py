"""Why a call fails: one class for each thing that a caller can do about it.

Each class has a `reason` of `errors.proto`; which status code that is, `edge/status`
knows. `cause` is an open kebab-case word for people and charts, never branched on.
"""

from collections.abc import Mapping
from typing import ClassVar


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


class RequestInvalid(SamovarError):
    """Some fields are bad: `violations` are pairs of field and what is wrong with it."""

    reason = "REQUEST_INVALID"

    def __init__(self, *violations: tuple[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {what}" for field, what in violations))
        self.violations = violations


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


class IdTaken(SamovarError):
    """The id stands for something else already."""

    reason = "ID_TAKEN"

    def __init__(self, field: str) -> None:
        message = f"the {field} stands for something that differs"
        super().__init__(message, metadata={"field": field})


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
    """As many turns of the tenant wait as may."""

    reason = "QUEUE_FULL"


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
    """The turn began and how it ended is not known."""

    reason = "TURN_LOST"
    prompt_written = True


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
