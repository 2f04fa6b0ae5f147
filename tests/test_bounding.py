"""Which agents' processes are counted by the service."""

import os
from pathlib import Path

import pytest

from samovard.agent.isolation.walls import Mechanism, Walls
from samovard.bounding import counted
from samovard.settings import Settings


def settings() -> Settings:
    profiles = {"default": {}, "few": {"max_processes": 64}, "any": {"max_processes": None}}
    return Settings.model_validate({"state": {"directory": Path("/srv")}, "profiles": profiles})


@pytest.mark.parametrize("mechanism", [Mechanism.LANDLOCK, Mechanism.NONE])
def test_where_a_user_is_shared_processes_are_counted(mechanism: Mechanism) -> None:
    """The bound is the profile's."""
    walls = dict.fromkeys(("default", "few", "any"), Walls(mechanism))
    assert counted(settings(), walls) == {"default": 512, "few": 64}


def test_in_a_namespace_only_roots_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel counts those of other users, and bounds no root."""
    walls = dict.fromkeys(("default", "few", "any"), Walls(Mechanism.BUBBLEWRAP))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert counted(settings(), walls) == {}
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert counted(settings(), walls) == {"default": 512, "few": 64}
