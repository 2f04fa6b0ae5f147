"""One turn's window, from `started` to its terminal state, and how an interrupt ends it.

Runs the steps of the script between, and changes the frame where steps prescribe that. Knows
nothing of stdin or of other turns.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from . import children, faults, steps
from .frames import Json, Outcome
from .interrupts import Interrupted, Steps
from .speech import Speech

if TYPE_CHECKING:
    from collections.abc import Callable

    from .agent import Agent
    from .messages import Message

_REJECTED = "The user doesn't want to proceed with this tool use."


class Turn:
    """The turn of one message, or of several that waited together."""

    def __init__(self, agent: Agent, messages: list[Message]) -> None:
        self.agent = agent
        self.uuids = [message.uuid for message in messages]
        self.speech = Speech(agent, self.uuids)
        self.asking = ""  # the request id of an open permission request
        self.answer: Json | None = None
        self.tool: Json = {}  # in use: name, id and input, as `permission_denials` has them
        self.tool_pid = 0
        self.denials: list[Json] = []
        self.fallback = "ok"
        self._messages = messages
        self._steps = [*agent.every_turn, *(step for m in messages for step in m.steps)]

    def window(self) -> Steps:
        """Run the turn. Yield seconds to wait, or None to wait until told."""
        try:
            yield from self._run()
        except Interrupted as stop:
            yield from self._break_off(stop)

    def find(self, verb: str) -> Json | None:
        """Return the first step of that name."""
        return next((step for step in self._steps if step["do"] == verb), None)

    def dies(self, phase: str) -> None:
        faults.die_in(phase, self._steps)

    def _run(self) -> Steps:
        self.dies("before_started")
        self._begin()
        self.dies("after_started")
        self.speech.request()
        yield 0  # messages sent directly after this one are read here
        if any(message.aborts for message in self._messages):
            raise Interrupted(None)
        for step in self._steps:
            yield from steps.run(self, step)
        failure = self.find("api_error")
        if failure:
            yield from self._fail(failure["status"])
            return
        if not self.speech.message_id:
            self.speech.say(self.fallback)
        self.speech.close("end_turn")
        yield from self._end(self._outcome(text=self.speech.text), "completed")

    def _begin(self) -> None:
        agent = self.agent
        for message in self._messages:
            agent.lifecycle(message.uuid, "started")
            agent.save("user", message.uuid, {"role": "user", "content": message.content})
        agent.write(agent.frames.init(self.uuids, agent.capabilities))

    def _outcome(self, **fields: object) -> Outcome:
        known: Json = {
            "num_turns": max(1, len(self.speech.message_ids)),
            "message_ids": self.speech.message_ids if self.speech.partial else None,
            "denials": self.denials,
        }
        return Outcome(self.uuids, **(known | fields))

    def result(self, outcome: Outcome) -> Json:
        agent = self.agent
        return agent.frames.result(outcome, agent.totals, len(agent.queue))

    def _fail(self, status: int) -> Steps:
        agent = self.agent
        self.speech.abandon()
        text = f"API Error: {status} scripted"
        agent.write(agent.frames.api_error(text, status, self.uuids))
        outcome = self._outcome(
            text=text, terminal_reason="api_error", stop_reason="stop_sequence", status=status
        )
        yield from self._end(outcome, "cancelled")

    def _end(self, outcome: Outcome, state: str) -> Steps:
        late = self.find("late_result")
        twice = self.find("double_result")
        behind = bool(late and late["after_end"])
        if late and not behind:
            yield from self._tarry(late["ms"])
        result = self.result(outcome)
        if not behind:
            self.agent.write(result)
        self.dies("after_result")
        if twice and not twice["after_end"]:
            self.agent.write(self.result(outcome))
        lag = self.find("late_end")
        if lag:
            yield from self._tarry(lag["ms"])
        self._close(state)
        if late and behind:
            self.agent.later(late["ms"] / 1000, result)
        if twice and twice["after_end"]:
            self.agent.write(self.result(outcome))
        self.dies("idle")

    def _close(self, state: str) -> None:
        if self.find("no_end"):
            return
        for uuid in self.uuids:
            self.agent.lifecycle(uuid, state)
        self.agent.idle()
        if {"do": "unsolicited_turn", "when": "after"} in self._steps:
            self.agent.state("running")
            unsolicited(self.agent, lambda: None)
            self.agent.idle()

    def _tarry(self, ms: float) -> Steps:
        """Wait although the turn is over; an interrupt finds nothing to end."""
        until = time.monotonic() + ms / 1000
        while time.monotonic() < until:
            try:
                yield until - time.monotonic()
            except Interrupted as stop:
                stop.ack()

    # Interrupts

    def _break_off(self, stop: Interrupted) -> Steps:
        if self.find("ack_only") and not stop.exits:
            yield from self._obey_never(stop)
        if self.asking:
            self.agent.write({"type": "control_cancel_request", "request_id": self.asking})
        if not (self.find("result_only") or self.find("never_ack")):
            stop.ack()
        outcome = self._break_tool() if self.tool else self._break_speech()
        if stop.exits or self.find("result_only"):
            self.agent.write(self.result(outcome))
        else:
            yield from self._end(outcome, "cancelled")

    def _obey_never(self, stop: Interrupted) -> Steps:
        self.agent.mortal()
        while True:
            stop.ack()
            try:
                while True:
                    yield None
            except Interrupted as again:
                stop = again

    def _break_tool(self) -> Outcome:
        if self.asking:
            self.agent.state("running")
            self.denials.append(self.tool)
        if self.tool_pid:
            children.kill(self.tool_pid)
        meta = {"non_execution_kind": "user-rejected"}
        self.tool_result(_REJECTED, "User rejected tool use", meta)
        note = "[Request interrupted by user for tool use]"
        self.agent.write(self.agent.frames.user({"type": "text", "text": note}))
        steps_done = len(self.speech.message_ids) + 2
        return self._outcome(
            terminal_reason="aborted_tools", stop_reason="tool_use", num_turns=steps_done
        )

    def _break_speech(self) -> Outcome:
        self.speech.cut()
        note = "[Request interrupted by user]"
        self.agent.write(self.agent.frames.user({"type": "text", "text": note}))
        self.speech.abandon()
        steps_done = len(self.speech.message_ids) + 1
        return self._outcome(
            terminal_reason="aborted_streaming", stop_reason=None, num_turns=steps_done
        )

    def tool_result(self, content: str, result: object, meta: Json) -> None:
        """Write the result of the tool in use."""
        tool_id = self.tool["tool_use_id"]
        block: Json = {"tool_use_id": tool_id, "type": "tool_result", "content": content}
        block |= {"is_error": True} if "non_execution_kind" in meta else {}
        metas = [{"id": tool_id, **meta}]
        line = self.agent.frames.user(block, tool_use_result=result, tool_result_meta=metas)
        self.agent.write(line)
        self.tool, self.tool_pid, self.asking = {}, 0, ""


def unsolicited(agent: Agent, after_init: Callable[[], None]) -> None:
    """Run a turn that was not asked for, without a wait."""
    agent.write(agent.frames.init([], agent.capabilities))
    after_init()
    speech = Speech(agent, [])
    speech.request()
    speech.say("Nobody asked.")
    speech.close("end_turn")
    ids = speech.message_ids if speech.partial else None
    outcome = Outcome([], text=speech.text, message_ids=ids)
    agent.write(agent.frames.result(outcome, agent.totals, len(agent.queue)))
