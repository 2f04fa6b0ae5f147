"""What agents may see of the disk besides the system and their own directories.

Knows the settings. Refuses, by name, what would show them the service's own files.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from samovard.agent import launch
from samovard.agent.isolation.walls import SESSION, covers, system
from samovard.core.errors import Misconfigured
from samovard.settings import Settings, clouds

#: What bubblewrap makes anew inside.
_MADE = (Path("/proc"), Path("/dev"), SESSION)


def of_profiles(settings: Settings, cli: Path) -> dict[str, tuple[Path, ...]]:
    """Return what agents of each profile may read.

    Raise `Misconfigured` (options-refused), which names the setting.
    """
    common = (*launchers(), cli, *_certificates(settings), *_visible(settings))
    views = {
        name: (*common, *_programs(name, profile.path, settings))
        for name, profile in settings.profiles.items()
    }
    for name, profile in settings.profiles.items():
        for server, mcp in profile.mcp.items():
            program = shutil.which(mcp.command, path=profile.path) if mcp.command else None
            if program is not None and not covers((*system(), *views[name]), Path(program)):
                setting = f"profiles.{name}.mcp.{server}.command"
                raise _refused(setting, Path(program), "is not seen by the profile's agents")
        for variable in sorted(clouds.FILES & {*profile.cloud_environment}):
            file = Path(profile.cloud_environment[variable])
            if not covers((*system(), *views[name]), file):
                setting = f"profiles.{name}.cloud_environment.{variable}"
                raise Misconfigured(
                    f"{setting}: is not seen by the profile's agents: add it to isolation.visible",
                    cause="options-refused",
                )
    return views


def launchers() -> tuple[Path, ...]:
    """Return what the launcher needs: itself and the interpreter with its library."""
    return Path(sys.base_prefix), Path(os.path.realpath(sys.executable)), launch.LAUNCHER


def _certificates(settings: Settings) -> Iterator[Path]:
    if settings.credentials.ca_bundle is not None:
        yield settings.credentials.ca_bundle.absolute()


def _visible(settings: Settings) -> Iterator[Path]:
    for path in settings.isolation.visible:
        if not path.is_absolute() or not path.exists():
            raise _refused("isolation.visible", path, "is no absolute path of something there")
        _check("isolation.visible", path, settings)
        yield path


def _programs(profile: str, search: str, settings: Settings) -> Iterator[Path]:
    """Return the directories of a profile's search path. One that is not there hides nothing."""
    setting = f"profiles.{profile}.path"
    for entry in filter(None, search.split(os.pathsep)):
        path = Path(entry)
        if not path.is_absolute():
            raise _refused(setting, path, "is no absolute path")
        if path.is_dir():
            _check(setting, path, settings)
            yield path


def _check(setting: str, path: Path, settings: Settings) -> None:
    """Raise `Misconfigured` if agents cannot or must not see a path."""
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise _refused(setting, path, "cannot be read by the service, so agents would not see it")
    if any(path.is_relative_to(made) for made in _MADE):
        raise _refused(setting, path, "is a path that agents have of their own")
    if not covers(system(), path):
        for secret in (settings.directory, settings.root, *secrets(settings)):
            if covers([path], secret) or covers([settings.directory, settings.root], path):
                raise _refused(setting, path, "would show agents the service's own files")


def secrets(settings: Settings) -> list[Path]:
    """Return files of the service's own that may lie outside of its state directory."""
    auth = settings.auth
    named = (settings.credentials.path, auth.api_key.pepper, auth.page_key, settings.server.tls_key)
    of_clouds = (profile.cloud_secrets for profile in settings.profiles.values())
    found = [path for path in (*named, *of_clouds) if path is not None]
    if store := settings.url.removeprefix("sqlite:///"):  # empty: in memory
        found.append(Path(store))
    if settings.audit_sink.startswith("/"):
        found.append(Path(settings.audit_sink))
    for profile in settings.profiles.values():
        found += [path for mcp in profile.mcp.values() for path in mcp.secret_headers.values()]
    return [path.absolute() for path in found]


def _refused(setting: str, path: Path, why: str) -> Misconfigured:
    return Misconfigured(
        f"{setting}: {path} {why}: name another, or set isolation.require and "
        "isolation.mechanism to none",
        cause="options-refused",
    )
