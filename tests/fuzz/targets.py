"""Every target, by its name."""

from fuzz import broker, callers, framing, requests

TARGETS = {found.TARGET.name: found.TARGET for found in (requests, callers, framing, broker)}
