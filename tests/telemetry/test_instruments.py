"""What is counted of turns and calls, and under which names: instruments without an exporter."""

from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from samovard.telemetry import instruments, names
from samovard.telemetry.facts import SEND, CallFacts, Spent, Tokens, TurnFacts
from samovard.telemetry.instruments import Instruments, views
from samovard.telemetry.recorder import NULL_RECORDER
from samovard.telemetry.stages import Stages

Points = dict[str, list[tuple[dict[str, Any], Any]]]
OPUS, HAIKU = "claude-opus-5-5", "claude-haiku-5-5"
MODELS = {OPUS: Spent(Tokens(10, 2, 300, 7), 0.5), HAIKU: Spent(Tokens(4, 1), 0.25)}
CHAT = {names.GEN_AI_OPERATION_NAME: "chat", names.GEN_AI_PROVIDER_NAME: "anthropic"}
OLD = {names.OLD_STATUS_CODE, names.OLD_TOKEN_USAGE, names.OLD_TOKEN_TYPE}


def a_call(status: str = "OK", tenant: str = "acme") -> CallFacts:
    call = CallFacts(SEND, Stages(lambda: 1.0, 1.0), tenant=tenant, status=status)
    call.stages.mark("deliver")
    return call


def a_turn(tenant: str = "acme", **given: Any) -> TurnFacts:
    """Return a turn that has ended, with the tokens of two models."""
    values: dict[str, Any] = {
        "model": "opus",
        "profile": "default",
        "outcome": "completed",
        "prompt_written": True,
        "by_model": MODELS,
        "tokens": Tokens(14, 3, 300, 7),
        "cost_usd": 0.75,
    }
    return TurnFacts(NULL_RECORDER, a_call(tenant=tenant), tenant, "s", "t", **(values | given))


def counted(
    turns: Sequence[TurnFacts] = (), calls: Sequence[CallFacts] = (), **options: Any
) -> Points:
    """Return the points of each metric: labels, and a sum or the count of a histogram."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False, views=views())
    instruments = Instruments(provider.get_meter("test"), (), dict, **options)
    for turn in turns:
        instruments.turn(turn)
    for call in calls:
        instruments.call(call)
    data = reader.get_metrics_data()
    provider.shutdown()
    assert data is not None
    found: Points = {}
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        for point in metric.data.data_points:
            value = point.value if hasattr(point, "value") else point.sum
            found.setdefault(metric.name, []).append((dict(point.attributes or {}), value))
    return found


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("all_input", {OPUS: 317, HAIKU: 4}),
        ("output", {OPUS: 2, HAIKU: 1}),
        ("cache_read", {OPUS: 300, HAIKU: 0}),
        ("cache_write", {OPUS: 7, HAIKU: 0}),
    ],
)
def test_tokens_are_counted_for_the_model_that_used_them(
    kind: str, expected: dict[str, int]
) -> None:
    """Each model of the report has its own, with what the convention requires beside them."""
    points = counted([a_turn()])[names.TOKENS_USED[kind]]
    assert {found[names.GEN_AI_RESPONSE_MODEL]: value for found, value in points} == expected
    beside = CHAT | {names.GEN_AI_TOKEN_MODALITY: "unknown", names.GEN_AI_REQUEST_MODEL: "opus"}
    assert all(beside.items() <= found.items() for found, _ in points)


def test_cost_is_booked_to_the_model_that_cost_it() -> None:
    """Not to the alias that the session asked for."""
    points = counted([a_turn()])[names.TURN_COST]
    assert {found["model"]: value for found, value in points} == {OPUS: 0.5, HAIKU: 0.25}


def test_a_turn_without_a_report_is_booked_to_the_model_that_was_asked_for() -> None:
    """Which model answered is not known, and not made up."""
    found = counted([a_turn(by_model={}, estimated=True)])
    assert found[names.TURN_COST] == [({"profile": "default", "model": "opus"}, 0.75)]
    ((beside, value),) = found[names.TOKENS_USED["all_input"]]
    assert (value, beside.get(names.GEN_AI_RESPONSE_MODEL)) == (321, None)


def test_names_of_models_are_bounded() -> None:
    """An agent that names another model in each turn makes no more than so many series."""
    named = ["m" * (instruments.LONGEST_VALUE + 1), *(f"model-{number}" for number in range(60))]
    turns = [a_turn(by_model={name: MODELS[OPUS]}) for name in named]
    points = counted(turns)[names.TURN_COST]
    assert len(points) == instruments.MOST_VALUES + 1
    assert {found["model"]: value for found, value in points}["_OTHER"] == 11 * 0.5
    assert named[0] not in {found["model"] for found, _ in points}


def test_each_request_to_the_model_is_a_sample() -> None:
    """Running totals become what each request used."""
    turn = a_turn()
    turn.requested(Tokens(10, 2))
    turn.requested(Tokens(15, 5, 100))
    found = counted([turn])
    assert turn.requests == [Tokens(10, 2), Tokens(5, 3, 100)]
    ((beside, value),) = found[names.TOKENS_OF_REQUEST["all_input"]]
    assert (beside, value) == (CHAT | {names.GEN_AI_REQUEST_MODEL: "opus"}, 115)


@pytest.mark.parametrize(
    ("status", "error"),
    [("OK", None), ("CANCELLED", None), ("INTERNAL", "INTERNAL"), ("UNAVAILABLE", "UNAVAILABLE")],
)
def test_calls_have_the_labels_that_the_convention_requires(status: str, error: str | None) -> None:
    """The system always, and `error.type` for codes that are a server's errors."""
    ((found, _),) = counted(calls=[a_call(status)])[names.CALL_DURATION]
    wanted = {names.RPC_SYSTEM_NAME: "grpc", names.RPC_METHOD: SEND, names.RPC_STATUS_CODE: status}
    assert found == wanted | ({names.ERROR_TYPE: error} if error else {})


