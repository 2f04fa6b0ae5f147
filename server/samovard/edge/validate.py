"""Check requests and convert them to the core's types. Report every violation at once.

Knows protobuf and the limits that the contract states. Looks nothing up.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Iterator
from datetime import date

from google.protobuf.duration_pb2 import Duration

from samovar.v1 import session_pb2 as pb
from samovard.core.errors import RequestInvalid
from samovard.core.process import (
    Allow,
    Block,
    Deny,
    Document,
    EventOptions,
    Image,
    PermissionDecision,
    Prompt,
    Text,
)
from samovard.core.records import Days, PermissionPolicy, SessionKey, Spec
from samovard.core.sessions.conversation import DEFAULT, TurnRequest
from samovard.core.sessions.session import SessionState
from samovard.core.turn.limits import Limits
from samovard.core.turn.turn import Disconnect

MAX_REQUEST = 8 << 20
MAX_BLOCKS = 64
MAX_APPENDED = 64 << 10
MAX_LABELS = 16
MAX_LABEL = 64
MAX_INPUT = 256 << 10
MAX_DEPTH = 32
DAYS, MAX_DAYS = 30, 365  # before the last one
DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
TURN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
MODEL = re.compile(r"[A-Za-z0-9._:/@-]{1,256}")
IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
DOCUMENTS = ("application/pdf",)
DISCONNECTS = frozenset(pb.DisconnectPolicy.values())
POLICIES = frozenset(pb.PermissionPolicy.values())

Violations = Iterator[tuple[str, str]]


def send(
    tenant: str,
    request: pb.SendRequest,
    sender: object = None,
    patience: float | None = None,
) -> TurnRequest:
    """Return a request as the core has it. Raise `RequestInvalid` with every bad field."""
    violations = [*_sendable(request)]
    if violations:
        raise RequestInvalid(*violations)
    content = tuple(_block(content) for content in request.content)
    options = request.event_options
    policy = request.on_disconnect
    limits = request.limits
    return TurnRequest(
        key=SessionKey(tenant, request.session_id or DEFAULT),
        prompt=Prompt(
            turn_id=request.turn_id or str(uuid.uuid4()),
            content=content,
            options=EventOptions(
                partial=options.partial, thinking=options.thinking, raw_json=options.raw_json
            ),
        ),
        digest=_digest(content),
        spec=_spec(request.spec) if request.HasField("spec") else None,
        on_disconnect=(
            Disconnect.CONTINUE if policy == pb.DISCONNECT_POLICY_CONTINUE else Disconnect.INTERRUPT
        ),
        limits=Limits(
            timeout=seconds(limits.turn_timeout) if limits.HasField("turn_timeout") else None,
            steps=limits.max_agent_steps or None,
        ),
        sender=sender,
        patience=patience,
    )


def session(tenant: str, session_id: str, *, required: bool = False) -> SessionKey:
    """Return the key of a session; an empty name is `default` unless a name is required."""
    violations = [*_name(session_id, required=required)]
    if violations:
        raise RequestInvalid(*violations)
    return SessionKey(tenant, session_id or DEFAULT)


def turn(tenant: str, session_id: str, turn_id: str) -> tuple[SessionKey, str]:
    """Return the key of a session and the id of a turn, which is required."""
    violations = [*_name(session_id), *_turn_id(turn_id, required=True)]
    if violations:
        raise RequestInvalid(*violations)
    return SessionKey(tenant, session_id or DEFAULT), turn_id


def attach(tenant: str, request: pb.AttachRequest) -> tuple[SessionKey, str, int]:
    """Return the key of a session, a turn's id and the last sequence number that the caller has
    seen.
    """
    after = request.after_sequence
    violations = [*_name(request.session_id), *_turn_id(request.turn_id, required=True)]
    if after < 0:
        violations.append(("after_sequence", "must not be negative"))
    if violations:
        raise RequestInvalid(*violations)
    return SessionKey(tenant, request.session_id or DEFAULT), request.turn_id, after


def respond(tenant: str, request: pb.RespondRequest) -> tuple[SessionKey, str, PermissionDecision]:
    """Return the key of a session, a permission's id and the decision; all are required."""
    violations = [*_name(request.session_id), *_respondable(request)]
    if violations:
        raise RequestInvalid(*violations)
    key = SessionKey(tenant, request.session_id or DEFAULT)
    if request.WhichOneof("decision") == "deny":
        return key, request.permission_id, Deny(request.deny.message, request.deny.interrupt)
    changed = request.allow.updated_input_json
    return key, request.permission_id, Allow(_rewritten(changed) if changed else "")


