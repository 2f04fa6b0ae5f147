"""`docs/observability.md` says what is really emitted: spans, metrics and log lines."""

import asyncio
import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs
from support.otlp_collector import Collector, collecting
from support.service import Running, raw, serving, simple, until

from samovar.v1 import session_pb2 as pb
from samovard.standin import delay, script, text, tool
from samovard.telemetry import names
from samovard.telemetry.incidents import INCIDENTS
from samovard.telemetry.stages import MARKS, PARTS

PAGE = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
#: What a short run has no occasion for.
RARE = {names.DROPPED, "samovar.certificate.expiry"}
OF_TENANTS = {names.TURN_FINISHED, names.TURN_REFUSED, names.TURN_COST}
OF_TENANTS |= {names.BROKER_REQUESTS, names.BROKER_TOKENS}
#: What is content wherever it stands: a prompt, an answer, a tool's input or output.
CANARY = "canary" + "-7f3a"
#: Incidents whose word is put together.
WORDS = ["waiter.expired", "waiter.withdrawn"]
ROWS = {
    "samovar.wait": "samovar.wait",
    "samovar.process.start": "samovar.process.start",
    "invoke_agent": "invoke_agent PROFILE",
    "execute_tool": "execute_tool TOOL",
}


def rows(heading: str) -> dict[str, list[set[str]]]:
    """Gives the names in each cell of a section's table, by what stands first in its row."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    told = {}
    for line in section.splitlines():
        cells = [set(re.findall(r"`([^`]+)`", cell)) for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) > 1:
            told[line.split("|")[1].strip().replace("`", "")] = cells[1:]
    return told


async def all_sorts(run: Running) -> None:
    """Runs a cold turn with tools, a warm one, one that waits, and some that are refused."""
    command = {"command": f"echo {CANARY} >&2; exit 1"}
    prompt = script(tool("Bash", command), [delay(0.2), text(CANARY)])
    request = simple(prompt, session_id="s", spec=pb.SessionSpec(profile="tools"))
    first = asyncio.create_task(raw(run.stub, request))
    await until(lambda: run.stand_in.requests)
    await raw(run.stub, simple(f"Say {CANARY}", session_id="s"))
    await first
    with pytest.raises(grpc.aio.AioRpcError):
        await raw(run.stub, simple("Say no", session_id="none"))
    with pytest.raises(grpc.aio.AioRpcError):
        await run.stub.GetSession(pb.GetSessionRequest(session_id="none"))


def test_the_page_tells_what_is_emitted(directory: Path) -> None:
    """Every span, attribute, metric, label and field that comes has its place on the page."""

    async def story() -> tuple[Collector, list[Any]]:
        with collecting() as collector, capture_logs() as lines:
            telemetry: dict[str, Any] = {"endpoint": collector.grpc_url, "tenants": ["local"]}
            telemetry["caller_attributes"] = True
            async with serving(directory, telemetry=telemetry) as run:
                await all_sorts(run)
        return collector, lines

    collector, lines = asyncio.run(story())
    check_spans(collector)
    check_metrics(collector)
    check_lines(lines)
    check_processes(collector, lines)
    told = repr(lines) + repr(collector.spans) + repr(collector.points)
    assert CANARY not in told


def check_spans(collector: Collector) -> None:
    told = {name: cells[0] for name, cells in rows("Traces").items()}
    call = told["every call"]
    send = call | told["samovar.v1.Session/Send besides"]
    for span in collector.spans:
        row = ROWS.get(span.name.split()[0])
        expected = told[row] if row else send if span.name.endswith("/Send") else call
        assert set(span.attributes) <= expected, span.name
    calls = [span for span in collector.spans if span.kind == "SERVER"]
    assert {span.attributes[names.NETWORK_PEER_ADDRESS] for span in calls} == {"127.0.0.1"}
    assert all(names.USER_AGENT_ORIGINAL in span.attributes for span in calls)
    assert {ROWS.get(span.name.split()[0]) for span in collector.spans} >= set(ROWS.values())


def check_metrics(collector: Collector) -> None:
    told = rows("Metrics")
    told.pop("Metric", None)
    emitted = {point.name for point in collector.points.values()}
    assert emitted | RARE == {name for name in told if "." in name}
    kinds = dict(re.findall(r"^\| `([a-z_.]+)` \| ([a-z-][^|]*?) \|", PAGE, re.MULTILINE))
    for point in collector.points.values():
        assert set(point.labels) <= told[point.name][1], point.name
        assert f"{point.kind}, {point.unit}" == kinds[point.name], point.name
    having = [point for point in collector.points.values() if "tenant" in told[point.name][1]]
    assert {point.labels["tenant"] for point in having} == {"local"}
    assert {point.name for point in having} == OF_TENANTS


def check_lines(lines: list[Any]) -> None:
    told = rows("Log lines")
    stages = {f"{name}_ms" for name in (*MARKS[1:], *PARTS)}
    assert stages <= told["turn.finished, turn.refused"][0]
    seen = set()
    for line in lines:
        assert len(line["server_id"]) == 32, line
        fields, event = set(line) - {"event", "log_level", "server_id"}, line["event"]
        fit = [told[words][0] for words in told if event in re.findall(r"[\w.]+", words)]
        if event in INCIDENTS and event != "turn.refused":
            assert line["log_level"] == INCIDENTS[event]
        elif fit:
            assert any(fields <= row for row in fit), line
            seen.add(event)
        if event == "turn.finished":
            total = sum(line.get(f"{name}_ms", 0) for name in MARKS[1:])
            assert total == pytest.approx(line["total_ms"], abs=0.01)
    moved = {"turn.stage", "process.moved", "process.reaped"}
    assert seen == moved | {"isolation.chosen", "turn.finished", "turn.refused", "call.failed"}


def check_processes(collector: Collector, lines: list[Any]) -> None:
    """Each change of a process's state has one line and one count; a lease's names its turn."""
    moved = [line for line in lines if line["event"] == "process.moved"]
    counted = [p for p in collector.points.values() if p.name == names.TRANSITIONS]
    assert sum(point.value for point in counted) == len(moved)
    states: dict[str, str] = {}
    for line in moved:
        assert line["from"] == states.get(line["process_id"], "starting")
        states[line["process_id"]] = line["to"]
        if {line["from"], line["to"]} & {"starting", "leased", "running", "settling"}:
            assert {"turn", "trace_id", "span_id"} <= set(line), line
    assert set(states.values()) == {"exited"}


def test_the_page_tells_of_every_incident() -> None:
    """Each word stands there with its level, and is told somewhere in the code."""
    section = PAGE.partition("### Incidents")[2]
    told = dict(re.findall(r"^\| `([a-z_.]+)` \| (\w+) \|", section, re.MULTILINE))
    assert told == INCIDENTS
    server = Path(__file__).parents[2] / "server" / "samovard"
    code = "".join(path.read_text() for path in server.rglob("*.py") if path.name != "incidents.py")
    assert [word for word in INCIDENTS if f'"{word}"' not in code] == WORDS


def test_the_page_tells_the_stages_and_their_parts() -> None:
    """The marks stand there in their order, and each part beside the stage it is in."""
    told = rows("Stages")
    told.pop("Mark", None)
    assert list(told)[-len(MARKS) :] == list(MARKS)
    parts = {part: tuple(mark for mark in MARKS if part in told[mark][2]) for part in PARTS}
    assert parts == PARTS
    assert {part for mark in MARKS for part in told[mark][2]} == PARTS.keys()


def test_the_page_tells_what_was_renamed() -> None:
    """Each old name has a row, and each new name beside it is one that is exported."""
    told = rows("Renamed")
    old = {value for name, value in vars(names).items() if name.startswith("OLD_")}
    assert {name.partition(",")[0] for name in told} >= old
    page = PAGE.replace(PAGE.partition("## Renamed\n")[2].partition("\n## ")[0], "")
    for name in old:
        assert f"`{name}`" not in page, name
        for cells in (told[row] for row in told if row.partition(",")[0] == name):
            assert all(f"`{new}`" in page for new in cells[1]), name
