"""The service's output about itself: errors, log lines and metrics that a caller tries to shape."""

import asyncio
import json
import re

import grpc

from samovar.v1 import session_pb2 as pb
from security.actors import OK
from security.arena import ATTACKER, VICTIM, Arena
from security.catalog import attack
from security.identity import UNKNOWN
from security.plugin import BROKEN


@attack("edge.gate.guarded", "plain", "tls", without="guard")
async def a_defect_of_the_service(arena: Arena) -> None:
    """Its caller is told an id to report, and nothing of the exception."""
    answer = await arena.attacker.call("GetSession", pb.GetSessionRequest(session_id=BROKEN))
    assert answer.reason == "INTERNAL", answer
    assert b"record of" not in answer.bytes
    assert b"RuntimeError" not in answer.bytes


@attack("edge.call_telemetry.CallTelemetry._began", "plain", without="known methods")
async def methods_that_would_be_labels(arena: Arena) -> None:
    """Names that callers invent make no series of metrics."""
    calls = [arena.attacker.call(f"/invented.Label{n}/M{n}") for n in range(arena.scale(40, 500))]
    await asyncio.gather(*calls)
    assert "invented" not in arena.metrics()


@attack("telemetry.instruments.Seen", "plain")
async def tenants_that_would_be_labels(arena: Arena) -> None:
    """No metric names a tenant, a session or a turn unless the operator says so."""
    answer = await arena.attacker.turn("Say x", "series")
    assert answer.code is OK
    metrics = arena.metrics()
    names = (ATTACKER, VICTIM, "series", answer.events[0].turn_started.turn_id)
    assert not [name for name in names if name in metrics]


@attack("edge.call_telemetry.Refusals", "plain", without="one line for many")
async def refused_calls_that_would_fill_the_log(arena: Arena) -> None:
    """Many calls without a credential are one line."""
    before = len(arena.log())
    calls = [arena.stranger.call("ListSessions") for _ in range(arena.scale(90, 900))]
    codes = {answer.code for answer in await asyncio.gather(*calls)}
    # More streams at once than a connection may have are refused by the transport, unread
    # (REFUSED_STREAM, which a client tells as UNAVAILABLE).
    assert UNKNOWN in codes, codes
    assert codes <= {UNKNOWN, grpc.StatusCode.UNAVAILABLE}, codes
    lines = arena.log()[before:].count("credential.refused")
    assert lines <= 2, lines


@attack("telemetry.log._rendered", "plain", without="lines of JSON")
async def lines_that_would_be_forged(arena: Arena) -> None:
    """What callers name themselves stays within its own line, whatever is in it."""
    forged = 'x\n{"severity": "CRITICAL", "message": "forged"}\r\n\x1b[31m\u2028'
    spec = pb.SessionSpec(labels={"a": forged, forged[:30]: "b"})
    answer = await arena.attacker.turn("Say x", "labelled", spec=spec)
    assert answer.result == "x", answer
    metadata = (("traceparent", f"00-{32 * 'z'}-x-01"), ("tracestate", 'x="{'))
    asked = pb.GetSessionRequest(session_id="labelled")
    await arena.attacker.call("GetSession", asked, metadata)
    for line in arena.log().splitlines():
        if line.startswith("{"):
            assert json.loads(line)["message"] != "forged", line
        else:
            # gRPC's own core has a form of its own.
            assert re.match(r"samovard: |[IWEF]\d{4} \d\d:", line), line


@attack("edge.status.abort", "plain")
async def paths_in_refusals(arena: Arena) -> None:
    """No refusal names a path, a process or a line of the service."""
    await arena.attacker.turn("Say x", "told")
    for method in ("Send", "Attach", "Interrupt", "Respond", "GetSession", "CloseSession"):
        for data in (b"", b"\xff", b"\x0a\x01a", b"\x0a\x04told"):
            answer = await arena.attacker.call(method, data)
            for word in (str(arena.directory), "site-packages", "Traceback", ".py", "sqlite"):
                assert word.encode() not in answer.bytes, (method, data, answer)
