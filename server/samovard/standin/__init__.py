"""A stand-in for the Messages API, for demonstrations and tests. It contains no model."""

from samovard.standin.server import SeenRequest, StandIn
from samovard.standin.steps import (
    big,
    delay,
    die,
    drip,
    script,
    stall,
    status,
    text,
    think,
    tool,
    usage,
)

__all__ = [
    "SeenRequest",
    "StandIn",
    "big",
    "delay",
    "die",
    "drip",
    "script",
    "stall",
    "status",
    "text",
    "think",
    "tool",
    "usage",
]
