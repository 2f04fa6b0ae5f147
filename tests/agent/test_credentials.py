"""Credentials and secrets."""

import asyncio
import copy
import os
import pickle
import typing
from pathlib import Path

import pytest
from support.file_descriptors import descriptors

from samovard.agent import boot
from samovard.agent.credentials import Credential, Env, File, Kind, Mount, Secret, header
from samovard.core.errors import Misconfigured
from samovard.settings import Credentials


def _stored(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_every_provider_of_the_settings_is_made(tmp_path: Path) -> None:
    """Each word that `credentials.provider` takes makes a provider; without one there is none."""
    words, _ = typing.get_args(Credentials.model_fields["provider"].annotation)
    assert len(typing.get_args(words)) > 2
    for word in typing.get_args(words):
        settings = Credentials.model_validate({"provider": word, "path": tmp_path})
        assert boot.provider_of(settings) is not None, word
    assert boot.provider_of(Credentials()) is None


def test_secret_has_no_text_form() -> None:
    """Neither printing nor formatting a secret, or what holds it, shows it."""
    secret = Secret("sk-canary")
    credential = Credential(Kind.API_KEY, secret, "1")
    shown = f"{secret} {secret!r} {credential} {[secret]} {vars(Kind)}"
    assert "canary" not in shown
    assert secret.reveal() == "sk-canary"


def test_secret_is_neither_copied_nor_pickled() -> None:
    """A secret cannot leave the process or multiply by accident."""
    for act in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            act(Secret("sk-canary"))


def test_secrets_are_not_compared() -> None:
    """Plain equality, which takes as long as the common beginning, is refused."""
    secret = Secret("sk-canary")
    with pytest.raises(TypeError):
        assert secret == Secret("sk-canary")
    with pytest.raises(TypeError):
        hash(secret)


@pytest.mark.parametrize("text", ["", "a b", "a\nb", "a\0b", "schlüssel", "x" * 65536])
def test_text_that_is_no_credential_is_refused_without_showing_it(text: str) -> None:
    """What could break a header, a line or a pipe is no secret."""
    with pytest.raises(Misconfigured) as caught:
        Secret(text)
    assert caught.value.cause == "credential-missing"
    assert not text or text not in str(caught.value)


def test_env_gives_the_variable_of_the_given_environment() -> None:
    """The environment is an argument, and its text is not in the provider's."""
    provider = Env("KEY", {"KEY": "sk-canary"}, Kind.OAUTH_TOKEN)
    credential = asyncio.run(provider.get("acme"))
    assert (credential.kind, credential.value.reveal()) == (Kind.OAUTH_TOKEN, "sk-canary")
    assert "canary" not in repr(provider)


@pytest.mark.parametrize("environ", [{}, {"KEY": ""}])
def test_missing_variable_is_misconfigured(environ: dict[str, str]) -> None:
    """An unset and an empty variable are the same to an operator."""
    with pytest.raises(Misconfigured) as caught:
        asyncio.run(Env("KEY", environ).get("acme"))
    assert caught.value.cause == "credential-missing"


def test_file_gives_its_line(tmp_path: Path) -> None:
    """An editor's newline at the end is not part of the credential."""
    path = _stored(tmp_path / "key", "sk-canary\n")
    assert asyncio.run(File(path).get("acme")).value.reveal() == "sk-canary"


def test_replaced_file_has_another_version(tmp_path: Path) -> None:
    """A new key is seen without a restart, and is known to be new."""
    path = _stored(tmp_path / "key", "sk-one")
    first = asyncio.run(File(path).get("acme"))
    _stored(tmp_path / "new", "sk-two").replace(path)
    second = asyncio.run(File(path).get("acme"))
    assert second.value.reveal() == "sk-two"
    assert first.version != second.version


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_file_that_others_can_open_is_refused(tmp_path: Path, mode: int) -> None:
    """A key that the group or the world can read or write is not used."""
    path = _stored(tmp_path / "key", "sk-canary", mode)
    with pytest.raises(Misconfigured) as caught:
        asyncio.run(File(path).get("acme"))
    assert caught.value.cause == "credential-missing"


def test_what_is_not_a_file_is_refused_at_once(tmp_path: Path) -> None:
    """A missing file, a directory and a FIFO that nobody writes to are refused."""
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "directory").mkdir(0o700)
    before = descriptors()
    for name in ("missing", "fifo", "directory"):
        with pytest.raises(Misconfigured) as caught:
            asyncio.run(File(tmp_path / name).get("acme"))
        assert caught.value.cause == "credential-missing"
    assert descriptors() <= before


def test_mount_has_a_file_for_each_tenant(tmp_path: Path) -> None:
    """A tenant gets the file of its name, and never another's."""
    _stored(tmp_path / "acme", "sk-acme\n", 0o440)
    _stored(tmp_path / "globex", "sk-globex", 0o444)
    mount = Mount(tmp_path)
    told = [asyncio.run(mount.get(name)).value.reveal() for name in ("acme", "globex")]
    assert told == ["sk-acme", "sk-globex"]
    with pytest.raises(Misconfigured) as caught:
        asyncio.run(mount.get("initech"))
    assert caught.value.cause == "credential-missing"


def test_a_start_for_no_tenant_gets_no_tenants_credential(tmp_path: Path) -> None:
    """The service tries starts before any tenant has come; with one file for all it gets that."""
    _stored(tmp_path / "acme", "sk-acme", 0o400)
    assert asyncio.run(Mount(tmp_path).get("")).value.reveal() == "no-tenant"
    assert asyncio.run(Mount(tmp_path / "acme").get("")).value.reveal() == "sk-acme"


def test_mount_of_one_file_is_every_tenants(tmp_path: Path) -> None:
    """Where the path is a file, it is the credential of all."""
    mount = Mount(_stored(tmp_path / "key", "sk-all", 0o400), Kind.OAUTH_TOKEN)
    credential = asyncio.run(mount.get("acme"))
    assert (credential.kind, credential.value.reveal()) == (Kind.OAUTH_TOKEN, "sk-all")


def test_mount_that_is_swapped_has_another_version(tmp_path: Path) -> None:
    """Platforms rotate a secret by pointing a link elsewhere: the next turn sees it."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        _stored(tmp_path / name / "acme", f"sk-{name}", 0o440)
    link = tmp_path / "data"
    link.symlink_to("one")
    first = asyncio.run(Mount(link).get("acme"))
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(link)
    second = asyncio.run(Mount(link).get("acme"))
    assert (first.value.reveal(), second.value.reveal()) == ("sk-one", "sk-two")
    assert first.version != second.version


def test_mount_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """Whoever can write the file chooses who pays."""
    with pytest.raises(Misconfigured, match="not be writable by others"):
        asyncio.run(Mount(_stored(tmp_path / "key", "sk-all", 0o666)).get("acme"))


def test_mount_that_others_may_only_read_is_taken(tmp_path: Path) -> None:
    """Some platforms mount every file as a program, too."""
    mount = Mount(_stored(tmp_path / "key", "sk-all", 0o555))
    assert asyncio.run(mount.get("acme")).value.reveal() == "sk-all"


def test_a_header_may_have_words(tmp_path: Path) -> None:
    """With one space between them, and nothing that would break a line."""
    assert header(_stored(tmp_path / "ticket", "Bearer one\n", 0o640)) == "Bearer one"
    for text in ("", "a  b", " a", "a\nb", "schl\u00fcssel"):
        with pytest.raises(Misconfigured):
            header(_stored(tmp_path / "ticket", text, 0o640))
