"""API keys as a file."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from samovard.edge.identity import new_key
from samovard.store import key_file
from samovard.store.keys import KeyStore
from samovard.store.sqlite.database import Database


def test_keys_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Each line is one key, whole; empty lines are none."""
    _, first = new_key("acme", b"p", 1.5)
    _, second = new_key("blue", b"p", 2.0, expire_time=3.0)
    keys = [first, replace(second, revoke_time=2.5)]
    path = tmp_path / "keys.jsonl"
    path.write_text(key_file.text(keys) + "\n")
    assert key_file.read(path) == keys


def test_a_file_of_keys_has_no_secret() -> None:
    """What goes over the wire is nowhere in it."""
    secret, key = new_key("acme", b"p", 1.0)
    assert secret.split("_")[2] not in key_file.text([key])


@pytest.mark.parametrize("line", ["{", "samovar_id_secret", '{"id": "x"}', "[]"])
def test_a_line_that_is_no_key_is_named_and_not_shown(tmp_path: Path, line: str) -> None:
    """Somebody may have put the secrets themselves into it."""
    path = tmp_path / "keys.jsonl"
    path.write_text(f"\n{line}\n")
    with pytest.raises(key_file.NotKeys, match="line 2 is not a key") as caught:
        key_file.read(path)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """One sentence, with the path."""
    with pytest.raises(key_file.NotKeys, match=r"none\.jsonl: No such file"):
        key_file.read(tmp_path / "none.jsonl")


def test_keys_that_were_made_elsewhere_are_taken_as_told(tmp_path: Path) -> None:
    """A new key is added, a known one becomes as told, and what was revoked stays so."""

    async def story() -> None:
        async with Database(f"sqlite:///{tmp_path / 'x.db'}") as database:
            keys = KeyStore(database)
            _, known = new_key("acme", b"p", 1.0)
            _, gone = new_key("acme", b"p", 2.0)
            _, new = new_key("blue", b"p", 3.0)
            for key in (known, gone):
                await keys.add(key)
            await keys.revoke("acme", gone.id, 4.0)
            told = [replace(known, expire_time=9.0, revoke_time=5.0), gone, new]
            await keys.take(told)
            await keys.take(told)
            assert await keys.list() == [told[0], replace(gone, revoke_time=4.0), new]

    asyncio.run(story())
