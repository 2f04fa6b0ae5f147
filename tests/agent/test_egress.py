"""The hosts of a profile as the settings list them: what is none is named."""

from pathlib import Path

import pytest

from samovard.agent import boot, launch
from samovard.core.errors import Misconfigured
from samovard.settings import given


@pytest.mark.parametrize("entry", ["https://a.example", "a b", "*.10.0.0.1", "a.example:0", ""])
def test_a_host_that_is_none_is_named(directory: Path, entry: str) -> None:
    """With its setting, when the service starts."""
    profile = {"network": "hosts", "hosts": [entry]}
    settings = given({"state": {"directory": directory}, "profiles": {"default": profile}})
    with pytest.raises(Misconfigured, match=r"profiles\.default\.hosts: ") as refused:
        boot.options_of(settings, "default")
    assert refused.value.cause == "options-refused"


def test_an_mcp_servers_host_must_be_listed(directory: Path) -> None:
    """Else its tools would never be there; the sentence names it."""
    profile = {"network": "hosts", "hosts": ["a.example"]}

    def options(url: str) -> launch.LaunchOptions:
        profiles = {"default": profile | {"mcp": {"calc": {"url": url}}}}
        settings = given({"state": {"directory": directory}, "profiles": profiles})
        return boot.options_of(settings, "default")

    assert options("https://a.example/mcp").hosts == ("a.example",)
    for url in ("https://b.example/mcp", "https://a.example:8443/mcp"):
        with pytest.raises(Misconfigured, match=r"profiles\.default\.mcp\.calc\.url: "):
            options(url)