def seconds(duration: Duration) -> float:
    """Return a duration of any size and sign in seconds; protobuf's own methods raise for some."""
    return duration.seconds + duration.nanos / 1e9


def state(asked: int) -> SessionState | None:
    """Return the state of the sessions that are asked for, None for any."""
    if asked == pb.SessionInfo.STATE_UNSPECIFIED:
        return None
    try:
        return SessionState(asked)
    except ValueError:  # of a later version: no session is in it, as none is closed in a list
        return SessionState.CLOSED


def page_size(asked: int, default: int, most: int) -> int:
    """Return the size of a page: 0 stands for the default, and more than the most for the most."""
    if asked < 0:
        raise RequestInvalid(("page_size", "must not be negative"))
    return min(asked or default, most)


def _sendable(request: pb.SendRequest) -> Violations:
    if request.ByteSize() > MAX_REQUEST:
        yield "", f"the request is larger than {MAX_REQUEST} bytes"
    yield from _name(request.session_id)
    yield from _turn_id(request.turn_id)
    yield from _content(request)
    if request.HasField("spec"):
        yield from _spec_violations(request.spec)
    yield from _limits(request.limits)
    if request.on_disconnect not in DISCONNECTS:
        yield "on_disconnect", "is not a known policy"


def _name(name: str, *, required: bool = False) -> Violations:
    if required and not name:
        yield "session_id", "is required"
    elif name and not NAME.fullmatch(name):
        yield "session_id", f"does not match {NAME.pattern}"


def _turn_id(turn_id: str, *, required: bool = False) -> Violations:
    if required and not turn_id:
        yield "turn_id", "is required"
    elif turn_id and not TURN.fullmatch(turn_id):
        yield "turn_id", "is not a lower-case UUID"


def _content(request: pb.SendRequest) -> Violations:
    if not request.content:
        yield "content", "is empty"
    elif len(request.content) > MAX_BLOCKS:
        yield "content", f"has more than {MAX_BLOCKS} blocks"
    for index, content in enumerate(request.content[:MAX_BLOCKS]):
        what = _block_violation(content)
        if what:
            yield f"content[{index}]", what


def _block_violation(content: pb.Content) -> str:
    match content.WhichOneof("kind"):
        case "text":
            text = content.text
            if not text or text.isspace():
                return "the text is blank"
            return "the text has a NUL" if "\0" in text else ""
        case "image":
            return _file_violation(content.image, IMAGES)
        case "document":
            return _file_violation(content.document, DOCUMENTS)
    return "has no kind"


def _file_violation(file: pb.Content.Image | pb.Content.Document, types: tuple[str, ...]) -> str:
    if file.media_type not in types:
        return f"media_type must be one of {', '.join(types)}"
    return "" if file.data else "data is empty"


def _spec_violations(spec: pb.SessionSpec) -> Violations:
    if spec.profile and not NAME.fullmatch(spec.profile):
        yield "spec.profile", "no such profile"
    if spec.model and not MODEL.fullmatch(spec.model):
        yield "spec.model", f"does not match {MODEL.pattern}"
    if len(spec.append_system_prompt.encode("utf-8", "replace")) > MAX_APPENDED:
        yield "spec.append_system_prompt", f"is larger than {MAX_APPENDED} bytes"
    if spec.permission_policy not in POLICIES:
        yield "spec.permission_policy", "is not a known policy"
    if len(spec.labels) > MAX_LABELS:
        yield "spec.labels", f"has more than {MAX_LABELS} entries"
    if any(not key or max(len(key), len(spec.labels[key])) > MAX_LABEL for key in spec.labels):
        yield "spec.labels", f"has an empty key, or one or a value over {MAX_LABEL} characters"


