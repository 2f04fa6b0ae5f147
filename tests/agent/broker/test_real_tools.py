"""Tools that agents use, as they are installed here: each has a proxy in its variables."""

import asyncio
import hashlib
import io
import json
import shutil
import ssl
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from contract.test_tls import certificate
from support.optional_tools import passes
from support.timeouts import BOUND
from support.tooled import Tooled, tooled

SITE, PLAIN = "site.example", "plain.example"


def installed(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed")


@asynccontextmanager
async def site(directory: Path) -> AsyncIterator[Tooled]:
    """Serve a directory's `www` as `SITE` with TLS and as `PLAIN` without, to an agent's tools."""
    pair = certificate(directory, "site", SITE)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pair)

    async def serve(request: web.Request) -> web.StreamResponse:
        path = directory / "www" / request.path.strip("/")
        found = path / "index" if path.is_dir() else path
        kind = "application/json" if "npm" in request.path else "text/html"
        if not found.is_file():
            raise web.HTTPNotFound
        return web.FileResponse(found, headers={"Content-Type": kind})

    app = web.Application()
    app.router.add_get("/{path:.*}", serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    (_, tls), (_, plain) = runner.addresses
    names = {SITE: ("127.0.0.1", tls), PLAIN: ("127.0.0.1", plain)}
    try:
        async with tooled(names=names, hosts=(SITE, PLAIN)) as found:
            yield found
    finally:
        await runner.cleanup()


def run(directory: Path, *command: str | Path) -> tuple[str, list[tuple[str, int, str]]]:
    """Run a tool behind the proxy; return what it says, and which hosts it reached how."""

    async def story() -> tuple[str, list[tuple[str, int, str]]]:
        async with site(directory) as found:
            variables = {
                **dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY"), found.address.proxy),
                **dict.fromkeys(("https_proxy", "http_proxy"), found.address.proxy),
                "HOME": str(directory),
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_SSL_CAINFO": str(directory / "site.pem"),
                "PIP_CONFIG_FILE": "/dev/null",
            }
            said = await asyncio.to_thread(passes, *command, **variables)
        return said, [(each.host, each.port, each.verdict) for each in found.passages]

    return asyncio.run(asyncio.wait_for(story(), BOUND))


def put(directory: Path, name: str, data: bytes) -> None:
    path = directory / "www" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@installed("git")
@pytest.mark.parametrize(("url", "port"), [(f"https://{SITE}", 443), (f"http://{PLAIN}", 80)])
def test_git_clones(directory: Path, url: str, port: int) -> None:
    """It asks without its password first, as it does with any proxy."""
    work, bare = directory / "work", directory / "www" / "it.git"
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x.example"]
    commands: tuple[list[str | Path], ...] = (
        [*git, "init", "-q", work],
        [*git, "-C", work, "commit", "-q", "--allow-empty", "-m", "A fact"],
        [*git, "clone", "-q", "--bare", work, bare],
        [*git, "-C", bare, "update-server-info"],
    )
    for command in commands:
        subprocess.run(command, check=True, timeout=BOUND)
    _, reached = run(directory, "git", "clone", "-q", f"{url}/it.git", directory / "clone")
    log = subprocess.run(
        ["git", "-C", directory / "clone", "log", "--format=%s"], capture_output=True, check=True
    )
    assert log.stdout == b"A fact\n"
    assert (url.partition("://")[2], port, "passed") in reached
    assert {verdict for _, _, verdict in reached} <= {"passed", "unauthenticated"}


@pytest.mark.parametrize("host", [f"https://{SITE}", f"http://{PLAIN}"])
def test_pip_downloads(directory: Path, host: str) -> None:
    """From an index that is listed."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as wheel:
        inside = "sample-1.0.dist-info"
        wheel.writestr(f"{inside}/METADATA", "Metadata-Version: 2.1\nName: sample\nVersion: 1.0\n")
        wheel.writestr(f"{inside}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{inside}/RECORD", "")
    name = "sample-1.0-py3-none-any.whl"
    put(directory, f"files/{name}", made.getvalue())
    put(directory, "simple/sample/index", f'<a href="/files/{name}">{name}</a>'.encode())
    pip = [sys.executable, "-m", "pip", "--isolated", "download", "--no-deps", "--no-cache-dir"]
    _, reached = run(
        directory,
        *(*pip, "--disable-pip-version-check", "--cert", str(directory / "site.pem")),
        *("--trusted-host", PLAIN, "--index-url", f"{host}/simple"),
        *("--dest", str(directory / "got"), "sample"),
    )
    assert (directory / "got" / name).read_bytes() == made.getvalue()
    assert {verdict for _, _, verdict in reached} == {"passed"}


@installed("npm")
def test_npm_installs(directory: Path) -> None:
    """From a registry that is listed."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        text = b'{"name": "sample", "version": "1.0.0"}'
        info = tarfile.TarInfo("package/package.json")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
    put(directory, "npm/files/sample.tgz", made.getvalue())
    dist = {
        "tarball": f"http://{PLAIN}/npm/files/sample.tgz",
        "shasum": hashlib.sha1(made.getvalue()).hexdigest(),
    }
    version = {"name": "sample", "version": "1.0.0", "dist": dist}
    told = {"name": "sample", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
    put(directory, "npm/sample", json.dumps(told).encode())
    _, reached = run(
        directory,
        *("npm", "install", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"),
        *("--prefix", str(directory / "got"), "--registry", f"http://{PLAIN}/npm/", "sample"),
    )
    assert (directory / "got" / "node_modules" / "sample" / "package.json").read_bytes() == text
    assert {verdict for _, _, verdict in reached} == {"passed"}


@installed("curl")
def test_curl_tells_what_is_not_listed(directory: Path) -> None:
    """With the sentence that names the setting, where its answer is shown."""
    put(directory, "page", b"a page")
    page = run(directory, "curl", "-sS", "--cacert", directory / "site.pem", f"https://{SITE}/page")
    assert page == ("a page", [(SITE, 443, "passed")])
    said, _ = run(directory, "curl", "-sS", "http://other.example/page")
    assert said == (
        "other.example with port 80 may not be reached: profiles.work.hosts does not list it.\n"
    )
