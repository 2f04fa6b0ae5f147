"""Convert errors to statuses: the one table of reasons and codes.

Knows the contract's errors and gRPC. Knows nothing of what led to an error.
"""

import random
from types import TracebackType
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from samovard.core.errors import (
    Internal,
    QueueFull,
    QuotaExceeded,
    RequestInvalid,
    SamovarError,
)
from samovard.edge import audit, call_telemetry

DOMAIN = "samovar"
#: The longest delay that a stock client may be told to wait by itself, in seconds: with a longer
#: one it waits past its deadline and the reason is lost (measured, grpcio 1.85.1).
MAX_PUSHBACK = 5.0
#: A pushback of 0 makes stock clients hang until their deadline (grpc/grpc#41036).
MIN_RETRY = 0.1
ESTIMATED = ("NO_PROCESS", "QUEUE_FULL")

CODES: dict[str, grpc.StatusCode] = {
    "CREDENTIAL_INVALID": grpc.StatusCode.UNAUTHENTICATED,
    "SCOPE_MISSING": grpc.StatusCode.PERMISSION_DENIED,
    "TENANT_DISABLED": grpc.StatusCode.PERMISSION_DENIED,
    "REQUEST_INVALID": grpc.StatusCode.INVALID_ARGUMENT,
    "SESSION_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "TURN_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "PERMISSION_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "ID_TAKEN": grpc.StatusCode.ALREADY_EXISTS,
    "SESSION_BUSY": grpc.StatusCode.FAILED_PRECONDITION,
    "MISCONFIGURED": grpc.StatusCode.FAILED_PRECONDITION,
    "EVENTS_EXPIRED": grpc.StatusCode.OUT_OF_RANGE,
    "QUEUE_FULL": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "QUOTA_EXCEEDED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "NO_PROCESS": grpc.StatusCode.UNAVAILABLE,
    # Of the contract for a service on several servers; a single one never says it.
    "SESSION_ELSEWHERE": grpc.StatusCode.UNAVAILABLE,
    "DRAINING": grpc.StatusCode.UNAVAILABLE,
    "TURN_WITHDRAWN": grpc.StatusCode.CANCELLED,
    "TURN_LOST": grpc.StatusCode.ABORTED,
    "READER_TOO_SLOW": grpc.StatusCode.ABORTED,
    "INTERNAL": grpc.StatusCode.INTERNAL,
    "TRANSCRIPT_LOST": grpc.StatusCode.DATA_LOSS,
}


def code_of(error: SamovarError) -> grpc.StatusCode:
    """Return the status code of an error's reason."""
    return CODES[error.reason]


def details_of(error: SamovarError, retry_after: float | None) -> status_pb2.Status:
    """Return the status for `grpc-status-details-bin`."""
    metadata = dict(error.metadata)
    if error.cause:
        metadata["cause"] = error.cause
    if error.prompt_written:
        metadata["promptWritten"] = "true"
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    status = status_pb2.Status(code=code_of(error).value[0], message=error.message)
    status.details.append(_packed(info))
    if isinstance(error, RequestInvalid):
        violation = error_details_pb2.BadRequest.FieldViolation
        bad = [violation(field=field, description=what) for field, what in error.violations]
        status.details.append(_packed(error_details_pb2.BadRequest(field_violations=bad)))
    if isinstance(error, (QueueFull, QuotaExceeded)):
        spent = error_details_pb2.QuotaFailure.Violation(
            subject=error.subject, description=error.message
        )
        status.details.append(_packed(error_details_pb2.QuotaFailure(violations=[spent])))
    if retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(1000 * retry_after))
        status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status


def retry_after_of(error: SamovarError) -> float | None:
    """Return the retry delay in seconds. An estimate gets jitter, so that callers spread out."""
    if error.retry_after is None or error.prompt_written:
        return None
    spread = random.uniform(0.8, 1.2) if error.reason in ESTIMATED else 1.0
    return max(error.retry_after * spread, MIN_RETRY)


def pushback_of(error: SamovarError, retry_after: float | None) -> str | None:
    """Return the value of `grpc-retry-pushback-ms`, None to leave it out."""
    code = code_of(error)
    if code in (grpc.StatusCode.ABORTED, grpc.StatusCode.INTERNAL):
        return "-1"
    if code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
        return None
    if retry_after is None or retry_after > MAX_PUSHBACK:
        return "-1"
    return str(round(1000 * retry_after))


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: SamovarError) -> NoReturn:
    """End a call with an error's status, details and pushback."""
    error = await audit.denied(error)
    call_telemetry.failed(error)
    retry_after = retry_after_of(error)
    status = details_of(error, retry_after)
    trailing: list[tuple[str, str | bytes]] = [
        ("grpc-status-details-bin", status.SerializeToString())
    ]
    if (pushback := pushback_of(error, retry_after)) is not None:
        trailing.append(("grpc-retry-pushback-ms", pushback))
    await context.abort(code_of(error), error.message, trailing_metadata=tuple(trailing))
    raise AssertionError("unreachable")


class Answering:
    """Convert what a handler raises to its status; nothing else does that."""

    __slots__ = ("_context",)

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._context = context

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if isinstance(error, SamovarError):
            await abort(self._context, error)
        if isinstance(error, TimeoutError):
            await abort(self._context, Internal("the service took too long", cause="timeout"))
        # A write to a caller who is gone raises an internal error of grpcio; any other error is a
        # defect, which the guard answers.
        gone = self._context.cancelled() or self._context.done() if error is not None else False
        return gone and isinstance(error, Exception)


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
