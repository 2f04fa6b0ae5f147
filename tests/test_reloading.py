"""What of the settings file acts while the service runs, and what does not."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_claude import fake
from fake_claude import verbs as v
from structlog.testing import capture_logs
from support.noted import Noted
from support.service import Running, prepare, serving, simple, until

import samovar
from samovar import errors
from samovar.v1 import session_pb2 as pb
from samovard.audit.trail import NoLog, Trail
from samovard.reloading import Reload, SettingsFile
from samovard.settings import Settings, given, load
from samovard.store.sqlite.database import Database
from samovard.tenant_bounds import TenantBounds

UNAUDITED = Trail(NoLog(), lambda: 0.0, "", "")
OWN = "[tenants.acme]\nqueue_limit = 3\n"


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {"HOME": "/nonexistent"})


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "samovard.toml"
    path.write_text(OWN)
    return path


def reload_of(config: Path, bounds: TenantBounds, started: Settings | None = None) -> Reload:
    file = SettingsFile(config, None, started or load(config), bounds)
    return Reload(file, None, Database("sqlite://"), None, None, Noted(), UNAUDITED)


def bounds_of(config: Path) -> TenantBounds:
    return TenantBounds(load(config).tenants)


def looked(reload: Reload) -> list[Any]:
    with capture_logs() as lines:
        asyncio.run(reload.look())
    return lines


def test_a_changed_file_is_read_once(config: Path) -> None:
    """Bounds in it are in force then, and nothing is said of what needs no restart."""
    bounds = bounds_of(config)
    reload = reload_of(config, bounds)
    assert looked(reload) == []
    config.write_text(OWN.replace("3", "5") + "[tenants.default]\nqueue_limit = 2\n")
    (line,) = looked(reload)
    assert (line["event"], line["read"]) == ("reload.finished", ["settings"])
    assert [bounds.of(name).queue_limit for name in ("acme", "other")] == [5, 2]
    assert looked(reload) == []


def test_what_was_written_while_the_service_started_is_read(config: Path) -> None:
    """The first look finds it."""
    bounds, started = bounds_of(config), load(config)
    config.write_text(OWN.replace("3", "5"))
    assert [line["event"] for line in looked(reload_of(config, bounds, started))]
    assert bounds.of("acme").queue_limit == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tenants.acme", "samovard.toml: "),
        ("[tenants.acme]\nqueue_limt = 5\n", "tenants.acme.queue_limt is not a setting"),
        ("[tenants.acme]\nqueue_limit = 0\n", "tenants.acme.queue_limit: "),
        ("[server]\nlisten = 'x'\n[tenants.acme]\nqueue_limit = 5\n", "server.listen: "),
        (None, "samovard.toml: No such file or directory"),
    ],
)
def test_a_file_that_is_no_settings_changes_nothing(
    config: Path, text: str | None, said: str
) -> None:
    """One line at the level error says what is wrong with it, once."""
    bounds = bounds_of(config)
    reload = reload_of(config, bounds)
    config.unlink() if text is None else config.write_text(text)
    (line,) = (line for line in looked(reload) if line["log_level"] != "info")
    assert (line["event"], line["log_level"]) == ("reload.failed", "error")
    assert said in line["error"]
    assert bounds.of("acme").queue_limit == 3
    assert looked(reload) == []
    config.write_text(OWN.replace("3", "5"))
    assert not [line for line in looked(reload) if line["log_level"] != "info"]
    assert bounds.of("acme").queue_limit == 5


def test_what_needs_a_restart_is_named(config: Path) -> None:
    """In a warning, whatever else the file brings; a table that is new by its own name."""
    bounds = bounds_of(config)
    reload = reload_of(config, bounds)
    config.write_text(
        OWN.replace("3", "5") + "[pool]\nslots = 3\n[profiles.default]\nmodel = 'opus'\n"
        "[profiles.quick]\nmodel = 'haiku'\n[server]\nreader_timeout = '9 s'\n"
    )
    (line,) = (line for line in looked(reload) if line["log_level"] == "warning")
    assert line["event"] == "reload.needs_restart"
    names = ["pool.slots", "profiles.default.model", "profiles.quick", "server.reader_timeout"]
    assert sorted(line["settings"]) == names
    assert bounds.of("acme").queue_limit == 5


def test_a_reload_without_a_file_reads_none() -> None:
    """Settings of variables alone stay as they were."""
    file = SettingsFile(None, None, given({}), TenantBounds({}))
    reload = Reload(file, None, Database("sqlite://"), None, None, Noted(), UNAUDITED)
    assert looked(reload) == []
    with capture_logs() as lines:
        asyncio.run(reload.run())
    assert [line["read"] for line in lines] == [[]]


def test_a_bound_acts_on_the_next_turn(directory: Path) -> None:
    """A tenant with a full queue may let one more turn wait; the service goes on."""

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        config = directory / "samovard.toml"
        config.write_text("[tenants.default]\nqueue_limit = 1\n")
        tenants = {"default": {"queue_limit": 1}}
        pool = {"slots": 1}
        async with serving(directory, binary=binary, pool=pool, tenants=tenants) as run:
            reload = reload_of(config, run.service.tenants)
            gate = directory / "gate"
            async with asyncio.TaskGroup() as group:

                def asks(session: str) -> "asyncio.Task[samovar.Answer]":
                    held = fake(v.gate(gate), v.text(session))
                    return group.create_task(run.client.ask(held, session=session))

                answers = [asks("a")]
                await until(lambda: run.service.sessions.running == 1 and not waiting(run))
                answers.append(asks("b"))
                await until(lambda: waiting(run) == 1)
                refused = run.stub.Send(simple("Say x", session_id="c", spec=pb.SessionSpec()))
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await refused.read()
                assert errors.of(error.value).reason == "QUEUE_FULL"
                config.write_text("[tenants.default]\nqueue_limit = 2\n")
                await reload.look()
                answers.append(asks("c"))
                await until(lambda: waiting(run) == 2)
                gate.touch()
            assert [answer.result().text for answer in answers] == ["a", "b", "c"]

    asyncio.run(story())


def waiting(run: Running) -> int:
    return run.service.pool.waiting
