"""Rate limits of the model's API: when it accepts requests again.

Limits are kept by tenant and model, since each tenant has a credential and models may have limits
of their own. This module does not depend on turns or on how a limit is detected.
"""

from collections.abc import Callable

from samovard.core.errors import QuotaExceeded


class RateLimits:
    """The rate limits in effect. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[tuple[str, str], float] = {}

    def __repr__(self) -> str:
        return f"<RateLimits limits={len(self._until)}>"

    def limited(self, tenant: str, model: str, seconds: float) -> None:
        """Record that the API refuses requests for so many seconds."""
        now = self._clock()
        # Dropping expired limits here keeps the dict from growing.
        self._until = {which: until for which, until in self._until.items() if until > now}
        self._until[tenant, model] = now + seconds

    def refusal(self, tenant: str, model: str) -> QuotaExceeded | None:
        """Return the error for a turn while the rate limit is in effect, or None."""
        left = self._until.get((tenant, model), 0.0) - self._clock()
        if left <= 0:
            return None
        message = "the model's API limits the rate of requests and has said until when"
        return QuotaExceeded(f"model:{model}", message, cause="upstream-limit", retry_after=left)
