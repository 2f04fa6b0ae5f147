"""Callers without the right credential, and callers at doors that are not theirs."""

import asyncio
import socket
import stat
from collections.abc import Iterable

import grpc
from fake_claude import fake, verbs
from support.service import key_for
from support.timeouts import BOUND

from samovar.v1 import session_pb2 as pb
from samovard.edge import gate
from samovard.settings import given
from samovard.store.keys import KeyStore
from samovard.store.sqlite.database import Database
from security.actors import OK, Answer, sending
from security.arena import ATTACKER, Arena
from security.catalog import attack

UNKNOWN = grpc.StatusCode.UNAUTHENTICATED
DENIED = grpc.StatusCode.PERMISSION_DENIED
NONE = grpc.StatusCode.UNIMPLEMENTED
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
HEALTH = "/grpc.health.v1.Health/"


def alike(answers: Iterable[Answer], code: grpc.StatusCode) -> None:
    """Raise `AssertionError` unless all answers are the same to the byte, with this code."""
    found = [*answers]
    assert {answer.code for answer in found} == {code}, {answer.code.name for answer in found}
    assert len({answer.bytes for answer in found}) == 1, "the answers differ"


@attack("edge.identity.Identity.caller", "tls", "plain", without="credential")
async def no_credential_at_any_method(arena: Arena) -> None:
    """Each method of both listeners answers alike, and nothing but UNAUTHENTICATED."""
    operator = arena.operator()
    alike([await arena.stranger.call(method) for method in gate.SESSION], UNKNOWN)
    alike([await operator.call(method) for method in gate.POOL], UNKNOWN)


@attack("edge.identity._KEY", "tls", without="key shape")
async def a_credential_that_is_none(arena: Arena) -> None:
    """Another scheme, a part of a key, and more than a key are UNAUTHENTICATED."""
    key = arena.keys[ATTACKER]
    texts: tuple[str, ...] = (
        f"Bearer {key}x",
        f"Bearer {key[:-1]}",
        f"Basic {key}",
        key,
        f"Bearer  {key}",
        "Bearer",
    )
    texts += (f"Bearer {key.upper()}", f"Bearer {key}.{key}", "Bearer samovar__", " ", "Bearer a b")
    caller = arena.caller()
    shown = [(("authorization", text),) for text in (*texts, "x" * 4000)]
    alike([await caller.call("ListSessions", metadata=one) for one in shown], UNKNOWN)


@attack("edge.identity.Evidence.values", "tls", without="one credential")
async def two_credentials_in_one_call(arena: Arena) -> None:
    """A second credential beside a good one makes none."""
    for other in ("Bearer nonsense", arena.shown(ATTACKER)[0][1], "Basic YTpi"):
        answer = await arena.attacker.call("ListSessions", metadata=(("authorization", other),))
        assert answer.code is UNKNOWN, answer


@attack("edge.identity.ApiKeys.authenticate", "plain", without="key secret")
async def keys_that_nobody_was_given(arena: Arena) -> None:
    """A known id with another secret cannot be told from an id that does not exist."""
    ids = [key.split("_")[1] for key in arena.keys.values()]
    texts = [f"samovar_{id}_{43 * 'A'}" for id in (*ids, 12 * "0", 12 * "z")]
    texts.append(f"samovar_{ids[1]}_{arena.keys[ATTACKER].split('_')[2]}")
    callers = [arena.bearer(f"Bearer {text}") for text in texts]
    alike([await caller.call("ListSessions") for caller in callers], UNKNOWN)


@attack("store.keys.KeyRecord.valid", "plain", without="revocation")
async def a_key_that_was_revoked(arena: Arena) -> None:
    """A key that was just used is refused within seconds of being revoked."""
    key = await key_for(arena.directory, ATTACKER)
    caller = arena.bearer(f"Bearer {key}")
    assert (await caller.call("ListSessions")).code is OK
    await revoke(arena, key)
    async with asyncio.timeout(arena.patience):
        while (await caller.call("ListSessions")).code is OK:
            pass
    # That one may have been under way; from then on none is taken.
    alike([await caller.call("ListSessions") for _ in range(5)], UNKNOWN)


@attack("edge.revocation.Revocation.look", "plain", without="revocation of calls")
async def a_stream_that_outlives_its_key(arena: Arena) -> None:
    """What a key began ends when it is revoked, turns too."""
    key = await key_for(arena.directory, ATTACKER)
    caller = arena.bearer(f"Bearer {key}")
    call = caller.begin("Send", sending(fake(verbs.hang()), "outlives"))
    begun = await caller.first(call)
    assert begun
    await revoke(arena, key)
    assert (await caller.end(call, begun)).reason == "CREDENTIAL_INVALID"
    await arena.until(lambda now: now["running"] == 0, "the turn runs on")


async def revoke(arena: Arena, key: str) -> None:
    """Revoke a key of the attacker's, as `samovard keys revoke` does."""
    settings = given({"state": {"directory": arena.directory}})
    async with Database(settings.url) as database:
        await KeyStore(database).revoke(ATTACKER, key.split("_")[1], 0.0)


@attack("edge.gate.Gate._caller", "tls", without="scopes")
async def methods_of_the_operator_as_a_tenant(arena: Arena) -> None:
    """A tenant's key opens none of them, on neither listener."""
    operator = arena.operator(ATTACKER)
    alike([await arena.attacker.call(method) for method in gate.POOL], NONE)
    for method in (*gate.POOL, REFLECTION):
        answer = await operator.call(method)
        assert (answer.code, answer.reason) == (DENIED, "SCOPE_MISSING"), (method, answer)


