"""Build requests. Knows the contract's limits, and nothing of channels."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from samovar import bounds
from samovar.errors import RequestInvalid
from samovar.events import PermissionRequested
from samovar.v1 import session_pb2 as pb

MAX_REQUEST = 8 << 20


@dataclass(frozen=True, slots=True)
class Image:
    """An image: the bytes of a PNG, JPEG, GIF or WebP file and its media type."""

    data: bytes = field(repr=False)
    media_type: str = "image/png"


@dataclass(frozen=True, slots=True)
class Document:
    """A PDF document: the bytes of the file."""

    data: bytes = field(repr=False)
    title: str = ""
    media_type: str = "application/pdf"


Block = str | Image | Document
"""A part of a message: a text, an image or a document."""


@dataclass(frozen=True, slots=True)
class Allow:
    """Let the tool run, with `updated_input` as its input where the profile allows that."""

    updated_input: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Deny:
    """Keep the tool from running and tell the agent why; `interrupt` ends the turn, too."""

    message: str = ""
    interrupt: bool = False


Decision = bool | Allow | Deny
"""What `on_permission` returns: True and False stand for a plain `Allow` and `Deny`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a turn is run.

    `session` names the conversation, None for `default`; with `create` a name that does
    not exist is made, with the fields that only a new session takes: `profile`, `model`,
    `append_system_prompt`, `permission_policy`, which is `deny` or `ask`, and `labels`.
    `deadline` and `turn_timeout` are in seconds, above 0 and at most a year, which infinity
    stands for; `max_agent_steps` is 0 for no bound of this turn's own.
    """

    session: str | None = None
    create: bool = True
    turn_id: str | None = None
    profile: str = ""
    model: str = ""
    append_system_prompt: str = ""
    permission_policy: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    partial: bool = True
    thinking: bool = False
    raw_json: bool = False
    turn_timeout: float | None = None
    max_agent_steps: int = 0
    keep_running: bool = False
    deadline: float | None = None


class SendOptions(TypedDict, total=False):
    """The keywords of `send` and `ask`, for type checkers: the fields of `Options`."""

    session: str | None
    create: bool
    turn_id: str | None
    profile: str
    model: str
    append_system_prompt: str
    permission_policy: str
    labels: Mapping[str, str]
    partial: bool
    thinking: bool
    raw_json: bool
    turn_timeout: float | None
    max_agent_steps: int
    keep_running: bool
    deadline: float | None


def send(content: Block | Sequence[Block], options: Options) -> pb.SendRequest:
    """Return the request of a turn, always with a turn id, so that it may be repeated.

    Raise `RequestInvalid` if it is larger than the service takes, or a number means nothing.
    """
    blocks = [content] if isinstance(content, str | Image | Document) else content
    request = pb.SendRequest(
        session_id=options.session or "",
        turn_id=options.turn_id or str(uuid.uuid4()),
        content=[_block(block) for block in blocks],
        event_options=pb.EventOptions(
            partial=options.partial, thinking=options.thinking, raw_json=options.raw_json
        ),
    )
    spec = _spec(options)
    if spec.ByteSize() or (options.session is not None and options.create):
        request.spec.CopyFrom(spec)
    if options.turn_timeout is not None:
        timeout = bounds.seconds("turn_timeout", options.turn_timeout)
        request.limits.turn_timeout.FromNanoseconds(round(timeout * 1e9))
    if options.max_agent_steps:
        steps = bounds.count("max_agent_steps", options.max_agent_steps)
        request.limits.max_agent_steps = steps
    if options.keep_running:
        request.on_disconnect = pb.DISCONNECT_POLICY_CONTINUE
    if request.ByteSize() > MAX_REQUEST:
        what = f"is {request.ByteSize()} bytes, more than {MAX_REQUEST}"
        raise RequestInvalid(f"the request {what}", violations=(("", what),))
    return request


def allow(
    permission_id: str, session: str | None, updated_input: Mapping[str, Any] | None
) -> pb.RespondRequest:
    """Return the answer that lets a tool run, perhaps with another input."""
    changed = json.dumps(updated_input) if updated_input is not None else ""
    return pb.RespondRequest(
        session_id=session or "",
        permission_id=permission_id,
        allow=pb.RespondRequest.Allow(updated_input_json=changed),
    )


def deny(
    permission_id: str, session: str | None, message: str, *, interrupt: bool
) -> pb.RespondRequest:
    """Return the answer that keeps a tool from running."""
    return pb.RespondRequest(
        session_id=session or "",
        permission_id=permission_id,
        deny=pb.RespondRequest.Deny(message=message, interrupt=interrupt),
    )


def decided(asked: PermissionRequested, session: str, decision: Decision) -> pb.RespondRequest:
    """Return the answer that an `on_permission` decided on."""
    if isinstance(decision, bool):
        decision = Allow() if decision else Deny()
    match decision:
        case Allow():
            return allow(asked.permission_id, session, decision.updated_input)
        case Deny(message, interrupt):
            return deny(asked.permission_id, session, message, interrupt=interrupt)
    raise TypeError(f"on_permission returns a bool, Allow or Deny, not {decision!r}")


_POLICIES = {
    "": pb.PERMISSION_POLICY_UNSPECIFIED,
    "deny": pb.PERMISSION_POLICY_DENY,
    "ask": pb.PERMISSION_POLICY_ASK,
}


def _policy(name: str) -> "pb.PermissionPolicy.ValueType":
    if name not in _POLICIES:
        raise ValueError(f"a permission policy is deny or ask, not {name!r}")
    return _POLICIES[name]


def _spec(options: Options) -> pb.SessionSpec:
    return pb.SessionSpec(
        profile=options.profile,
        model=options.model,
        append_system_prompt=options.append_system_prompt,
        permission_policy=_policy(options.permission_policy),
        labels=options.labels,
    )


def _block(block: Block) -> pb.Content:
    match block:
        case Image():
            return pb.Content(image=pb.Content.Image(media_type=block.media_type, data=block.data))
        case Document():
            return pb.Content(
                document=pb.Content.Document(
                    media_type=block.media_type, data=block.data, title=block.title
                )
            )
    return pb.Content(text=block)
