"""The variables that the CLI signs requests to a cloud with: which names a profile may give.

Knows nothing of their values, nor of how a child gets them.
"""

import re

_MODELS = "ANTHROPIC_DEFAULT_[A-Z]+_MODEL|ANTHROPIC_SMALL_FAST_MODEL"
_NAMES = {
    "bedrock": re.compile(
        f"AWS_[A-Z0-9_]+|ANTHROPIC_BEDROCK_(BASE_URL|SERVICE_TIER|REGION_PREFIX)|{_MODELS}"
        "|ANTHROPIC_SMALL_FAST_MODEL_AWS_REGION|CLAUDE_CODE_SKIP_BEDROCK_AUTH"
    ),
    "vertex": re.compile(
        f"CLOUD_ML_REGION|ANTHROPIC_VERTEX_(BASE_URL|PROJECT_ID)|GOOGLE_[A-Z0-9_]+|{_MODELS}"
        "|GCLOUD_PROJECT|VERTEX_REGION_CLAUDE_[A-Z0-9_]+|CLAUDE_CODE_SKIP_VERTEX_AUTH"
    ),
}
_SECRET = re.compile(
    r"AWS_(SECRET_ACCESS_KEY|SESSION_TOKEN|BEARER_TOKEN_\w+|CONTAINER_AUTHORIZATION_TOKEN)"
    r"|GOOGLE_\w*(KEY|TOKEN)"
)
#: Variables that name a file.
FILES = {
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
}
#: Words apart, as no key or token has them: a line may be a secret without a name.
_NAME = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")


def allowed(cloud: str, name: str) -> bool:
    """Return True if a profile of this cloud may have a variable of this name."""
    return _NAMES[cloud].fullmatch(name) is not None


def secret(name: str) -> bool:
    """Return True if the value of a variable is a secret."""
    return _SECRET.fullmatch(name) is not None


def plain(name: str) -> bool:
    """Return True if this is a name and can be shown."""
    return _NAME.fullmatch(name) is not None
