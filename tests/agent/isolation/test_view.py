"""What agents may see: named by the settings, and never the service's own files."""

import sys
from pathlib import Path
from typing import Any

import pytest

from samovard.agent.isolation import view
from samovard.core.errors import Misconfigured
from samovard.settings import Settings, given

CLI = Path("/opt/claude")


def settings(directory: Path, **sections: Any) -> Settings:
    (directory / "state").mkdir(exist_ok=True)
    return given({"state": {"directory": directory / "state"}, **sections})


def refused(directory: Path, **sections: Any) -> str:
    with pytest.raises(Misconfigured) as caught:
        view.of_profiles(settings(directory, **sections), CLI)
    return str(caught.value)


def test_a_profiles_agents_see_its_own_programs(directory: Path) -> None:
    """Those of another profile's path they do not see; a directory that is missing hides none."""
    (directory / "a").mkdir()
    (directory / "b").mkdir()
    profiles = {name: {"path": f"{directory / name}:/usr/bin:/nonexistent"} for name in ("a", "b")}
    pool = {"default_profile": "a"}
    found = view.of_profiles(settings(directory, profiles=profiles, pool=pool), CLI)
    for name, other in ("ab", "ba"):
        assert {CLI, Path(sys.base_prefix), directory / name} <= {*found[name]}
        assert directory / other not in found[name]


@pytest.mark.parametrize("path", ["bin", "/usr/bin:./bin"])
def test_a_path_that_cannot_be_seen_is_refused_by_name(directory: Path, path: str) -> None:
    """A relative one is another in each session."""
    assert refused(directory, profiles={"default": {"path": path}}).startswith(
        "profiles.default.path: "
    )


@pytest.mark.parametrize("where", ["", "state", "state/within", "secret"])
def test_what_would_show_the_services_files_is_refused(directory: Path, where: str) -> None:
    """Neither above nor within the state, nor what holds the credential."""
    (directory / "state" / "within").mkdir(parents=True)
    (directory / "secret").mkdir()
    credentials = {"provider": "file", "path": directory / "secret" / "key"}
    shown = directory / where
    found = refused(directory, isolation={"visible": [shown]}, credentials=credentials)
    assert found.startswith(f"isolation.visible: {shown} would show agents ")
    found = refused(directory, profiles={"default": {"path": str(shown)}}, credentials=credentials)
    assert found.startswith(f"profiles.default.path: {shown} would show agents ")


def test_a_server_that_its_agent_does_not_see_is_refused_by_name(directory: Path) -> None:
    """It is seen by the profile's path, or by what is visible to all."""
    (directory / "bin").mkdir()
    program = directory / "bin" / "server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    profile = {"mcp": {"calc": {"command": str(program)}}}
    assert refused(directory, profiles={"default": profile}).startswith(
        f"profiles.default.mcp.calc.command: {program} is not seen by "
    )
    for more in ({"path": f"{directory / 'bin'}:/usr/bin"}, {}):
        visible = {} if more else {"visible": [directory / "bin"]}
        view.of_profiles(
            settings(directory, profiles={"default": profile | more}, isolation=visible), CLI
        )


def test_what_a_cloud_signs_with_is_seen_if_it_is_visible(directory: Path) -> None:
    """A file that a variable names; that of the secrets is the service's own."""
    (directory / "adc").mkdir()
    file = directory / "adc" / "file"
    file.touch()
    profile = {
        "cloud": "vertex",
        "cloud_environment": {"GOOGLE_APPLICATION_CREDENTIALS": str(file)},
        "cloud_secrets": directory / "secret" / "env",
    }
    sections: dict[str, Any] = {
        "profiles": {"default": profile},
        "credentials": {"allow_environment": True},
    }
    said = refused(directory, **sections)
    assert said.startswith("profiles.default.cloud_environment.GOOGLE_APPLICATION_CREDENTIALS: ")
    assert str(file) not in said
    view.of_profiles(settings(directory, isolation={"visible": [file]}, **sections), CLI)
    (directory / "secret").mkdir()
    said = refused(directory, isolation={"visible": [directory / "secret"]}, **sections)
    assert "would show agents the service's own files" in said


def test_a_link_to_the_services_files_is_refused(directory: Path) -> None:
    """What counts is where a path leads."""
    (directory / "state").mkdir()
    (directory / "link").symlink_to(directory / "state")
    assert "would show" in refused(directory, isolation={"visible": [directory / "link"]})


@pytest.mark.parametrize("path", ["relative", "/usr/bin/samovar/none", "/proc", "/dev/shm"])
def test_what_is_visible_must_be_there(directory: Path, path: str) -> None:
    """A typing error is not found out by an agent that misses something."""
    assert refused(directory, isolation={"visible": [path]}).startswith("isolation.visible: ")


def test_secrets_are_files_wherever_the_service_was_started(directory: Path) -> None:
    """An agent would look for a relative path in its own directory, and find something there."""
    sections = {"auth": {"page_key": "key"}}
    for url in ("sqlite:///", "sqlite:///store.db"):
        made = given({"state": {"directory": directory, "url": url}, **sections})
        assert all(path.is_absolute() and path.name for path in view.secrets(made))
        assert Path.cwd() not in view.secrets(made)


def test_the_secret_of_an_mcp_server_is_the_services_own(directory: Path) -> None:
    """A profile that shows its file is refused."""
    (directory / "secret").mkdir()
    header = {"authorization": directory / "secret" / "ticket"}
    server = {"url": "https://mcp.example", "secret_headers": header}
    profile = {"path": str(directory / "secret"), "mcp": {"far": server}}
    assert "would show" in refused(directory, profiles={"default": profile})
