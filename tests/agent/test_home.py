"""A session's directory."""

import os
import stat
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.file_descriptors import descriptors
from support.timeouts import BOUND

from samovard.agent.home import Homes
from samovard.core.errors import Misconfigured

NAME = "0123456789abcdef0123456789abcdef"
MIB = 1 << 20
SESSION = "6f1c1f0e-3a52-4a2e-9d27-0d9d3f1d2b11"
CLOSED_BY_NOBODY = f"""
import os, sys
from pathlib import Path
from samovard.agent.home import Homes
os.setgroups([]), os.setgid(65534), os.setuid(65534)
with Homes(Path(sys.argv[1])) as homes:
    closed = homes.prepare("{NAME}").work / "closed"
    (closed / "inner").mkdir(parents=True)
    (closed / "inner").chmod(0)
    closed.chmod(0)
    homes.remove("{NAME}")
"""


@pytest.fixture
def root() -> Iterator[Path]:
    """A short path, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path) / "s"


@pytest.fixture
def homes(root: Path) -> Iterator[Homes]:
    """An agent root that keeps its descriptors to itself."""
    before = descriptors()
    with Homes(root) as opened:
        yield opened
    assert descriptors() <= before


def _refused(caught: pytest.ExceptionInfo[Misconfigured]) -> bool:
    return caught.value.cause == "directory-refused"


def _transcript(root: Path, text: str = "{}\n") -> Path:
    project = root / NAME / "config" / "projects" / "-work"
    project.mkdir(parents=True)
    path = project / f"{SESSION}.jsonl"
    path.write_text(text)
    return path


def test_home_has_four_private_directories(homes: Homes, root: Path) -> None:
    """Whatever the umask, they are of mode 0700."""
    previous = os.umask(0)
    try:
        home = homes.prepare(NAME)
    finally:
        os.umask(previous)
    made = (home.path, home.config, home.home, home.tmp, home.work)
    assert [stat.S_IMODE(path.stat().st_mode) for path in made] == [0o700] * 5
    assert home.path == root / NAME


def test_prepared_home_keeps_what_is_in_it_but_tmp(homes: Homes, root: Path) -> None:
    """Only temporary files go before a start; links go, not what they lead to.

    They go as they are, to be erased later: a start does not wait for that.
    """
    home = homes.prepare(NAME)
    kept = home.work / "kept"
    kept.write_text("kept")
    (home.tmp / "claude-1" / "deep").mkdir(parents=True)
    (home.tmp / "claude-1" / "deep" / "socket").touch()
    (home.tmp / "link").symlink_to(home.work)
    homes.prepare(NAME)
    assert os.listdir(home.tmp) == []
    assert kept.read_text() == "kept"
    (gone,) = (root / "gone").iterdir()
    assert sorted(os.listdir(gone)) == ["claude-1", "link"]
    homes.remove(NAME)
    assert os.listdir(root / "gone") == []


@pytest.mark.parametrize("part", ["", "config", "home", "tmp", "work"])
def test_link_in_place_of_a_directory_is_refused(homes: Homes, part: str) -> None:
    """A directory that was replaced by a link to another home is not entered."""
    other = homes.prepare("f" * 32).path
    target = homes.prepare(NAME).path / part
    moved = target.with_name("moved")
    target.rename(moved)
    target.symlink_to(other)
    with pytest.raises(Misconfigured) as caught:
        homes.prepare(NAME)
    assert _refused(caught)


@pytest.mark.parametrize("part", ["", "config", "home", "tmp", "work"])
def test_directory_of_another_mode_is_refused(homes: Homes, part: str) -> None:
    """A directory that was made beforehand and is open to others is not used."""
    (homes.prepare(NAME).path / part).chmod(0o750)
    with pytest.raises(Misconfigured) as caught:
        homes.prepare(NAME)
    assert _refused(caught)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("part", ["", "work"])
def test_directory_of_another_owner_is_refused(homes: Homes, part: str) -> None:
    """A directory that another user made beforehand is not used."""
    os.chown(homes.prepare(NAME).path / part, 65534, 65534)
    with pytest.raises(Misconfigured) as caught:
        homes.prepare(NAME)
    assert _refused(caught)


@pytest.mark.parametrize("name", ["", ".", "..", "gone", "A" * 32, "a" * 31, "a" * 32 + "\n"])
def test_name_that_is_not_32_hex_digits_is_refused(homes: Homes, name: str) -> None:
    """No name leads out of the root."""
    for act in (homes.prepare, homes.open_work, homes.remove):
        with pytest.raises(Misconfigured):
            act(name)


def test_the_set_group_bit_of_a_volume_is_no_obstacle(root: Path) -> None:
    """Directories take it from the volume that they are made on, and stay private."""
    root.mkdir(mode=0o700)
    root.chmod(0o2700)
    with Homes(root) as homes:
        assert stat.S_IMODE(homes.prepare(NAME).work.stat().st_mode) == 0o2700
        os.close(homes.open_work(NAME))


def test_root_that_is_too_long_is_refused(root: Path) -> None:
    """A path of `tmp` above 80 bytes would put the inbox where everybody is."""
    with pytest.raises(Misconfigured, match=r"agent\.root is 1 bytes too long"):
        Homes(Path("/" + "r" * 43))
    with Homes(root) as homes:
        assert len(os.fsencode(homes.prepare(NAME).tmp)) <= 80


def test_root_that_others_can_enter_is_refused(root: Path) -> None:
    """The root is as private as a home, and a refusal leaves nothing open."""
    root.mkdir()
    root.chmod(0o755)
    before = descriptors()
    with pytest.raises(Misconfigured) as caught:
        Homes(root)
    assert _refused(caught)
    assert descriptors() <= before


def test_work_is_opened_as_what_it_is(homes: Homes) -> None:
    """The descriptor is the directory's and is not inherited by chance."""
    home = homes.prepare(NAME)
    descriptor = homes.open_work(NAME)
    try:
        assert os.path.samestat(os.fstat(descriptor), home.work.stat())
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("left", ["link", "hard link", "file"])
def test_a_file_of_ours_replaces_what_the_agent_left(homes: Homes, root: Path, left: str) -> None:
    """Nothing is written through a link to somewhere else."""
    config, other = homes.prepare(NAME).config, root.parent / "other"
    other.write_text("theirs")
    if left == "link":
        (config / "mcp.json").symlink_to(other)
    elif left == "hard link":
        (config / "mcp.json").hardlink_to(other)
    else:
        (config / "mcp.json").write_text("earlier")
    homes.put(NAME, "mcp.json", b"ours")
    assert (config / "mcp.json").read_text() == "ours"
    assert stat.S_IMODE((config / "mcp.json").lstat().st_mode) == 0o600
    assert other.read_text() == "theirs"


