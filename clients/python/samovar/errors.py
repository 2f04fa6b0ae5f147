"""Errors of calls: one class for each thing to do about it.

Knows `google.rpc` details. The reason decides the class; a reason that this version does not know
gives the base class.
"""

import copyreg
from collections.abc import Mapping
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from samovar.events import FailureCause

DOMAIN = "samovar"

T = TypeVar("T", bound=Message)


class SamovarError(Exception):
    """A failed call.

    `reason` is a value of `ErrorReason` without its prefix, empty if the service did not
    make the status; `prompt_written` is True if the agent was given the message;
    `retry_delay` is in seconds, set only if the same call may be repeated after it.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_delay: float | None = None,
        violations: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.retry_delay = retry_delay
        self.violations = violations

    def __reduce__(self) -> tuple[Any, ...]:
        # Made without its __init__, whose arguments are not `args`: an error that cannot be
        # pickled leaves a multiprocessing.Pool waiting for ever.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]  # typeshed lacks it

    @property
    def prompt_written(self) -> bool:
        """True if the agent was given the message, so that tools may have run."""
        return self.metadata.get("promptWritten") == "true"

    @property
    def cause(self) -> str:
        """The cause of the failure, for people."""
        return self.metadata.get("cause", "")


class CallBroken(SamovarError):
    """The call broke on the way and could not be joined again: what happened is unknown.

    Send with the same turn id. `proxy` is the HTTP proxy that was to pass the call on, with the
    variable that names it, empty if there was none.
    """

    proxy = ""


class DeadlineExceeded(CallBroken):
    """The call's own deadline passed."""


class ClientClosed(SamovarError):
    """The client was closed: make another one."""

    def __init__(self) -> None:
        super().__init__("the client is closed", code=grpc.StatusCode.CANCELLED)


class CredentialInvalid(SamovarError):
    """Get a credential."""


class ScopeMissing(SamovarError):
    """Ask for the scope `metadata["scope"]`."""


class TenantDisabled(SamovarError):
    """Ask the operator."""


class RequestInvalid(SamovarError, ValueError):
    """Fix the fields in `violations`: pairs of a field and what is wrong with it."""


class SessionNotFound(SamovarError):
    """Send with `create=True`."""


class TurnNotFound(SamovarError):
    """Send it: it never began."""


class PermissionNotFound(SamovarError):
    """Drop the answer."""


class IdTaken(SamovarError):
    """Choose another id, or ask for what it stands for: `metadata["differs"]` names the fields."""


class SessionBusy(SamovarError):
    """Wait for the turn `metadata["turnId"]`, or interrupt it."""


class Misconfigured(SamovarError):
    """Tell the operator."""


class EventsExpired(SamovarError):
    """The next event is gone: attach after `metadata["oldestSequence"]` minus 1, if it is there."""


class QueueFull(SamovarError):
    """Repeat the call after `retry_delay`."""


class QuotaExceeded(SamovarError):
    """Free some, ask for more, or wait `retry_delay` if there is one."""


class NoProcess(SamovarError):
    """Repeat after `retry_delay`."""


class SessionElsewhere(SamovarError):
    """Repeat the same call after `retry_delay`: it may reach the right replica."""


class Draining(SamovarError):
    """Repeat after `retry_delay`: another replica answers."""


class TurnWithdrawn(SamovarError):
    """Do nothing: a caller asked for it."""


class TurnLost(SamovarError):
    """The turn began and its end is not known: decide whether to send a new one."""


class ReaderTooSlow(SamovarError):
    """Read faster; the stream could not be joined again in time."""


class Internal(SamovarError):
    """Report it."""


class TranscriptLost(SamovarError):
    """Close the session; the next turn begins a new conversation."""


class TurnFailed(SamovarError):
    """The agent reported a failure; `errors` are its sentences, `failure_cause` why.

    `upstream_status` is the HTTP status of the failed call of the model's API, 0 if none;
    `upstream_retry_delay` is after how many seconds it takes requests again, None if unknown.
    """

    def __init__(
        self,
        errors: tuple[str, ...],
        upstream_status: int,
        failure_cause: FailureCause = FailureCause.OTHER,
        upstream_retry_delay: float | None = None,
    ) -> None:
        super().__init__("; ".join(errors) or "the turn failed")
        self.errors = errors
        self.upstream_status = upstream_status
        self.failure_cause = failure_cause
        self.upstream_retry_delay = upstream_retry_delay


BY_REASON: dict[str, type[SamovarError]] = {
    "CREDENTIAL_INVALID": CredentialInvalid,
    "SCOPE_MISSING": ScopeMissing,
    "TENANT_DISABLED": TenantDisabled,
    "REQUEST_INVALID": RequestInvalid,
    "SESSION_NOT_FOUND": SessionNotFound,
    "TURN_NOT_FOUND": TurnNotFound,
    "PERMISSION_NOT_FOUND": PermissionNotFound,
    "ID_TAKEN": IdTaken,
    "SESSION_BUSY": SessionBusy,
    "MISCONFIGURED": Misconfigured,
    "EVENTS_EXPIRED": EventsExpired,
    "QUEUE_FULL": QueueFull,
    "QUOTA_EXCEEDED": QuotaExceeded,
    "NO_PROCESS": NoProcess,
    "SESSION_ELSEWHERE": SessionElsewhere,
    "DRAINING": Draining,
    "TURN_WITHDRAWN": TurnWithdrawn,
    "TURN_LOST": TurnLost,
    "READER_TOO_SLOW": ReaderTooSlow,
    "INTERNAL": Internal,
    "TRANSCRIPT_LOST": TranscriptLost,
}


def of(error: grpc.RpcError, proxy: str = "") -> SamovarError:
    """Return gRPC's error as a typed one; `proxy` is what the call went through."""
    code = error.code()
    message = error.details() or code.name.lower()
    status = status_pb2.Status()
    trailing: Any = error.trailing_metadata() or ()  # its stubs say something else
    for key, value in trailing:
        if key == "grpc-status-details-bin":
            status.ParseFromString(value)
    info = _detail(status, error_details_pb2.ErrorInfo())
    if info is None or info.domain != DOMAIN:
        late = code is grpc.StatusCode.DEADLINE_EXCEEDED
        through = f" (through the proxy {proxy})" if proxy else ""
        broken = (DeadlineExceeded if late else CallBroken)(message + through, code=code)
        broken.proxy = proxy
        return broken
    retry = _detail(status, error_details_pb2.RetryInfo())
    bad = _detail(status, error_details_pb2.BadRequest())
    return BY_REASON.get(info.reason, SamovarError)(
        message,
        code=code,
        reason=info.reason,
        metadata=info.metadata,
        retry_delay=retry.retry_delay.ToTimedelta().total_seconds() if retry else None,
        violations=tuple((v.field, v.description) for v in bad.field_violations) if bad else (),
    )


def _detail(status: status_pb2.Status, message: T) -> T | None:
    return next((message for detail in status.details if detail.Unpack(message)), None)
