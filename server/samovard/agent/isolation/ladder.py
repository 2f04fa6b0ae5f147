"""The ladder: take the strongest walls whose probe passes, or refuse to start.

Knows the settings of isolation. Knows nothing of sessions.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import structlog

from samovard.agent.home import Homes
from samovard.agent.isolation import view
from samovard.agent.isolation.matrix import ROWS, Finding, at_least
from samovard.agent.isolation.probe import Target, probe
from samovard.agent.isolation.walls import LEVELS, Level, Mechanism, Walls
from samovard.core.errors import Misconfigured
from samovard.settings import Settings

PLACES = "/usr/bin:/bin:/usr/local/bin"  # where bubblewrap is looked for

_log = structlog.get_logger("samovard.isolation")


@dataclass(frozen=True, slots=True)
class Isolation:
    """The rung in use, the walls of each profile's agents, and why no stronger one is used.

    `network` is `held` if agents reach no more than their profiles say, `best` if some may, and
    `open` if no profile says less than everything.
    """

    mechanism: Mechanism
    walls: dict[str, Walls]
    network: str = "open"
    refused: tuple[Finding, ...] = ()

    @property
    def level(self) -> Level:
        """What the walls keep apart."""
        return LEVELS[self.mechanism]

    def __str__(self) -> str:
        """Return it for a person, with the reasons against stronger rungs."""
        if self.mechanism is Mechanism.NONE:
            said = "none beyond a directory per session"
        else:
            said = f"{self.level.value} ({self.mechanism.value})"
        if self.network == "best":
            said += ", the network not held"
        return said + "".join(f", not {f.mechanism.value}: {f.why}" for f in self.refused)


async def chosen(settings: Settings, homes: Homes, cli: Path) -> Isolation:
    """Return the isolation of agents, proven by a probe unless it is none.

    Must be called on the main thread. Raise `Misconfigured` (isolation-refused) if no rung reaches
    the level that is required, and (options-refused) if a profile's agents could not see what they
    need.
    """
    refused: list[Finding] = []
    for mechanism in accepted(settings):
        walls = walls_of(mechanism, view.launchers(), offline=bool(settings.offline))
        if settings.required_network == "held" and walls.offline and not walls.alone:
            refused.append(Finding(walls, fault=_not_held(settings)))
            continue
        if mechanism is Mechanism.NONE:
            return _told(Isolation(mechanism, {}, _network(settings, walls), tuple(refused)))
        finding = await probe(walls, homes, target(settings))
        if not finding.why:
            _log.info(
                "isolation.probed", **{row.replace(" ", "_"): finding.word(row) for row in ROWS}
            )
            seen = view.of_profiles(settings, cli)
            of_profiles = {
                name: walls_of(mechanism, paths, offline=name in settings.offline)
                for name, paths in seen.items()
            }
            held = _network(settings, walls)
            return _told(Isolation(mechanism, of_profiles, held, tuple(refused)))
        refused.append(finding)
    raise _refusal(settings, refused)


def _told(isolation: Isolation) -> Isolation:
    _log.info(
        "isolation.chosen",
        mechanism=isolation.mechanism.value,
        isolation=isolation.level.value,
        network=isolation.network,
        refused={finding.mechanism.value: finding.why for finding in isolation.refused},
    )
    return isolation


async def tried(homes: Homes, against: Target) -> list[Finding]:
    """Return what the probe of every rung finds, also of those below one that passes."""
    rungs = (walls_of(mechanism, view.launchers(), offline=True) for mechanism in Mechanism)
    return [await probe(walls, homes, against, metadata=True) for walls in rungs]


def target(settings: Settings) -> Target:
    """Return what a probe attacks of the service."""
    return Target(settings.directory, tuple(view.secrets(settings)))


def walls_of(mechanism: Mechanism, seen: tuple[Path, ...], *, offline: bool = False) -> Walls:
    """Return walls of a rung."""
    found = shutil.which("bwrap", path=PLACES)
    return Walls(mechanism, seen, None if found is None else Path(found), offline)


def _network(settings: Settings, walls: Walls) -> str:
    """Return how far walls hold what the profiles say of the network."""
    if not settings.offline:
        return "open"
    return "held" if walls.alone else "best"


def _not_held(settings: Settings) -> str:
    """Return why a rung is refused that cannot keep agents from the network."""
    first = settings.offline[0]
    network = settings.profiles[first].reaches(settings.credentials.delivery)
    return f'does not hold the network of profiles.{first} (network = "{network}")'


def accepted(settings: Settings) -> list[Mechanism]:
    """Return the rungs that the settings accept, the strongest first."""
    if settings.isolation.mechanism != "auto":
        return [Mechanism(settings.isolation.mechanism)]
    least = Level(settings.required_isolation)
    return [mechanism for mechanism in Mechanism if at_least(LEVELS[mechanism], least)]


def _refusal(settings: Settings, refused: list[Finding]) -> Misconfigured:
    reasons = "; ".join(f"{finding.mechanism.value}: {finding.why}" for finding in refused)
    least = settings.required_isolation
    wanted = least if settings.isolation.mechanism == "auto" else settings.isolation.mechanism
    wanted += f", network {settings.required_network}" if settings.offline else ""
    return Misconfigured(
        f"agents cannot be isolated here as isolation asks ({wanted}; {reasons}): "
        'isolation.network_require = "best" accepts walls that do not hold the network; '
        'isolation.require = "none" and isolation.mechanism = "none" as well run agents without '
        "walls, as earlier versions did",
        cause="isolation-refused",
    )
