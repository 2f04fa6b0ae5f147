"""The way to the API: verified, and by the operator's proxy where there is one."""

import asyncio
import ssl
from pathlib import Path

import pytest
from aiohttp import web
from contract.test_tls import certificate
from structlog.testing import capture_logs
from support.brokered import Tenants, brokered, hello, status

from samovard.agent.broker.broker import Broker, listen
from samovard.agent.broker.upstream import API, Upstream


@pytest.mark.parametrize(
    ("url", "no_proxy", "proxied"),
    [
        ("", (), True),
        ("https://gateway.example/base", ("other.example",), True),
        ("https://gateway.example:8443", (".example",), False),
        ("https://gateway.example", ("gateway.example",), False),
        ("https://gateway.example", ("*",), False),
        ("http://127.0.0.1:9", ("127.0.0.1",), False),
    ],
)
def test_hosts_without_a_proxy_are_reached_directly(
    url: str, no_proxy: tuple[str, ...], *, proxied: bool
) -> None:
    """As the settings name them; the others by the proxy."""
    upstream = Upstream(url, "http://proxy.example:3128", no_proxy)
    assert upstream.via == ("http://proxy.example:3128" if proxied else None)
    assert Upstream(url, "", no_proxy).via is None


def test_without_a_setting_it_is_the_apis_own_address() -> None:
    """And a slash at the end of another is not doubled."""
    assert Upstream().base == API == "https://api.anthropic.com"
    assert Upstream("https://gateway.example/base/").base == "https://gateway.example/base"


@pytest.mark.parametrize(
    ("host", "trusted", "served"),
    [("localhost", True, True), ("localhost", False, False), ("api.example", True, False)],
)
def test_a_certificate_that_is_not_the_apis_gets_nothing(
    directory: Path, host: str, *, trusted: bool, served: bool
) -> None:
    """Neither one that nobody known has signed, nor another's: the credential is not sent."""
    pair = certificate(directory, "api", host)
    asked = 0

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return await hello(request)

    async def story() -> int:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*pair)
        runner = web.ServerRunner(web.Server(answer, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        port = runner.addresses[0][1]
        upstream = Upstream(f"https://localhost:{port}", ca_bundle=pair[0] if trusted else None)
        try:
            async with brokered() as found, Broker(Tenants(), upstream) as broker:
                found.address = await broker.open(listen(), "acme", "default")
                found.address.allow(open=True)
                return status(await found.raw(found.request()))
        finally:
            await runner.cleanup()

    with capture_logs() as lines:
        assert asyncio.run(story()) == (200 if served else 0)
    assert asked == served
    told = [line["why"] for line in lines if line["event"] == "broker.unreached"]
    assert told == ([] if served else ["ClientConnectorCertificateError"])
