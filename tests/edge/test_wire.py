"""Events as protobuf, and how they are put into responses."""

from samovar.v1 import pool_pb2
from samovar.v1 import session_pb2 as pb
from samovard.core import events as ev
from samovard.core.pool.states import ProcessState
from samovard.core.turn.event_log import Batch
from samovard.edge import pool_wire, wire


def batch(*events: ev.Event, sequence: int = 1, size: int = 10) -> Batch:
    return Batch(sequence, 1_700_000_000.25, events, size)


def test_every_event_has_its_field() -> None:
    """Each kind of event fills the field of its own name and no other."""
    usage = ev.Usage(1, 2, 3, 4, 0.5)
    events = [
        ev.TurnStarted("s", "t", ev.StartMode.WARM, "p", 42, 3),
        ev.AgentInfo("haiku", "2.1", ("Bash",)),
        ev.TextDelta("m", 1, "hi"),
        ev.ThinkingDelta("m", 0, "hm"),
        ev.BlocksAbandoned("m", 1),
        ev.ToolUse("u", "Bash", "{}"),
        ev.ToolResult("u", "out", False),
        ev.PermissionRequested("p", "u", "Bash", "{}", 3, "title", "why", 1_700_000_001.5),
        ev.PermissionResolved("p", ev.Resolution.EXPIRED),
        ev.UsageUpdated(usage),
        ev.Notice("api-retry", "again"),
        ev.Unrecognized("new", "kind"),
        ev.TurnFinished(ev.Outcome.COMPLETED, result="hi", usage_by_model={"haiku": usage}),
    ]
    (response,) = wire.send_responses([batch(*events)])
    kinds = [event.WhichOneof("kind") for event in response.events]
    assert kinds == [
        "turn_started",
        "agent_info",
        "text_delta",
        "thinking_delta",
        "blocks_abandoned",
        "tool_use",
        "tool_result",
        "permission_requested",
        "permission_resolved",
        "usage_updated",
        "notice",
        "unrecognized",
        "turn_finished",
    ]
    assert response.events[0].turn_started.start_mode == pb.TurnStarted.START_MODE_WARM
    asked = next(e for e in response.events if e.HasField("permission_requested"))
    assert asked.permission_requested.expire_time.ToMilliseconds() == 1_700_000_001_500
    assert asked.permission_requested.input_truncated_bytes == 3
    assert response.events[-1].turn_finished.usage_by_model["haiku"].cost_usd == 0.5


def test_every_kind_of_event_has_its_writer() -> None:
    """The contract's kinds, the core's events and what writes them are the same, each once."""
    kinds = [field.name for field in pb.Event.DESCRIPTOR.oneofs_by_name["kind"].fields]
    assert sorted(field for field, _ in wire._WRITERS.values()) == sorted(kinds)
    assert set(wire._WRITERS) == set(ev.Event.__subclasses__())


def test_causes_of_failures_are_the_contracts() -> None:
    """The core's words have the contract's names and numbers."""
    told = {f"FAILURE_CAUSE_{cause.name}": cause.value for cause in ev.FailureCause}
    assert told == dict(pb.TurnFinished.FailureCause.items())
    finished = ev.TurnFinished(ev.Outcome.FAILED, failure_cause=ev.FailureCause.BILLING)
    (response,) = wire.send_responses([batch(finished)])
    told_as = response.events[0].turn_finished.failure_cause
    assert told_as == pb.TurnFinished.FAILURE_CAUSE_BILLING


def test_every_state_of_a_process_is_told() -> None:
    """Operators see each state of the core as one of the contract's, and none is missing."""
    assert set(pool_wire.STATES) == set(ProcessState)
    assert set(pool_wire.STATES.values()) <= set(pool_pb2.ProcessInfo.State.values())


def test_sequence_numbers_run_across_batches() -> None:
    """Events are numbered as their batches say, and carry the batch's time."""
    batches = [batch(ev.TextDelta("m", 0, "a")), batch(ev.TextDelta("m", 0, "b"), sequence=2)]
    (response,) = wire.send_responses(batches)
    assert [event.sequence for event in response.events] == [1, 2]
    assert response.events[0].time.ToMilliseconds() == 1_700_000_000_250


def test_responses_stay_small() -> None:
    """A response is closed before it passes 1 MiB, and an event may be alone in one."""
    deltas = [ev.TextDelta("m", 0, "x" * (400 << 10)) for _ in range(5)]
    responses = list(wire.send_responses([batch(*deltas, size=2_000_000)]))
    assert [len(response.events) for response in responses] == [2, 2, 1]
    assert all(response.ByteSize() <= wire.MAX_RESPONSE for response in responses)


def test_a_stage_that_was_not_reached_is_unset() -> None:
    """Times are told only of stages that the turn reached."""
    finished = ev.TurnFinished(
        ev.Outcome.FAILED, timings=ev.Timings(receive=10**9, finish=2_500_000_001)
    )
    (asked,) = wire.send_responses(
        [
            batch(
                ev.TurnFinished(
                    ev.Outcome.FAILED, timings=ev.Timings(permission_wait=1_500_000_000)
                )
            )
        ]
    )
    (response,) = wire.send_responses([batch(finished)])
    timings = response.events[0].turn_finished.timings
    assert timings.HasField("receive_time")
    assert not timings.HasField("first_text_time")
    assert timings.finish_time.ToMilliseconds() == 2500
    assert not timings.HasField("permission_wait")
    assert asked.events[0].turn_finished.timings.permission_wait.ToMilliseconds() == 1500
