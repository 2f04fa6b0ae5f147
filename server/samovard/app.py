"""The service as a whole: builds everything and owns every lifetime, in order.

Knows every part; does the work of none.
"""

import asyncio
import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog

from samovard.agent import isolation, launch
from samovard.agent.agents import ClaudeAgents, Delivery
from samovard.agent.cli import Cli
from samovard.agent.home import Homes
from samovard.core.pool import Pool, PoolLimits
from samovard.core.session import Clocks, Profile
from samovard.core.sessions import Sessions
from samovard.core.turn import Bounds
from samovard.edge import server as listeners
from samovard.edge.health import Health
from samovard.edge.pages import Pages
from samovard.edge.server import Listener
from samovard.edge.session_service import SessionService
from samovard.settings import Settings
from samovard.store.database import Database
from samovard.store.ledger import ServerLedger
from samovard.store.sessions import SessionStore

HEADROOM = 64  # calls beside the turns that run and wait: health, interrupts, listings
KILL_RESERVE = 2.0  # the trees are killed this long before the stop budget ends
STATUS_GRACE = 0.5  # for the last statuses to leave
LOOK_AGAIN = 0.02

_log = structlog.get_logger("samovard")


class StateTaken(Exception):
    """Another samovard uses the state directory."""


@dataclass(eq=False, slots=True)
class Service:
    """A running service. `address` is where callers reach it, as gRPC spells it."""

    address: str
    server_id: str
    sessions: Sessions
    pool: Pool
    health: Health
    servers: tuple[grpc.aio.Server, ...]
    settings: Settings

    async def shut_down(self, hurry: asyncio.Event) -> None:
        """Goes away in order: tells the routers, lets turns end, interrupts, stops, kills.

        `hurry` ends the waiting for turns: a second signal sets it.
        """
        settings = self.settings.server
        await self.health.leaving()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(hurry.wait(), settings.drain_wait)
        self.sessions.drain()
        async with asyncio.TaskGroup() as group:
            # Sends GOAWAY at once; what runs may go on until we say so below.
            for server in self.servers:
                group.create_task(server.stop(settings.drain_grace + settings.stop_budget))
            await self._stop_turns(hurry)
            for server in self.servers:
                group.create_task(server.stop(STATUS_GRACE))

    async def _stop_turns(self, hurry: asyncio.Event) -> None:
        settings = self.settings.server
        turns_left = lambda: self.sessions.running and not hurry.is_set()  # noqa: E731
        await _while(turns_left, settings.drain_grace)
        clock = asyncio.get_running_loop().time
        end = clock() + settings.stop_budget
        self.sessions.interrupt_all()
        await _while(turns_left, settings.stop_budget / 2)
        self.pool.kill()
        await _while(lambda: len(self.pool), end - KILL_RESERVE - clock())
        self.pool.kill_trees()
        await _while(lambda: len(self.pool), KILL_RESERVE)


async def _while(condition: Any, seconds: float) -> None:
    """Waits while a condition holds, but no longer than that."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(seconds, 0.0)):
            while condition():
                await asyncio.sleep(LOOK_AGAIN)
