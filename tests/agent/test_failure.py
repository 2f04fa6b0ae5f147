"""Why a turn failed: every failure that is known, and what it is to callers."""

from typing import Any

import msgspec
import pytest
from support.recordings import NAMES, encoded, recording

from samovard.agent import codec
from samovard.agent import frames as f
from samovard.agent.codec import Decoder
from samovard.agent.failure import SENTENCES, before_prompt, cause_of
from samovard.agent.window import Window
from samovard.core.events import FailureCause, Outcome, TurnFinished
from samovard.core.process import Prompt, Text
from samovard.standin import sse

OTHER, UNSPECIFIED = FailureCause.OTHER, FailureCause.UNSPECIFIED

#: Every recording in which a turn failed: the cause of each that did.
RECORDED = {
    "api-400": ["INVALID_REQUEST"],
    "api-400-billing": ["BILLING"],
    "api-400-too-long": ["CONTEXT_TOO_LONG"],
    "api-401": ["AUTHENTICATION"],
    "api-403": ["PERMISSION"],
    "api-404": ["MODEL_NOT_FOUND"],
    "api-413": ["REQUEST_TOO_LARGE"],
    "api-413-too-long": ["CONTEXT_TOO_LONG"],
    "api-429": ["RATE_LIMITED"],
    "api-500": ["UPSTREAM"],
    "api-529": ["OVERLOADED"],
    "api-unreachable": ["NETWORK"],
    "not-compacted": ["CONTEXT_TOO_LONG", "CONTEXT_TOO_LONG"],
    "structured-output": ["RESULT_INVALID"],
    "structured-output-exhausted": ["RESULT_INVALID"],
}
#: Every status of the stand-in: those with a cause of their own, and the others of their class.
STATUSES = {
    status: "INVALID_REQUEST" if status < 500 else "UPSTREAM" for status in range(400, 600)
} | {
    401: "AUTHENTICATION",
    402: "BILLING",
    403: "PERMISSION",
    404: "MODEL_NOT_FOUND",
    407: "NETWORK",
    408: "NETWORK",
    409: "UPSTREAM",
    413: "REQUEST_TOO_LARGE",
    429: "RATE_LIMITED",
    529: "OVERLOADED",
}
ROWS = RECORDED | {status: [cause] for status, cause in STATUSES.items()}


def recorded(name: str) -> list[TurnFinished]:
    """Return the reports of a recording's turns."""
    window = Window(recording(name).session, structured=name.startswith("structured"))
    decoder, reports = Decoder(1 << 20), []
    for way, line in recording(name).lines:
        if way == "out":
            reports.append(window.take(decoder.feed(encoded(line))).finished)
        elif line["type"] == "user":
            window.open(Prompt(line.get("uuid", "?"), (Text(b"x"),)))
    return [report for report in reports if report is not None]


def result(status: int | None = None, kind: str = "", text: str = "", **more: Any) -> f.Result:
    """Return the CLI's report of a call that failed with a status, a type of error and a text."""
    given = {"terminal_reason": "api_error", "is_error": True, **more}
    line = {"type": "result", "api_error_status": status, "api_error_type": kind, "result": text}
    frame = codec.decode(msgspec.json.encode(line | given))
    assert isinstance(frame, f.Result)
    return frame


def causes(row: str | int) -> list[FailureCause]:
    """Return the causes of what failed in a recording, or at a status of the stand-in."""
    if isinstance(row, str):
        return [r.failure_cause for r in recorded(row) if r.outcome is Outcome.FAILED]
    return [cause_of(result(row, sse.error(row)["error"]["type"], f"API Error: {row} no"), "")]


@pytest.mark.parametrize("row", ROWS)
def test_a_failure_has_its_cause(row: str | int) -> None:
    """Each recording of a failure and each status of the stand-in has a row, and its cause."""
    assert [cause.name for cause in causes(row)] == ROWS[row]


def test_every_recording_of_a_failure_has_a_row() -> None:
    """A recording that is made later needs one as well."""
    failed = {name for name in NAMES if any(r.outcome is Outcome.FAILED for r in recorded(name))}
    # Only a profile with a schema makes its turns without a result of that form fail.
    assert failed == set(RECORDED)


def test_only_a_failure_has_a_cause() -> None:
    """What did not fail is UNSPECIFIED, and what did is not, and has the sentence of its cause."""
    for name in NAMES:
        for report in recorded(name):
            failed = report.outcome is Outcome.FAILED
            assert (report.failure_cause is not UNSPECIFIED) is failed
            assert report.errors == ((SENTENCES[report.failure_cause],) if failed else ())


def test_every_cause_has_a_sentence() -> None:
    """A sentence of our own, which no text of others is in."""
    assert set(SENTENCES) == set(FailureCause) - {UNSPECIFIED}
    assert len(set(SENTENCES.values())) == len(SENTENCES)


