"""What a CLI must be able to do, and the check of what it says of itself when it starts.

Knows the answer to `initialize`. Knows nothing of how the CLI is run.
"""

import re
from dataclasses import dataclass

import msgspec

from samovard.core.errors import Misconfigured

_NUMBER = re.compile(r"[0-9]{1,9}")  # Python accepts other digits too, and limits the length

#: The oldest CLI that can be told that a message holds no commands (`client_composed`).
FLOOR = (2, 1, 248)


@dataclass(frozen=True, slots=True)
class Expected:
    """What the answer must contain: the version that was tested, None for any, and the permission
    mode that was asked for; of a child that signs for a cloud, that cloud.
    """

    version: str | None
    permission_mode: str
    cloud: str = ""


class _Account(msgspec.Struct):
    tokenSource: str = "none"  # the wire's own spelling
    apiKeySource: str = ""
    apiProvider: str = ""


class _Initialized(msgspec.Struct):
    claude_code_version: str = ""
    current_permission_mode: str = ""
    account: _Account = msgspec.field(default_factory=_Account)


def check(payload: bytes, expected: Expected) -> str:
    """Return the agent's version if its answer to `initialize` is as expected.

    Raise `Misconfigured` (agent-unsupported, options-refused, credential-missing).
    """
    try:
        answer = msgspec.json.decode(payload, type=_Initialized)
    except msgspec.DecodeError:
        raise _unsupported("does not report what it is") from None
    version = answer.claude_code_version
    if expected.version is not None and version != expected.version:
        raise _unsupported("changed its version while running")
    if parsed(version) < FLOOR:
        raise _unsupported("is too old")
    if answer.current_permission_mode != expected.permission_mode:
        raise Misconfigured(
            "the agent does not have the permission mode asked for", cause="options-refused"
        )
    if expected.cloud:  # it names no source of what it signs with: the first request shows that
        if answer.account.apiProvider != expected.cloud:
            raise Misconfigured("the agent does not use its cloud", cause="options-refused")
    elif answer.account.tokenSource == "none" and not answer.account.apiKeySource:
        raise Misconfigured("the agent took no credential", cause="credential-missing")
    return version


def parsed(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, such as (2, 1, 330); empty if it has none."""
    head = version.split("-")[0].split()[:1]
    parts = head[0].split(".") if head else []
    return tuple(int(part) for part in parts if _NUMBER.fullmatch(part))


def _unsupported(what: str) -> Misconfigured:
    return Misconfigured(f"the agent {what}", cause="agent-unsupported")
