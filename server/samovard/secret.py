"""Secrets of the service's own: files that are made where there are none.

Knows files. Knows nothing of what a secret is used for.
"""

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from samovard.settings import Settings

SECRET_BYTES = 32


class CannotRead(Exception):
    """Raised if a secret cannot be read or made; the message is one sentence with the reason."""


def pepper(settings: Settings) -> bytes:
    """Return the secret that API keys are hashed with. Raise `CannotRead`."""
    return secret(settings.auth.api_key.pepper or settings.directory / "pepper")


def secret(path: Path) -> bytes:
    """Return a secret. A missing file is made, readable by its owner only.

    Raise `CannotRead` if it cannot be read or made, or is too short to be secure.
    """
    try:
        found = _read_or_made(path)
    except OSError as error:
        raise CannotRead(f"{path}: {error.strerror}") from error
    if len(found) < SECRET_BYTES:
        raise CannotRead(f"{path}: the secret has fewer than {SECRET_BYTES} bytes")
    return found


def _read_or_made(path: Path) -> bytes:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        # Whole or not at all: a server that dies here must not leave an empty secret.
        descriptor, made = tempfile.mkstemp(dir=path.parent)
        try:
            with open(descriptor, "wb") as file:
                file.write(secrets.token_bytes(SECRET_BYTES))
            with contextlib.suppress(FileExistsError):
                os.link(made, path)
        finally:
            os.unlink(made)
    return path.read_bytes()
