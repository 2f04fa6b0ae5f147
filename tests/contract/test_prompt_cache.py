"""What the model's API caches of a prompt stays the same bytes, on the real CLI.

The API caches a prefix of tools, system and messages, in this order. One byte that differs
makes every token behind it be paid in full.
"""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from support.client_turns import ask, finished, started
from support.otlp_collector import collecting
from support.service import Running, serving, until

import samovar
from samovard.standin import script, text, usage
from samovard.telemetry import names

MARKER = b',"cache_control":{"type":"ephemeral"}'
#: A system message is a list of one text block only while it carries the marker.
LISTED = re.compile(rb'"role":"system","content":\[\{"type":"text","text":("(?:[^"\\]|\\.)*")\}\]')

#: The CLI's first system block, in front of all that is cached, bears three digits made from
#: the session's first message.
ATTRIBUTION = re.compile(rb"(?<=cc_version=2\.1\.330\.)[0-9a-f]{3}(?=;)")


class Body(msgspec.Struct):
    """A model request: the raw bytes of each part that is cached, in the API's order."""

    tools: msgspec.Raw
    system: msgspec.Raw
    messages: list[msgspec.Raw]


def unmarked(message: msgspec.Raw) -> bytes:
    """Return a message as it is sent while it does not carry the moved cache marker."""
    return LISTED.sub(rb'"role":"system","content":\1', bytes(message).replace(MARKER, b""))


def system_of(body: Body) -> bytes:
    """Return the system prompt without the digits of its attribution."""
    without, count = ATTRIBUTION.subn(b"", bytes(body.system))
    assert count == 1
    return without


def extends(earlier: bytes, later: bytes) -> bool:
    """True if a request begins with all of an earlier one, but for the moved marker."""
    old, new = (msgspec.json.decode(raw, type=Body) for raw in (earlier, later))
    if (bytes(old.tools), bytes(old.system)) != (bytes(new.tools), bytes(new.system)):
        return False
    messages = [unmarked(message) for message in old.messages]
    return len(old.messages) < len(new.messages) and messages == [
        unmarked(message) for message in new.messages[: len(old.messages)]
    ]


@asynccontextmanager
async def recorded(directory: Path) -> AsyncIterator[tuple[Running, list[bytes]]]:
    """Run a service, and keep the raw bodies of its model requests."""
    async with serving(directory) as run:
        bodies: list[bytes] = []
        run.stand_in.on_body = bodies.append
        yield run, bodies


def test_tools_and_system_of_two_sessions_of_a_profile_are_the_same_bytes(
    directory: Path,
) -> None:
    """One session finds in the cache what another one wrote; one other byte is seen."""

    async def story() -> None:
        async with recorded(directory) as (run, bodies):
            for name, words in (("a", "x."), ("b", "x."), ("c", "y.")):
                options = {"profile": "tools", "append_system_prompt": words}
                await ask(run, f"Say {name}", session=name, **options)
        first, second, other = (msgspec.json.decode(raw, type=Body) for raw in bodies)
        assert len(bytes(first.tools)) > 1000
        assert bytes(first.tools) == bytes(second.tools) == bytes(other.tools)
        assert system_of(first) == system_of(second) != system_of(other)

    asyncio.run(story())


def test_a_sessions_request_goes_on_from_the_same_bytes_warm_and_resumed(
    directory: Path,
) -> None:
    """Also after SIGKILL: each request begins with the whole one before it."""

    async def story() -> None:
        async with recorded(directory) as (run, bodies):
            modes = []
            for number in range(4):
                events = await ask(run, f"Say {number}", session="a", profile="tools")
                modes.append(started(events).start_mode)
                if number == 1:
                    os.kill(started(events).pid, signal.SIGKILL)
                    await until(lambda: len(run.service.pool) == 0)
        assert modes == [
            samovar.StartMode.COLD,
            samovar.StartMode.WARM,
            samovar.StartMode.RESUMED,
            samovar.StartMode.WARM,
        ]
        assert len(bodies) == 4
        assert all(extends(bodies[at], bodies[at + 1]) for at in range(3))
        changed = bodies[0].replace(b"Say 0", b"Say O")
        assert changed != bodies[0]
        assert not extends(changed, bodies[1])

    asyncio.run(story())


def test_tokens_read_from_the_cache_are_in_usage_and_metrics(directory: Path) -> None:
    """They are told to the caller, and counted among the input tokens of the metric."""

    async def story() -> None:
        with collecting() as collector:
            telemetry = {"endpoint": collector.grpc_url}
            async with serving(directory, telemetry=telemetry) as run:
                tokens = usage(input_tokens=10, cache_read_input_tokens=700)
                told = finished(await ask(run, script([tokens, text("done")])))
        assert told.usage is not None
        assert (told.usage.input_tokens, told.usage.cache_read_input_tokens) == (10, 700)
        (agent,) = (s for s in collector.spans if names.GEN_AI_USAGE_CACHE_READ in s.attributes)
        assert agent.attributes[names.GEN_AI_USAGE_CACHE_READ] == 700
        points = {point.name: point.value for point in collector.points.values()}
        assert points[names.TOKENS_USED["all_input"]] == 710
        assert points[names.TOKENS_USED["cache_read"]] == 700
        assert points[names.TOKENS_OF_REQUEST["all_input"]] == 710

    asyncio.run(story())
