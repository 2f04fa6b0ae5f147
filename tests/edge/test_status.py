"""Errors as statuses: one table, and what goes with each."""

import inspect

import grpc
import pytest
from google.rpc import error_details_pb2

from samovar.v1 import errors_pb2
from samovard.core import errors
from samovard.edge.status import CODES, code_of, details_of, pushback_of, retry_after_of

CLASSES = [
    c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.SamovarError)
]


def test_every_reason_of_the_contract_has_a_code() -> None:
    """The table has the contract's reasons, all and no others."""
    prefix = "ERROR_REASON_"
    reasons = {name.removeprefix(prefix) for name in errors_pb2.ErrorReason.keys()}
    assert set(CODES) == reasons - {"UNSPECIFIED"}


@pytest.mark.parametrize("error_class", CLASSES)
def test_every_error_has_a_reason_of_the_contract(error_class: type[errors.SamovarError]) -> None:
    """No class of error is without a code."""
    assert error_class.reason in CODES


def info_of(error: errors.SamovarError) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    assert details_of(error, None).details[0].Unpack(info)
    return info


def test_details_hold_reason_domain_and_cause() -> None:
    """`ErrorInfo` comes first and says reason, domain and cause."""
    info = info_of(errors.NoProcess("no", cause="saturated", retry_after=1.0))
    assert (info.reason, info.domain) == ("NO_PROCESS", "samovar")
    assert dict(info.metadata) == {"cause": "saturated"}


def test_prompt_written_is_told_only_if_it_was() -> None:
    """`promptWritten` is `true` or absent."""
    assert info_of(errors.TurnLost("stalled", {})).metadata["promptWritten"] == "true"
    assert "promptWritten" not in info_of(errors.NoProcess("x")).metadata


def test_every_violation_is_named() -> None:
    """`BadRequest` names each bad field."""
    status = details_of(errors.RequestInvalid(("a", "is bad"), ("b", "is worse")), None)
    bad = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad)
    assert [v.field for v in bad.field_violations] == ["a", "b"]


@pytest.mark.parametrize(
    ("error", "subject"),
    [
        (errors.QueueFull("acme", 16, 1.0), "tenant:acme"),
        (errors.QuotaExceeded("model:opus", "no", cause="x", retry_after=9.0), "model:opus"),
    ],
)
def test_a_quota_names_its_subject(error: errors.SamovarError, subject: str) -> None:
    """`QuotaFailure` says whose quota it is, and what is used up."""
    failure = error_details_pb2.QuotaFailure()
    assert details_of(error, 1.0).details[1].Unpack(failure)
    (violation,) = failure.violations
    assert (violation.subject, violation.description) == (subject, error.message)


def test_retry_is_never_below_a_tenth_of_a_second() -> None:
    """A delay of 0 would make stock clients hang."""
    error = errors.NoProcess("x", retry_after=0.0)
    assert retry_after_of(error) == 0.1


def test_what_began_has_no_retry() -> None:
    """A turn whose prompt was written is never to be repeated by itself."""
    assert retry_after_of(errors.ReaderTooSlow("x", retry_after=1.0)) is None


@pytest.mark.parametrize(
    ("error", "delay", "pushback"),
    [
        (errors.NoProcess("x"), 0.25, "250"),
        (errors.NoProcess("x"), 5.0, "5000"),
        (errors.NoProcess("x"), 5.1, "-1"),
        (errors.NoProcess("x"), None, "-1"),
        (errors.TurnLost("stalled", {}), None, "-1"),
        (errors.Internal("x"), None, "-1"),
        (errors.SessionNotFound(), None, None),
    ],
)
def test_pushback(error: errors.SamovarError, delay: float | None, pushback: str | None) -> None:
    """Refusals say when to retry; what may have run says never; others say nothing."""
    assert pushback_of(error, delay) == pushback


def test_credential_errors_are_one_text() -> None:
    """Which fault a credential has is never said."""
    assert errors.CredentialInvalid().message == "the credential is not valid"
    assert code_of(errors.CredentialInvalid()) is grpc.StatusCode.UNAUTHENTICATED
