"""A service of its own program with its real options, and the callers that are tried on it.

Knows how a service is started and reached. Knows no attack.
"""

import asyncio
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import fake_claude
import grpc
from contract.test_tls import certificate
from edge.test_tokens import KEY, RULES, keys, public, token
from fake_claude import verbs
from support.http2 import Http2
from support.otlp_collector import Collector, collecting
from support.program import environ, starter
from support.service import OPEN, free_port, key_for, prepare, until
from support.timeouts import BOUND

from samovar.v1 import session_pb2 as pb
from samovard.standin import StandIn
from security.actors import OK, Caller, Metadata, Victim
from security.unprivileged import PLAIN_USER

ATTACKER, VICTIM = "attacker", "victim"
TENANTS = (ATTACKER, VICTIM, "crowd")
KINDS = ("plain", "tls", "mtls", "none", "real")
SHORT_OF_TIME = 20.0  # seconds to wait for the effect of a control that was taken out
CREDENTIAL = "sk-ant-attacked-0123456789abcdef"
POOL = {"slots": 6, "queue_limit": 24, "max_starting": 2}
MTLS = {"trust_domain": "mesh.test", "names": {"victim.test": VICTIM}}
JWT = {
    "issuer": RULES.issuer,
    "audience": RULES.audience,
    "algorithm": RULES.algorithm,
    "tenant_claim": RULES.tenant_claim,
}


def fake_prompt(said: str, asked: str) -> str:
    """Return a prompt that the fake agent answers so."""
    return f"{fake_claude.fake(verbs.text(said))}\n{asked}"


def real_prompt(said: str, asked: str) -> str:
    """Return a prompt that the stand-in answers so."""
    return f"{asked}\nSay {said}"


