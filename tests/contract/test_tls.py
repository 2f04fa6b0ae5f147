"""TLS, with a certificate of the test's own."""

import asyncio
import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from service import key_for, prepare, serving

import samovar


def certificate(directory: Path) -> tuple[Path, Path]:
    """Makes a certificate for `samovar.test` that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "samovar.test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("samovar.test")]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = directory / "certificate.pem", directory / "private.pem"
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
                assert (await client.ask("Say safe", deadline=30)).text == "safe"
            async with samovar.AsyncClient(run.address, api_key=key, tls=True) as stranger:
                with pytest.raises(samovar.CallBroken):
                    await stranger.ask("Say safe", deadline=5)

    asyncio.run(story())
