"""Page tokens are ours, for one caller, one list and a while."""

import pytest

from samovard.core.errors import RequestInvalid
from samovard.edge.pages import LIFETIME, Pages


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


CURSOR = (12.5, "name")


def test_a_token_gives_its_cursor_back() -> None:
    """What was put into a token comes out of it; no token is no cursor."""
    pages = Pages(b"key", Clock())
    token = pages.token("acme", "List", "1", CURSOR)
    assert pages.cursor("acme", "List", "1", token) == CURSOR
    assert pages.cursor("acme", "List", "1", "") is None


@pytest.mark.parametrize(
    "scope", [("blue", "List", "1"), ("acme", "Other", "1"), ("acme", "List", "2")]
)
def test_a_token_is_for_one_list_of_one_tenant(scope: tuple[str, str, str]) -> None:
    """A token does not open another tenant's list, nor another list."""
    pages = Pages(b"key", Clock())
    with pytest.raises(RequestInvalid):
        pages.cursor(*scope, pages.token("acme", "List", "1", CURSOR))


def test_a_token_expires() -> None:
    """A token is good for an hour."""
    clock = Clock()
    pages = Pages(b"key", clock)
    token = pages.token("acme", "List", "", CURSOR)
    clock.now += LIFETIME
    with pytest.raises(RequestInvalid):
        pages.cursor("acme", "List", "", token)


@pytest.mark.parametrize("token", ["x", "AAAA", "é", "=" * 9, "A" * 200])
def test_rubbish_is_refused(token: str) -> None:
    """What we did not make is refused with one text."""
    with pytest.raises(RequestInvalid) as error:
        Pages(b"key", Clock()).cursor("acme", "List", "", token)
    assert error.value.violations[0][0] == "page_token"
