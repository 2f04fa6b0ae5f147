"""Values of labels, bounded: whatever is not among them is `_OTHER`. Knows no metric."""

from samovard.telemetry.call import OTHER

MOST = 50  # values that are not known beforehand
LONGEST = 100  # letters of such a value


class Seen:
    """The values that came first, such as names of models, which only agents know."""

    def __init__(self) -> None:
        self._values: set[str] = set()

    def __call__(self, value: str) -> str:
        """Return the value, or `_OTHER` if there are too many others or it is too long."""
        if value not in self._values:
            if len(self._values) == MOST or len(value) > LONGEST:
                return OTHER
            self._values.add(value)
        return value