@attack("edge.gate.SESSION", "plain", without="rows of scopes")
async def a_key_that_may_only_read(arena: Arena) -> None:
    """It can send, stop, answer and close nothing."""
    key = await key_for(arena.directory, ATTACKER, "session.read")
    caller = arena.bearer(f"Bearer {key}")
    assert (await caller.call("ListSessions")).code is OK
    for method in ("Send", "Interrupt", "Respond", "CloseSession"):
        assert (await caller.call(method)).code is DENIED, method


@attack("edge.gate.Gate.intercept_service", "tls", without="unknown methods")
async def methods_that_do_not_exist(arena: Arena) -> None:
    """A stranger cannot tell them from those that do; spellings of a method's path are none."""
    paths = ["/samovar.v1.Session/Nothing", "/samovar.v1.Session/getsession", "//x/y", "/"]
    paths += ["/samovar.v1.Session/GetSession/", "/samovar.v1.session/GetSession", "/a/../b"]
    known = await arena.stranger.call("GetSession")
    alike([known, *[await arena.stranger.call(path) for path in paths]], UNKNOWN)
    alike([await arena.attacker.call(path) for path in paths], NONE)


@attack("edge.gate.public_table", "tls", without="reflection")
async def reflection_on_the_callers_listener(arena: Arena) -> None:
    """It is not there, with a key or without."""
    asked = pb.GetSessionRequest()
    assert (await arena.stranger.call(REFLECTION, asked)).code is UNKNOWN
    assert (await arena.attacker.call(REFLECTION, b"\x3a\x00")).code is NONE


@attack("edge.gate.KNOWN", "tls", without="health")
async def health_without_a_credential(arena: Arena) -> None:
    """Where callers have keys, so do probes that come their way."""
    answers = [await arena.stranger.call(HEALTH + method) for method in ("Check", "List", "Watch")]
    alike(answers, UNKNOWN)


@attack("edge.server.probes", "plain", without="credential")
async def sessions_on_the_listener_for_probes(arena: Arena) -> None:
    """It serves health and nothing else, whatever is shown to it."""
    probes = f"unix:{arena.directory / 'health.sock'}"
    caller = arena.caller(shown=arena.shown(ATTACKER), address=probes)
    assert (await caller.call(HEALTH + "Check")).code is OK
    for method in (*gate.SESSION, *gate.POOL, REFLECTION):
        assert (await caller.call(method)).code is UNKNOWN, method


@attack("edge.gate.set_caller", "plain", without="tenant of the credential")
async def a_tenant_that_metadata_name(arena: Arena) -> None:
    """The credential alone names the tenant; what metadata and unknown fields say is not read."""
    names = ("x-tenant-id", "x-samovar-tenant", "tenant", "x-forwarded-user", "session-id")
    metadata = [(name, "victim") for name in names]
    metadata += [("x-forwarded-client-cert", "URI=spiffe://mesh.test/victim"), ("forwarded", "x")]
    unknown = b"\xfa\x01\x06victim"  # field 31
    listed = await arena.attacker.call("ListSessions", unknown, metadata)
    assert listed.code is OK
    assert not pb.ListSessionsResponse.FromString(b"".join(listed.messages)).sessions
    asked = pb.GetSessionRequest(session_id=arena.victim.session).SerializeToString()
    answer = await arena.attacker.call("GetSession", asked + unknown, metadata)
    assert answer.reason == "SESSION_NOT_FOUND", answer


@attack("edge.identity._BROWSER", "none", without="origin")
async def a_page_in_a_browser(arena: Arena) -> None:
    """Without credentials a call that names an origin is refused; HTTP/1.1 is not served."""
    for field in ("origin", "referer", "sec-fetch-site"):
        answer = await arena.stranger.call("ListSessions", metadata=((field, "http://evil.test"),))
        assert answer.code is UNKNOWN, field

    def page() -> bytes:
        with socket.create_connection(("127.0.0.1", arena.port), BOUND) as browser:
            head = "POST /samovar.v1.Session/ListSessions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            browser.sendall(f"{head}Content-Length: 5\r\n\r\n\0\0\0\0\0".encode())
            return b"".join(iter(lambda: browser.recv(65536), b""))

    assert not (await asyncio.to_thread(page)).startswith(b"HTTP/1.1 200")


@attack("settings.checks.exposure", "none", without="exposure")
async def a_service_without_credentials_for_all(arena: Arena) -> None:
    """Settings that would open it beyond this machine start nothing."""
    none = {"methods": ["none"]}
    for values in (
        {"server": {"listen": "0.0.0.0:0"}, "auth": none},
        {"server": {"listen": "[::]:0", "tls": "terminated"}, "auth": none},
        {"server": {"operator_listen": "127.0.0.1:0"}, "auth": none},
        {"auth": {"methods": ["none", "api_key"]}},
        {"server": {"listen": "0.0.0.0:0"}, "auth": {"methods": ["api_key"]}},
        {"auth": {"methods": ["mtls"], "mtls": {"trust_domain": "mesh.test"}}},
    ):
        assert await arena.ask("settings", values=values), values


@attack("edge.server.listen_for_owner", "none", without="socket's mode")
async def the_operators_socket_for_another_user(arena: Arena) -> None:
    """Only the service's own user can open it."""
    mode = (arena.directory / "operator.sock").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600, oct(mode)