@pytest.mark.parametrize(
    ("report", "word", "cause"),
    [
        (result(400, "billing_error", "API Error: 400 no"), "unknown", "BILLING"),
        (result(400, "", "Credit balance is too low"), "billing_error", "BILLING"),
        (
            result(400, "", "API Error: 400 You have reached your specified API usage limits."),
            "unknown",
            "BILLING",
        ),
        (
            result(400, "", "API Error: 400 This organization has been disabled."),
            "unknown",
            "PERMISSION",
        ),
        (result(500, "overloaded_error"), "server_error", "OVERLOADED"),
        (result(400, "invented_error"), "invented", "INVALID_REQUEST"),
        (result(None, "", "Not logged in"), "authentication_failed", "AUTHENTICATION"),
        (result(None, "", "Connection refused"), "server_error", "NETWORK"),
        (result(None, "", "too much"), "max_output_tokens", "OTHER"),
        (
            result(400, "", "Image was too large.", terminal_reason="image_error"),
            "invalid_request",
            "REQUEST_TOO_LARGE",
        ),
        (
            result(400, "", "The PDF file was not valid.", terminal_reason="image_error"),
            "invalid_request",
            "INVALID_REQUEST",
        ),
        (
            result(413, "", "Prompt is too long · automatic compaction failed"),
            "",
            "CONTEXT_TOO_LONG",
        ),
        (result(None, "", "", terminal_reason="rapid_refill_breaker"), "", "CONTEXT_TOO_LONG"),
        (result(None, "", "Prompt is too long", terminal_reason="completed"), "", "OTHER"),
        (result(None, "", "", terminal_reason="something_new"), "", "OTHER"),
    ],
)
def test_words_and_types_say_what_a_status_does_not(
    report: f.Result, word: str, cause: str
) -> None:
    """The CLI's own word, the API's type of the error and some texts tell one 400 from another."""
    assert cause_of(report, word) is FailureCause[cause]


#: The CLI's words for a failed call: with a status of 400, and without any.
WORDS = {
    "authentication_failed": ("INVALID_REQUEST", "AUTHENTICATION"),
    "oauth_org_not_allowed": ("PERMISSION", "PERMISSION"),
    "account_on_hold": ("BILLING", "BILLING"),
    "verification_required": ("PERMISSION", "PERMISSION"),
    "billing_error": ("BILLING", "BILLING"),
    "rate_limit": ("INVALID_REQUEST", "RATE_LIMITED"),
    "overloaded": ("OVERLOADED", "OVERLOADED"),
    "invalid_request": ("INVALID_REQUEST", "INVALID_REQUEST"),
    "model_not_found": ("INVALID_REQUEST", "MODEL_NOT_FOUND"),
    "server_error": ("INVALID_REQUEST", "NETWORK"),
    "unknown": ("INVALID_REQUEST", "NETWORK"),
    "max_output_tokens": ("INVALID_REQUEST", "OTHER"),
    "cloud_credential_error": ("INVALID_REQUEST", "AUTHENTICATION"),
}
#: The API's types of errors, with a status that says nothing: 400, and 500.
TYPES = {
    "invalid_request_error": ("INVALID_REQUEST", "UPSTREAM"),
    "authentication_error": ("AUTHENTICATION", "AUTHENTICATION"),
    "billing_error": ("BILLING", "BILLING"),
    "permission_error": ("PERMISSION", "PERMISSION"),
    "not_found_error": ("INVALID_REQUEST", "UPSTREAM"),
    "request_too_large": ("REQUEST_TOO_LARGE", "REQUEST_TOO_LARGE"),
    "rate_limit_error": ("RATE_LIMITED", "RATE_LIMITED"),
    "timeout_error": ("INVALID_REQUEST", "UPSTREAM"),
    "api_error": ("INVALID_REQUEST", "UPSTREAM"),
    "overloaded_error": ("OVERLOADED", "OVERLOADED"),
}


@pytest.mark.parametrize("word", WORDS)
def test_each_word_of_the_cli_has_its_cause(word: str) -> None:
    """All that claude 2.1.330 has; without a status most are the only thing that is known."""
    told = cause_of(result(400), word).name, cause_of(result(None), word).name
    assert told == WORDS[word]


@pytest.mark.parametrize("kind", TYPES)
def test_each_type_of_the_api_has_its_cause(kind: str) -> None:
    """A gateway in between may have changed the status."""
    told = cause_of(result(400, kind), "").name, cause_of(result(500, kind), "").name
    assert told == TYPES[kind]


PROMPT = "Please look at task-7 and say whether the quick brown fox is lazy."


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("Credit balance is too low", "Credit balance is too low"),
        ("the fox is lazy: please look", "the fox is lazy: please look"),
        ("no such thing as the quick brown fox here", "no such thing as "),
        ("no task-7 here", "no "),
        ("task-8 and tasks", "task-8 and tasks"),
        ("400 " * 999, "400 " * 250),
    ],
)
def test_an_error_is_told_up_to_where_it_repeats_the_prompt(said: str, left: str) -> None:
    """Some words in a row, or a name; single words are everybody's."""
    assert before_prompt(said, PROMPT) == left


def retry(status: int | None, milliseconds: float) -> dict[str, Any]:
    fields = {"error_status": status, "retry_delay_ms": milliseconds}
    return {"type": "system", "subtype": "api_retry", **fields}


def refused(status: int = 429) -> dict[str, Any]:
    return {
        "type": "result",
        "terminal_reason": "api_error",
        "api_error_status": status,
        "user_message_uuids": ["turn"],
    }


SAID: dict[str, Any] = {"type": "assistant", "message": {"id": "m", "content": []}}


@pytest.mark.parametrize(
    ("lines", "delay"),
    [
        ([retry(429, 7000), refused()], 7.0),
        ([retry(429, 7000), retry(429, 9000), refused()], 9.0),
        ([refused()], None),
        ([retry(529, 7000), refused()], None),
        ([retry(429, 7000), SAID, refused()], None),
        ([retry(429, 7000), refused(529)], None),
    ],
)
def test_the_delay_of_a_limit_is_that_of_the_last_retry(
    lines: list[dict[str, Any]], delay: float | None
) -> None:
    """The CLI tells the API's `retry-after` with each retry, and not with its report: what it said
    last holds, unless the API answered since."""
    window = Window("")
    window.open(Prompt("turn", (Text(b"x"),)))
    began = {"type": "command_lifecycle", "command_uuid": "turn", "state": "started"}
    data = b"".join(map(encoded, [began, *lines]))
    report = window.take(Decoder(1 << 20).feed(data)).finished
    assert report is not None
    assert report.upstream_retry_delay == delay
