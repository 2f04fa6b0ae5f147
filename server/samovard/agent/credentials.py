"""Where tenants' credentials come from, and how a secret is held.

Knows nothing of how a credential reaches the agent, nor of sessions. A secret leaves its `Secret`
only through `reveal()`, which is called only where one is handed over.
"""

import asyncio
import enum
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

from samovard.core.errors import Misconfigured

# A pipe holds this much without a reader; keys and tokens are far shorter.
MAX_SECRET_BYTES = 64 * 1024 - 1


class Secret:
    """A text that is not shown, copied, stored or compared by accident."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        # Only what may stand in a header and on one line: anything else was stored by mistake, and
        # would break the request that carries it.
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            raise missing("the credential is empty or has invalid characters")
        if len(text) > MAX_SECRET_BYTES:
            raise missing("the credential is too long")
        self._text = text

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __repr__(self) -> str:
        return "<secret>"

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("secrets are not compared")

    __hash__ = None  # type: ignore[assignment]  # As for any class that has no equality.

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("secrets are neither copied nor pickled")


class Kind(enum.Enum):
    """How a credential is sent upstream: as `x-api-key`, or as a bearer token."""

    API_KEY = "api_key"
    OAUTH_TOKEN = "oauth_token"


@dataclass(frozen=True, slots=True, eq=False)
class Credential:
    """A tenant's credential; `version` changes whenever the value may have changed."""

    kind: Kind
    value: Secret
    version: str


class Provider(Protocol):
    """The source of tenants' credentials. It is asked on the service's loop only."""

    async def get(self, tenant: str, *, fresh: bool = False) -> Credential:
        """Return a tenant's credential, past any cache if `fresh`.

        Raise `Misconfigured` (credential-missing).
        """


@dataclass(frozen=True, slots=True, repr=False)
class Env:
    """One credential for every tenant, from an environment variable that is read at start."""

    variable: str
    environ: Mapping[str, str]
    kind: Kind = Kind.API_KEY

    async def get(self, tenant: str, *, fresh: bool = False) -> Credential:
        """Return the credential. Raise `Misconfigured` (credential-missing) if there is none."""
        value = self.environ.get(self.variable, "")
        if not value:
            raise missing("the credential's variable is not set")
        return Credential(self.kind, Secret(value), "1")


@dataclass(frozen=True, slots=True)
class File:
    """One credential for every tenant, from a file that only its owner can read.

    The file is read each time, so that a replaced one is noticed; the version is its identity.
    """

    path: Path
    kind: Kind = Kind.API_KEY

    async def get(self, tenant: str, *, fresh: bool = False) -> Credential:
        """Return what the file holds.

        Raise `Misconfigured` (credential-missing) if that is impossible.
        """
        return await asyncio.to_thread(self._read)

    def _read(self) -> Credential:
        return _stored(self.path, self.kind, _check_owned)


NO_TENANTS = "no-tenant"  # the placeholder for a start that belongs to no tenant


@dataclass(frozen=True, slots=True)
class Mount:
    """Credentials that a platform mounts: one file per tenant in a directory, or one for all.

    The file is read each time, so that a rotated secret is noticed. The platform decides on owner
    and mode, often root and a group; only a file that others can write is refused.
    """

    path: Path
    kind: Kind = Kind.API_KEY

    async def get(self, tenant: str, *, fresh: bool = False) -> Credential:
        """Return a tenant's credential. Raise `Misconfigured` (credential-missing).

        With a file per tenant, a trial start that belongs to no tenant gets a placeholder: it sends
        no request with it.
        """
        return await asyncio.to_thread(self._read, tenant)

    def _read(self, tenant: str) -> Credential:
        if not self.path.is_dir():
            return _stored(self.path, self.kind, _check_mounted)
        if not tenant:
            return Credential(self.kind, Secret(NO_TENANTS), "")
        # A tenant's name has neither slashes nor dots (`edge.identity`).
        return _stored(self.path / tenant, self.kind, _check_mounted)


def header(path: Path) -> str:
    """Return what a mounted file holds, as the value of a header: words may have spaces between.

    Raise `Misconfigured` (credential-missing) if that is impossible.
    """
    text, _ = _text(path, _check_mounted)
    text = text.strip("\r\n")
    for word in text.split(" "):
        Secret(word)  # for its error alone
    return text


def owned(path: Path) -> str:
    """Return the text of a file that only its owner can read.

    Raise `Misconfigured` (credential-missing) if it is another, or too long.
    """
    text, _ = _text(path, _check_owned)
    if len(text) > MAX_SECRET_BYTES:
        raise missing("the credential file is too long")
    return text


def _stored(path: Path, kind: Kind, check: Callable[[os.stat_result], None]) -> Credential:
    text, version = _text(path, check)
    return Credential(kind, Secret(text.strip("\r\n")), version)


def _text(path: Path, check: Callable[[os.stat_result], None]) -> tuple[str, str]:
    """Return a file's text and its version."""
    try:
        # Non-blocking: opening a FIFO must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise missing("the credential file cannot be read") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise missing("the credential file is not a regular file")
        check(found)
        content = os.read(descriptor, MAX_SECRET_BYTES + 2)
    finally:
        os.close(descriptor)
    version = f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"
    return content.decode("ascii", "replace"), version


def _check_owned(found: os.stat_result) -> None:
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise missing("the credential file must be accessible to its owner only (mode 0600)")


def _check_mounted(found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o002:
        raise missing(
            "the mounted credential must belong to root or this user, and not be writable by others"
        )


def missing(message: str) -> Misconfigured:
    """Return the error for a credential that cannot be had."""
    return Misconfigured(message, cause="credential-missing")
