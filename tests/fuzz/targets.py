"""Every target, by its name."""

from fuzz import broker, callers, framing, proxy, requests

TARGETS = {found.TARGET.name: found.TARGET for found in (requests, callers, framing, broker, proxy)}
