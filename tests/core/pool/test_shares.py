"""Who is served next: in proportion to the weights, whatever turns take and whoever comes late."""

from collections.abc import Callable, Mapping

from hypothesis import given
from hypothesis import strategies as st
from support.core_runner import collect, story
from support.world import World, passes

from samovard.core.pool.queue import TenantLimits
from samovard.core.pool.shares import OF_ITS_OWN, Shares


class Slot:
    """One slot, whose turns take as long as they are told to."""

    def __init__(self, weight: Callable[[str], float] = lambda tenant: 1.0) -> None:
        self.shares = Shares(weight)
        self.now = 0.0
        self.time: dict[str, float] = {}

    def turn(self, lines: Mapping[str, list[float]]) -> str:
        """Run the next turn of lines of lengths, and return its tenant."""
        waiting = {tenant: [tenant] * len(line) for tenant, line in lines.items() if line}
        tenant = self.shares.order(waiting)[0]
        charge = self.shares.served(tenant, waiting, self.now)
        length = lines[tenant].pop(0)
        self.now += length
        charge.settle(self.now, began=True)
        self.time[tenant] = self.time.get(tenant, 0.0) + length
        return tenant

    def arrive(self, *tenants: str) -> None:
        """Take in tenants that had nothing to do."""
        for tenant in tenants:
            self.shares.arrived(tenant)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.5, 1.0, 3.0]),
            st.lists(st.floats(0.01, 50.0), min_size=5, max_size=40),
        ),
        min_size=2,
        max_size=5,
    )
)
def test_time_is_shared_by_weight(tenants: list[tuple[float, list[float]]]) -> None:
    """While all wait, nobody is ahead of another by more than a turn of each."""
    weights = {str(number): weight for number, (weight, _) in enumerate(tenants)}
    lines = {str(number): list(turns) for number, (_, turns) in enumerate(tenants)}
    most = {tenant: max(line) / weights[tenant] for tenant, line in lines.items()}
    slot = Slot(weights.__getitem__)
    slot.arrive(*lines)
    while all(lines.values()):
        slot.turn(lines)
        had = {tenant: slot.time.get(tenant, 0.0) / weights[tenant] for tenant in lines}
        for one in lines:
            for other in lines:
                assert had[one] - had[other] <= most[one] + most[other] + 1e-6


def test_a_tenant_whose_turns_are_long_gets_fewer() -> None:
    """It has as much time as the others, not as many turns."""
    slot = Slot()
    lines = {"long": [9.0] * 100, "short": [1.0] * 100}
    slot.arrive(*lines)
    served = [slot.turn(lines) for _ in range(100)]
    assert served.count("long") == 10
    assert abs(slot.time["long"] - slot.time["short"]) <= 10


def test_what_a_tenant_did_not_use_is_forgone() -> None:
    """One that comes back is next, once, and has no credit for the time before."""
    slot = Slot()
    lines = {"busy": [1.0] * 60, "late": [1.0] * 21}
    slot.arrive("busy", "late")
    slot.turn({"late": lines["late"]})
    for _ in range(30):
        slot.turn({"busy": lines["busy"]})
    slot.arrive("late")
    served = [slot.turn(lines) for _ in range(20)]
    assert "late" in served[:2]
    assert served.count("late") == 10


def test_a_debt_is_kept() -> None:
    """Leaving the line and coming back is no way to be first."""
    slot = Slot()
    lines = {"sly": [50.0] + [1.0] * 60, "other": [1.0] * 60}
    slot.arrive("sly", "other")
    while slot.turn(lines) != "sly":
        pass
    slot.arrive("sly")
    assert "sly" not in [slot.turn(lines) for _ in range(40)]


def test_a_tenant_in_debt_that_is_served_does_not_move_the_others() -> None:
    """Its session's process was idle; one that comes then is not behind those that wait."""
    slot = Slot()
    slot.arrive("debtor")
    slot.shares.served("debtor", ["debtor"], 0.0).settle(100.0, began=True)
    slot.arrive("waits", "debtor")
    slot.shares.served("debtor", ["waits", "debtor"], 100.0)
    slot.arrive("late")
    assert slot.shares.order({"waits": ["w"] * 4, "late": ["l"]}).index("l") < 2


def test_the_order_is_that_of_the_turns_to_come() -> None:
    """Each that stands before another in the order is charged by then, by its tenant's weight."""
    shares = Shares({"heavy": 3.0, "light": 1.0}.__getitem__)
    for tenant in ("light", "heavy"):
        shares.arrived(tenant)
    lines = {"light": ["l1", "l2"], "heavy": ["h1", "h2", "h3", "h4"]}
    assert shares.order(lines) == ["l1", "h1", "h2", "h3", "l2", "h4"]


def test_a_turn_is_charged_in_advance() -> None:
    """What its tenant's turns take, known from the fifth on; until then what all turns take."""
    shares = Shares(lambda tenant: 1.0)
    shares.arrived("long")
    shares.arrived("short")
    for number in range(1, OF_ITS_OWN + 1):
        shares.served("long", ["long"], 0.0).settle(10.0, began=True)
        shares.served("short", ["short"], 0.0).settle(2.0, began=True)
        charged = [shares.served(each, [each], 0.0).seconds for each in ("long", "short")]
        assert charged == ([10.0, 2.0] if number == OF_ITS_OWN else [shares.turn] * 2)


def test_a_turn_that_never_began_says_nothing_of_turns() -> None:
    """Its charge is given back, and the average is what it was."""
    shares = Shares(lambda tenant: 1.0)
    shares.arrived("a")
    before = shares.turn
    shares.served("a", ["a"], 5.0).settle(5.0, began=False)
    assert shares.turn == before
    shares.arrived("b")
    assert shares.order({"a": ["a"], "b": ["b"]}) == ["a", "b"]


def test_a_forgotten_tenant_begins_anew() -> None:
    """Also while it waits, or has a turn in its slot."""
    shares = Shares(lambda tenant: 1.0)
    shares.arrived("a")
    charge = shares.served("a", ["a"], 0.0)
    shares.forget("a")
    charge.settle(3.0, began=True)
    shares.forget("a")
    assert shares.order({"a": ["x", "y"]}) == ["x", "y"]


def weighted(tenant: str) -> TenantLimits:
    return TenantLimits(weight=3.0 if tenant == "heavy" else 1.0)


@story(slots=1, queue=64, tenant=weighted)
async def test_a_tenant_of_three_times_the_weight_gets_three_turns_for_one(w: World) -> None:
    """While turns of both wait, each in a session of its own."""
    streams = [
        await w.send(session=f"s{number}", tenant=tenant)
        for number in range(6)
        for tenant in ("light", "heavy")
    ]
    for count in range(1, len(streams) + 1):
        actor = await w.running(actors=count)
        await passes(1.0)
        actor.answer()
    for stream in streams:
        await collect(stream)
    served = [actor.launch.tenant for actor in w.stage.created]
    assert served[:8].count("heavy") == 6


@story(slots=1, queue=64)
async def test_a_tenant_with_long_turns_waits_for_those_with_short_ones(w: World) -> None:
    """The time in a slot is counted, from the grant until the process is quiet."""
    streams = [
        await w.send(session=f"s{number}", tenant=tenant)
        for number in range(6)
        for tenant in ("long", "short")
    ]
    for count in range(1, len(streams) + 1):
        actor = await w.running(actors=count)
        await passes(4.0 if actor.launch.tenant == "long" else 1.0)
        actor.answer()
    for stream in streams:
        await collect(stream)
    served = [actor.launch.tenant for actor in w.stage.created]
    assert served[:6].count("short") >= 4
