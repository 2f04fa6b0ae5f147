"""A core behind the edge that checks what reaches it and what an agent would get."""

import json
from collections.abc import AsyncGenerator
from typing import Any

from msgspec import Raw

from samovard.agent import codec
from samovard.core.errors import Draining, PermissionNotFound, SessionNotFound
from samovard.core.operator.overview import ServerInfo
from samovard.core.operator.snapshot import Snapshot
from samovard.core.process import Allow, PermissionDecision, Text
from samovard.core.records import SessionKey
from samovard.core.sessions.conversation import TurnRequest
from samovard.edge import validate
from samovard.edge.identity import TENANT, current_caller


class Core:
    """A core that checks that requests are the caller's own, and within the contract."""

    def __init__(self) -> None:
        self.tenant = ""  # whose key the call shows

    async def begin(self, sending: TurnRequest, call: object) -> Any:
        """Look at a turn that is to begin, and at the line that its agent would get."""
        self._named(sending.key)
        assert validate.TURN.fullmatch(sending.prompt.turn_id)
        assert 0 < len(sending.prompt.content) <= validate.MAX_BLOCKS
        assert sending.limits.timeout is None or sending.limits.timeout > 0
        assert sending.limits.steps is None or sending.limits.steps > 0
        line = codec.message(sending.prompt)
        told = json.loads(line)
        assert (line.count(b"\n"), line[-1:], told["type"]) == (1, b"\n", "user")
        assert (told["uuid"], told["client_composed"]) == (sending.prompt.turn_id, True)
        for block, written in zip(sending.prompt.content, told["message"]["content"], strict=True):
            assert written["type"] in ("text", "image", "document")
            text = block.data.decode() if isinstance(block, Text) else None
            assert text is None or written == {"type": "text", "text": text}
        raise SessionNotFound

    async def attach(self, key: SessionKey, turn_id: str, after: int, call: object) -> Any:
        """Look at a turn that is to be followed."""
        self._named(key)
        assert validate.TURN.fullmatch(turn_id)
        assert after >= 0
        raise SessionNotFound

    async def respond(
        self, key: SessionKey, permission_id: str, decision: PermissionDecision
    ) -> None:
        """Look at a decision, and at the line that the agent would get."""
        self._named(key)
        assert permission_id
        if isinstance(decision, Allow):
            line = codec.allow("r", Raw(b"{}"), decision.input_json)
        else:
            line = codec.deny("r", decision.message, interrupt=decision.interrupt)
        told = json.loads(line)
        assert (line.count(b"\n"), told["type"]) == (1, "control_response")
        assert isinstance(told["response"]["response"].get("updatedInput", {}), dict)
        raise PermissionNotFound

    async def interrupt(self, key: SessionKey, turn_id: str) -> bool:
        """Look at a turn that is to be stopped."""
        self._named(key)
        assert validate.TURN.fullmatch(turn_id)
        return True

    async def get(self, key: SessionKey) -> Any:
        """Look at a session that is asked for."""
        self._named(key)
        raise SessionNotFound

    async def list(self, tenant: str, before: object, limit: int, state: int) -> list[Any]:
        """Look at a page that is asked for."""
        assert tenant == current_caller().tenant == self.tenant
        assert 0 < limit <= 500
        return []

    async def close(self, key: SessionKey) -> None:
        """Look at a session that is to be closed."""
        self._named(key)

    def _named(self, key: SessionKey) -> None:
        assert key.tenant == current_caller().tenant == self.tenant
        assert validate.NAME.fullmatch(key.session)


class Operated:
    """Stand-in for the pools."""

    server = ServerInfo("server", "0", "none", "open", 0.0, lambda: "1")

    async def look(self) -> Snapshot:
        """Return a snapshot without a process."""
        return Snapshot(0.0, 0.0, draining=False, slots=1)

    async def watch(self, interval: float) -> AsyncGenerator[Snapshot, None]:
        """Yield a snapshot, and go away."""
        assert 0.1 <= interval <= 60
        yield await self.look()
        raise Draining


class Controlled:
    """Stand-in for what an operator does: looks at what is asked, and does nothing."""

    def drain(self, tenant: str, profile: str) -> tuple[int, int]:
        """Look at what is to be replaced."""
        assert TENANT.fullmatch(tenant)
        assert not profile or validate.NAME.fullmatch(profile)
        return 0, 0

    def pause(self, tenant: str) -> None:
        """Look at whose turns are to wait."""
        assert not tenant or TENANT.fullmatch(tenant)

    resume = pause

    async def interrupt(self, key: SessionKey) -> str:
        """Look at whose turn is to end."""
        self._look(key)
        return ""

    async def close(self, key: SessionKey) -> bool:
        """Look at what is to be closed."""
        self._look(key)
        return False

    unblock = close

    def _look(self, key: SessionKey) -> None:
        assert TENANT.fullmatch(key.tenant)
        assert validate.NAME.fullmatch(key.session)
