"""`docs/observability.md` says what is really emitted: spans, metrics and log lines."""

import asyncio
import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from collector import Collector, collecting
from service import Running, raw, serving, simple, until
from structlog.testing import capture_logs

from samovar.v1 import session_pb2 as pb
from samovard.standin import delay, script, text, tool
from samovard.telemetry import names
from samovard.telemetry.stages import MARKS, PARTS

PAGE = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
#: What a short run has no occasion for.
RARE = {names.DROPPED}
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
    prompt = script(tool("Bash", {"command": "exit 1"}), [delay(0.2), text("done")])
    request = simple(prompt, session_id="s", spec=pb.SessionSpec(profile="tools"))
    first = asyncio.create_task(raw(run.stub, request))
    await until(lambda: run.stand_in.requests)
    await raw(run.stub, simple("Say two", session_id="s"))
    await first
    with pytest.raises(grpc.aio.AioRpcError):
        await raw(run.stub, simple("Say no", session_id="none"))
    with pytest.raises(grpc.aio.AioRpcError):
        await run.stub.GetSession(pb.GetSessionRequest(session_id="none"))


def test_the_page_tells_what_is_emitted(directory: Path) -> None:
    """Every span, attribute, metric, label and field that comes has its place on the page."""

    async def story() -> tuple[Collector, list[Any]]:
        with collecting() as collector, capture_logs() as lines:
            telemetry = {"endpoint": collector.grpc_url}
            async with serving(directory, telemetry=telemetry) as run:
                await all_sorts(run)
        return collector, lines

    collector, lines = asyncio.run(story())
    check_spans(collector)
    check_metrics(collector)
    check_lines(lines)


def check_spans(collector: Collector) -> None:
    told = {name: cells[0] for name, cells in rows("Traces").items()}
    call = told["every call"]
    send = call | told["samovar.v1.Session/Send besides"]
    for span in collector.spans:
        row = ROWS.get(span.name.split()[0])
        expected = told[row] if row else send if span.name.endswith("/Send") else call
        assert set(span.attributes) <= expected, span.name
    assert {ROWS.get(span.name.split()[0]) for span in collector.spans} >= set(ROWS.values())


def check_metrics(collector: Collector) -> None:
    told = rows("Metrics")
    told.pop("Metric", None)
    emitted = {point.name for point in collector.points.values()}
    assert emitted | RARE == {name for name in told if "." in name}
    for point in collector.points.values():
        assert set(point.labels) <= told[point.name][1], point.name


def check_lines(lines: list[Any]) -> None:
    told = rows("Log lines")
    of_turn = told["turn.finished, turn.refused"][0]
    of_call = told["call.failed, and turn.refused before admission"][0]
    stages = {f"{name}_ms" for name in (*MARKS[1:], *PARTS)}
    assert stages <= of_turn
    seen = set()
    for line in lines:
        fields = set(line) - {"event", "log_level"}
        if line["event"] == "turn.finished":
            assert fields <= of_turn
            total = sum(line.get(f"{name}_ms", 0) for name in MARKS[1:])
            assert total == pytest.approx(line["total_ms"], abs=0.01)
        elif line["event"] in ("turn.refused", "call.failed"):
            assert fields == of_call
        elif line["event"] == "process.moved":
            assert fields == told["process.moved"][0]
        seen.add(line["event"])
    assert {"turn.finished", "turn.refused", "call.failed", "process.moved"} <= seen


def test_the_page_tells_the_stages_and_their_parts() -> None:
    """The marks stand there in their order, and each part beside the stage it is in."""
    told = rows("Stages")
    told.pop("Mark", None)
    assert list(told)[-len(MARKS) :] == list(MARKS)
    parts = {part: mark for mark in MARKS for part in told[mark][2]}
    assert parts == PARTS