def test_old_names_are_exported_only_where_they_are_asked_for() -> None:
    """Then beside the new ones, with what they held before."""

    def all_names(found: Points) -> set[str]:
        return {name for metric in found for label, _ in found[metric] for name in (metric, *label)}

    new = counted([a_turn()], [a_call()])
    both = counted([a_turn()], [a_call()], old_names=True)
    assert not all_names(new) & OLD
    assert all_names(both) == all_names(new) | OLD
    used = {found[names.OLD_TOKEN_TYPE]: value for found, value in both[names.OLD_TOKEN_USAGE]}
    assert used == {"input": 321, "output": 3}
    ((found, _),) = both[names.CALL_DURATION]
    assert found[names.OLD_STATUS_CODE] == found[names.RPC_STATUS_CODE] == "OK"


def test_the_model_of_a_turn_is_the_one_that_cost_the_most() -> None:
    """Its span has room for one; without a report there is none."""
    assert a_turn().response_model == OPUS
    assert a_turn(by_model={}).response_model == ""


LISTED = ("acme", "globex")
REFUSED: dict[str, Any] = {"prompt_written": False, "reason": "NO_PROCESS", "cause": "saturated"}


@pytest.mark.parametrize(
    ("tenant", "label"), [("acme", "acme"), ("globex", "globex"), ("initech", "_OTHER")]
)
def test_turns_refusals_and_cost_have_the_tenants_that_are_listed(tenant: str, label: str) -> None:
    """All others share one value, and no other metric has the label."""
    found = counted([a_turn(tenant), a_turn(tenant, **REFUSED)], tenants=LISTED)
    assert found[names.TURN_FINISHED] == [({"outcome": "completed", "tenant": label}, 1)]
    refused = {"reason": "NO_PROCESS", "cause": "saturated", "tenant": label}
    assert found[names.TURN_REFUSED] == [(refused, 1)]
    assert {point["tenant"] for point, _ in found[names.TURN_COST]} == {label}
    having = {name for name in found for point, _ in found[name] if "tenant" in point}
    assert having == {names.TURN_FINISHED, names.TURN_REFUSED, names.TURN_COST}


@pytest.mark.parametrize(
    ("tenant", "label"), [("acme", "acme"), ("initech", "_OTHER"), ("", "_OTHER")]
)
def test_a_call_that_made_no_turn_is_refused_to_its_tenant(tenant: str, label: str) -> None:
    """A caller without a valid credential is nobody's."""
    ((point, value),) = counted(calls=[a_call("UNAUTHENTICATED", tenant)], tenants=LISTED)[
        names.TURN_REFUSED
    ]
    assert (point["tenant"], value) == (label, 1)


def test_without_a_list_no_metric_has_a_tenant() -> None:
    """Nor is there a counter that is for tenants only."""
    found = counted([a_turn(), a_turn(**REFUSED)], [a_call("UNAUTHENTICATED")])
    assert names.TURN_FINISHED not in found
    assert not [name for name in found for point, _ in found[name] if "tenant" in point]
