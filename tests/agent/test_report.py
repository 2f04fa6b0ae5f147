"""Sums of tokens and costs."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from samovard.agent import frames as f
from samovard.agent import report
from samovard.core.events import MAX_COST, MAX_COUNT, Usage

counts = st.integers(0, MAX_COUNT)
usages = st.builds(Usage, counts, counts, counts, counts, st.floats(0, MAX_COST))
numbers = st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)


def within(usage: Usage) -> bool:
    """True if the contract and the store can hold it."""
    *tokens, cost = msgspec.structs.astuple(usage)
    kept = msgspec.json.decode(msgspec.json.encode(usage), type=Usage) == usage
    return (
        kept and all(type(n) is int and 0 <= n < 1 << 63 for n in tokens) and 0 <= cost <= MAX_COST
    )


@given(st.lists(usages))
def test_a_sum_can_always_be_held(parts: list[Usage]) -> None:
    """It stays at the largest number, and is stored and read as it is."""
    assert within(sum(parts, Usage()))


@given(st.lists(st.tuples(*[numbers] * 5)))
def test_what_an_agent_says_it_used_can_always_be_held(told: list[tuple[object, ...]]) -> None:
    """Whatever numbers of JSON a report has."""
    names = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheCreationInputTokens")
    used = {str(n): dict(zip((*names, "costUSD"), row, strict=True)) for n, row in enumerate(told)}
    line = msgspec.json.encode({"type": "result", "modelUsage": used, "total_cost_usd": None})
    result = msgspec.json.decode(line, type=f.Result)
    finished = report.finished(result, {})
    assert within(finished.usage)
    assert all(within(usage) for usage in finished.usage_by_model.values())


@given(st.tuples(*[numbers] * 4))
def test_what_a_message_used_can_always_be_held(told: tuple[object, ...]) -> None:
    """In a stream, too."""
    line = msgspec.json.encode(dict(zip(f.COUNTS, told, strict=True)))
    tokens = msgspec.json.decode(line, type=f.Tokens)
    assert within(report.tokens(tokens))
    assert within(report.merged(tokens, tokens))
