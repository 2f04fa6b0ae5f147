"""The ladder: which rung is taken, and what is said where none is enough."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.behind import walls

from samovard.agent import process_tree
from samovard.agent.home import Homes
from samovard.agent.isolation import ladder
from samovard.agent.isolation.ladder import Isolation
from samovard.agent.isolation.probe import probe
from samovard.agent.isolation.walls import Mechanism
from samovard.core.errors import Misconfigured
from samovard.settings import given

CLI = Path("/bin/true")
KEYS = {"auth": {"methods": ["api_key"]}}


@pytest.fixture
def homes(directory: Path) -> Iterator[Homes]:
    """The directories of sessions."""
    process_tree.become_subreaper()
    with Homes(directory / "s") as made:
        yield made


def chosen(homes: Homes, directory: Path, isolation: dict[str, Any], **more: Any) -> Isolation:
    settings = given({"state": {"directory": directory}, "isolation": isolation, **more})
    return asyncio.run(ladder.chosen(settings, homes, CLI))


@pytest.fixture
def without_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which it is not installed."""
    monkeypatch.setattr(ladder, "PLACES", "/nonexistent")


def test_the_strongest_rung_is_taken(homes: Homes, directory: Path) -> None:
    """Whatever is required, and every profile's agents are behind it."""
    walls(Mechanism.BUBBLEWRAP)
    found = chosen(homes, directory, {}, profiles={"default": {}, "other": {}})
    assert (found.mechanism, set(found.walls)) == (Mechanism.BUBBLEWRAP, {"default", "other"})
    assert str(found) == "strong (bubblewrap)"


@pytest.mark.usefixtures("without_bubblewrap")
def test_without_bubblewrap_the_next_one_is(homes: Homes, directory: Path) -> None:
    """And the first lines say why; without a rule of the network, nothing of that."""
    found = chosen(homes, directory, {}, profiles={"default": {"network": "open"}}, **KEYS)
    assert (found.mechanism, found.network) == (Mechanism.LANDLOCK, "open")
    assert str(found) == "basic (landlock), not bubblewrap: bubblewrap is not installed"


def test_a_network_of_their_own_is_what_agents_have(homes: Homes, directory: Path) -> None:
    """Those of each profile that does not ask for more."""
    walls(Mechanism.BUBBLEWRAP)
    found = chosen(homes, directory, {}, profiles={"default": {}, "web": {"network": "open"}})
    assert found.network == "held"
    assert {name: around.alone for name, around in found.walls.items()} == {
        "default": True,
        "web": False,
    }


@pytest.mark.usefixtures("without_bubblewrap")
def test_walls_that_do_not_hold_the_network_are_refused_to_several_tenants(
    homes: Homes, directory: Path
) -> None:
    """The sentence names the profile and both settings that would accept it."""
    with pytest.raises(Misconfigured) as refused:
        chosen(homes, directory, {}, **KEYS)
    said = str(refused.value)
    assert 'landlock: does not hold the network of profiles.default (network = "broker")' in said
    assert 'isolation.network_require = "best"' in said
    none = {"require": "none", "mechanism": "none"}
    with pytest.raises(Misconfigured, match="none: does not hold"):
        chosen(homes, directory, none, **KEYS)


@pytest.mark.usefixtures("without_bubblewrap")
@pytest.mark.parametrize(
    ("isolation", "more"),
    [({}, {}), ({}, {"pool": {"max_tenants": 1}, **KEYS}), ({"network_require": "best"}, KEYS)],
)
def test_walls_that_do_not_hold_the_network_are_told_where_accepted(
    homes: Homes, directory: Path, isolation: dict[str, Any], more: dict[str, Any]
) -> None:
    """By one tenant, or by the setting: the first lines say so."""
    found = chosen(homes, directory, {"mechanism": "landlock", **isolation}, **more)
    assert (found.mechanism, found.network) == (Mechanism.LANDLOCK, "best")
    assert str(found) == "basic (landlock), the network not held"


@pytest.mark.usefixtures("without_bubblewrap")
@pytest.mark.parametrize("isolation", [{"require": "strong"}, {"mechanism": "bubblewrap"}])
def test_less_than_is_asked_for_is_refused(
    homes: Homes, directory: Path, isolation: dict[str, Any]
) -> None:
    """The sentence says what is lacking, and which setting keeps the earlier behaviour."""
    with pytest.raises(Misconfigured) as refused:
        chosen(homes, directory, isolation)
    assert "bubblewrap is not installed" in str(refused.value)
    assert 'isolation.require = "none"' in str(refused.value)


@pytest.mark.usefixtures("without_bubblewrap")
def test_one_local_tenant_may_be_without_walls(
    homes: Homes, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first lines say so; where keys name tenants, the service does not start."""
    monkeypatch.setattr("samovard.agent.isolation.walls.rules", lambda *_: ["r/nonexistent"])
    found = chosen(homes, directory, {})
    assert (found.mechanism, found.walls) == (Mechanism.NONE, {})
    assert str(found).startswith("none beyond a directory per session, the network not held, not ")
    assert "not landlock: " in str(found)
    with pytest.raises(Misconfigured):
        chosen(homes, directory, {}, **KEYS)


def test_none_can_be_chosen(homes: Homes, directory: Path) -> None:
    """As earlier versions were; nothing is tried then, and nothing refused."""
    none = {"require": "none", "mechanism": "none", "network_require": "best"}
    profiles = {"default": {"path": f"{directory}:relative"}}
    found = chosen(homes, directory, none, profiles=profiles, **KEYS)
    assert (found.mechanism, found.walls) == (Mechanism.NONE, {})


def test_the_services_secrets_are_attacked_wherever_they_are(
    homes: Homes, directory: Path, tmp_path: Path
) -> None:
    """Where the probe reads one of them, the rung is not used."""
    key = tmp_path / "key"
    key.touch(0o600)
    around = walls(Mechanism.LANDLOCK, tmp_path)
    settings = given(
        {"state": {"directory": directory}, "credentials": {"provider": "file", "path": key}}
    )
    found = asyncio.run(probe(around, homes, ladder.target(settings)))
    assert found.why == "files: reached (read)"
