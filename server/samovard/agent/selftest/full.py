"""Test one by one every undocumented behaviour of the CLI that the service relies on.

The self-test covers what a start needs; this covers the rest, line by line, including what the
service could do without. Knows what each check means; knows nothing of sessions or gRPC.
"""

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from samovard.agent import launch
from samovard.agent.selftest.checks import Check, Failed
from samovard.agent.selftest.raw_cli import Json, RawCli, Silent, Site
from samovard.core.errors import SamovarError
from samovard.standin import StandIn

QUIET = 0.5  # seconds in which nothing may happen
EXPORT_WAIT = 5.0  # the CLI exports its spans every second

_ORDER = ["queued", "started", "result", "completed"]

#: What makes the CLI export its spans and pass a trace context on.
_TRACING = {
    "CLAUDE_CODE_ENABLE_TELEMETRY": "1",
    "CLAUDE_CODE_ENHANCED_TELEMETRY_BETA": "1",
    "CLAUDE_CODE_PROPAGATE_TRACEPARENT": "1",
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_TRACES_EXPORT_INTERVAL": "1000",
}


class FullSelfTest:
    """Checks that talk to CLIs line by line, each to a CLI of its own."""

    def __init__(self, site: Site, stand_in: StandIn, profile: launch.LaunchOptions) -> None:
        self._site = site
        self._stand_in = stand_in
        self._profile = profile

    async def run(self) -> list[Check]:
        """Run every check, also after one that failed."""
        return [await self._tried(*check) for check in self._checks()]

    async def traces(self) -> Check:
        """Check whether the CLI takes a turn's trace context, which a start needs to know."""
        return await self._tried(*self._takes_contexts())

    async def _tried(self, name: str, fatal: bool, check: Callable[[], Awaitable[None]]) -> Check:
        try:
            await check()
        except (Failed, Silent, SamovarError) as error:
            return Check(name, False, str(error), fatal=fatal)
        return Check(name, True, fatal=fatal)

    def _checks(self) -> list[tuple[str, bool, Callable[[], Awaitable[None]]]]:
        return [
            ("a turn is queued, started, reported and completed", True, self._order),
            ("the API is called for turns alone", True, self._calls),
            ("a turn's report has the turn's own usage", False, self._usage),
            ("a spare answers before it is initialized", False, self._spare),
            self._takes_contexts(),
            ("an unsampled trace context exports nothing", False, self._unsampled),
        ]

    def _takes_contexts(self) -> tuple[str, bool, Callable[[], Awaitable[None]]]:
        return "a turn's trace context arrives and can be changed", False, self._traces

    @asynccontextmanager
    async def _probe(self, **variables: str) -> AsyncIterator[RawCli]:
        cli = RawCli(self._site, self._profile, variables=variables)
        try:
            async with cli:
                yield cli
        finally:
            await asyncio.to_thread(self._site.homes.remove, cli.launch.home)

    async def _order(self) -> None:
        async with self._probe() as cli:
            await initialized(cli)
            turn_id = str(uuid.uuid4())
            lines = await cli.turn("Say order", turn_id)
        seen = [mark for line in lines if (mark := _mark(line, turn_id))]
        if seen != _ORDER:
            raise Failed(f"seen: {', '.join(seen) or 'nothing'}")

    async def _calls(self) -> None:
        before = len(self._stand_in.requests)
        async with self._probe() as cli:
            await initialized(cli)
            await asyncio.sleep(QUIET)
            if len(self._stand_in.requests) > before:
                raise Failed("the CLI called the API before its first message")
            await cli.turn("Say once")
            await asyncio.sleep(QUIET)
            calls = len(self._stand_in.requests) - before
            if calls != 1:
                raise Failed(f"one turn of one step called the API {calls} times")

    async def _usage(self) -> None:
        async with self._probe() as cli:
            await initialized(cli)
            for _ in range(2):
                (report,) = (line for line in await cli.turn("Say x") if _is(line, "result"))
                used = report.get("model_usage_since_last_result")
                if not used:
                    raise Failed("the report has no model_usage_since_last_result")
                if sum(model.get("outputTokens", 0) for model in used.values()) != 12:
                    raise Failed("the report's usage is not the turn's own")

    async def _spare(self) -> None:
        async with self._probe() as cli:
            answer = await cli.answer(cli.request("get_binary_version"))
            if answer.get("subtype") != "success":
                raise Failed("get_binary_version was refused")
            await initialized(cli)
            await cli.turn("Say spare")

    async def _traces(self) -> None:
        # Contexts that export nothing: there is no collector.
        async with self._probe(**_TRACING) as cli:
            await initialized(cli)
            for context in (context_of("00"), context_of("00")):
                await self._arrives(cli, context)

    async def _arrives(self, cli: RawCli, context: str) -> None:
        """Set a trace context, run a turn and look for the trace upstream."""
        before = len(self._stand_in.requests)
        cli.request("apply_flag_settings", settings={"env": {"TRACEPARENT": context}})
        await cli.turn("Say traced")
        arrived = {request.traceparent for request in self._stand_in.requests[before:]}
        trace, flags = context.split("-")[1], context[-3:]
        if not arrived or not all(trace in found and found.endswith(flags) for found in arrived):
            raise Failed(f"sent {context}, upstream got {', '.join(sorted(arrived)) or 'nothing'}")

    async def _unsampled(self) -> None:
        async with collector() as (url, bodies):
            variables = _TRACING | {"OTEL_EXPORTER_OTLP_ENDPOINT": url}
            sampled, unsampled = context_of("01"), context_of("00")
            async with self._probe(**variables) as cli:
                await initialized(cli)
                await self._arrives(cli, sampled)
                await _until(lambda: _holds(bodies, sampled))
                exports = len(bodies)
                await self._arrives(cli, unsampled)
                cli.end_input()  # it exports the rest of its spans now
                await cli.ended()
            if len(bodies) > exports and _holds(bodies[exports:], unsampled):
                raise Failed("a context that ends in -00 was exported")


async def initialized(cli: RawCli) -> Json:
    """Send `initialize` and return the body of the answer."""
    answer = await cli.answer(cli.request("initialize"))
    body: Json = answer.get("response", {})
    return body


def context_of(flags: str) -> str:
    """Return a trace context with these flags."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-{flags}"


@asynccontextmanager
async def collector() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Run a loopback server that takes exported spans. Yield its address and what has arrived."""
    bodies: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}", bodies
    finally:
        await runner.cleanup()


def _holds(bodies: list[bytes], context: str) -> bool:
    trace = bytes.fromhex(context.split("-")[1])
    return any(trace in body for body in bodies)


async def _until(condition: Callable[[], bool]) -> None:
    try:
        async with asyncio.timeout(EXPORT_WAIT):
            while not condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise Failed("a sampled turn was not exported") from None


def _mark(line: Json, turn_id: str) -> str:
    """Return the step of a message's life that a line reports, empty if none."""
    if _is(line, "command_lifecycle") and line.get("command_uuid") == turn_id:
        return str(line.get("state"))
    named = turn_id in line.get("user_message_uuids", ())
    return "result" if _is(line, "result") and named else ""


def _is(line: Json, kind: str) -> bool:
    return line.get("type") == kind
