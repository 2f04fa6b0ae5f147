"""What an attack is, and all of them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import import_module

from security.arena import Arena

Story = Callable[[Arena], Awaitable[None]]
#: In the order in which they are shown.
SURFACES = (
    "identity",
    "tokens",
    "certificates",
    "tenancy",
    "names",
    "transport",
    "floods",
    "exhaustion",
    "content",
    "agents",
    "walls",
    "telling",
)


@dataclass(frozen=True)
class Attack:
    """One way in. `control` is the code that stops it, `without` its name among the controls that
    can be taken out; `on` are the kinds of service that it is tried on.
    """

    story: Story
    control: str
    on: tuple[str, ...]
    without: str
    long: bool

    @property
    def name(self) -> str:
        """The attack in words."""
        return self.story.__name__.replace("_", " ")

    @property
    def surface(self) -> str:
        """What it is tried on."""
        return self.story.__module__.rpartition(".")[2]

    @property
    def expected(self) -> str:
        """What must become of it."""
        return (self.story.__doc__ or "").partition("\n")[0]


def attack(
    control: str, *on: str, without: str = "", long: bool = False
) -> Callable[[Story], Attack]:
    """Make an attack of a story, which raises `AssertionError` unless it is blocked.

    `long`: it is no part of the short form.
    """
    return lambda story: Attack(story, control, on or ("plain",), without, long)


def attacks() -> list[Attack]:
    """Return every attack."""
    modules = [import_module(f"security.{surface}") for surface in SURFACES]
    return [value for m in modules for value in vars(m).values() if isinstance(value, Attack)]