@dataclass(eq=False)
class Arena:
    """A running service of one kind, and what a test needs of it."""

    kind: str
    directory: Path
    child: "subprocess.Popen[bytes]"
    address: str
    metrics_at: str
    keys: Mapping[str, str]
    collector: Collector
    stand_in: StandIn
    patience: float
    long: bool
    callers: list[Caller] = field(default_factory=list)
    victim: Victim = field(init=False)
    attacker: Caller = field(init=False)
    stranger: Caller = field(init=False)

    def __post_init__(self) -> None:
        prompt = real_prompt if self.kind == "real" else fake_prompt
        self.victim = Victim(self.caller(VICTIM), self.keys[VICTIM], prompt)
        self.victim.secrets.append(CREDENTIAL)
        self.attacker = self.caller(ATTACKER)
        self.stranger = self.caller()

    @property
    def tls(self) -> bool:
        """True if callers need TLS."""
        return self.kind in ("tls", "mtls")

    @property
    def port(self) -> int:
        """The port for callers."""
        return int(self.address.rpartition(":")[2])

    @property
    def lacking(self) -> bool:
        """True if the service lacks a control."""
        return self.patience == SHORT_OF_TIME

    @property
    def alive(self) -> bool:
        """True while the service runs."""
        return self.child.poll() is None

    def scale(self, short: int, long: int) -> int:
        """Return how much of something an attack takes."""
        return long if self.long else short

    def caller(
        self,
        tenant: str = "",
        shown: Metadata | None = None,
        *,
        file: str = "",
        address: str = "",
    ) -> Caller:
        """Return a caller of a tenant, or one that shows other metadata, or another certificate."""
        if shown is None:
            shown = self.shown(tenant) if tenant and self.kind not in ("mtls", "none") else ()
        secure = self.credentials(file or tenant) if self.tls and not address else None
        made = Caller.at(address or self.address, secure, shown, self.patience)
        self.callers.append(made)
        return made

    def shown(self, tenant: str) -> Metadata:
        """Return the metadata of a tenant's key."""
        return (("authorization", f"Bearer {self.keys[tenant]}"),)

    def bearer(self, text: str) -> Caller:
        """Return a caller that shows another credential."""
        return self.caller(shown=(("authorization", text),), file=ATTACKER)

    def operator(self, tenant: str = "", metadata: Metadata | None = None) -> Caller:
        """Return a caller of the operator's socket."""
        shown = self.shown(tenant) if tenant else ()
        where = f"unix:{self.directory / 'operator.sock'}"
        return self.caller(shown=metadata or shown, address=where)

    def credentials(self, file: str) -> grpc.ChannelCredentials:
        """Return what a client of TLS trusts, and the certificate that it shows where asked."""
        root = (self.directory / "server.pem").read_bytes()
        if self.kind != "mtls" or not (self.directory / f"{file}.pem").exists():
            return grpc.ssl_channel_credentials(root)
        pair = [(self.directory / f"{file}{end}.pem").read_bytes() for end in ("-key", "")]
        return grpc.ssl_channel_credentials(root, *pair)

    def context(self) -> ssl.SSLContext | None:
        """Return a context for bare HTTP/2, None without TLS."""
        if not self.tls:
            return None
        context = ssl.create_default_context(cafile=str(self.directory / "server.pem"))
        context.set_alpn_protocols(["h2"])
        return context

    def http2(self, *, window: int = 65535) -> Http2:
        """Return a bare connection; to be used in a thread."""
        return Http2(self.port, window=window, tls=self.context())

    def metadata(self, tenant: str = ATTACKER) -> dict[str, str]:
        """Return a tenant's credential for a bare connection."""
        return {key: str(value) for key, value in self.shown(tenant)}

    async def ask(self, what: str, **more: Any) -> Any:
        """Ask the service's probe."""
        reader, writer = await asyncio.open_unix_connection(self.directory / "probe")
        writer.write(json.dumps({"do": what, **more}).encode() + b"\n")
        answer = json.loads(await reader.readline())
        writer.close()
        await writer.wait_closed()
        return answer

    async def stats(self) -> dict[str, int]:
        """Return what the service holds."""
        found: dict[str, int] = await self.ask("stats")
        return found

    async def until(self, condition: Callable[[dict[str, int]], bool], what: str) -> dict[str, int]:
        """Wait until the service holds as much as a condition says."""
        try:
            async with asyncio.timeout(self.patience):
                while not condition(found := await self.stats()):
                    pass
        except TimeoutError:
            raise AssertionError(f"{what}: {found}") from None
        return found

    def log(self) -> str:
        """Return what the service has logged."""
        return (self.directory / "log").read_text("utf-8", "replace")

    def metrics(self) -> str:
        """Return what the service shows to Prometheus."""
        with urlopen(f"http://{self.metrics_at}/metrics") as response:
            return str(response.read(), "utf-8")

    def stored(self) -> bytes:
        """Return the bytes of the store."""
        return b"".join(path.read_bytes() for path in self.directory.glob("samovar.db*"))

    async def tidy(self) -> None:
        """End what the attackers hold: their calls, their connections and their sessions."""
        kept = (self.victim.caller, self.attacker, self.stranger)
        for caller in self.callers:
            await (caller.leave() if caller in kept else caller.close())
        found = await self.until(
            lambda now: now["running"] == now["waiting"] == 0, "turns are left"
        )
        if found["stored"] > 1 or found["sessions"] > 1:
            for tenant in (name for name in TENANTS if name != VICTIM):
                await self._close_sessions(self.caller(tenant))

    async def _close_sessions(self, caller: Caller) -> None:
        if self.kind in ("mtls", "none"):
            return
        closed: set[str] = set()
        try:
            while True:
                answer = await caller.call("ListSessions", pb.ListSessionsRequest(page_size=500))
                listed = pb.ListSessionsResponse.FromString(b"".join(answer.messages)).sessions
                fresh = {info.session_id for info in listed} - closed
                if answer.code is not OK or not fresh:
                    return
                for name in fresh:
                    await caller.call("CloseSession", pb.CloseSessionRequest(session_id=name))
                closed |= fresh  # what is still there is not the tenant's to close
        finally:
            await caller.close()
            self.callers.remove(caller)  # it is discarded with what it received


@asynccontextmanager
async def standing(
    kind: str,
    directory: Path,
    *,
    lacking: bool = False,
    without: str = "",
    long: bool = False,
) -> AsyncIterator[Arena]:
    """Run a service of a kind, perhaps without a control from its start, and end it.

    `lacking`: it is to lack controls, and waits for their effects are short.
    """
    fake = kind != "real"
    binary = await prepare(directory, fake=fake)
    made = {tenant: await key_for(directory, tenant) for tenant in TENANTS}
    async with StandIn() as stand_in:
        with collecting() as collector:
            metrics = f"127.0.0.1:{free_port()}"
            values = settings(kind, directory, binary, stand_in.url, collector.grpc_url, metrics)
            (directory / "samovard.toml").write_text(toml(values))
            give_away(directory)
            with program(directory, without) as child:
                address = await listening(directory, child)
                arena = Arena(
                    kind, directory, child, address, metrics, made, collector, stand_in,
                    SHORT_OF_TIME if lacking else BOUND, long,
                )  # fmt: skip
                try:
                    yield arena
                finally:
                    for caller in arena.callers:
                        await caller.close()