def _limits(limits: pb.Limits) -> Violations:
    if limits.HasField("turn_timeout") and seconds(limits.turn_timeout) <= 0:
        yield "limits.turn_timeout", "is not positive"
    if limits.max_agent_steps < 0:
        yield "limits.max_agent_steps", "is negative"


def _respondable(request: pb.RespondRequest) -> Violations:
    if not request.permission_id:
        yield "permission_id", "is required"
    decision = request.WhichOneof("decision")
    if decision is None:
        yield "decision", "is required"
    elif decision == "allow" and request.allow.updated_input_json:
        if len(request.allow.updated_input_json.encode()) > MAX_INPUT:
            yield "allow.updated_input_json", f"is larger than {MAX_INPUT} bytes"
        elif not _rewritten(request.allow.updated_input_json):
            yield "allow.updated_input_json", f"is not a JSON object, {MAX_DEPTH} deep at most"


def _rewritten(text: str) -> str:
    """Return a JSON object written anew in ASCII; empty if the text is not one.

    A key that occurs twice in an object then occurs once: every later reader sees what was checked.
    """
    try:
        value = json.loads(text, parse_constant=_refuse)
        if isinstance(value, dict) and _depth(value) <= MAX_DEPTH:
            return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        pass
    return ""


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def usage(request: pb.GetUsageRequest, today: date) -> Days:
    """Return the days that a request is about. Raise `RequestInvalid` as `send` does."""
    found, violations = days(request.first_day, request.last_day, today)
    if violations:
        raise RequestInvalid(*violations)
    return found


def days(first: str, last: str, today: date) -> tuple[Days, list[tuple[str, str]]]:
    """Return a range of days, by default the last ones, and what is wrong with it."""
    violations = []
    found = {"first_day": today, "last_day": today}
    for field, text in (("last_day", last), ("first_day", first)):
        if not text:
            continue
        try:
            found[field] = date.fromisoformat(text) if DAY.fullmatch(text) else date.min
        except ValueError:
            found[field] = date.min
        if found[field] == date.min:
            violations.append((field, "must be a day, as 2026-11-30"))
    if not first and not violations:
        found["first_day"] = date.fromordinal(max(found["last_day"].toordinal() - DAYS, 1))
    if not violations and not 0 <= (found["last_day"] - found["first_day"]).days <= MAX_DAYS:
        violations.append(("last_day", f"must be at most {MAX_DAYS} days after first_day"))
    return Days(found["first_day"].isoformat(), found["last_day"].isoformat()), violations


def _spec(spec: pb.SessionSpec) -> Spec:
    return Spec(
        profile=spec.profile,
        model=spec.model,
        append_system_prompt=spec.append_system_prompt,
        permission_policy=PermissionPolicy(spec.permission_policy),
        labels=dict(spec.labels),
    )


def _block(content: pb.Content) -> Block:
    match content.WhichOneof("kind"):
        case "image":
            return Image(content.image.media_type, content.image.data)
        case "document":
            file = content.document
            return Document(file.media_type, file.data, file.title)
    return Text(content.text.encode())


def _digest(blocks: Iterable[Block]) -> bytes:
    """Return a digest of the content, by which two requests of one turn are compared.

    Each field is preceded by its size, and each kind of block has a fixed number of fields: no two
    contents give the same bytes.
    """
    digest = hashlib.sha256()
    for block in blocks:
        for field in _fields(block):
            digest.update(len(field).to_bytes(8, "big"))
            digest.update(field)
    return digest.digest()


def _fields(block: Block) -> tuple[bytes, ...]:
    match block:
        case Image(media_type, data):
            return b"image", media_type.encode(), data
        case Document(media_type, data, title):
            return b"document", media_type.encode(), data, title.encode()
    return b"text", block.data
