"""TLS files that are renewed while the service runs."""

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest
from contract.test_tls import certificate
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs
from support.program import read_until, served
from support.service import Running, free_port, key_for, prepare, serving, until
from support.timeouts import BOUND

import samovar
from samovard.edge.certificates import CannotServe, Files
from samovard.state_lock import CannotStart

Pair = tuple[Path, Path]
DAY = 86400.0


def rename(target: Pair, new: Pair) -> None:
    for place, source in zip(target, new, strict=True):
        source.rename(place)


def write_in_place(target: Pair, new: Pair) -> None:
    for place, source in zip(target, new, strict=True):
        place.write_bytes(source.read_bytes())


def listens(pair: Pair, **more: Path) -> Mapping[str, object]:
    files = {"tls_certificate": pair[0], "tls_key": pair[1], **more}
    return {"listen": "127.0.0.1:0", "tls": "files", **files}


@asynccontextmanager
async def serving_with(directory: Path, pair: Pair) -> AsyncIterator[Running]:
    async with serving(directory, fake=True, server=listens(pair)) as run:
        yield run


def on_disk(pair: Pair) -> bytes:
    return x509.load_pem_x509_certificate(pair[0].read_bytes()).public_bytes(Encoding.DER)


async def shown(address: str) -> bytes:
    """Return the certificate that a new connection is shown."""

    def connect() -> bytes:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        host, port = address.rsplit(":", 1)
        with (
            socket.create_connection((host, int(port)), BOUND) as plain,
            context.wrap_socket(plain) as safe,
        ):
            return safe.getpeercert(binary_form=True) or b""

    return await asyncio.to_thread(connect)


def trusting(pair: Pair) -> samovar.Tls:
    return samovar.Tls(pair[0].read_bytes(), server_name="samovar.test")


@pytest.mark.parametrize("change", [rename, write_in_place])
def test_a_renewed_certificate_is_served_without_a_restart(
    directory: Path, change: Callable[[Pair, Pair], None]
) -> None:
    """A new connection is shown the new one, and one that is open goes on."""

    async def story() -> None:
        pair, new = certificate(directory), certificate(directory, "new", hours=48)
        old, renewed = on_disk(pair), on_disk(new)
        tls = trusting(pair)
        async with serving_with(directory, pair) as run:
            async with samovar.AsyncClient(run.address, tls=tls) as client:
                assert (await client.ask("Say one", deadline=BOUND)).text == "one"
                assert await shown(run.address) == old
                change(pair, new)
                assert await shown(run.address) == renewed
                # A new connection would not trust what is shown now.
                assert (await client.ask("Say two", deadline=BOUND)).text == "two"
            async with samovar.AsyncClient(run.address, tls=trusting(pair)) as client:
                assert (await client.ask("Say new", deadline=BOUND)).text == "new"
        lines = [line for line in told if line["event"].startswith("certificate.")]
        # What is written in place may be seen half-way, but nobody connected meanwhile.
        assert [line["event"] for line in lines] == ["certificate.renewed"]
        expiry = x509.load_der_x509_certificate(renewed).not_valid_after_utc
        assert lines[0]["not_after"] == expiry.isoformat()

    with capture_logs() as told:
        asyncio.run(story())


def test_a_mounted_secret_that_changes_is_served(directory: Path) -> None:
    """The files are links through a directory's link, which is replaced, as Kubernetes does."""

    async def story() -> None:
        mount = directory / "tls"
        pairs = []
        for version in ("one", "two"):
            (mount / version).mkdir(parents=True)
            pairs.append(certificate(mount / version, "tls"))
        (mount / "..data").symlink_to("one")
        links = (mount / "tls.pem", mount / "tls-key.pem")
        for link in links:
            link.symlink_to(Path("..data", link.name))
        async with serving_with(directory, links) as run:
            assert await shown(run.address) == on_disk(pairs[0])
            (mount / "..next").symlink_to("two")
            os.replace(mount / "..next", mount / "..data")
            assert await shown(run.address) == on_disk(pairs[1])

    asyncio.run(story())


def test_a_pair_that_does_not_match_is_told_once_and_not_served(directory: Path) -> None:
    """The old one stays until the pair is mended; half of a pair is such a pair."""

    async def story() -> None:
        pair, new = certificate(directory), certificate(directory, "new")
        old = on_disk(pair)
        async with serving_with(directory, pair) as run:
            new[0].rename(pair[0])
            assert [await shown(run.address) for _ in range(3)] == [old] * 3
            pair[0].touch()
            assert await shown(run.address) == old
            await until(lambda: refusals() == ["server.tls_key: does not belong to"])
            new[1].rename(pair[1])
            assert await shown(run.address) == on_disk(pair) != old
            pair[1].unlink()
            assert await shown(run.address) == on_disk(pair)
            await until(lambda: len(refusals()) == 2)
            assert refusals()[1] == f"server.tls_key: {pair[1]}: No such file or directory"

    def refusals() -> list[str]:
        return [
            line["error"].removesuffix(" server.tls_certificate")
            for line in told
            if line["event"] == "certificate.refused"
        ]

    with capture_logs() as told:
        asyncio.run(story())


