"""What a turn has cost, from what the CLI answers."""

import math

import msgspec

from samovard.agent.frames import Reply
from samovard.agent.meter import Meter


def reply(number: int, total: float) -> Reply:
    body = msgspec.json.encode({"session": {"total_cost_usd": total}})
    return Reply("success", str(number), msgspec.Raw(body))


class Asked:
    """A meter, and how often it asked."""

    def __init__(self) -> None:
        self.count = 0
        self.meter = Meter(self._ask)

    def _ask(self) -> str:
        self.count += 1
        return str(self.count)


def test_a_turn_costs_what_the_total_has_grown_by() -> None:
    """The session's total runs on; a turn counts from where it was before."""
    asked = Asked()
    asked.meter.begin(2.0)
    asked.meter.look()
    assert asked.meter.take(reply(1, 2.5)) == 0.5
    asked.meter.begin(2.75)
    asked.meter.look()
    assert asked.meter.take(reply(2, 3.0)) == 0.25


def test_one_question_at_a_time() -> None:
    """Whatever is spent while a question is open is asked for once, behind its answer."""
    asked = Asked()
    for _ in range(5):
        asked.meter.look()
    assert asked.count == 1
    assert asked.meter.take(reply(1, 1.0)) == 1.0
    assert asked.count == 2
    assert asked.meter.take(reply(2, 1.0)) == 1.0
    assert asked.count == 2


def test_other_answers_are_not_its_own() -> None:
    """Only the answer to its open question counts."""
    asked = Asked()
    assert asked.meter.take(reply(1, 9.0)) is None
    asked.meter.look()
    assert asked.meter.take(reply(7, 9.0)) is None


def test_what_is_not_told_is_over_every_bound() -> None:
    """An error, or an answer of another shape, is an infinite cost."""
    asked = Asked()
    for number, answer in enumerate(
        (Reply("error", "1", error="no"), Reply("success", "2", msgspec.Raw(b'{"session":1}'))), 1
    ):
        asked.meter.look()
        assert asked.count == number
        assert asked.meter.take(answer) == math.inf
