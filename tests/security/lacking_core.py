"""Replacements of the controls of core and agent when they are taken out.

Of the edge's, those of transport and of what is reported. Never in the product.
"""

import asyncio
import json
import os
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import grpc
import structlog

from samovard.agent import codec, launch, window
from samovard.agent.isolation.walls import OPEN
from samovard.agent.launch import _FIXED_ARGUMENTS, _FIXED_VARIABLES
from samovard.agent.pipes import Pipes
from samovard.core.errors import PermissionNotFound
from samovard.core.pool import queue
from samovard.core.sessions import sessions
from samovard.core.sessions.conversation import begun
from samovard.core.turn import permissions
from samovard.core.turn.turn import Phase, StreamBounds
from samovard.edge import call_telemetry, gate, server
from samovard.edge.permits import Permits
from samovard.edge.session_service import SessionService
from samovard.edge.status import abort
from samovard.telemetry.redaction import without_secrets
from security.lacking_edge import ATTACKER, HUGE, VICTIM

LONGEST = 2**31 - 1
NOTHING = re.compile(r"(?!)")


def before(place: Any, name: str, change: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that first changes what it works on."""
    known = getattr(place, name)

    def run(self: Any, *args: Any, **named: Any) -> Any:
        change(self, *args)
        return known(self, *args, **named)

    return run


def given(place: Any, name: str, **others: Any) -> Callable[..., Any]:
    """Return a function that is always given other values."""
    known = getattr(place, name)
    return lambda *args, **named: known(*args, **named | others)


def options(**others: int) -> dict[str, Any]:
    """Return gRPC's options with others in their place."""
    named = {f"grpc.{key}": value for key, value in others.items()}
    return {"edge.server.OPTIONS": tuple((dict(server.OPTIONS) | named).items())}


def connections(self: Any) -> Any:
    """Return the options of a server for as many connections as come."""
    found = dict(_options(self))
    del found["grpc.max_allowed_incoming_connections"]
    return tuple(found.items())


_options = server.TransportBounds.options


def denying_once_read(error: Any) -> Any:
    """Return a handler that reads a message before it denies it."""

    async def deny(request: Any, context: Any) -> None:
        await abort(context, error)

    return grpc.unary_unary_rpc_method_handler(deny)


def as_it_is(value: Any) -> bytes:
    """Write a line with its breaks in it, where a prompt has a frame."""
    text = json.dumps(value, ensure_ascii=False)
    if value["type"] == "user" and "subtype" in text:
        text = text.replace("\\n", "\n")
    return text.encode() + b"\n"


def not_composed(prompt: Any) -> bytes:
    """Write a message as a person's at the terminal."""
    value = json.loads(_message(prompt))
    del value["client_composed"]
    return json.dumps(value).encode() + b"\n"


_message = codec.message
_make = sessions.Sessions._make
_respond = permissions.Permissions.respond
_list = SessionService._list
_environment = launch.environment
_gate: Any = gate.Gate.__init__
_bounds: Any = StreamBounds


def some_profile(self: Any, sending: Any) -> Any:
    """Take the default for a profile that is not known."""
    if sending.spec is not None and sending.spec.profile not in self._profiles:
        sending = replace(sending, spec=replace(sending.spec, profile=""))
    return _make(self, sending)


def named_home(sending: Any, *args: Any) -> Any:
    """Return a record whose directory bears the session's name."""
    profile, record = begun(sending, *args)
    plain = re.fullmatch("[0-9a-f]+", sending.key.session)
    name = sending.key.session if plain else sending.key.session.encode().hex()
    return profile, replace(record, home=name[:32].ljust(32, "0"))


def rewriting(self: Any, permission_id: str, decision: Any) -> Any:
    """Answer a request whatever the profile says."""
    for runner in self._unended.values():
        if runner.turn.phase is Phase.RUNNING:
            return runner.respond(permission_id, decision)
    raise PermissionNotFound


def any_permission(self: Any, permission_id: str, decision: Any) -> Any:
    """Answer whatever is open."""
    id = permission_id if permission_id in self._open else next(iter(self._open), permission_id)
    return _respond(self, id, decision)


async def list_of_victim(self: Any, tenant: str, *args: Any) -> Any:
    """List the victim's sessions for the attacker."""
    await _list(self, VICTIM if tenant == ATTACKER else tenant, *args)


def of_this_turn(self: Any, frame: Any, *_: Any) -> None:
    """Take a report for one of the turn that runs."""
    frame.user_message_uuids = [self._turn.turn_id if self._turn else ""]


def of_this_message(self: Any, frame: Any, *_: Any) -> None:
    """Take a step of a message for one of the turn that runs."""
    frame.command_uuid = self._turn.turn_id if self._turn else ""


def of_this_session(self: Any, lines: Any) -> None:
    """Take a line for one of the session."""
    for frame, _ in lines:
        frame.session_id = ""


def started(self: Any, prompt: Any) -> None:
    """Open a window that has begun."""
    _open(self, prompt)
    self._turn.started = True


_open = window.Window.open


def unreported(self: Any, *_: Any) -> None:
    """Forget that a turn has its report."""
    if self._turn is not None:
        self._turn.reported = False


_observe = call_telemetry.CallTelemetry.__init__


def knowing_all(self: Any, recorder: Any, clocks: Any, methods: Any) -> None:
    """Take every method for one that exists."""
    _observe(self, recorder, clocks, Everything())  # type: ignore[arg-type]  # as far as it is asked


def unbounded(self: Any, *args: Any, **named: Any) -> None:
    """Make a gate without a bound for each tenant, and with that of all."""
    _gate(self, *args[:4], None, *args[5:], **named)


async def overlooked(self: Any) -> None:
    """Look at nothing that is under way."""


class Everything:
    """A collection that contains everything."""

    def __contains__(self, item: object) -> bool:
        return True


def one_line_each(self: Any) -> None:
    """Log each refused call."""
    structlog.get_logger("samovard.edge").info("credential.refused", count=1)


def unescaped(render: Any) -> Any:
    """Return a renderer that writes values as they are."""
    return lambda _, __, line: " ".join(f"{key}={value}" for key, value in line.items())


def of_all(*args: Any, **named: Any) -> Any:
    """Return the variables of the service for an agent, too."""
    return {**os.environ, **_environment(*args, **named)}


def printable_or_not(self: Pipes) -> str:
    """Return stderr with all that is in it."""
    return without_secrets(self._tail.decode("utf-8", "replace"))


OUT: dict[str, dict[str, Any]] = {
    "walls": {
        "agent.isolation.walls.Walls.around": lambda self, *_: nullcontext(OPEN),
        "agent.isolation.walls.Walls.inside": lambda self, home: home,
        "agent.isolation.walls.Walls.nested": property(lambda self: False),
    },
    "tenant's queue": {
        "rules.PoolLimits": given(queue, "PoolLimits", tenant=lambda _: queue.TenantLimits(HUGE))
    },
    "slots": {"rules.PoolLimits": given(queue, "PoolLimits", slots=HUGE)},
    "one at a time": {"edge.identity.ApiKeys._lookup": lambda self, id: self._keys.get(id)},
    "denied unread": {"edge.gate._denying": denying_once_read},
    "processes": {"core.pool.process_bounds.ProcessBounds.run": overlooked},
    "slow readers": {"core.turn.follower.Follower._look": lambda self: None},
    "tenant's calls": {"edge.gate.Gate.__init__": unbounded},
    "revocation of calls": {"edge.revocation.Revocation.look": overlooked},
    "streams of a turn": {"rules.StreamBounds": lambda *bounds: _bounds(*bounds[:3], HUGE)},
    "watchers": {"edge.gate.PROBE_WATCHERS": HUGE},
    "session's queue": {"core.sessions.sessions.Sessions._admit": lambda *_: asyncio.sleep(0)},
    "profile's models": {"core.sessions.conversation._check": lambda spec, profile: None},
    "known profiles": {"core.sessions.sessions.Sessions._make": some_profile},
    "labels": {"edge.validate._spec_violations": lambda spec: iter(())},
    "limits": {"edge.validate._limits": lambda limits: iter(())},
    "made names": {"core.sessions.sessions.begun": named_home},
    "spec of a session": {"core.sessions.sessions.differences": lambda asked, given: []},
    "list's tenant": {"edge.session_service.SessionService._list": list_of_victim},
    "streams": options(max_concurrent_streams=LONGEST),
    "metadata": options(max_metadata_size=1 << 24, absolute_max_metadata_size=1 << 24),
    "message's size": options(max_receive_message_length=-1),
    "handshake": options(server_handshake_timeout_ms=LONGEST),
    "idle": options(max_connection_idle_ms=LONGEST),
    "pings": options(**{"http2.max_ping_strikes": 0}),
    "connections": {"edge.server.TransportBounds.options": connections},
    "reader": {"edge.receiving._reader": lambda deserializer: deserializer},
    "permits": {"edge.gate.Permits": lambda: Permits(HUGE, HUGE)},
    "message's time": {"edge.receiving.MESSAGE_TIME": 1e9},
    "one line": {"agent.codec._line": as_it_is},
    "composed by the client": {
        "agent.codec.message": not_composed,
        "agent.launch._FIXED_ARGUMENTS": tuple(
            each for each in _FIXED_ARGUMENTS if each != "--disable-slash-commands"
        ),
        "agent.launch._FIXED_VARIABLES": {
            key: value
            for key, value in _FIXED_VARIABLES.items()
            if key != "CLAUDE_CODE_DISABLE_ATTACHMENTS"
        },
    },
    "NUL": {"edge.validate._block_violation": lambda content: ""},
    "rewriting": {"core.sessions.session.Session.respond": rewriting},
    "objects": {"edge.validate._respondable": lambda request: iter(())},
    "open permissions": {"core.turn.permissions.Permissions.respond": any_permission},
    "raw lines": {"core.sessions.conversation.Conversation.prompt": lambda self, asked: asked},
    "turn of a report": {
        "agent.window.Window._result": before(window.Window, "_result", of_this_turn)
    },
    "turn of a step": {
        "agent.window.Window._lifecycle": before(window.Window, "_lifecycle", of_this_message)
    },
    "foreign lines": {"agent.window.Window.take": before(window.Window, "take", of_this_session)},
    "window's start": {"agent.window.Window.open": started},
    "one report": {"agent.window.Window._result": before(window.Window, "_result", unreported)},
    "unasked requests": {
        "agent.window.Window.__init__": given(window.Window, "__init__", asks=True)
    },
    "line's length": {
        "agent.codec.Decoder.__init__": lambda self, most, init=codec.Decoder.__init__: init(
            self, HUGE
        )
    },
    "broken lines": {"agent.codec.Decoder._fail": lambda self, how: None},
    "blocks of a line": {"agent.event_mapper.MAX_BLOCKS": HUGE},
    "ids": {"agent.event_mapper._id": str},
    "agent's variables": {"agent.launch.environment": of_all},
    "printable stderr": {"agent.pipes.Pipes.stderr": property(printable_or_not)},
    "redaction": {"telemetry.redaction._SECRET": NOTHING},
    "guard": {"edge.gate.guarded": lambda behavior: behavior},
    "known methods": {"edge.call_telemetry.CallTelemetry.__init__": knowing_all},
    "one line for many": {"edge.call_telemetry.Refusals.add": one_line_each},
    "lines of JSON": {"telemetry.log._rendered": unescaped},
}
