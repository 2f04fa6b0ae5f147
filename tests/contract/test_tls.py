"""TLS, with a certificate of the test's own."""

import asyncio
import contextlib
import datetime
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.service import free_port, key_for, prepare, serving
from support.timeouts import BOUND

import samovar


def certificate(
    directory: Path,
    file: str = "certificate",
    host: str = "samovar.test",
    hours: float = 1,
    uris: Sequence[str] = (),
) -> tuple[Path, Path]:
    """Return the paths of a self-signed certificate, valid for so many hours, and of its key."""
    names = [x509.DNSName(host), *map(x509.UniformResourceIdentifier, uris)]
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=hours))
        .add_extension(x509.SubjectAlternativeName(names), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = directory / f"{file}.pem", directory / f"{file}-key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate, private


def test_keys_travel_over_tls(directory: Path) -> None:
    """A service with a certificate serves clients that trust it, by its name, and no others."""

    async def story() -> None:
        public, private = certificate(directory)
        binary = await prepare(directory, fake=True)
        key = await key_for(directory, "acme")
        files = {"tls": "files", "tls_certificate": public, "tls_key": private}
        listen = {"listen": "127.0.0.1:0", **files}
        auth = {"methods": ["api_key"]}
        async with serving(directory, binary=binary, server=listen, auth=auth) as run:
            tls = samovar.Tls(root_certificates=public.read_bytes(), server_name="samovar.test")
            async with samovar.AsyncClient(run.address, api_key=key, tls=tls) as client:
                assert (await client.ask("Say safe", deadline=BOUND)).text == "safe"
            async with samovar.AsyncClient(run.address, api_key=key, tls=True) as stranger:
                with pytest.raises(samovar.CallBroken):
                    await stranger.ask("Say safe", deadline=BOUND)

    asyncio.run(story())


def test_an_operator_shows_a_certificate_and_a_key(directory: Path) -> None:
    """Where clients need a certificate, the operator's address needs one, and the scope too."""

    async def story() -> None:
        public, private = certificate(directory)
        client, secret = certificate(directory, "client")
        binary = await prepare(directory, fake=True)
        admin = await key_for(directory, "ops", "admin")
        address = f"127.0.0.1:{free_port()}"
        files = {"tls": "files", "tls_certificate": public, "tls_key": private}
        listen = {"listen": "127.0.0.1:0", "operator_listen": address, "tls_client_ca": client}
        auth = {"methods": ["api_key"]}
        roots = samovar.Tls(public.read_bytes(), server_name="samovar.test")
        shown = replace(
            roots, private_key=secret.read_bytes(), certificate_chain=client.read_bytes()
        )
        async with serving(directory, binary=binary, server=listen | files, auth=auth):
            async with samovar.AsyncOperator(address, api_key=admin, tls=shown) as operator:
                assert await operator.drain("acme") == samovar.Drained(0, 0)
            async with samovar.AsyncOperator(address, tls=shown) as stranger:
                with pytest.raises(samovar.CredentialInvalid):
                    await stranger.drain("acme")
            async with samovar.AsyncOperator(address, api_key=admin, tls=roots) as stranger:
                with pytest.raises(samovar.CallBroken):
                    await stranger.drain("acme")

    asyncio.run(story())


def test_a_client_certificate_is_a_tenant(directory: Path) -> None:
    """Its SPIFFE ID or its mapped DNS name names the tenant; another certificate names none.

    That holds of each method, of those that do not exist, and of reflection.
    """

    async def story() -> None:
        public, private = certificate(directory)
        made = {
            "acme": certificate(directory, "a", "a.test", uris=["spiffe://mesh.test/acme"]),
            "blue": certificate(directory, "b", "Blue.test"),
            "none": certificate(directory, "n", "n.test", uris=["spiffe://elsewhere.test/acme"]),
        }
        authorities = directory / "authorities.pem"
        authorities.write_bytes(b"".join(pem.read_bytes() for pem, _ in made.values()))
        listen = {
            "listen": "127.0.0.1:0",
            "tls": "files",
            "tls_certificate": public,
            "tls_key": private,
            "tls_client_ca": authorities,
            "public_reflection": True,
        }
        mtls = {"trust_domain": "mesh.test", "names": {"blue.test": "blue"}}
        auth = {"methods": ["mtls"], "mtls": mtls}
        async with serving(directory, fake=True, server=listen, auth=auth) as run:
            for name, (pem, key) in made.items():
                tls = samovar.Tls(public.read_bytes(), key.read_bytes(), pem.read_bytes())
                shown = replace(tls, server_name="samovar.test")
                async with samovar.AsyncClient(run.address, tls=shown) as client:
                    if name == "none":
                        with pytest.raises(samovar.CredentialInvalid):
                            await client.ask("Say no", session="s", deadline=BOUND)
                    else:
                        answer = await client.ask(f"Say {name}", session=name, deadline=BOUND)
                        assert answer.text == name
                        assert [s.session_id async for s in client.list_sessions()] == [name]
                codes = await _codes(run.address, public, pem, key)
                unauthenticated = [grpc.StatusCode.UNAUTHENTICATED]
                unknown = [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.OK]
                assert codes == (2 * unauthenticated if name == "none" else unknown)

    asyncio.run(story())


async def _codes(address: str, root: Path, pem: Path, key: Path) -> list[grpc.StatusCode]:
    """Return the statuses of a method that does not exist, and of a stream of reflection."""
    shown = grpc.ssl_channel_credentials(*(file.read_bytes() for file in (root, key, pem)))
    named = [("grpc.ssl_target_name_override", "samovar.test")]
    async with grpc.aio.secure_channel(address, shown, named) as channel:
        unknown = channel.unary_unary("/samovar.v1.Session/Nothing", None, None)(b"")
        reflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        streams = channel.stream_stream(reflection, None, None)(iter([b"\x3a\x00"]))
        # gRPC crashes where a stream's status is awaited with answers unread (1.85.3).
        with contextlib.suppress(grpc.aio.AioRpcError):
            assert [True async for _ in streams]
        return [await call.code() for call in (unknown, streams)]
