"""What the model's API has said of when it takes requests again.

Known by tenant and model, since a tenant has a credential and a limit may be a model's own. Knows
nothing of turns, or of how it was heard.
"""

from collections.abc import Callable

from samovard.core.errors import QuotaExceeded


class RateLimits:
    """The limits that were met. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[tuple[str, str], float] = {}

    def __repr__(self) -> str:
        return f"<RateLimits limits={len(self._until)}>"

    def limited(self, tenant: str, model: str, seconds: float) -> None:
        """Takes note that nothing is answered for so long."""
        now = self._clock()
        self._until = {which: until for which, until in self._until.items() if until > now}
        self._until[tenant, model] = now + seconds

    def refusal(self, tenant: str, model: str) -> QuotaExceeded | None:
        """Says what a turn is told that would only meet the limit."""
        left = self._until.get((tenant, model), 0.0) - self._clock()
        if left <= 0:
            return None
        message = "the model's API limits the rate of requests and has said until when"
        return QuotaExceeded(f"model:{model}", message, cause="upstream-limit", retry_after=left)
