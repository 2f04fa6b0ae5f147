"""Sessions, turns and whatever happens to them, in any order, against a plain model.

The core runs on a clock that jumps, with performers for agents; every word carries its
tenant, session, turn and number. SAMOVAR_LONG=1 runs it long.
"""

import asyncio
import os

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import turn_model as model
from support.answering_process import Performer
from support.core_driver import QUEUE, SLOTS, Driver
from support.pool_counts import check_sessions, counts_of
from support.send_scenarios import check_at_rest, prompts
from support.turn_model import Stream, Turn
from support.virtual_clock import Loop

from samovard.core.errors import PermissionNotFound, SamovarError
from samovard.core.events import Resolution
from samovard.core.pool.states import ProcessState
from samovard.core.process import Allow, Broken, Deny, PermissionDecision
from samovard.core.records import SessionKey
from samovard.core.turn.turn import Disconnect

LONG = bool(os.environ.get("SAMOVAR_LONG"))
KEYS = st.sampled_from([SessionKey(t, s) for t in ("acme", "blue") for s in ("a", "b")])
WHICH = st.integers(0, 11)
#: What passes behind a rule: nothing, a moment of a turn, or a whole one.
PAUSE = st.sampled_from([0.0, 0.0, 0.002, 0.011, 0.025, 0.1])
GOING = (ProcessState.STOPPING, ProcessState.EXITED, ProcessState.QUARANTINED)
DECISIONS: list[PermissionDecision] = [Allow(), Deny("no"), Deny("stop", interrupt=True)]


