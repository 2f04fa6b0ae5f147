"""The model's output in a turn: messages of blocks, streamed if that was asked for.

Knows the order of the lines: deltas, `assistant`, `content_block_stop`. Knows nothing of windows,
interrupts or tools.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .frames import START_TOKENS, Json

if TYPE_CHECKING:
    from .agent import Agent

TOKENS_IN = START_TOKENS["input_tokens"]
TOKENS_OUT = 12
TOKENS_CUT = 6

_CUT: Json = {
    "context_management": None,
    "delta": {"container": None, "stop_details": None, "stop_reason": None, "stop_sequence": None},
    "usage": {
        **START_TOKENS,
        "output_tokens_details": {"thinking_tokens": 0},
        "iterations": [],
        "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0},
        "fallback_credit": None,
    },
}


class Speech:
    """The messages of one turn, one open at most, with one open text block at most."""

    def __init__(self, agent: Agent, uuids: list[str]) -> None:
        self.message_ids: list[str] = []
        self.text = ""  # of the last block
        self._agent = agent
        self._uuids = uuids
        self._unnamed = uuids  # only the first line names the messages it answers
        self._id = ""
        self._block = -1
        self._open = False
        self._said: list[str] = []

    @property
    def partial(self) -> bool:
        return self._agent.options.partial

    @property
    def message_id(self) -> str:
        return self._id

    @property
    def block(self) -> int:
        return self._block

    def request(self) -> None:
        """Report that the model is asked."""
        if self.partial:
            line = self._agent.frames.system("status", status="requesting")
            self._agent.write(line | ({"user_message_uuids": self._uuids} if self._uuids else {}))

    def _begin(self) -> None:
        if not self._id:
            self._id = self._agent.frames.message_id()
            self.message_ids.append(self._id)
            self._start(self._agent.frames.message_start(self._id, self._unnamed))

    def open(self) -> None:
        """Open a message and a text block, unless they are open."""
        self._begin()
        if not self._open:
            self._open = True
            self._block += 1
            self._event("content_block_start", content_block={"type": "text", "text": ""})

    def say(self, value: str) -> None:
        """Add a delta to the open text block."""
        self.open()
        self._event("content_block_delta", delta={"type": "text_delta", "text": value})
        self._said.append(value)

    def said(self, values: list[str]) -> None:
        """Add texts whose deltas were written already."""
        self._said += values

    def use(self, tool_id: str, name: str, arguments: Json, encoded: str) -> None:
        """Write a block that uses a tool, and end the message."""
        self._close_block()
        self._begin()
        self._block += 1
        block = {"type": "tool_use", "id": tool_id, "name": name, "input": arguments}
        self._event("content_block_start", content_block=block | {"input": {}})
        delta = {"type": "input_json_delta", "partial_json": encoded}
        self._event("content_block_delta", delta=delta)
        self._assistant(block)
        self._event("content_block_stop")
        self.close("tool_use")

    def close(self, stop_reason: str) -> None:
        """End the open message, if there is one."""
        if not self._id:
            return
        self._close_block()
        delta = {"stop_reason": stop_reason, "stop_sequence": None}
        self._event("message_delta", delta=delta, usage={"output_tokens": TOKENS_OUT})
        self._event("message_stop")
        self._id, self._block = "", -1
        agent = self._agent
        agent.totals.add(agent.frames.model, TOKENS_IN, TOKENS_OUT, finished=True)

    def cut(self) -> None:
        """Write the part of a message that precedes an interrupt."""
        if self._said:
            self._assistant({"type": "text", "text": "".join(self._said)}, aborted=True)

    def abandon(self) -> None:
        """Close the broken message."""
        if not self._id:
            return
        kept = self._block + (1 if self._said else 0)
        if self._open:
            self._event("content_block_stop")
        self._event("message_delta", **_CUT)
        abandoned = {"api_message_id": self._id, "from_block_index": kept}
        stop = self._agent.frames.event(self._id, {"type": "message_stop"})
        self._start(stop | {"abandoned_blocks": abandoned})
        agent = self._agent
        agent.totals.add(agent.frames.model, TOKENS_IN, TOKENS_CUT, finished=False)

    def _close_block(self) -> None:
        if not self._open:
            return
        self.text = "".join(self._said)
        self._assistant({"type": "text", "text": self.text})
        self._event("content_block_stop")
        self._said, self._open = [], False

    def _assistant(self, block: Json, **extra: object) -> None:
        line = self._agent.frames.assistant(self._id, block, self._unnamed, **extra)
        self._unnamed = []
        self._agent.write(line)
        self._agent.save("assistant", line["uuid"], line["message"])

    def _event(self, kind: str, **fields: object) -> None:
        if self.partial:
            event: Json = {"type": kind}
            event |= {"index": self._block} if kind.startswith("content_block") else {}
            self._agent.write(self._agent.frames.event(self._id, event | fields))

    def _start(self, line: Json) -> None:
        if self.partial:
            self._agent.write(line)
