"""Numbers of an agent that no field of the contract can hold: bounded, and nobody else's matter."""

import asyncio
import math
import uuid
from pathlib import Path
from typing import Any

import pytest
from fake_claude import fake
from fake_claude import verbs as v
from support.service import Running, serving

from samovar.v1 import session_pb2

LARGEST = (1 << 63) - 1


async def told(run: Running, turn_id: str, count: Any, cost: Any, **more: Any) -> Any:
    """Run a turn whose report has these numbers, and return what its caller is told."""
    names = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheCreationInputTokens")
    used = {"haiku": dict.fromkeys(names, count) | {"costUSD": cost}}
    report = v.line(
        "result",
        subtype="success",
        terminal_reason="completed",
        user_message_uuids=[turn_id],
        total_cost_usd=cost,
        modelUsage=used,
        model_usage_since_last_result=used,
        **more,
    )
    return await run.client.ask(fake(report), session="s", turn_id=turn_id)


@pytest.mark.parametrize(
    ("count", "cost", "counted"),
    [
        (1 << 63, 1e300, LARGEST),
        (10**30, 1e22, LARGEST),
        (1e21, 1.0, LARGEST),
        (-5, -1.0, 0),
        (None, None, 0),
    ],
)
def test_numbers_that_cannot_be_are_bounded(
    directory: Path, count: Any, cost: Any, counted: int
) -> None:
    """The turn is told with the nearest number there is, and its session can be listed, also
    when the sums of two turns are too large."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            for _ in range(2):
                answer = await told(run, str(uuid.uuid4()), count, cost, api_error_status=1 << 40)
                assert answer.usage.input_tokens == counted
            listed = await run.stub.ListSessions(session_pb2.ListSessionsRequest())
            (info,) = listed.sessions
            assert info.usage.output_tokens == counted
            assert 0 <= info.usage.cost_usd < math.inf

    asyncio.run(story())


def test_an_amount_of_tokens_in_a_stream_is_bounded(directory: Path) -> None:
    """Also one that counts while the turn runs, and an index that is none reaches nobody."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            usage = {"input_tokens": 1 << 70, "output_tokens": -1}
            event = {"type": "message_delta", "usage": usage, "delta": {}}
            delta = {"type": "text_delta", "text": "nowhere"}
            lost = {"type": "content_block_delta", "index": 1 << 40, "delta": delta}
            verbs = [v.line("stream_event", event=e) for e in (event, lost)]
            answer = await run.client.ask(fake(*verbs, v.text("done")), session="s")
            assert answer.text == "done"

    asyncio.run(story())