def test_the_ca_of_clients_is_renewed(directory: Path) -> None:
    """Then a client of the new one is let in and one of the old one is not, on both listeners."""

    async def story() -> None:
        pair = certificate(directory)
        first, second = certificate(directory, "first"), certificate(directory, "second")
        authority = directory / "authority.pem"
        authority.write_bytes(first[0].read_bytes())
        binary = await prepare(directory, fake=True)
        key = await key_for(directory, "acme")
        admin = await key_for(directory, "ops", "admin")
        operator = f"127.0.0.1:{free_port()}"
        listen = {**listens(pair, tls_client_ca=authority), "operator_listen": operator}
        auth = {"methods": ["api_key"]}

        def showing(client: Pair) -> samovar.Tls:
            chain, private = (path.read_bytes() for path in client)
            return replace(trusting(pair), certificate_chain=chain, private_key=private)

        async def enters(client: Pair) -> set[str]:
            tls, let_in = showing(client), set()
            async with samovar.AsyncClient(run.address, api_key=key, tls=tls) as caller:
                try:
                    await caller.ask("Say in", deadline=BOUND)
                    let_in.add("caller")
                except samovar.CallBroken:
                    pass
            async with samovar.AsyncOperator(operator, api_key=admin, tls=tls) as owner:
                try:
                    await owner.drain("acme")
                    let_in.add("operator")
                except samovar.CallBroken:
                    pass
            return let_in

        async with serving(directory, binary=binary, server=listen, auth=auth) as run:
            assert await enters(first) == {"caller", "operator"}
            authority.write_bytes(second[0].read_bytes())
            assert await enters(second) == {"caller", "operator"}
            assert await enters(first) == set()

    asyncio.run(story())


def test_sighup_reports_a_broken_pair_at_once(directory: Path) -> None:
    """As `reload.failed`, without a connection; a good pair is among what was read."""
    pair, new = certificate(directory), certificate(directory, "new")
    public, private = map(str, pair)
    with served(directory, tls="files", tls_certificate=public, tls_key=private) as program:
        rename(pair, new)
        program.child.send_signal(signal.SIGHUP)
        assert "certificates" in read_until(program.child, "reload.finished")
        pair[1].write_text("no key")
        program.child.send_signal(signal.SIGHUP)
        said = read_until(program.child, "reload.finished")
        assert '"part": "certificates"' in said
        assert "server.tls_key: is not a PEM file" in said
        assert program.end() == 0


def test_the_time_to_expiry_is_a_metric(directory: Path) -> None:
    """It is that of the certificate that is served, and follows a renewal without a connection."""

    async def story() -> None:
        pair, new = certificate(directory), certificate(directory, "new", hours=48)
        address = f"127.0.0.1:{free_port()}"
        telemetry = {"prometheus_listen": address}
        server = listens(pair)

        def fetch() -> float:
            with urlopen(f"http://{address}/metrics") as response:
                lines = str(response.read(), "utf-8").splitlines()
            name = "samovar_certificate_expiry_seconds"
            found = [float(line.split()[1]) for line in lines if line.startswith(f"{name} ")]
            return found[0] if found else 0.0

        async def tells(low: float, high: float) -> None:
            async with asyncio.timeout(BOUND):
                while not low < await asyncio.to_thread(fetch) <= high:
                    pass

        async with serving(directory, fake=True, server=server, telemetry=telemetry):
            await tells(0, DAY / 24)
            rename(pair, new)
            await tells(DAY, 2 * DAY)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("samovard.maintenance.CERTIFICATES_EVERY", 0.05)
        asyncio.run(story())


def test_a_pair_that_does_not_match_ends_the_start_in_a_sentence(directory: Path) -> None:
    """The setting is named."""

    async def story() -> None:
        pair, other = certificate(directory), certificate(directory, "other")
        with pytest.raises(CannotStart, match=r"^server\.tls_key: does not belong"):
            async with serving_with(directory, (pair[0], other[1])):
                pass

    asyncio.run(story())


@pytest.mark.parametrize("setting", ["tls_certificate", "tls_key", "tls_client_ca"])
@pytest.mark.parametrize("kept", [0, 0.5, 0.9])
def test_a_file_that_is_cut_off_is_refused_by_name(
    tmp_path: Path, setting: str, kept: float
) -> None:
    """At any length; nothing but `CannotServe` is raised."""
    public, private = certificate(tmp_path)
    paths = {"tls_certificate": public, "tls_key": private, "tls_client_ca": tmp_path / "ca.pem"}
    paths["tls_client_ca"].write_bytes(public.read_bytes())
    assert Files(*paths.values()).read()
    whole = paths[setting].read_bytes()
    paths[setting].write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(CannotServe, match=rf"^server\.{setting}: "):
        Files(*paths.values()).read()
