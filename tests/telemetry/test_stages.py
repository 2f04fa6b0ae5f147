"""Stages: what they are and that they add up, to the nanosecond."""

from hypothesis import given
from hypothesis import strategies as st

from samovard.telemetry.stages import MARKS, PARTS, Stages


class Clock:
    """A clock that goes on by odd fractions of a second."""

    def __init__(self, steps: list[float]) -> None:
        self._steps = iter(steps)
        self.now = 123_456.789

    def __call__(self) -> float:
        self.now += next(self._steps, 0.1)
        return self.now


@given(
    st.lists(st.floats(0, 1e4, allow_nan=False), min_size=20, max_size=20),
    st.permutations(MARKS[1:-1]),
    st.integers(0, 6),
)
def test_stages_add_up_exactly(steps: list[float], marks: list[str], count: int) -> None:
    """Whatever marks are reached, the stages' sum is the time from `receive` to `deliver`."""
    stages = Stages(Clock(steps), 1_700_000_000.123)
    for name in [name for name in MARKS if name in marks[:count]]:
        stages.mark(name)
    stages.mark("deliver")
    begin, end = stages.wall_time("receive"), stages.wall_time("deliver")
    assert begin is not None
    assert end is not None
    assert sum(stages.durations().values()) == end - begin
    assert all(time >= 0 for time in stages.durations().values())


def test_what_comes_after_the_call_is_no_stage_of_it() -> None:
    """A turn that goes on without its call finishes; the call's stages end with the call."""
    stages = Stages(Clock([]), 0.0)
    stages.mark("admit")
    stages.mark("deliver")
    stages.mark("finish")
    assert list(stages.durations()) == ["admit", "deliver"]
    finish, deliver = stages.wall_time("finish"), stages.wall_time("deliver")
    assert finish is not None
    assert deliver is not None
    assert finish > deliver


def test_a_mark_that_is_taken_back_leaves_its_time_to_the_next() -> None:
    """A turn whose process died before the prompt starts over; no time is lost."""
    stages = Stages(Clock([]), 0.0)
    for name in ("admit", "process_ready"):
        stages.mark(name)
    stages.forget("process_ready")
    stages.mark("process_ready")
    assert round(stages.durations()["process_ready"] / 1e9, 3) == 0.2


def test_every_part_lies_within_a_stage() -> None:
    """A part is measured inside a stage that exists."""
    assert {mark for marks in PARTS.values() for mark in marks} <= set(MARKS)
    assert not set(PARTS) & set(MARKS)
