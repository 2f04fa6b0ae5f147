"""One agent's requests: checked, given their tenant's credential, and passed to the model's API.

Bodies pass in pieces, both ways, as they come. Nothing of a request or an answer is logged. Knows
HTTP. Knows nothing of threads or sockets.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import aiohttp
from aiohttp import HttpVersion11, web
from yarl import URL

from samovard.agent.broker import rules
from samovard.agent.broker.hosts import Hosts
from samovard.agent.broker.keys import Keys
from samovard.agent.broker.passing import closing, passed_on, pieces
from samovard.agent.broker.rules import REFUSALS, Why
from samovard.agent.broker.servers import Servers
from samovard.agent.broker.spans import Spans
from samovard.agent.broker.upstream import Clients
from samovard.agent.broker.usage import UsageReader
from samovard.agent.credentials import Credential
from samovard.agent.mcp import McpServer
from samovard.core.errors import SamovarError

MAX_STREAMS = 50  # requests of one agent at once
UNREACHED = "unreached"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request as it went, for metrics.

    `result` is the class of the API's status, such as `2xx`, `unreached`, or a word of `Why`.
    `first_byte` is the seconds until the answer began, None if the API gave none.
    """

    tenant: str
    profile: str
    result: str
    first_byte: float | None
    tokens: Mapping[str, int]


Report = Callable[[Exchange], None]


@dataclass(slots=True)
class Access:
    """What one agent may do: the tenant that it works for, and whether a turn runs.

    `hosts` are those of its tools, `session` is a label for what is told of these. It is `over`
    once the agent has exited. Written by the service's thread and read by the broker's; each field
    is one reference.
    """

    token: str
    profile: str
    tenant: str = ""
    open: bool = False
    over: bool = False
    session: str = ""
    hosts: Hosts = field(default_factory=Hosts)


class Proxy:
    """The handler of one agent's requests."""

    def __init__(
        self,
        access: Access,
        keys: Keys,
        clients: Clients,
        report: Report,
        servers: Mapping[str, McpServer] | None = None,
    ) -> None:
        self._access = access
        self._keys = keys
        self._clients = clients
        self._report = report
        self._spans = Spans(access.token, clients)
        self._servers = Servers(access.token, clients, servers or {})
        self._streams = 0
        self._client: aiohttp.ClientSession | None = None
        self._upstream = clients.upstream
        self._via = clients.upstream.via

    async def end(self) -> None:
        """Give the clients back, once no request uses them any more."""
        await self._servers.end()
        if self._client is not None:
            self._client = None
            self._keys.forget(self._access.tenant)
            await self._clients.give_back(self._access.tenant)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        if self._spans.takes(request):
            return await self._spans.handle(request)
        if (server := self._servers.asked(request)) is not None:
            return await self._servers.handle(request, server)
        tenant = self._access.tenant
        try:
            path = rules.path_of(request.method, request.raw_path, self._access.token)
            why = self._why_not(request, path)
            if why is not None or path is None:
                return self._refused(tenant, why or Why.NOT_FOUND)
            self._streams += 1
            try:
                return await self._with_credential(request, path, tenant)
            finally:
                self._streams -= 1
        except (aiohttp.ClientError, TimeoutError) as error:
            # No status is the API's that the API did not give: to the CLI, too, the network failed.
            self._clients.failed(error)
            self._report(Exchange(tenant, self._access.profile, UNREACHED, None, {}))
            if request.transport is not None:
                request.transport.close()
            raise ConnectionResetError("the API was not reached") from error

    def _why_not(self, request: web.BaseRequest, path: str | None) -> Why | None:
        if path is None:
            return Why.NOT_FOUND
        if not self._access.open or not self._access.tenant:
            return Why.CLOSED
        if self._streams >= MAX_STREAMS:
            return Why.TOO_MANY
        if request.version != HttpVersion11:
            return Why.MALFORMED
        return rules.fault_of(request.headers, request.content_length)

    def _refused(self, tenant: str, why: Why) -> web.Response:
        self._report(Exchange(tenant, self._access.profile, why.value, None, {}))
        refusal = REFUSALS[why]
        headers = {"Retry-After": "1"} if refusal.retry else None
        response = web.Response(
            status=refusal.status,
            body=refusal.body,
            content_type="application/json",
            headers=headers,
        )
        return closing(response)

    async def _with_credential(
        self, request: web.BaseRequest, path: str, tenant: str
    ) -> web.StreamResponse:
        try:
            credential = await self._keys.of(tenant)
        except SamovarError:
            return self._refused(tenant, Why.NO_CREDENTIAL)
        if self._client is None:
            self._client = self._clients.take(tenant)
        return await self._exchange(request, path, tenant, credential, self._client)

    async def _exchange(
        self,
        request: web.BaseRequest,
        path: str,
        tenant: str,
        credential: Credential,
        client: aiohttp.ClientSession,
    ) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        async with client.post(
            URL(self._upstream.base + path, encoded=True),
            headers=rules.to_api(request.headers, request.content_length or 0, credential),
            data=pieces(request),
            allow_redirects=False,
            proxy=self._via,
        ) as answer:
            first_byte = loop.time() - begin
            self._clients.answered()
            if answer.status == 401 and await self._keys.renewed(tenant, credential.version):
                return self._refused(tenant, Why.RENEWED)
            usage = UsageReader()
            response = web.StreamResponse(
                status=answer.status, headers=rules.to_agent(answer.headers)
            )
            try:
                return await passed_on(request, answer, response, usage.feed)
            finally:
                usage.end()
                result = f"{answer.status // 100}xx"
                told = usage.tokens.counted()
                self._report(Exchange(tenant, self._access.profile, result, first_byte, told))
