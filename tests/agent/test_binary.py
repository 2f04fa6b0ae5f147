"""Finding the binary, and telling it from others."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.file_descriptors import descriptors

from samovard.agent import binary, capabilities
from samovard.core.errors import Misconfigured


def _program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_binary_of_the_setting_comes_first(tmp_path: Path) -> None:
    """An operator's choice is taken, and refused rather than passed over."""
    chosen = _program(tmp_path / "chosen")
    _program(tmp_path / "bin" / "claude")
    assert binary.find(chosen, str(tmp_path / "bin")).path == chosen
    chosen.chmod(0o644)
    for bad in (chosen, tmp_path, tmp_path / "missing"):
        with pytest.raises(Misconfigured) as caught:
            binary.find(bad, str(tmp_path / "bin"))
        assert caught.value.cause == "binary-missing"


def test_binary_of_the_wheel_comes_before_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pinned one is used, and found without running the package that carries it."""
    package = tmp_path / "site" / "claude_agent_sdk"
    bundled = _program(package / "_bundled" / "claude")
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    other = _program(tmp_path / "bin" / "claude")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "claude_agent_sdk", raising=False)
    assert binary.find(None, str(other.parent)).path == bundled
    bundled.unlink()
    assert binary.find(None, str(other.parent)).path == other


def test_missing_binary_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, with both ways out of it."""
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "claude_agent_sdk", raising=False)
    with pytest.raises(Misconfigured) as caught:
        binary.find(None, str(tmp_path))
    assert caught.value.cause == "binary-missing"
    assert 'pip install "samovard[claude]" or set agent.cli' in caught.value.message


def test_digest_is_the_file_s_and_is_remembered(tmp_path: Path) -> None:
    """It is computed once for each state of the file, and again when that changes."""
    cache = tmp_path / "cache"
    cache.mkdir()
    program = _program(tmp_path / "claude", "one")
    first = asyncio.run(binary.identified(binary.Cli(program), cache))
    assert first.digest == hashlib.sha256(b"one").hexdigest()
    (note,) = cache.iterdir()
    note.write_text("0" * 64)
    assert binary.digest(program, cache) == "0" * 64
    _program(tmp_path / "claude", "two!")
    assert binary.digest(program, cache) == hashlib.sha256(b"two!").hexdigest()


@pytest.mark.parametrize("how", ["cut", "link", "fifo"])
def test_note_that_is_not_whole_is_not_believed(tmp_path: Path, how: str) -> None:
    """A damaged or planted note costs the time to hash and nothing else."""
    cache = tmp_path / "cache"
    cache.mkdir()
    program = _program(tmp_path / "claude", "one")
    right = binary.digest(program, cache)
    (note,) = cache.iterdir()
    note.unlink()
    other = tmp_path / "other"
    other.write_text("0" * 64)
    if how == "cut":
        note.write_text("0" * 63)
    elif how == "link":
        note.symlink_to(other)
    else:
        os.mkfifo(note)
    before = descriptors()
    assert binary.digest(program, cache) == right
    assert other.read_text() == "0" * 64
    assert descriptors() <= before


def test_unreadable_binary_has_no_digest(tmp_path: Path) -> None:
    """A file that went away since it was found is a missing binary."""
    with pytest.raises(Misconfigured) as caught:
        binary.digest(tmp_path / "missing", tmp_path)
    assert caught.value.cause == "binary-missing"


#: Asks for a digest as nobody, who may read neither root's files nor its directories.
AS_NOBODY = """
import encodings.ascii, os, sys  # before the change: nobody may not read the library
from pathlib import Path
from samovard.agent import binary
from samovard.core.errors import Misconfigured
os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    print(binary.digest(Path(sys.argv[1]), Path(sys.argv[2])))
except Misconfigured as error:
    print(error.cause)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files that others cannot read")
@pytest.mark.parametrize(
    ("mode", "note_mode", "note", "said"),
    [
        (0o711, 0o444, "1" * 64 + "  claude\n", "1" * 64),
        (0o711, 0o446, "1" * 64, "binary-missing"),
        (0o713, 0o444, "1" * 64, "binary-missing"),
        (0o711, 0o444, "1" * 63, "binary-missing"),
        (0o711, 0o444, "", "binary-missing"),
        (0o711, 0o400, "1" * 64, "binary-missing"),
        (0o755, 0o444, "1" * 64, hashlib.sha256(b"#!/bin/sh\n").hexdigest()),
    ],
)
def test_binary_that_must_not_be_read_is_known_by_roots_note(
    directory: Path, mode: int, note_mode: int, note: str, said: str
) -> None:
    """Root's word is taken where the file is closed, if nobody else could have written it."""
    directory.chmod(0o755)
    program = _program(directory / "claude")
    program.chmod(mode)
    beside = directory / "claude.sha256"
    beside.write_text(note)
    beside.chmod(note_mode)
    cache = directory / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    command = [sys.executable, "-c", AS_NOBODY, str(program), str(cache)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == said, done.stderr


@pytest.mark.parametrize("version", ["2.\u00b2", "2." + "9" * 5000, "", "x"])
def test_a_version_that_is_none_is_not_supported(version: str) -> None:
    """Whatever an agent says that it is, the start ends with an error of ours."""
    told = json.dumps({"claude_code_version": version}).encode()
    with pytest.raises(Misconfigured, match="is too old"):
        capabilities.check(told, capabilities.Expected(None, "default"))


@pytest.mark.parametrize(
    ("cloud", "account", "accepted"),
    [
        ("bedrock", {"apiProvider": "bedrock"}, True),
        ("bedrock", {"apiProvider": "vertex"}, False),
        ("vertex", {"apiProvider": "firstParty", "apiKeySource": "ANTHROPIC_API_KEY"}, False),
        ("", {"apiProvider": "bedrock"}, False),
    ],
)
def test_an_agent_says_which_cloud_it_uses(
    cloud: str, account: dict[str, str], accepted: bool
) -> None:
    """It is the one that was asked for, or the start ends."""
    answer = {"claude_code_version": "2.1.330", "current_permission_mode": "default"}
    told = json.dumps({**answer, "account": account}).encode()
    expected = capabilities.Expected(None, "default", cloud)
    if accepted:
        assert capabilities.check(told, expected) == "2.1.330"
    else:
        with pytest.raises(Misconfigured):
            capabilities.check(told, expected)
