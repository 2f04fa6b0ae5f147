"""The recordings are of one version of the CLI, of no machine, and small."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from fake_claude.frames import VERSION
from recorder import studio
from recorder.scenes import SCENES
from recorder.scrub import Scrubber
from support.recordings import NAMES, WIRE, recording
from support.service import real

#: Where things are in a recording: on a machine that is nobody's.
PLACES = ("/workspace", "/home/agent", "/config", "/scratch", "/nowhere")


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_says_whose_it_is(name: str) -> None:
    """Its header has the version that the CLI itself names, which is the one that is tested."""
    recorded = recording(name)
    text = (WIRE / f"{name}.jsonl").read_text()
    named = set(re.findall(r'"claude_code_version": "([^"]*)"', text))
    assert named <= {recorded.version} == {VERSION}
    assert bool(recorded.arguments) is (name in SCENES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_is_of_no_machine(name: str) -> None:
    """No directory, no user, no credential and no address in it is anybody's."""
    path = WIRE / f"{name}.jsonl"
    text = path.read_text()
    assert path.stat().st_size < 32 << 10
    paths = {p for p in re.findall(r'(?<=")/[\w./-]+(?=")', text) if not p.startswith(PLACES)}
    assert not paths
    assert not re.search(r"/(tmp|root|home/(?!agent)|work|usr|var)/", text)
    assert not re.search(r"\bsk-[\w-]{8}|Bearer |x-api-key|@[\w-]+\.(com|org)|Users/", text)
    assert set(re.findall(r"\d+\.\d+\.\d+\.\d+(?::\d+)?", text)) <= {"127.0.0.1:80"}


def test_what_is_of_one_run_is_taken_out() -> None:
    """Two runs of one scene, on two machines, are the same recording."""

    def scrubbed(root: str, hexes: str, number: int) -> list[object]:
        scrubber = Scrubber({f"{root}/work": "/workspace"})
        turn = f"{hexes * 8}-0000-4000-8000-{hexes * 12}"
        line = {
            "uuid": turn,
            "cwd": f"{root}/work",
            "projects": f"{root}/work".replace("/", "-"),
            "messaging_socket_path": f"/scratch/cc-socks/{number}.sock",
            "message": {"id": f"msg_{hexes * 24}"},
            "duration_ms": number,
            "pid": number,
            "timestamp": f"2026-11-26T09:0{hexes}:00.123Z",
            "count": 7,
        }
        return [scrubber.line(line), scrubber.line({"command_uuid": turn})]

    first, second = scrubbed("/tmp/a", "1", 123), scrubbed("/home/b", "2", 45678)
    assert first == second
    assert first[1] == {"command_uuid": "00000001-0000-4000-8000-000000000000"}
    assert "'count': 7" in str(first[0])


def test_every_scene_has_its_recording() -> None:
    """What `make record` knows to record was recorded."""
    assert {*SCENES} <= {*NAMES}


def test_the_installed_cli_says_what_was_recorded(directory: Path) -> None:
    """Recorded again, a turn is what it was, to the byte."""
    real()
    again = asyncio.run(studio.record(directory, ["plain-turn"]))["plain-turn"]
    text = "".join(json.dumps(row) + "\n" for row in again)
    assert text == (WIRE / "plain-turn.jsonl").read_text()
