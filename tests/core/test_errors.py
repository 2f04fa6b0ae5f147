"""What errors say: to people in their message, to programs in their metadata."""

from typing import Any

import pytest

from samovard.core.errors import Difference, IdTaken, TurnLost
from samovard.core.records import PermissionPolicy, Spec
from samovard.core.sessions.conversation import differences

GIVEN = Spec("default", "haiku", "Be brief.", PermissionPolicy.DENY, {"team": "red"})
NAMES = {
    "profile": ("tools", "spec.profile is default, not tools"),
    "model": ("opus", "spec.model is haiku, not opus"),
    "permission_policy": (PermissionPolicy.ASK, "spec.permission_policy is deny, not ask"),
    "append_system_prompt": ("secret", "spec.append_system_prompt"),
    "labels": ({"team": "secret"}, "spec.labels"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_field_that_differs_is_named(name: str) -> None:
    """Of a name both values are told, of texts and labels none; an equal field is no difference."""
    asked, told = NAMES[name]
    wanted: dict[str, Any] = {name: asked}
    error = IdTaken("session_id", *differences(Spec(**wanted), GIVEN))
    assert error.message == f"the session_id stands for something that differs: {told}"
    assert error.metadata["differs"] == f"spec.{name}"
    assert "secret" not in repr(error) + str(error.metadata)
    assert differences(Spec(**{name: getattr(GIVEN, name)}), GIVEN) == []


def test_every_field_that_differs_is_named() -> None:
    """All at once, and both values of each name for programs, too; unset is no value."""
    asked = Spec("tools", "opus", "x", PermissionPolicy.ASK, {"a": "b"})
    error = IdTaken("session_id", *differences(asked, Spec("default")))
    assert error.metadata == {
        "field": "session_id",
        "differs": ",".join(
            f"spec.{name}"
            for name in ("profile", "model", "append_system_prompt", "permission_policy", "labels")
        ),
        "profile": "default",
        "askedProfile": "tools",
        "model": "",
        "askedModel": "opus",
        "permissionPolicy": "",
        "askedPermissionPolicy": "ask",
    }
    assert "spec.model is unset, not opus" in error.message


def test_a_policy_of_a_later_version_is_told_by_its_number() -> None:
    """The store may have it."""
    (differs,) = differences(
        Spec(permission_policy=PermissionPolicy.DENY), Spec(permission_policy=PermissionPolicy(3))
    )
    assert differs.values == ("3", "deny")


def test_unset_fields_are_not_compared() -> None:
    """A spec that asks for nothing agrees with every session."""
    assert differences(Spec(), GIVEN) == []


def test_other_content_is_named_and_not_told() -> None:
    """A turn's content is a text: only its name is."""
    error = IdTaken("turn_id", Difference("content"))
    assert error.metadata == {"field": "turn_id", "differs": "content"}


@pytest.mark.parametrize(
    ("cause", "metadata", "told"),
    [
        ("process-died", {"exit": "signal 9"}, "its process died (signal 9)"),
        ("stalled", {}, "the agent made no progress"),
        ("something-new", {}, "something-new"),
    ],
)
def test_a_lost_turn_says_why(cause: str, metadata: dict[str, str], told: str) -> None:
    """The message says what is known, in words; a cause that has none is told as it is."""
    error = TurnLost(cause, metadata)
    assert error.message == f"the turn began and its end is not known: {told}"
    assert error.cause == cause
