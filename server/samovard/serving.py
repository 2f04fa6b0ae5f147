"""Run the service until it is told to stop, and print what it does.

Knows signals and words for people.
"""

import asyncio
import gc
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from samovard import heap
from samovard.agent.process_tree import Strangers
from samovard.app import Service, running
from samovard.reloading import Reload, SettingsFile
from samovard.settings import Settings, unused_credential
from samovard.telemetry import log

if TYPE_CHECKING:
    from samovard.standin import StandIn

LOOK_EVERY = 0.5  # seconds between two looks whether a session is left
COLLECT_AFTER = 2_000  # objects made and not freed: about a millisecond; Python's default is 700


@dataclass(frozen=True, slots=True)
class Files:
    """Files that are reloaded: settings, with `listen` in place of `server.listen`, and API
    keys.
    """

    config: Path | None = None
    listen: str | None = None
    keys: Path | None = None


async def serve(settings: Settings, console: Console, files: Files, *, stand_in: bool) -> None:
    """Serve until a signal, then shut down in order; a second signal hurries the shutdown."""
    telemetry = settings.telemetry
    log.configure(telemetry.log_format, telemetry.log_level, sys.stderr, for_good=True)
    signals = Signals()
    try:
        await _serve(settings, console, signals, files, stand_in=stand_in)
    except asyncio.CancelledError:
        if not signals.stop.is_set():
            raise
        console.print("samovard: stopped before it served", highlight=False)


async def _serve(
    settings: Settings, console: Console, signals: "Signals", files: Files, *, stand_in: bool
) -> None:
    async with AsyncExitStack() as stack:
        upstream = settings.credentials.upstream or "the real Messages API"
        unused, read = unused_credential(settings), settings
        if stand_in and settings.credentials.provider is None and not settings.clouds:
            from samovard.standin import StandIn

            server = await stack.enter_async_context(StandIn())
            settings = on_stand_in(settings, server)
            upstream = "a stand-in for the Messages API, which is no model"
        with signals.ending_this_task():
            service = await stack.enter_async_context(running(settings, strangers=Strangers.KILL))
            # So that the service is ready, if it will be, when its address is printed.
            await service.maintenance.settled()
        _say(service, upstream, unused, console)
        _collect_less()
        heap.return_large_blocks()
        async with asyncio.TaskGroup() as group:
            reload = _reload(service, files, read)
            work = reload.watch(), _reload_when_told(reload, signals)
            beside = [group.create_task(each) for each in work]
            if settings.pool.exit_when_empty:
                beside.append(group.create_task(_stop_when_empty(service, signals)))
            await signals.stop.wait()
            for task in beside:
                task.cancel()
        console.print("samovard: shutting down; signal again to hurry", highlight=False)
        await service.shut_down(signals.hurry)


def _reload(service: Service, files: Files, read: Settings) -> Reload:
    maintenance = service.maintenance
    return Reload(
        SettingsFile(files.config, files.listen, read, service.tenants),
        files.keys,
        maintenance.database,
        service.agent.provider,
        maintenance.certificates,
        maintenance.recorder,
        maintenance.trail,
    )


async def _reload_when_told(reload: Reload, signals: "Signals") -> None:
    while True:
        await signals.reload.wait()
        signals.reload.clear()
        await reload.run()


async def _stop_when_empty(service: Service, signals: "Signals") -> None:
    """Stop, as a signal does, once there were sessions and the last one is closed."""
    counters, had = service.pool.counters, False
    while True:
        pools = counters.all.values()
        stored = any(pool.sessions for pool in pools)
        # A session may have come and gone since the last look: its first turn was counted.
        had = had or stored or any(pool.turns_cold or pool.turns_resumed for pool in pools)
        if had and not stored and not len(service.sessions):
            signals.stop.set()
            return
        await asyncio.sleep(LOOK_EVERY)


