"""Clouds that the CLI speaks to itself: what it finds in its environment, and signs with.

Knows the names of variables and the file of secrets. Knows nothing of how a child is run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from samovard.agent.credentials import Secret, owned
from samovard.core.errors import Misconfigured
from samovard.settings import clouds

#: What tells the CLI of its cloud.
USE = {"bedrock": "CLAUDE_CODE_USE_BEDROCK", "vertex": "CLAUDE_CODE_USE_VERTEX"}


@dataclass(frozen=True, slots=True)
class Cloud:
    """A profile's cloud, `bedrock` or `vertex`, with variables and a file of secret ones.

    `setting` is the name of the setting of that file, for errors.
    """

    name: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: Path | None = None
    setting: str = "cloud_secrets"

    def variables(self) -> dict[str, str]:
        """Return the variables of a child. The file is read each time, so that a rotated one is
        used; one of its variables takes the place of another of its name.

        Blocks. Raise `Misconfigured` (credential-missing), which shows no value.
        """
        found = {name: value.reveal() for name, value in self._secrets().items()}
        return {USE[self.name]: "1", **self.environment, **found}

    def _secrets(self) -> dict[str, Secret]:
        if self.secrets is None:
            return {}
        try:
            lines = owned(self.secrets).splitlines()
        except Misconfigured as error:
            raise self._refused(str(error)) from error
        found = {}
        for number, line in enumerate(lines, 1):
            name, equals, value = line.partition("=")
            if not line.strip() or line.startswith("#"):
                continue
            if not equals or not clouds.plain(name):
                raise self._refused(f"line {number} is not NAME=VALUE")
            if not clouds.allowed(self.name, name):
                raise self._refused(f"{name} is not a variable of {self.name}")
            if "_URL" in name:  # where secrets are sent to is looked at with the settings
                raise self._refused(f"{name} belongs in cloud_environment")
            try:
                found[name] = Secret(value)
            except Misconfigured as error:
                raise self._refused(f"{name} is empty or has invalid characters") from error
        return found

    def _refused(self, why: str) -> Misconfigured:
        return Misconfigured(f"{self.setting}: {why}", cause="credential-missing")
