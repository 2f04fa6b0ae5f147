"""The steps that speak or use tools. Knows the turn; faults of the process are `faults`'."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from . import children, faults
from .frames import Json
from .interrupts import Interrupted
from .output import encoded
from .verbs import MAX_FORKS, MAX_SWARM, delta_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from .interrupts import Steps
    from .turn import Turn

BATCH = 256


def run(turn: Turn, step: Json) -> Steps:
    """Run one step; those that only change the turn's frame do nothing here."""
    name = step["do"]
    if name == "die":
        if step["phase"] == "mid_text":
            turn.speech.say("Half ")
            faults.die(step)
        return
    arguments = {key: value for key, value in step.items() if key != "do"}
    speaks = STEPS.get(name)
    if speaks:
        waits = speaks(turn, **arguments)
    else:
        fault = faults.FAULTS.get(name)
        waits = fault(turn.agent, **arguments) if fault else None
    if waits:
        yield from waits


def _text(turn: Turn, value: str) -> None:
    turn.speech.say(value)


def _deltas(turn: Turn, n: int, size: int, prefix: str) -> Steps:
    for number in range(n):
        turn.speech.say(delta_text(number, size, prefix))
        if number % BATCH == BATCH - 1:
            yield 0


def _drip(turn: Turn, n: int, ms: float, size: int, prefix: str) -> Steps:
    for number in range(n):
        turn.speech.say(delta_text(number, size, prefix))
        yield ms / 1000


def _events(turn: Turn, n: int, size: int, prefix: str) -> Steps:
    speech, frames = turn.speech, turn.agent.frames
    speech.open()
    delta = {"type": "text_delta", "text": "<text>"}
    event = {"type": "content_block_delta", "index": speech.block, "delta": delta}
    line = frames.event(speech.message_id, event)
    head, rest = encoded(line).decode().split("<text>")
    middle, tail = rest.split(line["uuid"])
    for first in range(0, n, BATCH):
        texts = [delta_text(i, size, prefix) for i in range(first, min(n, first + BATCH))]
        if speech.partial:
            lines = [f"{head}{text}{middle}{frames.uuid()}{tail}\n" for text in texts]
            turn.agent.out.raw("".join(lines).encode())
        speech.said(texts)
        yield 0


def _history(turn: Turn) -> None:
    turn.speech.say(json.dumps(turn.agent.transcript.prompts()))


def _env(turn: Turn) -> None:
    # As it was passed: Python itself adds LC_CTYPE to an environment without LANG.
    with open("/proc/self/environ", "rb") as file:
        given = file.read().decode().split("\0")[:-1]
    turn.speech.say(json.dumps(dict(variable.split("=", 1) for variable in given)))


def _argv(turn: Turn) -> None:
    turn.speech.say(json.dumps(turn.agent.options.argv))


def _whoami(turn: Turn) -> None:
    turn.speech.say(str(os.getpid()))


def _credential(turn: Turn) -> None:
    turn.speech.say(turn.agent.options.credential)


def _trace(turn: Turn) -> None:
    env = os.environ | turn.agent.flag_env
    turn.speech.say(env.get("TRACEPARENT", ""))


def _system_prompt(turn: Turn) -> None:
    turn.speech.say(turn.agent.system_prompt)


def _grandchild(turn: Turn, tell: str, **flags: bool) -> None:
    pid = faults.grandchild(turn.agent, tell, **flags)
    turn.speech.say(json.dumps({"grandchild": pid}))


def _fork_bomb(turn: Turn, n: int) -> None:
    pids = [children.spawn(setsid=True) for _ in range(min(n, MAX_FORKS))]
    turn.speech.say(json.dumps(pids))


def _swarm(turn: Turn, n: int) -> None:
    children.swarm(min(n, MAX_SWARM))
    turn.speech.say("swarm")


def _use(turn: Turn, name: str, arguments: Json) -> None:
    tool_id = f"toolu_{turn.agent.frames.uuid()}"
    turn.tool = {"tool_name": name, "tool_use_id": tool_id, "tool_input": arguments}
    turn.speech.use(tool_id, name, arguments, json.dumps(arguments))


def _tool(turn: Turn, *, hang: bool) -> Steps:
    _use(turn, "Bash", {"command": "tail -f /dev/null", "description": "Wait"})
    turn.tool_pid = children.spawn(setsid=True)
    while hang:
        yield None
    children.kill(turn.tool_pid)
    meta = {"permission_decision": {"decision": "accept", "source": "config"}}
    turn.tool_result("done", {"stdout": "done", "stderr": "", "interrupted": False}, meta)
    turn.speech.request()


def _permission(turn: Turn, tool: str, arguments: Json) -> Steps:
    _use(turn, tool, arguments)
    if turn.agent.frames.mode == "dontAsk":
        _denied_by_mode(turn)
    else:
        yield from _ask(turn)
        _obey(turn)
    turn.speech.request()


def _denied_by_mode(turn: Turn) -> None:
    name, tool_id = turn.tool["tool_name"], turn.tool["tool_use_id"]
    message = f"Permission to use {name} has been denied because of the mode."
    fields = {"tool_name": name, "tool_use_id": tool_id, "decision_reason_type": "mode"}
    turn.agent.write(turn.agent.frames.system("permission_denied", **fields, message=message))
    decision = {"decision": "reject", "source": "config", "reason_type": "mode"}
    _deny(turn, message, decision)


def _ask(turn: Turn) -> Steps:
    agent, name = turn.agent, turn.tool["tool_name"]
    agent.state("requires_action")
    turn.asking, turn.answer = agent.frames.uuid(), None
    request = {
        "subtype": "can_use_tool",
        "tool_name": name,
        "display_name": name,
        "input": turn.tool["tool_input"],
        "description": name.lower(),
        "permission_suggestions": [],
        "tool_use_id": turn.tool["tool_use_id"],
    }
    agent.write({"type": "control_request", "request_id": turn.asking, "request": request})
    while turn.answer is None and not agent.reader.eof:
        yield None


def _obey(turn: Turn) -> None:
    response = (turn.answer or {}).get("response") or {}
    turn.asking = ""
    turn.agent.state("running")
    if response.get("behavior") == "allow":
        meta = {"permission_decision": {"decision": "accept", "source": "user_temporary"}}
        updated = json.dumps(response.get("updatedInput", turn.tool["tool_input"]))
        turn.tool_result(updated, {"type": "create"}, meta)
        turn.fallback = "Allowed."
        return
    if response.get("interrupt"):
        turn.denials.append(turn.tool)
        raise Interrupted(None)
    decision = {"decision": "reject", "source": "user_reject"}
    message = response.get("message") or "The permission request failed."
    _deny(turn, message, decision)


def _deny(turn: Turn, message: str, decision: Json) -> None:
    turn.denials.append(turn.tool)
    meta = {"non_execution_kind": "permission-rule", "permission_decision": decision}
    turn.tool_result(message, f"Error: {message}", meta)
    turn.fallback = "Denied."


STEPS: dict[str, Callable[..., Steps | None]] = {
    "text": _text,
    "deltas": _deltas,
    "drip": _drip,
    "events": _events,
    "history": _history,
    "env": _env,
    "argv": _argv,
    "whoami": _whoami,
    "credential": _credential,
    "trace": _trace,
    "system_prompt": _system_prompt,
    "grandchild": _grandchild,
    "fork_bomb": _fork_bomb,
    "swarm": _swarm,
    "tool": _tool,
    "permission": _permission,
}
