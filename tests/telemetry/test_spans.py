"""What spans hold, made of calls and turns without an exporter."""

from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from samovard.telemetry import names
from samovard.telemetry.facts import SEND, CallFacts, Tokens, TurnFacts
from samovard.telemetry.recorder import NULL_RECORDER
from samovard.telemetry.spans import Spans
from samovard.telemetry.stages import Stages

Attributes = dict[str, Any]


def told(
    status: str = "OK",
    *,
    old_names: bool = False,
    caller: tuple[str, str] = ("", ""),
    original: str = "",
    **turn: Any,
) -> tuple[Attributes, ...]:
    """Return the attributes of the spans of a turn and of its call."""
    made: list[ReadableSpan] = []
    scope = InstrumentationScope("test")
    spans = Spans(made.append, ALWAYS_ON, Resource({}), scope, old_names=old_names)
    call = CallFacts(SEND, Stages(lambda: 1.0, 1.0), status=status)
    call.user_agent, call.peer = caller
    call.original = original
    spans.begin_call(call, {})
    call.stages.mark("process_ready")
    spans.turn(TurnFacts(NULL_RECORDER, call, "acme", "s", "t", prompt_written=True, **turn))
    spans.end_call(call)
    return tuple(dict(span.attributes or {}) for span in made)


def test_old_names_are_on_spans_only_where_they_are_asked_for() -> None:
    """Then beside the new ones, with the same values."""
    tokens = Tokens(cache_write=7)
    new, both = told(tokens=tokens), told(tokens=tokens, old_names=True)
    assert [set(b) - set(n) for n, b in zip(new, both, strict=True)] == [
        {names.OLD_USAGE_CACHE_CREATION},
        {names.OLD_STATUS_CODE},
    ]
    agent, call = both
    assert agent[names.OLD_USAGE_CACHE_CREATION] == agent[names.GEN_AI_USAGE_CACHE_WRITE] == 7
    assert call[names.OLD_STATUS_CODE] == call[names.RPC_STATUS_CODE] == "OK"


def test_tokens_of_the_cache_are_told_where_there_were_any() -> None:
    """They are among the input's; none at all are no attribute."""
    agent, _ = told(tokens=Tokens(input=10, cache_read=700))
    assert agent[names.GEN_AI_USAGE_INPUT_TOKENS] == 710
    assert agent[names.GEN_AI_USAGE_CACHE_READ] == 700
    assert names.GEN_AI_USAGE_CACHE_WRITE not in agent


def test_a_method_that_does_not_exist_is_told_as_the_caller_wrote_it() -> None:
    """Beside the one value that all such methods share; a known one has no second name."""
    assert told(original="t.T/None")[1][names.RPC_METHOD_ORIGINAL] == "t.T/None"
    assert names.RPC_METHOD_ORIGINAL not in told()[1]


def test_a_call_tells_who_made_it_where_that_is_known() -> None:
    """As the conventions name it; what is not known is no attribute."""
    who = {names.USER_AGENT_ORIGINAL: "billing/1.2", names.NETWORK_PEER_ADDRESS: "10.1.2.80"}
    call = told(caller=("billing/1.2", "10.1.2.80"))[1]
    assert who.items() <= call.items()
    assert not told()[1].keys() & who.keys()


def test_a_code_that_is_no_error_of_the_server_has_no_error_type() -> None:
    """A caller's leaving is in the code; a failure of ours is in both."""
    assert names.ERROR_TYPE not in told("CANCELLED")[1]
    assert told("INTERNAL")[1][names.ERROR_TYPE] == "INTERNAL"
