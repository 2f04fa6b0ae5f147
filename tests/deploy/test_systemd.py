"""The unit for a host of its own."""

import configparser
import re
from pathlib import Path

import pytest
from support.optional_tools import passes, tool

from samovar.operating import SHARED, SOCKET
from samovard.settings import Server

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "samovard.service"
DEPLOY = UNIT.parents[2] / "docs" / "deploy.md"
NO_SYSTEMD = "it is a part of systemd"


def service() -> dict[str, list[str]]:
    """Gives the section of the service: each key with the values it is given."""
    section = UNIT.read_text().partition("[Service]")[2].partition("[Install]")[0]
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", section, re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit as on a host where the program exists."""
    unit = tmp_path / "samovard.service"
    unit.write_text(re.sub(r"^ExecStart=.*$", "ExecStart=/bin/sh", UNIT.read_text(), flags=re.M))
    return unit


def test_systemd_takes_the_unit(installed: Path) -> None:
    """Nothing in it is unknown to systemd, or contradicts itself."""
    assert not passes(tool("systemd-analyze", NO_SYSTEMD), "verify", "--man=no", installed)


def test_the_unit_exposes_little(installed: Path) -> None:
    """By systemd's own measure, from 0 to 10, the unit is below 2: `OK`."""
    analyze = tool("systemd-analyze", NO_SYSTEMD)
    options = ("--offline=true", "--no-pager", "--threshold=20")
    passes(analyze, "security", *options, installed)


def test_stopping_may_take_as_long_as_the_service_needs() -> None:
    """The default times of the drain fit, with 15 s to spare, and agents get no SIGTERM beside."""
    server = Server(listen="0.0.0.0:50051")
    needed = server.drains_for + server.drain_grace + server.stop_budget
    assert service()["TimeoutStopSec"] == [f"{needed + 15:g}"]
    assert service()["KillMode"] == ["mixed"]


def test_the_operators_socket_has_a_place_that_is_found() -> None:
    """The directory is the service's alone, and where the operator's clients look."""
    (name,) = service()["RuntimeDirectory"]
    assert f"/run/{name}" in SHARED
    assert service()["RuntimeDirectoryMode"] == ["0700"]
    assert f'operator_listen = "unix:/run/{name}/{SOCKET}"' in DEPLOY.read_text()


def test_the_audit_log_has_a_directory_of_the_services_own() -> None:
    """The one that the example names, where nobody else can write, and logrotate's file is it."""
    (name,) = service()["LogsDirectory"]
    assert service()["LogsDirectoryMode"] == ["0700"]
    path = f"/var/log/{name}/audit.jsonl"
    assert f'audit_sink = "{path}"' in DEPLOY.read_text()
    assert f"\n{path} {{\n" in (UNIT.parent / "samovar.logrotate").read_text()


def test_what_agents_need_is_not_denied() -> None:
    """Compiling at run time, seeing each other's entries in /proc, starting programs."""
    denied = {
        "MemoryDenyWriteExecute",
        "ProtectProc",
        "ProcSubset",
        "PrivateNetwork",
        "NoExecPaths",
    }
    assert not denied & service().keys()
    assert "ptrace" not in "".join(service()["SystemCallFilter"])


def test_state_is_where_the_settings_put_it() -> None:
    """The directory that systemd makes is the one that the service takes by default."""
    given = service()
    assert "XDG_STATE_HOME=/var/lib" in given["Environment"]
    assert given["StateDirectory"] == ["samovar"]
    assert given["StateDirectoryMode"] == ["0700"]


def test_the_unit_is_a_unit() -> None:
    """Its three sections are there once."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, allow_no_value=True)
    parser.read_string(UNIT.read_text())
    assert parser.sections() == ["Unit", "Service", "Install"]
