"""Permits to receive a message: a few for each tenant, a few in all, none lost."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from support.timeouts import BOUND

from samovard.edge.permits import Permits


async def held(stack: AsyncExitStack, permits: Permits, *tenants: str) -> None:
    for tenant in tenants:
        await stack.enter_async_context(permits.one(tenant, BOUND))


@pytest.mark.parametrize(
    ("taken", "tenant", "free"),
    [("", "a", True), ("aa", "b", True), ("aa", "a", False), ("abb", "a", False)],
)
def test_a_tenant_has_a_few_and_all_have_a_few_more(taken: str, tenant: str, free: bool) -> None:
    """Here two each and three in all; who gets none in time is told so."""

    async def story() -> None:
        async with AsyncExitStack() as stack:
            permits = Permits(2, 3)
            await held(stack, permits, *taken)
            try:
                async with permits.one(tenant, 0.0 if not free else BOUND):
                    assert free
            except TimeoutError:
                assert not free
            assert repr(permits) == f"<Permits {len(taken)} of 3 waiting=0>"

    asyncio.run(story())


def test_the_first_in_line_that_may_is_next() -> None:
    """A tenant that has all of its own keeps no other one waiting."""

    async def story() -> None:
        permits, order = Permits(1, 2), []

        async def take(tenant: str) -> None:
            async with permits.one(tenant, BOUND):
                order.append(tenant)

        async with AsyncExitStack() as stack:
            await held(stack, permits, "a")
            other = AsyncExitStack()
            await held(other, permits, "b")
            waiting = [asyncio.create_task(take(tenant)) for tenant in "aacd"]
            while "waiting=4" not in repr(permits):
                await asyncio.sleep(0)
            await other.aclose()
            await asyncio.gather(*waiting[2:])
            assert order == ["c", "d"]
        await asyncio.gather(*waiting)
        assert order == ["c", "d", "a", "a"]
        assert repr(permits) == "<Permits 0 of 2 waiting=0>"

    asyncio.run(story())


@pytest.mark.parametrize("granted", [False, True])
def test_a_caller_that_leaves_takes_none_along(granted: bool) -> None:
    """Neither while it waits nor in the moment in which it is granted one."""

    async def story() -> None:
        permits = Permits(1, 1)

        async def take() -> None:
            async with permits.one("a", BOUND):
                raise AssertionError("it has left")

        stack = AsyncExitStack()
        await held(stack, permits, "a")
        waiting = asyncio.create_task(take())
        while "waiting=1" not in repr(permits):
            await asyncio.sleep(0)
        if granted:
            await stack.aclose()
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        await stack.aclose()
        assert repr(permits) == "<Permits 0 of 1 waiting=0>"

    asyncio.run(story())