def test_a_directory_in_place_of_a_file_of_ours_is_refused(homes: Homes) -> None:
    """It costs the session that its agent broke, and no other."""
    (homes.prepare(NAME).config / "mcp.json").mkdir()
    with pytest.raises(Misconfigured, match=r"mcp\.json cannot be written") as refused:
        homes.put(NAME, "mcp.json", b"ours")
    assert refused.value.cause == "directory-refused"


def test_transcript_is_found_below_any_project(homes: Homes, root: Path) -> None:
    """A transcript is there once the agent wrote one, for its own session only."""
    homes.prepare(NAME)
    assert not homes.has_transcript(NAME, SESSION)
    _transcript(root)
    assert homes.has_transcript(NAME, SESSION)
    assert not homes.has_transcript(NAME, str(uuid.uuid4()))
    assert not homes.has_transcript("e" * 32, SESSION)


def test_empty_transcript_is_none(homes: Homes, root: Path) -> None:
    """There is nothing to resume from in an empty file."""
    homes.prepare(NAME)
    _transcript(root, "")
    assert not homes.has_transcript(NAME, SESSION)


@pytest.mark.parametrize("how", ["symlink", "link", "fifo", "project", "projects"])
def test_planted_transcript_does_not_count(homes: Homes, root: Path, how: str) -> None:
    """Links to another's transcript, hard or soft, and FIFOs are not resumed from."""
    homes.prepare(NAME)
    path = _transcript(root)
    other = root / "other"
    if how in ("project", "projects"):
        path = path.parent if how == "project" else path.parent.parent
        path.rename(other)
        path.symlink_to(other)
    else:
        path.rename(other)
        plant = {"symlink": lambda: path.symlink_to(other), "link": lambda: os.link(other, path)}
        plant.get(how, lambda: os.mkfifo(path))()
    assert not homes.has_transcript(NAME, SESSION)


def test_session_that_is_no_uuid_has_no_transcript(homes: Homes, root: Path) -> None:
    """The name of a file is never made from anything else."""
    homes.prepare(NAME)
    _transcript(root).with_name("x.jsonl").write_text("{}")
    assert not homes.has_transcript(NAME, "x")
    assert not homes.has_transcript(NAME, f"../-work/{SESSION}")


