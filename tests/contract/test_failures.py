"""Why a turn failed, on the real CLI: what its caller is told, and what the operator is."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from recorder.scenes import BAD_SCHEMA, FULL, NO_CREDIT, TOO_LONG
from structlog.testing import capture_logs
from support.client_turns import ask, finished, text_of
from support.otlp_collector import collecting
from support.service import free_port, serving

import samovar
from samovard.standin import script, sse, status

PROFILES = {"default": {"model": "haiku", "cli_retries": 0}}
NO_NEXT = 99  # times that a status is given: more often than anything asks

#: What the API answers with, and why the turn failed.
ANSWERS: list[tuple[dict[str, Any], str]] = [
    (status(400, NO_NEXT), "INVALID_REQUEST"),
    (status(400, NO_NEXT, message=NO_CREDIT), "BILLING"),
    (status(400, NO_NEXT, message=TOO_LONG), "CONTEXT_TOO_LONG"),
    (status(400, NO_NEXT, kind="billing_error"), "BILLING"),
    (status(402, NO_NEXT), "BILLING"),
    (status(403, NO_NEXT), "PERMISSION"),
    (status(404, NO_NEXT), "MODEL_NOT_FOUND"),
    (status(413, NO_NEXT), "REQUEST_TOO_LARGE"),
    (status(413, NO_NEXT, message=TOO_LONG), "CONTEXT_TOO_LONG"),
    (status(422, NO_NEXT), "INVALID_REQUEST"),
    (status(429, NO_NEXT), "RATE_LIMITED"),
    (status(500, NO_NEXT), "UPSTREAM"),
    (status(503, NO_NEXT), "UPSTREAM"),
    (status(529, NO_NEXT), "OVERLOADED"),
]


def test_what_the_api_answers_is_told_as_a_cause(directory: Path) -> None:
    """One answer after the other, to one agent; a turn that does not fail has no cause."""

    async def story() -> None:
        async with serving(directory, profiles=PROFILES) as run:
            for answer, cause in ANSWERS:
                report = finished(await ask(run, script(answer)))
                assert report.outcome is samovar.Outcome.FAILED
                assert report.failure_cause.name == cause, answer
            well = finished(await ask(run, "Say on", session="well"))
            assert well.failure_cause is samovar.FailureCause.UNSPECIFIED

    asyncio.run(story())


def refusing(message: str) -> Callable[[bytes], None]:
    """Return what makes the stand-in answer 400 to every request, with a message of its own."""

    def refuse(raw: bytes) -> None:
        body = json.dumps(sse.error(400, message=message))
        raise web.HTTPBadRequest(text=body, content_type="application/json")

    return refuse


def test_a_conversation_that_cannot_be_compacted_is_too_long_each_time(directory: Path) -> None:
    """The API takes neither the conversation nor the request for its summary."""

    async def story() -> None:
        async with serving(directory, profiles=PROFILES) as run:
            await ask(run, FULL)
            run.stand_in.on_body = refusing(TOO_LONG)
            for _ in range(5):
                report = finished(await ask(run, "Say on"))
                assert report.failure_cause is samovar.FailureCause.CONTEXT_TOO_LONG

    asyncio.run(story())


def test_an_api_that_cannot_be_reached_is_a_failure_of_the_network(directory: Path) -> None:
    """Nothing listens where it should be, and the operator is told so."""
    credentials = {"upstream": f"http://127.0.0.1:{free_port()}"}

    async def story() -> None:
        async with serving(directory, profiles=PROFILES, credentials=credentials) as run:
            report = finished(await ask(run, "Say no"))
            assert report.failure_cause is samovar.FailureCause.NETWORK
            assert report.upstream_status == 0

    with capture_logs() as lines:
        asyncio.run(story())
    (line,) = (line for line in lines if line["event"] == "upstream.failed")
    assert (line["status"], line["failure_cause"]) == (0, "network")
    (why,) = (line["why"] for line in lines if line["event"] == "broker.unreached")
    assert why == "Connection refused"


#: What the API says, and what the operator is told of it.
SAID = [
    (NO_CREDIT, "billing", "Credit balance is too low"),
    (BAD_SCHEMA, "invalid-request", f"API Error: 400 {BAD_SCHEMA}"),
    (
        "messages.0.content: 'canary words' does not match the schema",
        "invalid-request",
        "API Error: 400 messages.0.content: [...]",
    ),
    (
        "the schema takes no canary-0a1b here",
        "invalid-request",
        "API Error: 400 the schema takes no",
    ),
]


def test_the_apis_own_words_are_for_the_operator(directory: Path) -> None:
    """They are in the log and on the turn's span, up to where they repeat the prompt or may do so,
    and in nothing that the caller is told."""

    async def story() -> None:
        with collecting() as collector:
            telemetry = {"endpoint": collector.grpc_url}
            async with serving(directory, profiles=PROFILES, telemetry=telemetry) as run:
                for message, _, told in SAID:
                    run.stand_in.on_body = refusing(message)
                    events = await ask(run, "Say canary words and canary-0a1b")
                    assert told not in str(finished(events)) + text_of(events)
                agents = len(SAID)
                await collector.until(
                    lambda: len(collector.named("invoke_agent default")) == agents
                )
        attributes = [span.attributes for span in collector.named("invoke_agent default")]
        words = [(a["samovar.failure.cause"], a["samovar.failure.text"]) for a in attributes]
        assert words == [(cause, told) for _, cause, told in SAID]
        assert "canary" not in str([span.attributes for span in collector.spans])

    with capture_logs() as lines:
        asyncio.run(story())
    failed = [line for line in lines if line["event"] == "upstream.failed"]
    words = [(line["status"], line["failure_cause"], line["said"]) for line in failed]
    assert words == [(400, cause, told) for _, cause, told in SAID]
    ended = [line["failure_cause"] for line in lines if line["event"] == "turn.finished"]
    assert ended == [cause for _, cause, _ in SAID]
    assert "canary" not in str(lines)
