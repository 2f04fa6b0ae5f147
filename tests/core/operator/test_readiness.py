"""Whether a turn could be served, told by what was told before and by the time."""

import pytest

from samovard.core.errors import Misconfigured, NoProcess, SamovarError
from samovard.core.operator.readiness import Readiness
from samovard.core.records import SessionKey

FAILED = NoProcess("it ended", cause="start-failed", retry_after=1.0)
MISSING = Misconfigured("it is gone", cause="binary-missing")
OWN = Misconfigured("a directory is a link", cause="directory-refused")
SESSIONS = [SessionKey("acme", str(number)) for number in range(8)]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ready(clock: Clock) -> Readiness:
    readiness = Readiness(clock, 20)
    readiness.answered(tried=True)
    assert readiness.obstacles() == ()
    return readiness


def refused(readiness: Readiness) -> tuple[str, str]:
    refusal = readiness.refusal()
    assert isinstance(refusal, SamovarError)
    return refusal.reason, refusal.cause


def test_nothing_is_ready_before_a_start_has_answered(clock: Clock) -> None:
    """A service that has started no agent yet does not say that it can; turns may try."""
    readiness = Readiness(clock, 20)
    assert readiness.obstacles() == ("starting",)
    assert readiness.start_due
    assert readiness.refusal() is None
    readiness.answered(tried=True)
    assert (readiness.obstacles(), readiness.start_due) == ((), False)


def test_a_start_that_was_tried_and_failed_is_an_obstacle(ready: Readiness) -> None:
    """From then on nobody waits for a start, until one answers."""
    ready.failed(FAILED)
    assert ready.obstacles() == ("start-failed",)
    assert ready.start_due
    assert refused(ready) == ("NO_PROCESS", "start-failed")
    ready.answered(tried=True)
    assert (ready.obstacles(), ready.refusal()) == ((), None)


def test_what_only_the_operator_can_mend_is_said_to_be(ready: Readiness) -> None:
    """Where repeating does not help callers are not told to repeat."""
    ready.failed(MISSING)
    assert refused(ready) == ("MISCONFIGURED", "binary-missing")


def test_one_failed_start_of_a_turn_is_a_reason_to_try(ready: Readiness) -> None:
    """It may be the session's own fault: a start without a session tells."""
    ready.failed(FAILED, SESSIONS[0])
    assert (ready.obstacles(), ready.start_due) == ((), True)
    ready.answered(tried=True)
    assert not ready.start_due


def test_failures_of_too_few_sessions_open_nothing(ready: Readiness) -> None:
    """Two sessions that break their own processes, however often, stop nobody else's."""
    for session in SESSIONS[:2] * 20:
        ready.failed(FAILED, session)
    assert (ready.obstacles(), ready.refusal(), ready.start_due) == ((), None, True)
    ready.failed(FAILED, SESSIONS[2])
    assert ready.obstacles() == ("start-failed",)


def test_a_tenant_without_a_credential_is_a_reason_to_try_and_no_more(ready: Readiness) -> None:
    """Others may have theirs: whether anything can be started, a start without a tenant tells."""
    missing = Misconfigured("it cannot be read", cause="credential-missing")
    for session in SESSIONS:
        ready.failed(missing, session)
    assert (ready.obstacles(), ready.refusal(), ready.start_due) == ((), None, True)


def test_a_sessions_own_directory_is_no_reason_to_try(ready: Readiness) -> None:
    """Else an agent that breaks it could have agents started as often as it likes."""
    for _ in range(20):
        ready.failed(OWN, SESSIONS[0])
    assert (ready.obstacles(), ready.start_due) == ((), False)


def test_directories_of_several_sessions_are_a_reason_to_try_and_no_more(
    ready: Readiness,
) -> None:
    """What all of them lie in may be broken: a start without a session tells."""
    for session in SESSIONS:
        ready.failed(OWN, session)
    assert (ready.obstacles(), ready.refusal(), ready.start_due) == ((), None, True)
    ready.failed(OWN)
    assert refused(ready) == ("MISCONFIGURED", "directory-refused")


def test_eight_failed_starts_in_ten_seconds_open_the_breaker(
    ready: Readiness, clock: Clock
) -> None:
    """Before any start was tried; the ninth caller is told at once."""
    for session in SESSIONS[:7]:
        ready.failed(FAILED, session)
        clock.now += 1.4
    assert ready.obstacles() == ()
    ready.failed(FAILED, SESSIONS[7])
    assert ready.obstacles() == ("start-failed",)
    assert refused(ready) == ("NO_PROCESS", "start-failed")


