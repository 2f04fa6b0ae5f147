"""Into which trace an agent's own spans go: what it is told, and what becomes of a refusal."""

from structlog.testing import capture_logs
from support.core_runner import collect, fails, story
from support.world import World, turn_of

from samovard.agent.codec import Decoder, trace
from samovard.agent.tracing import Parking, Tracing, parked
from samovard.agent.window import Update, Window
from samovard.core.records import SessionKey

PROCESS = "4bf92f3577b34da6a3ce929d0e0e4736"
TURN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SUCCESS = b'{"type":"control_response","response":{"subtype":"success","request_id":"1"}}\n'
ERROR = (
    b'{"type":"control_response","response":{"subtype":"error","request_id":"1","error":"no"}}\n'
)


def answered(line: bytes, *, must: bool) -> tuple[Window, Update]:
    window = Window("5c0f4ab6-3f5f-4c58-8a0c-0d4a0f1ea7a5")
    window.setting("1", must=must)
    assert not window.quiet
    return window, window.take(Decoder(1 << 20).feed(line))


def test_a_process_is_told_only_what_changes() -> None:
    """A recorded turn is told its context, the process is parked behind it, others cost nothing."""
    parking = Parking(parked(PROCESS), "")
    assert parking.change("") == ""
    assert parking.change(TURN) == TURN
    assert parking.away
    assert parking.change("") == parked(PROCESS)
    assert not parking.away


def test_a_process_that_was_started_for_a_turn_has_its_context() -> None:
    """The turn that it was started for needs no request; another one does."""
    parking = Parking(parked(PROCESS), TURN)
    assert parking.away
    assert parking.change(TURN) == ""
    other = Parking(parked(PROCESS), TURN)
    assert other.change("") == parked(PROCESS)


def test_without_spans_of_the_agent_nothing_is_ever_told() -> None:
    """Where agents export nothing, a recorded turn changes nothing about its process."""
    parking = Parking("", TURN)
    assert not parking.away
    assert parking.change(TURN) == ""


def test_a_parked_context_is_valid_and_not_recorded() -> None:
    """An empty or invalid one would make a trace of the turn's own."""
    assert parked(PROCESS) == f"00-{PROCESS}-{PROCESS[:16]}-00"
    line = trace("7", TURN)
    assert line == (
        b'{"type":"control_request","request_id":"7","request":{"subtype":"apply_flag_settings",'
        b'"settings":{"env":{"TRACEPARENT":"' + TURN.encode() + b'"}}}}\n'
    )


def test_a_process_is_quiet_only_once_it_is_parked() -> None:
    """Until the answer to a context is there, the process is not lent."""
    window, reading = answered(SUCCESS, must=True)
    assert window.quiet
    assert not reading.untraced


def test_a_refused_parking_makes_the_process_dirty() -> None:
    """It would put the next turn into a stranger's trace: it is never quiet again."""
    window, reading = answered(ERROR, must=True)
    assert not window.quiet
    assert (reading.untraced, reading.unparked) == (False, True)


def test_a_refused_context_only_loses_spans() -> None:
    """The process is parked still and may be used; that it refuses is told."""
    window, reading = answered(ERROR, must=False)
    assert window.quiet
    assert (reading.untraced, reading.unparked) == (True, False)
    parking = Parking(parked(PROCESS), "")
    parking.change(TURN)
    parking.failed()
    assert not parking.away


def test_a_version_that_refuses_is_asked_no_more() -> None:
    """One warning; another version is asked again."""
    tracing = Tracing("http://127.0.0.1:4318")
    with capture_logs() as lines:
        tracing.refused("1.0.0")
        tracing.refused("1.0.0")
    assert [line["event"] for line in lines] == ["tracing.refused"]
    assert not tracing.on("1.0.0")
    assert tracing.on("1.0.1")


def test_agents_are_given_what_they_need_to_export() -> None:
    """Where to, which process, for which tenant, below which span; nothing that holds content."""
    given = Tracing("http://127.0.0.1:4318").variables(PROCESS, "a b", "")
    assert given["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:4318"
    assert given["OTEL_EXPORTER_OTLP_PROTOCOL"] == "http/protobuf"
    process = f"service.instance.id={PROCESS}"
    assert given["OTEL_RESOURCE_ATTRIBUTES"] == f"{process},samovar.tenant.id=a%20b"
    assert given["TRACEPARENT"] == parked(PROCESS)
    assert not [name for name in given if name.startswith("OTEL_LOG_")]
    assert Tracing("x").variables(PROCESS, "", "")["OTEL_RESOURCE_ATTRIBUTES"] == process


@story()
async def test_a_conversation_has_an_id_that_no_other_has(w: World) -> None:
    """All turns of a session have one; another tenant's session of the same name has another."""

    async def of_turn(tenant: str) -> str:
        stream = await w.send(tenant=tenant)
        await collect(stream)
        return turn_of(stream).facts.conversation

    w.stage.quick = "one"

    first, again, other = await of_turn("acme"), await of_turn("acme"), await of_turn("globex")
    await w.sessions.close(SessionKey("acme", "default"))
    assert first == again
    assert len({first, other, await of_turn("acme")}) == 3


@story()
async def test_who_makes_a_turns_spans_is_known_when_it_reports(w: World) -> None:
    """By the time that its outcome is stored, its process may have the next turn's context."""
    stream = await w.send("one")
    actor = await w.running()
    actor.traced = True
    w.shelf.slow = 1.0
    actor.answer("one")
    actor.traced = False
    await collect(stream)
    assert turn_of(stream).facts.traced


@story()
async def test_who_made_the_spans_of_a_turn_that_is_lost_is_known(w: World) -> None:
    """Its process is gone, and with it what it could have been asked."""
    stream = await w.send("one")
    actor = await w.running()
    actor.traced = True
    actor.die()
    await fails(stream)
    assert turn_of(stream).facts.traced
