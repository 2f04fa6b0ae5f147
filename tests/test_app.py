"""What the service makes and reads at its start."""

import asyncio
from pathlib import Path

import pytest
from support.service import serving

from samovard.secret import CannotRead, secret
from samovard.state_lock import CannotStart


def test_a_secret_is_made_once_and_its_owners_alone(tmp_path: Path) -> None:
    """The second start reads what the first made."""
    path = tmp_path / "new" / "pepper"
    made = secret(path)
    assert len(made) == 32
    assert secret(path) == made
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["pepper"]


@pytest.mark.parametrize("content", [b"", b"short"])
def test_a_short_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    """A secret that is none is not used, and not replaced either: keys were made with it."""
    path = tmp_path / "pepper"
    path.write_bytes(content)
    with pytest.raises(CannotRead, match="pepper: the secret has fewer than 32 bytes"):
        secret(path)
    assert path.read_bytes() == content


def test_a_certificate_that_is_not_there_is_named(directory: Path) -> None:
    """A missing file ends the start in a sentence."""

    async def story() -> None:
        tls = {
            "tls": "files",
            "tls_certificate": directory / "none.pem",
            "tls_key": directory / "key",
        }
        with pytest.raises(CannotStart, match=r"none\.pem: No such file"):
            async with serving(directory, fake=True, server={"listen": "127.0.0.1:0"} | tls):
                pass

    asyncio.run(story())


def test_a_secret_that_cannot_be_read_is_told_with_its_path(tmp_path: Path) -> None:
    """A directory in its place is one sentence."""
    with pytest.raises(CannotRead, match="Is a directory"):
        secret(tmp_path)
