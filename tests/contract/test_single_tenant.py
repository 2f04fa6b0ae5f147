"""A service that one tenant has to itself, and that ends with its last session."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.operator_client import reason
from support.program import processes_of, served
from support.service import key_for, prepare, raw, serving, simple
from support.timeouts import BOUND

import samovar
from samovard.state_lock import CannotStart


def test_the_first_tenant_has_the_service_to_itself(directory: Path) -> None:
    """Another one is refused its turns, also after a restart, and is told that another instance
    may serve it."""

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        acme, blue = [await key_for(directory, name) for name in ("acme", "blue")]
        sections: dict[str, Any] = {"auth": {"methods": ["api_key"]}, "pool": {"max_tenants": 1}}
        for restarted in (False, True):
            async with (
                serving(directory, binary=binary, **sections) as service,
                samovar.AsyncClient(service.address, api_key=acme) as first,
            ):
                if not restarted:
                    assert (await first.ask("Say x")).text == "x"
                # Bare: the client would try again, as another instance may serve it.
                metadata = (("authorization", f"Bearer {blue}"),)
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await raw(service.stub, simple("y"), metadata=metadata)
                name, told = reason(refused.value)
                assert (name, told["cause"]) == ("NO_PROCESS", "other-tenant")
                assert (await first.ask("Say z")).text == "z"

    asyncio.run(story())


def test_a_store_of_several_tenants_is_refused(directory: Path) -> None:
    """Before anything of them is served, in one sentence."""

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        keys = [await key_for(directory, name) for name in ("acme", "blue")]
        auth = {"methods": ["api_key"]}
        async with serving(directory, binary=binary, auth=auth) as service:
            for key in keys:
                async with samovar.AsyncClient(service.address, api_key=key) as client:
                    await client.ask("Say x")
        with pytest.raises(CannotStart, match=r"sessions of 2 tenants, and pool\.max_tenants is 1"):
            async with serving(directory, binary=binary, auth=auth, pool={"max_tenants": 1}):
                raise AssertionError("it serves")

    asyncio.run(story())


def test_a_service_ends_with_its_last_session(directory: Path) -> None:
    """Not before there was one, and not while one is left; with exit code 0."""
    variables = {"SAMOVAR_POOL__EXIT_WHEN_EMPTY": "true"}
    with served(directory, variables=variables) as program:
        with samovar.Client(program.address) as client:
            for name in ("a", "b"):
                client.ask("Say x", session=name)
            assert client.close_session("a")
            assert client.ask("Say y", session="b").text == "y"
            assert client.close_session("b")
        assert program.child.wait(BOUND) == 0
        assert processes_of(directory) == []