def test_eight_failed_starts_over_a_longer_time_do_not(ready: Readiness, clock: Clock) -> None:
    """Starts that fail now and then are not a spawner that fails."""
    for session in SESSIONS * 4:
        ready.failed(FAILED, session)
        clock.now += 1.5
    assert ready.obstacles() == ()


def test_a_turns_start_that_answers_closes_the_breaker(ready: Readiness) -> None:
    """Any real start is proof."""
    for session in SESSIONS:
        ready.failed(FAILED, session)
    assert ready.obstacles() == ("start-failed",)
    ready.answered(tried=False)
    assert (ready.obstacles(), ready.refusal()) == ((), None)
    for session in SESSIONS[:7]:
        ready.failed(FAILED, session)
    assert ready.obstacles() == ()


def test_a_failed_check_is_an_obstacle_unless_a_start_answers(
    ready: Readiness, clock: Clock
) -> None:
    """A start that hangs is noticed long before it is given up."""
    ready.checked(["binary-changed"])
    assert (ready.obstacles(), ready.start_due) == ((), True)
    clock.now += 3.0
    assert ready.obstacles() == ("binary-changed",)
    ready.answered(tried=True)
    assert ready.obstacles() == ()


def test_a_turns_start_does_not_excuse_a_failed_check(ready: Readiness, clock: Clock) -> None:
    """It may have begun before what the check has found."""
    ready.checked(["binary-missing"])
    ready.answered(tried=False)
    clock.now += 3.0
    assert ready.obstacles() == ("binary-missing",)


def test_a_check_that_is_excused_is_tried_again_once_it_held(
    ready: Readiness, clock: Clock
) -> None:
    """A check may be wrong for ever without a start every few seconds; a new failure is new."""
    ready.checked(["state-not-writable"])
    ready.answered(tried=True)
    ready.checked(["state-not-writable"])
    clock.now += 60.0
    assert (ready.obstacles(), ready.start_due) == ((), False)
    ready.checked([])
    ready.checked(["state-not-writable"])
    assert ready.start_due


def test_descriptors_get_half_a_minute_to_come_free(ready: Readiness, clock: Clock) -> None:
    """Idle processes are given up for them meanwhile; nobody is refused in advance."""
    shortage = NoProcess("too few", cause="out-of-descriptors", retry_after=1.0)
    ready.checked(["out-of-descriptors"])
    for _ in range(8):
        ready.failed(shortage)
        ready.failed(shortage, SESSIONS[0])
    clock.now += 29.0
    assert (ready.obstacles(), ready.refusal()) == ((), None)
    clock.now += 1.0
    assert ready.obstacles() == ("out-of-descriptors",)
    ready.checked([])
    assert ready.obstacles() == ()


def test_on_a_full_disk_nothing_is_started_not_even_to_see(ready: Readiness) -> None:
    """A resume hangs there; when there is room again, that alone makes it ready."""
    ready.checked(["out-of-disk"])
    assert (ready.obstacles(), ready.start_due) == (("out-of-disk",), False)
    assert refused(ready) == ("NO_PROCESS", "out-of-disk")
    ready.answered(tried=True)  # one that was under way
    assert ready.obstacles() == ("out-of-disk",)
    ready.checked([])
    assert (ready.obstacles(), ready.refusal()) == ((), None)


def test_more_than_a_tenth_of_the_slots_in_quarantine_is_an_obstacle(ready: Readiness) -> None:
    """Two of twenty are not, three are."""
    ready.quarantined = 2
    assert ready.obstacles() == ()
    ready.quarantined = 3
    assert ready.obstacles() == ("quarantined",)


def test_a_store_that_does_not_answer_is_an_obstacle(ready: Readiness) -> None:
    """Without it no turn can be recorded, so none can run."""
    ready.store = False
    assert repr(ready) == "<Readiness store-down>"
    ready.store = True
    assert repr(ready) == "<Readiness ready>"


def test_a_server_that_leaves_is_not_ready_and_tries_nothing(ready: Readiness) -> None:
    """Nothing is started any more only to be stopped."""
    ready.failed(FAILED)
    ready.draining = True
    assert (ready.obstacles(), ready.start_due) == (("draining", "start-failed"), False)
