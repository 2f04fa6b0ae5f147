"""What a child gets for its cloud."""

from pathlib import Path

import pytest

from samovard.agent.clouds import Cloud
from samovard.core.errors import Misconfigured

GIVEN = {"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "old"}


def stored(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / "bedrock.env"
    path.write_text(text)
    path.chmod(mode)
    return path


def refused(path: Path) -> str:
    """Give the words with which a file is refused."""
    with pytest.raises(Misconfigured) as caught:
        Cloud("bedrock", GIVEN, path, "profiles.p.cloud_secrets").variables()
    assert caught.value.cause == "credential-missing"
    return str(caught.value)


def test_a_child_gets_the_cloud_and_both_kinds_of_variables(tmp_path: Path) -> None:
    """One of the file takes the place of another of its name; the rest of the file is not read."""
    text = "# keys\n\nAWS_ACCESS_KEY_ID=AKIA\r\nAWS_SECRET_ACCESS_KEY=a/b+c=\n"
    assert Cloud("bedrock", GIVEN, stored(tmp_path, text)).variables() == {
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "AKIA",
        "AWS_SECRET_ACCESS_KEY": "a/b+c=",
    }
    assert Cloud("vertex").variables() == {"CLAUDE_CODE_USE_VERTEX": "1"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("PATH_TO=canary", "PATH_TO is not a variable of bedrock"),
        ("ANTHROPIC_API_KEY=canary", "ANTHROPIC_API_KEY is not a variable of bedrock"),
        ("AWS_ENDPOINT_URL=http://canary", "AWS_ENDPOINT_URL belongs in cloud_environment"),
        ("AWS_SESSION_TOKEN=canary\x01", "AWS_SESSION_TOKEN is empty or has invalid characters"),
        ("AWS_SESSION_TOKEN=", "AWS_SESSION_TOKEN is empty or has invalid characters"),
        ("\ncanary", "line 2 is not NAME=VALUE"),
        ("CANARYKEY=", "line 1 is not NAME=VALUE"),
        ("canary" * 20_000, "too long"),
    ],
)
def test_what_is_no_variable_of_the_cloud_is_refused(tmp_path: Path, text: str, why: str) -> None:
    """By its name, or by its line where that may be the secret; without the value."""
    said = refused(stored(tmp_path, text))
    assert said.startswith("profiles.p.cloud_secrets: ")
    assert why in said
    assert "canary" not in said.lower()


def test_a_file_that_others_can_open_is_refused(tmp_path: Path) -> None:
    """As that of a credential; so is one that is not there."""
    assert "mode 0600" in refused(stored(tmp_path, "AWS_SESSION_TOKEN=canary", 0o640))
    assert "cannot be read" in refused(tmp_path / "none")


def test_a_cloud_shows_no_value(tmp_path: Path) -> None:
    """Only where its secrets are."""
    path = stored(tmp_path, "AWS_SESSION_TOKEN=canary")
    assert "eu-west-1" not in repr(Cloud("bedrock", GIVEN, path))
