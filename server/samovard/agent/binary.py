"""Find the `claude` binary and identify it.

Knows files only; what the binary can do is tested elsewhere. Nothing is imported from the Agent
SDK: its wheel only carries the binary.
"""

import asyncio
import hashlib
import importlib.util
import os
import re
import secrets
import shutil
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from samovard.agent.machine import identity
from samovard.core.errors import Misconfigured

_ADVICE = 'pip install "samovard[claude]" or set agent.cli'
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Cli:
    """A binary. `digest` is the SHA-256 of the file in hex, empty until it is computed.

    `identity` is that of the file before it was hashed; see `machine.identity`.
    """

    path: Path
    digest: str = ""
    identity: str = ""


def find(setting: Path | None, search_path: str) -> Cli:
    """Return the binary: the setting's, else the wheel's, else the first one on `search_path`.

    A setting that names no program is an error; the other places are then not searched. Raise
    `Misconfigured` (binary-missing).
    """
    if setting is not None:
        if not _runs(setting):
            raise _missing("agent.cli is not a program")
        return Cli(setting.absolute())
    bundled = _bundled()
    if bundled is not None:
        return Cli(bundled)
    found = shutil.which("claude", path=search_path)
    if found is None:
        raise _missing("the claude binary was not found")
    return Cli(Path(found).absolute())


async def identified(cli: Cli, cache: Path) -> Cli:
    """Return the same binary with its digest, computed in a thread.

    On cancellation the thread runs to its end. Raise the same errors as `digest`.
    """
    now = identity(cli.path)
    return replace(cli, digest=await asyncio.to_thread(digest, cli.path, cache), identity=now)


def as_known(cli: Cli) -> Cli | None:
    """Return an identified CLI as its file is now, or None if the file has other content.

    A new hard link alone changes a file's identity, so such a file is hashed again. A missing file
    is left to the spawn, which fails. This function blocks.
    """
    now = identity(cli.path)
    if now in ("", cli.identity) or not cli.identity:
        return cli
    try:
        with open(cli.path, "rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == cli.digest
    except OSError:
        same = False
    return replace(cli, identity=now) if same else None


def digest(path: Path, cache: Path) -> str:
    """Return the SHA-256 of a file in hex, from the directory `cache` if it is known.

    A file is known by path, inode, size and time of change. The digest of a file that changes while
    it is read is not cached. Takes about a second for 380 MB, and blocks. Raise `Misconfigured`
    (binary-missing) if the file cannot be read, and `OSError` for the cache.

    A binary that may be run but not read (mode 0711, which also closes its environment in `/proc`
    to its children) is known by the digest that root wrote beside it, in `<binary>.sha256`.
    """
    try:
        with open(path, "rb") as file:
            before = _identity(path, os.fstat(file.fileno()))
            note = cache / f"cli-{hashlib.sha256(before.encode()).hexdigest()[:32]}"
            known = _noted(note)
            if known is not None:
                return known
            value = hashlib.file_digest(file, "sha256").hexdigest()
            after = _identity(path, os.fstat(file.fileno()))
    except PermissionError as error:
        vouched = _vouched(path)
        if vouched is None:
            raise _missing(
                "the claude binary cannot be read, and root has noted no digest of it"
            ) from error
        return vouched
    except OSError as error:
        raise _missing("the claude binary cannot be read") from error
    if after == before:
        _write_note(note, value)
    return value


def _bundled() -> Path | None:
    spec = importlib.util.find_spec("claude_agent_sdk")
    places = (spec.submodule_search_locations if spec else None) or []
    paths = (Path(place) / "_bundled" / "claude" for place in places)
    return next((path for path in paths if _runs(path)), None)


def _runs(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _identity(path: Path, found: os.stat_result) -> str:
    return f"{path} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _noted(note: Path) -> str | None:
    try:
        descriptor = os.open(note, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        ours = os.fstat(descriptor)
        if not stat.S_ISREG(ours.st_mode) or ours.st_uid != os.geteuid():
            return None
        text = os.read(descriptor, 65).decode("ascii", "replace")
    finally:
        os.close(descriptor)
    return text if _DIGEST.fullmatch(text) else None


def _vouched(path: Path) -> str | None:
    """Return the digest that root wrote beside a binary that root owns."""
    try:
        with open(path.with_name(f"{path.name}.sha256"), encoding="ascii") as note:
            ours = os.fstat(note.fileno()), path.stat()
            words = note.read(256).split()
    except (OSError, ValueError):
        return None
    if any(found.st_uid != 0 or found.st_mode & 0o022 for found in ours):
        return None
    return words[0] if words and _DIGEST.fullmatch(words[0]) else None


def _write_note(note: Path, value: str) -> None:
    # Written to another name and renamed: two servers that start at once must not read half of it.
    beside = note.with_name(f"{note.name}.{secrets.token_hex(4)}")
    try:
        beside.write_text(value, encoding="ascii")
        beside.replace(note)
    finally:
        beside.unlink(missing_ok=True)


def _missing(what: str) -> Misconfigured:
    return Misconfigured(f"{what}: {_ADVICE}", cause="binary-missing")
