"""A client certificate from the command line."""

import asyncio
from pathlib import Path

import pytest
from contract.test_tls import certificate
from support.program import SAMOVAR, run
from support.service import serving

from samovar.transport import Shown


def test_the_command_line_shows_a_certificate(directory: Path) -> None:
    """By options or variables; without one the service hangs up, and what to do is told."""

    async def story() -> None:
        public, private = certificate(directory, host="localhost")
        client, key = certificate(directory, "a", "a.test", uris=["spiffe://mesh.test/acme"])
        tls = {"tls": "files", "tls_certificate": public, "tls_key": private}
        listen = {"listen": "127.0.0.1:0", "tls_client_ca": client, **tls}
        auth = {"methods": ["mtls"], "mtls": {"trust_domain": "mesh.test"}}
        async with serving(directory, fake=True, server=listen, auth=auth) as service:
            port = service.address.rpartition(":")[2]
            target = ("--tls", "--target", f"localhost:{port}")
            trusting = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(public)}
            variables = {"SAMOVAR_TLS_CERT": str(client), "SAMOVAR_TLS_KEY": str(key)}
            options = ("--tls-cert", str(client), "--tls-key", str(key))
            sent = ("send", "Say hi", *target)
            calls = [
                asyncio.to_thread(run, *SAMOVAR, *sent, **trusting, **variables),
                asyncio.to_thread(run, *SAMOVAR, "sessions", "list", *target, *options, **trusting),
                asyncio.to_thread(run, *SAMOVAR, *sent, "--deadline", "2", **trusting),
            ]
            done = [await call for call in calls]
        assert [one.returncode for one in done] == [0, 0, 3], [one.stderr for one in done]
        assert done[0].stdout == "hi\n"
        assert done[1].stdout.startswith("default")
        assert "--tls-cert" in done[2].stderr

    asyncio.run(story())


@pytest.mark.parametrize(
    ("files", "tls", "said"),
    [
        (("cert", None), True, "--tls-cert and --tls-key go together"),
        ((None, "key"), True, "--tls-cert and --tls-key go together"),
        (("cert", "key"), False, "add --tls"),
        (("none", "key"), True, "No such file"),
        (("key", "cert"), True, "are no certificate and its key"),
        (("cert", "other"), True, "are no certificate and its key"),
    ],
)
def test_a_certificate_that_cannot_be_shown_is_one_sentence(
    tmp_path: Path, files: tuple[str | None, str | None], tls: bool, said: str
) -> None:
    """Half of one, one without TLS, files that are not there or no pair."""
    pair, other = certificate(tmp_path), certificate(tmp_path, "other")
    paths = {"cert": pair[0], "key": pair[1], "other": other[1], "none": tmp_path / "none"}
    chosen = [str(paths[file]) if file else None for file in files]
    with pytest.raises(ValueError, match=said):
        Shown(tls, *chosen).read()


def test_a_certificate_is_read_with_its_key(tmp_path: Path) -> None:
    """As the files hold them; without any, TLS is as it was asked for."""
    pair = certificate(tmp_path)
    shown = Shown(True, *map(str, pair)).read()
    assert shown is not None
    assert (shown.certificate_chain, shown.private_key) == tuple(p.read_bytes() for p in pair)
    assert Shown(False).read() is None
    assert Shown(True).read() is not None
