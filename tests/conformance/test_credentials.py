"""Credentials and TLS, with each language's client, as the service is configured for them."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from contract.test_tls import certificate
from edge.test_tokens import KEY, RULES, keys, public, token
from support.scripted_server import Script, finished, playing, started
from support.service import key_for, prepare
from support.timeouts import BOUND

from conformance.driving import Client, Driver
from conformance.services import Beside, talking

HOST = "samovar.test"


@dataclass(frozen=True)
class Certificates:
    """The files of the service's certificate, which is its own authority."""

    public: Path
    private: Path

    def listen(self, **more: object) -> dict[str, object]:
        """Return the settings of a service that has it."""
        files = {"tls": "files", "tls_certificate": self.public, "tls_key": self.private}
        return {"listen": "127.0.0.1:0", **files, **more}

    def trust(self, **more: object) -> dict[str, str]:
        """Return the TLS of a client that trusts it."""
        files = {name: str(file) for name, file in more.items()}
        return {"ca": str(self.public), "server_name": HOST, **files}


@pytest.fixture
def certificates(directory: Path) -> Certificates:
    return Certificates(*certificate(directory, host=HOST))


def key_of(directory: Path) -> str:
    """Return an API key of a tenant."""

    async def make() -> str:
        await prepare(directory, fake=True)
        return await key_for(directory, "acme")

    return asyncio.run(make())


def refused(client: Client) -> str:
    """Return how a turn fails."""
    kind: str = client.send("Say no", deadline=BOUND).failed()["kind"]
    return kind


def test_a_key_travels_over_tls(
    driver: Driver, directory: Path, certificates: Certificates
) -> None:
    """A service with a certificate serves a client that trusts it, with a key, and no other."""
    key = key_of(directory)

    def talk(service: Beside) -> None:
        trust = certificates.trust()
        with driver.client(service.address, credential=key, tls=trust) as client:
            assert client.ask("Say safe", session="s")["text"] == "safe"
            assert client.call("health").done() == {"status": "serving"}
            found = client.call("list_sessions").done()["sessions"]
            assert [session["session_id"] for session in found] == ["s"]
        with driver.client(service.address, credential=key + "x", tls=trust) as client:
            assert refused(client) == "credential_invalid"
        with driver.client(service.address, tls=trust) as client:
            assert refused(client) == "credential_invalid"
        with driver.client(service.address, credential=key, tls={}) as client:
            assert client.call("get_session").failed()["kind"] == "call_broken"

    talking(directory, talk, server=certificates.listen(), auth={"methods": ["api_key"]})


def test_a_certificate_is_shown(
    driver: Driver, directory: Path, certificates: Certificates
) -> None:
    """A client's certificate names its tenant (mTLS); without one there is no connection."""
    shown, private = certificate(directory, "a", "a.test", uris=["spiffe://mesh.test/acme"])

    def talk(service: Beside) -> None:
        own = certificates.trust(certificate=shown, key=private)
        with driver.client(service.address, tls=own) as client:
            assert client.ask("Say shown")["text"] == "shown"
        with driver.client(service.address, tls=certificates.trust()) as client:
            assert client.call("get_session").failed()["kind"] == "call_broken"

    auth = {"methods": ["mtls"], "mtls": {"trust_domain": "mesh.test"}}
    talking(directory, talk, server=certificates.listen(tls_client_ca=shown), auth=auth)


def test_a_token_is_a_credential(
    driver: Driver, directory: Path, certificates: Certificates
) -> None:
    """A JSON Web Token names its tenant, until it has expired."""
    (directory / "jwks.json").write_bytes(keys(public(KEY, "1")))
    rules: dict[str, Any] = {
        "issuer": RULES.issuer,
        "audience": "samovar",
        "algorithm": "ES256",
        "tenant_claim": "tenant",
        "jwks": str(directory / "jwks.json"),
    }

    def talk(service: Beside) -> None:
        trust = certificates.trust()
        with driver.client(service.address, credential=token(), tls=trust) as client:
            assert client.ask("Say who")["text"] == "who"
        with driver.client(service.address, credential=token(exp=1), tls=trust) as client:
            assert refused(client) == "credential_invalid"

    auth = {"methods": ["jwt"], "jwt": rules}
    talking(directory, talk, server=certificates.listen(), auth=auth)


@pytest.mark.parametrize("target", ["samovar.test:50051", "10.1.2.3:50051", "dns:///a.test:1"])
def test_a_credential_is_not_sent_in_the_open(driver: Driver, target: str) -> None:
    """A credential for another machine is refused by the client, unless there is TLS."""
    name = "in the open"
    call = driver.call("open", client=name, target=target, credential="secret")
    assert call.failed()["kind"] == "invalid_argument"


def test_a_credential_stays_on_this_machine(driver: Driver, directory: Path) -> None:
    """On this machine a credential needs no TLS, and is sent as a bearer."""
    script = Script(*[[started(), finished(sequence=2)]] * 2)
    with playing(script) as target:
        with driver.client(target, credential="secret") as client:
            client.ask("Hello", session="s")
        with driver.client(target) as client:
            client.ask("Hello")
    first, second = script.metadata
    assert first["authorization"] == "Bearer secret"
    assert first["session-id"] == "s"
    assert "authorization" not in second
    assert second["session-id"] == "default"
