"""Check an operator's requests, and report every violation at once.

Knows protobuf and the limits that the contract states. Looks nothing up.
"""

from collections.abc import Iterator
from datetime import date

from samovar.v1 import pool_pb2 as pb
from samovard.core.errors import RequestInvalid
from samovard.core.records import Days, SessionKey
from samovard.edge.identity import TENANT
from samovard.edge.validate import NAME, days, seconds

DEFAULT_ROWS, MAX_ROWS = 100, 1000
MIN_INTERVAL, DEFAULT_INTERVAL, MAX_INTERVAL = 0.1, 1.0, 60.0

Violations = Iterator[tuple[str, str]]
SessionRequest = (
    pb.InterruptSessionRequest | pb.CloseTenantSessionRequest | pb.UnblockSessionRequest
)


def page(request: pb.ListPoolsRequest | pb.ListProcessesRequest) -> int:
    """Return the size of a page. Raise `RequestInvalid` with every bad field."""
    _refuse(*_rows("page_size", request.page_size), *_tenant(request.tenant_id))
    return min(request.page_size or DEFAULT_ROWS, MAX_ROWS)


def usage(request: pb.ListUsageRequest, today: date) -> tuple[int, Days]:
    """Return the size of a page, and the days. Raise `RequestInvalid` as `page` does."""
    found, violations = days(request.first_day, request.last_day, today)
    rows = _rows("page_size", request.page_size)
    _refuse(*rows, *_tenant(request.tenant_id), *violations)
    return min(request.page_size or DEFAULT_ROWS, MAX_ROWS), found


def watch(request: pb.WatchPoolsRequest) -> tuple[float, int]:
    """Return the seconds between snapshots and the maximum of rows. Raise `RequestInvalid`."""
    interval = DEFAULT_INTERVAL
    if request.HasField("interval"):
        interval = seconds(request.interval)
    _refuse(*_interval(interval), *_rows("max_rows", request.max_rows), *_tenant(request.tenant_id))
    return interval, min(request.max_rows or DEFAULT_ROWS, MAX_ROWS)


def drain(request: pb.DrainPoolRequest) -> tuple[str, str]:
    """Return the tenant and the profile, empty for all. Raise `RequestInvalid`."""
    _refuse(*_tenant(request.tenant_id, required=True), *_profile(request.profile))
    return request.tenant_id, request.profile


def pausing(request: pb.PausePoolRequest | pb.ResumePoolRequest) -> str:
    """Return the tenant, empty for all. Raise `RequestInvalid` as `page` does."""
    _refuse(*_tenant(request.tenant_id))
    return request.tenant_id


def session(request: SessionRequest) -> SessionKey:
    """Return the session of a tenant. Raise `RequestInvalid` as `page` does."""
    _refuse(*_tenant(request.tenant_id, required=True), *_session(request.session_id))
    return SessionKey(request.tenant_id, request.session_id)


def _refuse(*violations: tuple[str, str]) -> None:
    if violations:
        raise RequestInvalid(*violations)


def _tenant(name: str, *, required: bool = False) -> Violations:
    if required and not name:
        yield "tenant_id", "is required"
    elif name and not TENANT.fullmatch(name):
        yield "tenant_id", f"does not match {TENANT.pattern}"


def _session(name: str) -> Violations:
    if not name:
        yield "session_id", "is required"
    elif not NAME.fullmatch(name):
        yield "session_id", f"does not match {NAME.pattern}"


def _profile(name: str) -> Violations:
    if name and not NAME.fullmatch(name):
        yield "profile", f"does not match {NAME.pattern}"


def _rows(field: str, count: int) -> Violations:
    if count < 0:
        yield field, "must not be negative"


def _interval(seconds: float) -> Violations:
    if not MIN_INTERVAL <= seconds <= MAX_INTERVAL:
        yield "interval", f"must be {MIN_INTERVAL:g} s to {MAX_INTERVAL:g} s"