class Machine(Driver, RuleBasedStateMachine):
    """Draws what happens, and looks whether what must be true is."""

    @initialize()
    def open(self) -> None:
        self.loop = Loop()
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self.begin()

    # What callers do.

    @rule(key=KEYS, policy=st.sampled_from(Disconnect), asks=st.booleans(), pause=PAUSE)
    def send(self, key: SessionKey, policy: Disconnect, asks: bool, pause: float) -> None:
        name = f"turn-{len(self.turns)}"
        turn = Turn(key, name, asks, policy, self.lives[key], self.loop.time)
        record = self.shelf.sessions.get(key)
        # A session whose only turn is undone is none, and nor is what was said in it.
        exists = any(t.began and t.life == turn.life for t in self.of(key))
        turn.refused = exists and record is not None and record.blocked
        self.turns.append(turn)
        self.follow(Stream(turn, sends=True), pause)

    @precondition(lambda self: self.turns)
    @rule(which=WHICH, other=st.booleans(), pause=PAUSE)
    def send_again(self, which: int, other: bool, pause: float) -> None:
        """The same turn once more, or other content under its name."""
        turn = self.pick(which)
        if turn.life == self.lives[turn.key]:
            other = other and turn.began
            self.follow(Stream(turn, sends=True, other=other), pause)

    @precondition(lambda self: self.turns)
    @rule(which=WHICH, after=st.integers(0, 8), pause=PAUSE)
    def attach(self, which: int, after: int, pause: float) -> None:
        self.follow(Stream(self.pick(which), sends=False, after=after), pause)

    @rule(which=WHICH, pause=PAUSE)
    def leave(self, which: int, pause: float) -> None:
        running = [(s, task) for s, task in self.streams if not task.done()]
        if running:
            stream, task = running[which % len(running)]
            turn = stream.turn
            # A turn that is to run on is no worse for it once it has begun.
            if stream.sends and (turn.policy is Disconnect.INTERRUPT or not turn.began):
                turn.suffer(model.LEFT)
            task.cancel()
            self.passes(pause)

    @precondition(lambda self: self.turns)
    @rule(which=WHICH, pause=PAUSE)
    def interrupt(self, which: int, pause: float) -> None:
        turn = self.pick(which)
        turn.suffer(model.STOP)
        self.tried(self.w.sessions.interrupt(turn.key, turn.turn_id))
        self.passes(pause)

    @rule(which=WHICH, decision=st.sampled_from(DECISIONS), twice=st.booleans())
    def respond(self, which: int, decision: PermissionDecision, twice: bool) -> None:
        """Whoever answers first is obeyed; the same answer once more changes nothing."""
        asked = [(turn, name) for turn in self.turns for name in turn.open]
        if not asked:
            return
        turn, name = asked[which % len(asked)]
        if isinstance(decision, Deny) and decision.interrupt:
            turn.suffer(model.STOP)
        turn.answering.add(name)
        taken = self.answered(turn, name, decision)
        if taken:
            allowed = isinstance(decision, Allow)
            turn.answers[name] = Resolution.ALLOWED if allowed else Resolution.DENIED
        turn.answering.discard(name)
        if taken and twice:
            assert self.answered(turn, name, decision) or turn.ending or not self.busy(turn)
            self.answered(turn, name, Deny("too late"))
        self.passes(0)

    def answered(self, turn: Turn, name: str, decision: PermissionDecision) -> bool:
        async def respond() -> bool:
            try:
                await self.w.sessions.respond(turn.key, name, decision)
            except SamovarError as error:
                gone = isinstance(error, PermissionNotFound) or model.CLOSED in turn.done
                assert gone or model.DOWN in turn.done
                return False
            return True

        return bool(self.run(respond()))

    @rule(key=KEYS)
    def close(self, key: SessionKey) -> None:
        if any(s.repeats and s.turn.key == key for s, task in self.streams if not task.done()):
            return  # it may come after the close, and rightly run in the session made anew
        for turn in self.of(key):
            turn.done.add(model.CLOSED)
            turn.refused = False  # one that finds it gone is of the next
        self.tried(self.w.sessions.close(key))
        self.lives[key] += 1
        self.spoiled[key] = 0
        self.blocked.discard(key)

    @rule(key=KEYS)
    def replace(self, key: SessionKey) -> None:
        """Nothing that the tenant has can serve more than the turn that it serves."""
        mine = [process for process in self.w.pool if process.key.tenant == key.tenant]
        self.run(self.replaced(key.tenant))
        assert all(process.outdated or process.state in GOING for process in mine)

    async def replaced(self, tenant: str) -> None:
        self.w.pool.drain(tenant, "")

    # What the world does.

    @rule(which=WHICH, deaf=st.booleans())
    def spoil(self, which: int, deaf: bool) -> None:
        """A process dies, or stops taking its input."""
        living = self.company.living
        if living:
            performer = living[which % len(living)]
            owners = self.hurt(performer, model.KILLED)
            self.spoiled.update(owners)
            self.look_for_loops()
            self.run(performer.spoil(deaf=deaf))

    @rule(which=WHICH, how=st.sampled_from(Broken), pause=PAUSE)
    def break_the_protocol(self, which: int, how: Broken, pause: float) -> None:
        """A process says what it must not, or takes nothing; one that speaks for another session
        blocks its own."""
        living = self.company.living
        if living:
            performer = living[which % len(living)]
            owners = self.hurt(performer, model.BROKEN, how.value)
            if how is Broken.FOREIGN:
                self.blocked |= owners
                self.hurt(performer, model.BLOCKED)
            self.run(performer.breaks(how))
            self.passes(pause)

    @rule(slow=st.sampled_from([0.001, 0.02, 0.3]))
    def lose_the_store_for_a_while(self, slow: float) -> None:
        """And each of its calls takes so long from then on."""
        for turn in self.turns:
            turn.done.add(model.DOWN)  # one that has ended cannot be looked up
        self.shelf.down = self.shelf_was_down = True
        self.passes(0.2)
        self.shelf.down, self.shelf.slow = False, slow

    @rule(seconds=st.sampled_from([0.6, 70.0, 400.0, 2000.0]))
    def wait(self, seconds: float) -> None:
        self.passes(seconds)

    @rule(dies=st.booleans())
    def another_server(self, dies: bool) -> None:
        """The server goes away, or dies, and another one starts on what is in its store."""
        if dies:
            self.crash()
        else:
            self.finish(model.DRAINED)
        self.begin()
        for turn in self.turns[-4:]:  # each is what it was
            self.follow(Stream(turn, sends=False, after=max(turn.last - 1, 0)), 0.0)

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.passes(400)  # whatever is asked is denied by then
            self.run(check_at_rest(self.w))
            if not self.shelf_was_down:  # what it was not told it cannot have kept
                check_sessions(self.w, self.shelf)
            self.finish(model.DRAINED)
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.passes(60)
            self.loop.close()

    # What must be true at any time.

    @invariant()
    def nothing_is_where_it_must_not_be(self) -> None:
        if not hasattr(self, "w"):
            return
        assert not self.faults
        for _, task in self.streams:
            if task.done() and not task.cancelled():
                assert task.exception() is None, task.exception()
        living = self.company.living
        homes = [performer.launch.home for performer in living]
        assert len(homes) == len(set(homes)), "a session has two processes"
        assert len(self.w.pool) <= SLOTS
        # Whose process died before the prompt waits again, whoever else waits.
        assert self.w.pool.waiting <= QUEUE + SLOTS
        for process in self.w.pool:
            assert not (process.outdated and process.state is ProcessState.IDLE)
            if process.lease is not None:
                assert process.lease.turn.key == process.key
                assert process.state.value != "idle"
        model.check_reports(self.turns, self.shelf.turns)
        before, self.counted = self.counted, counts_of(self.w)
        assert all(self.counted[name] >= count for name, count in before.items())
        for actor in self.company.created:
            assert isinstance(actor, Performer)
            owners = {prompt.content[0].data.rsplit(b"/", 1)[0] for prompt in actor.prompts}
            assert len(owners) <= 1, "a process has words of two sessions"
        given = self.given + prompts(self.w)
        assert len(given) == len(set(given)), "a turn was run twice"


Machine.TestCase.settings = settings(
    max_examples=20_000 if LONG else 500,
    stateful_step_count=100 if LONG else 40,
    derandomize=not LONG,  # a change is held against the same stories as the one before it
    report_multiple_bugs=False,
)
TestSessions = Machine.TestCase
pytestmark = pytest.mark.timeout(24 * 3600 if LONG else 600)  # what it finds it makes small
