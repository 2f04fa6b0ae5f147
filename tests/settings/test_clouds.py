"""The names of variables that a profile's cloud may have."""

import pytest

from samovard.settings import clouds


@pytest.mark.parametrize(
    ("cloud", "name", "whether"),
    [
        ("bedrock", "AWS_REGION", True),
        ("bedrock", "CLAUDE_CODE_SKIP_BEDROCK_AUTH", True),
        ("bedrock", "CLOUD_ML_REGION", False),
        ("vertex", "GOOGLE_APPLICATION_CREDENTIALS", True),
        ("vertex", "VERTEX_REGION_CLAUDE_4_5_SONNET", True),
        ("vertex", "AWS_REGION", False),
        ("vertex", "ANTHROPIC_API_KEY", False),
        ("bedrock", "ANTHROPIC_BASE_URL", False),
        ("bedrock", "LD_PRELOAD", False),
        ("bedrock", "NODE_OPTIONS", False),
        ("bedrock", "AWS_REGION\n", False),
    ],
)
def test_each_cloud_has_its_names(cloud: str, name: str, whether: bool) -> None:
    """None of another cloud, of the API, or of the system."""
    assert clouds.allowed(cloud, name) is whether


def test_secrets_are_known_by_their_names() -> None:
    """What is sent as it is, or signs; a region and the number of a key are none."""
    assert clouds.secret("AWS_SECRET_ACCESS_KEY")
    assert clouds.secret("AWS_BEARER_TOKEN_BEDROCK")
    assert not clouds.secret("AWS_ACCESS_KEY_ID")
    assert not clouds.secret("AWS_WEB_IDENTITY_TOKEN_FILE")