def settings(
    kind: str, directory: Path, binary: Path, upstream: str, collector: str, metrics: str
) -> dict[str, Any]:
    """Return the settings of a kind of service."""
    key = directory / "credential"
    key.touch(mode=0o600)
    key.write_text(CREDENTIAL)
    server: dict[str, Any] = {"listen": "127.0.0.1:0", "event_hold": 1, "reader_bytes": 65536}
    server |= {"reader_timeout": 2, "max_connections": 64, "drain_grace": 1}
    server["health_listen"] = f"unix:{directory / 'health.sock'}"
    auth: dict[str, Any] = {"methods": ["none" if kind == "none" else "api_key"]}
    if kind in ("tls", "mtls"):
        certificate(directory, "server", hours=24)
        pair = {"certificate": "server.pem", "key": "server-key.pem"}
        server |= {f"tls_{name}": str(directory / file) for name, file in pair.items()}
        server |= {"tls": "files"}
    if kind == "tls":
        (directory / "jwks.json").write_bytes(keys(public(KEY, "1")))
        auth = {"methods": ["api_key", "jwt"], "jwt": JWT | {"jwks": str(directory / "jwks.json")}}
    if kind == "mtls":
        authorities(directory)
        server["tls_client_ca"] = str(directory / "authorities.pem")
        auth = {"methods": ["mtls", "api_key"], "mtls": MTLS}
    shell = {"model": "haiku", "tools": ["Bash"], "allowed_tools": ["Bash"]}
    ask = {"model": "haiku", "permission_policy": "ask"}
    few = {"model": "haiku", "max_processes": 50}
    return {
        "server": server,
        "state": {"directory": str(directory)},
        "auth": auth,
        "agent": {"cli": str(binary), "max_line_bytes": 1 << 20},
        "pool": POOL,
        "profiles": {"default": {"model": "haiku"}, "ask": ask, "shell": shell, "few": few},
        # The fake CLI is made of files that walls would hide.
        "isolation": {} if kind == "real" else OPEN,
        "credentials": {"provider": "file", "path": str(key), "upstream": upstream},
        "telemetry": {
            "endpoint": collector,
            "prometheus_listen": metrics,
            "log_format": "json",
        },
    }


#: Certificates by file: whose DNS name and whose URIs.
CERTIFICATES: dict[str, tuple[str, tuple[str, ...]]] = {
    ATTACKER: ("a.test", (f"spiffe://mesh.test/{ATTACKER}",)),
    VICTIM: (f"{VICTIM}.test", ()),
    "twice": ("t.test", (f"spiffe://mesh.test/{ATTACKER}", f"spiffe://mesh.test/{VICTIM}")),
    "unmapped": (f"{VICTIM}.evil.test", ()),
    "foreign": ("f.test", (f"spiffe://mesh.test.evil/{VICTIM}",)),
    "odd": ("o.test", (f"spiffe://mesh.test/{VICTIM}%20",)),
}


def authorities(directory: Path) -> None:
    """Make the certificates of clients, and the file that admits all but one of them."""
    made = [certificate(directory, f, dns, 24, uris) for f, (dns, uris) in CERTIFICATES.items()]
    certificate(directory, "unknown", f"{VICTIM}.test", 24)
    file = directory / "authorities.pem"
    file.write_bytes(b"".join(pem.read_bytes() for pem, _ in made))


def toml(values: Mapping[str, Any], above: str = "") -> str:
    """Return tables as TOML."""
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    lines = [f"[{above}]"] if above and plain else []
    lines += [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in plain.items()]
    tables = [
        toml(value, f"{above}.{json.dumps(key)}".removeprefix("."))
        for key, value in values.items()
        if isinstance(value, Mapping)
    ]
    return "\n".join((*lines, *tables))


def give_away(directory: Path) -> None:
    """Give a directory to the user that the service becomes, if this is root."""
    if os.geteuid() == 0:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, PLAIN_USER, PLAIN_USER, follow_symlinks=False)


@contextlib.contextmanager
def program(directory: Path, without: str) -> Any:
    """Run the service's program, which writes its log to a file."""
    arguments = [str(directory / "samovard.toml"), str(directory / "probe")]
    command = [*starter(), sys.executable, "-m", "security.plugin", *arguments]
    with (directory / "log").open("wb") as log:
        child = subprocess.Popen(
            [*command, *([without] if without else [])],
            env=environ(GRPC_ENABLE_FORK_SUPPORT="0", LANG="C.UTF-8"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    with child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
                child.send_signal(signal.SIGTERM)  # in a hurry
            try:
                child.wait(BOUND)
            except subprocess.TimeoutExpired:
                child.kill()


async def listening(directory: Path, child: "subprocess.Popen[bytes]") -> str:
    """Wait until the service says where it listens."""
    file = directory / "log"

    def address() -> list[str]:
        said = file.read_text("utf-8", "replace")
        assert child.poll() is None, said
        return said.partition("listens on ")[2].split()

    await until(address)
    return address()[0]


def jwt(arena: Arena, tenant: str = ATTACKER, **claims: Any) -> Caller:
    """Return a caller with a token."""
    return arena.bearer(f"Bearer {token(tenant=tenant, **claims)}")
