"""Where audit lines go: files and descriptors, and what is wrong with them."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from samovard.audit.sink import File, Refused, sink

LINES = [b'{"n":1}\n', b'{"n":2}\n']


@contextmanager
def file(path: Path, room: int = 4096) -> Iterator[File]:
    made = File(path, room)
    try:
        yield made
    finally:
        made.close()


def test_lines_are_appended_to_a_file_of_its_owner(directory: Path) -> None:
    """The file is made with mode 0600 whatever the umask is, and an earlier start's lines stay."""
    path = directory / "audit"
    before = os.umask(0)
    try:
        for _ in range(2):
            with file(path) as sink:
                assert sink.write(LINES) == (2, None)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"".join(2 * LINES)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_others_could_read_is_made_private(directory: Path) -> None:
    """As one that a rotation made with a mode of its own."""
    path = directory / "audit"
    path.touch(mode=0o644)
    with file(path) as sink:
        assert sink.write(LINES) == (2, None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def links(path: Path) -> None:
    path.symlink_to(path.parent / "elsewhere")


def opens(path: Path) -> None:
    path.parent.chmod(0o777)


def opens_for_a_group(path: Path) -> None:
    path.parent.chmod(0o770)


def is_a_directory(path: Path) -> None:
    path.mkdir()


def is_a_pipe(path: Path) -> None:
    os.mkfifo(path)


def has_no_directory(path: Path) -> None:
    path.parent.rmdir()


BAD: list[Callable[[Path], None]] = [
    links,
    opens,
    opens_for_a_group,
    is_a_directory,
    is_a_pipe,
    has_no_directory,
]


@pytest.mark.parametrize("spoil", BAD)
def test_an_unsafe_place_is_refused(directory: Path, spoil: Callable[[Path], None]) -> None:
    """A link, a directory that others can write to, and what is no file are not written to."""
    path = directory / "log" / "audit"
    path.parent.mkdir(mode=0o700)
    spoil(path)
    with pytest.raises((Refused, FileNotFoundError, IsADirectoryError)):
        File(path)
    assert not (directory / "log" / "elsewhere").exists()


def test_another_users_file_is_refused(directory: Path) -> None:
    """Who owns the file could read it."""
    if os.geteuid():
        pytest.skip("only root can give a file away")
    path = directory / "audit"
    path.touch()
    os.chown(path, 65534, 65534)
    with pytest.raises(Refused, match="belongs to another user"):
        File(path)


def test_a_renamed_file_is_opened_anew(directory: Path) -> None:
    """The next line is in a new file; with the directory gone it fails until that is back."""
    path = directory / "log" / "audit"
    path.parent.mkdir(mode=0o700)
    with file(path) as sink:
        sink.write(LINES[:1])
        path.rename(directory / "log" / "audit.1")
        assert sink.write(LINES[1:]) == (1, None)
        assert path.read_bytes() == LINES[1]
        assert (directory / "log" / "audit.1").read_bytes() == LINES[0]
        path.parent.rename(directory / "away")
        done, error = sink.write(LINES)
        assert (done, type(error)) == (0, FileNotFoundError)
        (directory / "away").rename(path.parent)
        assert sink.write(LINES) == (2, None)
    assert path.read_bytes() == LINES[1] + b"".join(LINES)


def test_a_truncated_file_goes_on(directory: Path) -> None:
    """As after logrotate's `copytruncate`: there is no hole, and its room is kept again."""
    path = directory / "audit"
    with file(path) as sink:
        sink.write(LINES)
        os.truncate(path, 0)
        assert sink.write(LINES[:1]) == (1, None)
        assert path.read_bytes() == LINES[0]
        assert path.stat().st_blocks * 512 >= 4096


class Limited:
    """A file that takes so many bytes, as a full disk does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 10**9
        real = os.write

        def write(file: int, data: bytes) -> int:
            if not self.left:
                raise OSError(28, "No space left on device")
            taken = min(len(data), self.left)
            self.left -= taken
            return real(file, bytes(data[:taken]))

        monkeypatch.setattr("samovard.audit.sink.os.write", write)


@pytest.mark.parametrize("taken", range(len(b"".join(LINES))))
def test_a_line_is_whole_or_not_there(
    directory: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    """Wherever a write stops, half a line is taken back and the whole ones are told."""
    path = directory / "audit"
    with file(path) as sink:
        limit = Limited(monkeypatch)
        limit.left = taken
        done, error = sink.write(LINES)
        assert error is not None
        assert path.read_bytes() == b"".join(LINES[:done])
        limit.left = 10**9
        assert sink.write(LINES[done:]).error is None
    assert path.read_bytes() == b"".join(LINES)


def test_half_a_line_that_stays_spoils_no_other(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another program has written behind it, or the file cannot be cut."""
    path = directory / "audit"
    with file(path) as sink:
        limit = Limited(monkeypatch)
        limit.left = 3
        monkeypatch.setattr("samovard.audit.sink.os.ftruncate", fails)
        assert sink.write(LINES)[0] == 0
        limit.left = 10**9
        sink.write(LINES)
    assert path.read_bytes() == LINES[0][:3] + b"\n" + b"".join(LINES)


def fails(*_: object) -> None:
    raise PermissionError(1, "append only")


def test_a_descriptor_is_written_to(directory: Path) -> None:
    """`fd:N` is one that the service was started with; what it runs does not get it."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    to = sink(f"fd:{writing}")
    assert not os.get_inheritable(writing)
    assert to.write(LINES) == (2, None)
    assert os.read(reading, 100) == b"".join(LINES)
    os.close(reading)
    done, error = to.write(LINES)
    assert (done, type(error)) == (0, BrokenPipeError)
    to.close()
    os.close(writing)


def test_a_descriptor_that_cannot_be_written_to_is_refused() -> None:
    """One that is closed, or only open for reading."""
    reading, writing = os.pipe()
    os.close(writing)
    with pytest.raises(Refused, match="not open for writing"):
        sink(f"fd:{reading}")
    os.close(reading)
    with pytest.raises(Refused, match=f"fd:{reading} is not open"):
        sink(f"fd:{reading}")