def test_what_a_home_takes_is_what_its_files_take(homes: Homes, root: Path) -> None:
    """Blocks, not sizes, of all parts; an empty file takes one, and no link is followed."""
    home = homes.prepare(NAME)
    empty = homes.used(NAME, MIB)
    (root.parent / "other").write_bytes(bytes(MIB))
    (home.work / "inner").mkdir()
    (home.work / "inner" / "data").write_bytes(bytes(100_000))
    (home.tmp / "link").symlink_to(root.parent / "other")
    with open(home.home / "sparse", "wb") as sparse:
        sparse.truncate(MIB)
    for number in range(10):
        (home.config / f"{number}").touch()
    assert 140_000 <= homes.used(NAME, MIB) - empty < 200_000


def test_a_count_ends_above_the_bound(homes: Homes) -> None:
    """It need not be exact then, and one without a home takes nothing."""
    home = homes.prepare(NAME)
    for number in range(100):
        (home.work / f"{number}").mkdir()
        (home.work / f"{number}" / "data").write_bytes(bytes(10_000))
    assert 500_000 < homes.used(NAME, 500_000) < 1_000_000
    assert homes.used("f" * 32, 500_000) == 0


def test_a_home_that_its_agent_has_opened_to_others_is_measured_as_well(homes: Homes) -> None:
    """Its mode is no way out of the bound; a link in its place counts as too much."""
    home = homes.prepare(NAME)
    (home.work / "data").write_bytes(bytes(100_000))
    home.path.chmod(0o755)
    assert homes.used(NAME, MIB) > 100_000
    home.path.rename(home.path.with_name("moved"))
    home.path.symlink_to(home.path.with_name("moved"))
    assert homes.used(NAME, MIB) == MIB + 1
    home.path.unlink()
    home.path.with_name("moved").rename(home.path)


def test_what_cannot_be_looked_into_counts_as_too_much(homes: Homes) -> None:
    """A path that is too long for the system, which hides what is at its end."""
    directory = os.open(homes.prepare(NAME).work, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("x" * 250, dir_fd=directory)
        inner = os.open("x" * 250, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = inner
    os.close(directory)
    assert homes.used(NAME, MIB) == MIB + 1


def test_removed_home_is_gone_and_may_be_removed_again(homes: Homes, root: Path) -> None:
    """Removing is idempotent, also for what never was."""
    (homes.prepare(NAME).work / "file").write_text("text")
    for _ in range(3):
        homes.remove(NAME)
        assert os.listdir(root) == ["gone"]
        assert os.listdir(root / "gone") == []


def test_removal_does_not_follow_links(homes: Homes, root: Path) -> None:
    """What a link in a home leads to stays as it is."""
    outside = root / "outside"
    outside.mkdir()
    (outside / "file").write_text("text")
    home = homes.prepare(NAME)
    (home.work / "link").symlink_to(outside)
    (home.tmp / "link").symlink_to(outside / "file")
    homes.remove(NAME)
    assert (outside / "file").read_text() == "text"


def test_home_that_is_a_link_is_removed_as_a_link(homes: Homes, root: Path) -> None:
    """A home that was replaced does not take another one with it."""
    other = homes.prepare("f" * 32)
    (root / NAME).symlink_to(other.path)
    homes.remove(NAME)
    assert other.work.is_dir()
    assert not (root / NAME).is_symlink()


def test_deeply_nested_directories_are_removed(homes: Homes, root: Path) -> None:
    """An agent that nests directories deeper than a stack or path cannot keep its home."""
    descriptor = os.open(homes.prepare(NAME).work, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=descriptor)
        deeper = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = deeper
    os.close(descriptor)
    homes.remove(NAME)
    assert os.listdir(root / "gone") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="runs as another user, who is not root")
def test_closed_directories_are_removed() -> None:
    """Modes that forbid everything do not keep a home, though the service is not root."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o777)
        code = [sys.executable, "-c", CLOSED_BY_NOBODY, f"{path}/s"]
        subprocess.run(
            code, env={"PYTHONPATH": os.pathsep.join(sys.path)}, check=True, timeout=BOUND
        )
        assert os.listdir(f"{path}/s/gone") == []


def test_interrupted_removal_is_finished_by_the_next(homes: Homes, root: Path) -> None:
    """What a crash left behind is removed with the same call."""
    homes.prepare(NAME)
    (root / NAME).rename(root / "gone" / f"{NAME}.0")
    homes.prepare("f" * 32).path.rename(root / "gone" / ("f" * 32 + ".0"))
    homes.remove(NAME)
    assert os.listdir(root / "gone") == ["f" * 32 + ".0"]
