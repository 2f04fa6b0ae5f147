"""Credentials that a platform mounts, one file for each tenant, on the real CLI."""

import asyncio
from pathlib import Path

import pytest
from support.service import serving

import samovar


def test_a_tenant_with_a_credential_is_served_beside_one_without(directory: Path) -> None:
    """The service is ready without a tenant, and serves each with what is mounted for it."""
    mount = directory / "mounted"
    mount.mkdir()

    async def story() -> None:
        async with serving(directory, credentials={"provider": "mount", "path": mount}) as run:
            assert run.service.maintenance.readiness.obstacles() == ()
            with pytest.raises(samovar.Misconfigured) as refused:
                await run.client.ask("Say x", session="early")
            assert refused.value.cause == "credential-missing"
            (mount / "local").write_text("sk-mounted")
            (mount / "local").chmod(0o600)
            assert (await run.client.ask("Say hello", session="early")).text == "hello"
            assert {c for r in run.stand_in.requests for c in r.credentials} == {"sk-mounted"}

    asyncio.run(story())
