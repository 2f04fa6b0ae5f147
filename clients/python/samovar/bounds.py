"""Numbers from the caller, converted to what the wire can hold.

A number without a meaning is refused; one that only means "more than enough" is bounded.
"""

from samovar.errors import RequestInvalid

LONGEST = 366 * 86400.0  # seconds: gRPC fails at once with more than it can count


def seconds(name: str, value: float) -> float:
    """Return a time in seconds, at most a year. Raise `RequestInvalid` unless it is above 0."""
    if not value > 0:  # this also refuses NaN
        raise _invalid(name, f"must be above 0 s, not {value}")
    return min(float(value), LONGEST)


def deadline(value: float | None, usual: float | None = None) -> float | None:
    """Return the deadline of a call in seconds, or the usual one; None for none."""
    return usual if value is None else seconds("deadline", value)


def count(name: str, value: int, bits: int = 32) -> int:
    """Return a number as a signed integer of so many bits. Raise `RequestInvalid` below 0."""
    if value < 0:
        raise _invalid(name, f"must not be negative, as {value} is")
    return min(value, (1 << bits - 1) - 1)


def _invalid(name: str, what: str) -> RequestInvalid:
    return RequestInvalid(f"{name} {what}", violations=((name, what),))
