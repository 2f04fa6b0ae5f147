"""Conversations without a terminal: their output, and a service for them."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from support.service import serving

import samovar
from samovar.chat.commands import Commands
from samovar.chat.conversation import Conversation, Take, Verdict
from samovar.reach import Place

Action = Callable[[], None]


Over = Callable[[], bool]


def _nobody(request: samovar.PermissionRequested, over: Over) -> Verdict | None:
    raise AssertionError("nothing was to be asked")


class Seen:
    """A view that remembers, and wants to stop a turn when it says a word."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.listed: list[tuple[list[str], str]] = []
        self.events: list[samovar.Event] = []
        self.stop_at: tuple[str, int] | None = None
        self.leave_first = False
        self.decide: Callable[[samovar.PermissionRequested, Over], Verdict | None] = _nobody
        self._actions: tuple[Action, ...] = ()

    def tell(self, line: str) -> None:
        self.told.append(line)

    def list(self, sessions: Iterable[samovar.Session], current: str) -> None:
        self.listed.append(([session.session_id for session in sessions], current))

    @contextmanager
    def turn(self) -> Iterator[Take]:
        yield self._take

    @contextmanager
    def stopping(self, *actions: Action) -> Iterator[None]:
        self._actions = actions
        if self.leave_first:
            actions[1]()
        yield

    def asking(self) -> AbstractContextManager[None]:
        return nullcontext()

    def interrupting(self) -> None:
        self.told.append("interrupting")

    def stop(self, wish: int = 0) -> None:
        self._actions[wish]()

    def _take(self, event: samovar.Event) -> None:
        self.events.append(event)
        if isinstance(event, samovar.TextDelta) and self.stop_at:
            word, wish = self.stop_at
            if word in event.text:
                self._actions[wish]()

    @property
    def said(self) -> str:
        return "".join(e.text for e in self.events if isinstance(e, samovar.TextDelta))

    def last(self, kind: type) -> Any:
        return [event for event in self.events if isinstance(event, kind)][-1]


class Talk:
    """A conversation on a service, with its output."""

    def __init__(self, client: samovar.Client, address: str, **spec: str) -> None:
        self.client = client
        self.address = address
        self.seen = Seen()
        self.conversation = Conversation(
            client,
            self.seen,
            self.seen.stopping,
            lambda request, over: self.seen.decide(request, over),
            place=Place(address),
            **spec,
        )
        self.commands = Commands(self.conversation, self.seen, Place(address))

    def send(self, text: str) -> bool:
        return self.conversation.send(text)

    def obey(self, line: str) -> list[str]:
        """Execute a line and return its output."""
        self.seen.told.clear()
        assert self.commands.obey(line)
        return self.seen.told


def talking(
    directory: Path,
    story: Callable[[Talk], None],
    *,
    fake: bool = True,
    queue: int = 1,
    profile: Mapping[str, object] | None = None,
    **spec: str,
) -> None:
    """Run a story in a thread, with a service in this one."""

    def told(address: str) -> None:
        with samovar.Client(address) as client:
            story(Talk(client, address, **spec))

    async def served() -> None:
        default = {"model": "haiku", "models": ["opus"], "session_queue": queue}
        profiles = {"default": {**default, **(profile or {})}}
        async with serving(directory, fake=fake, profiles=profiles) as run:
            await asyncio.to_thread(told, run.address)

    asyncio.run(served())
