"""The directory of sessions' directories: short, the user's own, and the same at each start."""

import os
import stat
from pathlib import Path

import pytest

from samovard.agent import root
from samovard.core.errors import Misconfigured
from samovard.settings import Settings, given
from samovard.settings.checks import MAX_ROOT


@pytest.fixture
def shared(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for /var/tmp, with a home that is too long for sessions."""
    home = directory / "long" / ("h" * 60)
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(root, "SHARED", directory)
    return directory


def settings_in(directory: Path) -> Settings:
    directory.mkdir(parents=True, exist_ok=True)
    return given({"state": {"directory": directory}})


def long(directory: Path, name: str = "x") -> Settings:
    return settings_in(directory / (60 * name))


def test_a_short_state_directory_holds_the_sessions(directory: Path, shared: Path) -> None:
    """Nothing is made elsewhere where it is not needed."""
    assert root.settled(settings_in(directory)).root == directory / "s"
    assert list(shared.glob(f"{root.PREFIX}*")) == []


def test_a_long_one_has_a_private_directory_elsewhere(directory: Path, shared: Path) -> None:
    """It is new, of mode 0700, and short enough."""
    found = root.settled(long(directory)).root
    assert found.parent == shared
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    assert len(os.fsencode(found)) <= MAX_ROOT


def test_a_home_that_is_short_enough_comes_first(
    directory: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in the home directory is cleaned by nobody."""
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.setattr(root, "SHARED", directory / "none")
    assert root.settled(long(directory)).root.parent == directory


def test_it_is_the_same_at_each_start_and_of_one_state_directory(
    directory: Path, shared: Path
) -> None:
    """A second state directory has another."""
    first = root.settled(long(directory)).root
    assert root.settled(long(directory)).root == first
    assert root.settled(long(directory, "y")).root != first


def planted_link(noted: Path, directory: Path) -> None:
    noted.symlink_to(directory)


def planted_by_another(noted: Path, directory: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes a directory another user's")
    noted.mkdir(mode=0o700)
    os.chown(noted, 65534, 65534)


def gone(noted: Path, directory: Path) -> None:
    """Leaves nothing in its place."""


@pytest.mark.parametrize("plant", [gone, planted_link, planted_by_another])
def test_what_took_its_place_is_not_used(plant: object, directory: Path, shared: Path) -> None:
    """A link, another user's directory, or none: another is made, and noted."""
    settings = long(directory)
    first = root.settled(settings).root
    first.rmdir()
    assert callable(plant)
    plant(first, directory)
    second = root.settled(settings).root
    assert second != first
    assert stat.S_IMODE(second.stat().st_mode) == 0o700
    assert root.settled(settings).root == second


@pytest.mark.parametrize("note", [b"", b"v/x", b"/" + 60 * b"r"])
def test_a_note_that_names_no_such_directory_is_written_anew(
    note: bytes, directory: Path, shared: Path
) -> None:
    """An empty path, a relative one and one that is too long are not used."""
    settings = long(directory)
    (settings.directory / root.NOTE).write_bytes(note)
    assert root.settled(settings).root.parent == shared


def test_without_a_place_the_message_says_what_to_set(
    directory: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the settings and the limit."""
    monkeypatch.setattr(root, "SHARED", directory / "none")
    with pytest.raises(Misconfigured, match=r"more than 43 bytes.*state\.directory.*agent\.root"):
        root.settled(long(directory))


def test_a_directory_of_sessions_has_one_service(directory: Path) -> None:
    """Two state directories that name the same one do not run together."""
    with root.locked(directory):
        with pytest.raises(Misconfigured, match="another samovard keeps its sessions"):
            with root.locked(directory):
                pass
    with root.locked(directory):
        pass


def test_a_temporary_directory_is_short_wherever_the_users_are(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a TMPDIR of 90 bytes it lies elsewhere, and is removed."""
    tmp = directory / ("t" * 90)
    tmp.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp))
    with root.temporary() as made:
        assert len(os.fsencode(made / "s")) <= MAX_ROOT
        assert not made.is_relative_to(tmp)
    assert not made.exists()
