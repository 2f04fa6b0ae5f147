"""`samovard tenants` and `samovard keys rotate`, as a person and a script meet them."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from samovard.cli import app


@pytest.fixture(autouse=True)
def _no_settings_around(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"HOME": "/nonexistent", "SAMOVAR_STATE__DIRECTORY": str(directory)}
    monkeypatch.setattr("os.environ", variables)


def call(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code, done.output
    return done


def rows(*arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in call(*arguments, "--json").stdout.splitlines()]


def lines(*arguments: str) -> list[list[str]]:
    return [line.split("\t") for line in call(*arguments).stdout.splitlines()]


def test_a_tenant_is_disabled_with_a_note_and_enabled_again() -> None:
    """Before it ever called, too; each says what was done."""
    assert call("tenants", "disable", "acme", "--note", "unpaid").stdout == "disabled acme\n"
    (shown,) = rows("tenants", "show", "acme")
    created = datetime.fromisoformat(shown.pop("create_time"))
    assert abs((datetime.now(UTC) - created).total_seconds()) < 3600
    assert shown == {
        "tenant": "acme",
        "state": "disabled",
        "keys": 0,
        "sessions": 0,
        "note": "unpaid",
    }
    assert call("tenants", "enable", "acme").stdout == "enabled acme\n"
    head, row = lines("tenants", "list")
    assert head == ["TENANT", "STATE", "CREATED", "KEYS", "SESSIONS", "NOTE"]
    assert (row[:2], row[3:]) == (["acme", "enabled"], ["0", "0", "unpaid"])


def test_a_tenant_that_has_a_key_is_known_without_being_named() -> None:
    """Enabled, with its valid keys counted."""
    call("keys", "add", "blue")
    (row,) = rows("tenants", "list")
    assert (row["tenant"], row["state"], row["create_time"], row["keys"]) == (
        "blue",
        "enabled",
        None,
        1,
    )
    assert lines("tenants", "show", "blue")[1][2] == "-"


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (("show", "acme"), 1, "nothing is known of acme"),
        (("show", "No"), 2, "[a-z0-9][a-z0-9-]{0,62}"),
        (("disable", "No"), 2, "[a-z0-9][a-z0-9-]{0,62}"),
        (("enable", "\udcff"), 2, "[a-z0-9][a-z0-9-]{0,62}"),
        (("disable", "acme", "--note", "a\nb"), 2, "one line"),
        (("disable", "acme", "--note", "x" * 501), 2, "at most 500 characters"),
    ],
)
def test_what_cannot_be_done_is_one_line(command: tuple[str, ...], code: int, said: str) -> None:
    """1 for a tenant that is not known, 2 for what is called wrongly; nothing is stored."""
    done = call("tenants", *command, code=code)
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert said in done.stderr
    assert rows("tenants", "list") == []


def test_a_rotated_key_gives_way_to_one_like_it() -> None:
    """Same tenant and scopes and as long a life; the old one expires after the overlap."""
    call("keys", "add", "ops", "--admin", "--expires-in", "2")
    (old,) = rows("keys", "list")
    done = call("keys", "rotate", old["id"], "--overlap", "30 min")
    found = {row["id"]: row for row in rows("keys", "list")}
    new = found[done.stdout.split("_")[1]]
    assert (new["tenant"], new["scopes"]) == ("ops", ["admin"])

    def life(row: dict[str, Any]) -> float:
        ends, begins = (datetime.fromisoformat(row[f"{end}_time"]) for end in ("expire", "create"))
        return (ends - begins).total_seconds()

    assert life(new) == life(old) == 2 * 86400.0
    overlap = datetime.fromisoformat(found[old["id"]]["expire_time"])
    assert overlap.timestamp() - datetime.fromisoformat(new["create_time"]).timestamp() == 1800.0
    assert f"{old['id']} of ops expires at {found[old['id']]['expire_time']}" in done.stderr


def test_without_an_overlap_the_old_key_is_over_at_once() -> None:
    """And it cannot be rotated again."""
    call("keys", "add", "acme")
    (old,) = rows("keys", "list")
    call("keys", "rotate", old["id"], "--overlap", "0")
    assert {row["id"]: row["state"] for row in rows("keys", "list")}[old["id"]] == "expired"
    again = call("keys", "rotate", old["id"], code=1)
    assert again.stderr == "samovard: there is no such key that is valid\n"


@pytest.mark.parametrize("overlap", ["", "soon", "-1", "1 y", "36501 d"])
def test_an_overlap_is_a_duration_that_can_be_told(overlap: str) -> None:
    """Else nothing is made."""
    call("keys", "add", "acme")
    (old,) = rows("keys", "list")
    assert "samovard: " in call("keys", "rotate", old["id"], f"--overlap={overlap}", code=2).stderr
    assert rows("keys", "list") == [old]
