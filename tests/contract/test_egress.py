"""How agents get out: through a proxy, past its authority, to the API's own address."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from contract.test_tls import certificate
from fake_claude import verbs as v
from fake_claude import write_start
from structlog.testing import capture_logs
from support.connect_proxy import SETTINGS, ConnectProxy
from support.service import Running, prepare, serving

from samovard.agent import process
from samovard.agent.egress import egress_of
from samovard.core.errors import Misconfigured
from samovard.settings import Credentials
from samovard.standin import StandIn

API = "api.anthropic.com"


@asynccontextmanager
async def behind_a_proxy(
    directory: Path, delay: float, **credentials: str
) -> AsyncIterator[tuple[Running, ConnectProxy]]:
    """Serve the real CLI, whose API is a stand-in behind a proxy."""
    binary = await prepare(directory)
    pair = certificate(directory, "proxy", API)
    async with StandIn() as api, ConnectProxy(pair, api.url) as proxy:
        proxy.delay = delay
        out = {"upstream": "", "proxy": proxy.url, "ca_bundle": pair[0], **credentials}
        async with serving(directory, binary=binary, credentials=out) as run:
            try:
                yield run, proxy
            finally:
                await proxy.close()


def test_the_brokers_requests_go_through_the_proxy_and_no_start_waits(directory: Path) -> None:
    """The API is asked for turns alone: not for the CLI's settings, however slow they are."""

    async def story() -> ConnectProxy:
        async with behind_a_proxy(directory, 30.0) as (run, proxy):
            begin = time.monotonic()
            assert (await run.client.ask("Say out")).text == "out"
            assert time.monotonic() - begin < 30.0
        return proxy

    proxy = asyncio.run(story())
    assert set(proxy.tunnels) == {f"{API}:443"}
    assert proxy.paths
    assert all(path.startswith("/v1/messages") for path in proxy.paths)


def test_a_turn_goes_through_the_proxy_and_past_its_authority(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the broker the CLI asks the API itself; a slow answer for its settings is told."""
    monkeypatch.setattr(process, "SLOW_START", 0.5)

    async def story() -> tuple[list[MutableMapping[str, Any]], ConnectProxy]:
        with capture_logs() as lines:
            async with behind_a_proxy(directory, 3.0, delivery="descriptor") as (run, proxy):
                assert (await run.client.ask("Say out", deadline=60)).text == "out"
        return lines, proxy

    lines, proxy = asyncio.run(story())
    assert set(proxy.tunnels) == {f"{API}:443"}
    assert any(path.startswith(SETTINGS) for path in proxy.paths)
    assert any(path.startswith("/v1/messages") for path in proxy.paths)
    told = [line for line in lines if line["event"] == "start.waits"]
    assert len(told) == 1
    assert "credentials.proxy" in told[0]["hint"]
    assert not [line for line in lines if line["event"] == "health.not_serving"]


def test_slow_starts_are_told_once_and_health_does_not_flap(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tried start waits as a turn's does; both are answered within the deadline."""
    monkeypatch.setattr(process, "SLOW_START", 0.1)

    async def story() -> list[MutableMapping[str, Any]]:
        binary = await prepare(directory, fake=True)
        write_start(directory, v.slow_init(1000))
        with capture_logs() as lines:
            direct = {"upstream": "", "delivery": "descriptor"}
            async with serving(directory, binary=binary, credentials=direct) as run:
                assert (await run.client.ask("Say late")).text == "late"
        return lines

    lines = asyncio.run(story())
    (told,) = (line for line in lines if line["event"] == "start.waits")
    assert told["log_level"] == "warning"
    assert "credentials.delivery" in told["hint"]
    assert not [line for line in lines if line["event"] == "health.not_serving"]


def test_authorities_that_cannot_be_used_are_told_at_the_start(tmp_path: Path) -> None:
    """A file that is missing, that holds no certificate, or that would be waited for."""
    (tmp_path / "text").write_text("no certificate")
    os.mkfifo(tmp_path / "pipe")
    reasons = {
        "none": "No such file",
        "text": "is not a PEM file of certificates",
        "pipe": "is not a regular file",
    }
    for name, why in reasons.items():
        settings = Credentials(ca_bundle=tmp_path / name)
        with pytest.raises(Misconfigured, match=f"credentials.ca_bundle: .*{why}"):
            egress_of(settings)


def test_a_start_outlasts_the_wait_for_the_settings() -> None:
    """A CLI whose API does not answer goes on by itself after 30.4 s (claude 2.1.330)."""
    assert process.INIT_TIMEOUT >= 40.0