def _collect_less() -> None:
    """Keep the garbage collector off objects that live as long as the service, and mostly idle.

    Otherwise it would search the hundred thousand objects of the modules between two turns: 100 ms
    in which nothing else runs. Almost all memory of a turn is freed without it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


class Signals:
    """Handlers of SIGTERM, SIGINT and SIGQUIT: the first one stops, another one hurries.

    SIGHUP stops if there was a terminal that can close, else it reloads. A signal that the starter
    had ignored, as `nohup` does, stays ignored.
    """

    def __init__(self) -> None:
        self.stop, self.hurry, self.reload = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._starting: asyncio.Task[None] | None = None
        # Checked now: after the terminal hangs up it can no longer be opened.
        hung_up = self._hung_up if _owns_terminal() else self.reload.set
        handlers = dict.fromkeys((signal.SIGINT, signal.SIGQUIT), self._told)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._told)
        for number, handler in {**handlers, signal.SIGHUP: hung_up}.items():
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, handler)

    def _hung_up(self) -> None:
        # Never to hurry: the shell and the kernel both send it.
        if not self.stop.is_set():
            self._told()

    def _told(self) -> None:
        (self.hurry if self.stop.is_set() else self.stop).set()
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None

    @contextmanager
    def ending_this_task(self) -> Iterator[None]:
        """Let the first signal cancel a start: nothing has to be drained yet."""
        self._starting = asyncio.current_task()
        try:
            yield
        finally:
            self._starting = None


def _owns_terminal() -> bool:
    """True if this process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _say(service: Service, upstream: str, unused: str, console: Console) -> None:
    settings = service.settings
    methods = ", ".join(settings.auth.methods)
    lines = [
        f"samovard listens on {service.address} (identity: {methods}), "
        f"claude {service.agent.version}, {upstream}",
        f"isolation: {service.agent.isolation}; slots: {settings.slots}; "
        f"state: {settings.directory}{_elsewhere(settings)}",
    ]
    if service.agent.provider is None and len(settings.clouds) < len(settings.profiles):
        which = f"only turns of {', '.join(settings.clouds)}" if settings.clouds else "no turn"
        lines.append(f"no credential is configured: {which} can run; set credentials.provider")
    if unused:
        lines.append(
            f"{unused} is set and not used: SAMOVAR_CREDENTIALS__PROVIDER=env serves the model "
            "with it"
        )
    if settings.credentials.delivery == "environment":
        lines.append("the credential is in the agent's environment: its tools can read it")
    lines += [
        f"what {name} signs with is in the agent's environment: its tools can read it"
        for name in settings.clouds
    ]
    if "api_key" in settings.auth.methods:
        lines.append(f"a key, with the same settings: {program('samovard')} keys add TENANT")
    lines.append(f"try: {attempt(settings, service.address)}")
    for line in lines:
        console.print(f"samovard: {line}", highlight=False, soft_wrap=True, markup=False)


def attempt(settings: Settings, address: str) -> str:
    """Return a command that sends a turn to the service and works from here."""
    host, _, port = address.rpartition(":")
    if host in ("0.0.0.0", "[::]"):  # noqa: S104  # what is listened on, not called
        address = f"127.0.0.1:{port}"
    if settings.server.tls == "files":
        shown = " --tls-cert FILE --tls-key FILE" if settings.server.tls_client_ca else ""
        where = f" --tls{shown} --target NAME:{port}"
    else:
        where = "" if address == "127.0.0.1:50051" else f" --target {shlex.quote(address)}"
    key = "SAMOVAR_API_KEY=... " if "api_key" in settings.auth.methods else ""
    return f'{key}{program("samovar")} send{where} "Say hello"'


def program(name: str) -> str:
    """Return the command of a program of this environment: its name if that is on the path."""
    if shutil.which(name) is not None:
        return name
    beside = Path(sys.executable).with_name(name)
    if not beside.exists():
        return name
    here = os.path.relpath(beside)
    return shlex.quote(str(beside) if here.startswith("..") else here)


def _elsewhere(settings: Settings) -> str:
    inside = settings.root.is_relative_to(settings.directory.absolute())
    return "" if inside else f"; sessions: {settings.root}"


def on_stand_in(settings: Settings, server: "StandIn") -> Settings:
    """Return settings whose agents use a stand-in, with an invalid key."""
    key = settings.directory / "stand-in-key"
    settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key.touch(mode=0o600)
    key.write_text("no-key")
    credentials = settings.credentials.model_copy(
        update={"provider": "file", "path": key, "upstream": server.url, "proxy": ""}
    )
    plain: dict[str, Any] = {"cloud": None, "cloud_environment": {}, "cloud_secrets": None}
    profiles = {name: each.model_copy(update=plain) for name, each in settings.profiles.items()}
    return settings.model_copy(update={"credentials": credentials, "profiles": profiles})


async def stand_in(host: str, port: int) -> None:
    """Run the stand-in alone until SIGTERM or SIGINT."""
    from samovard.standin import StandIn

    signals = Signals()
    async with StandIn(host, port) as server:
        print(f"a stand-in for the Messages API, which is no model: {server.url}", flush=True)
        await signals.stop.wait()
