"""The words of a script: each function returns one step. Knows nothing of the child.

A script is a list of steps, run in order. Steps that speak build up one answer; steps that change
the frame of the turn (marked "frame") count wherever they stand in the script.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

Verb = dict[str, Any]

MARK = "fake:"
MAX_FORKS = 20
MAX_SWARM = 2000

_NOTE = {"file_path": "note.txt"}


def fake(*verbs: Verb) -> str:
    """Return a prompt, of one line, that scripts its turn. More lines may follow it."""
    return MARK + json.dumps(verbs)


def delta_text(number: int, size: int, prefix: str = "") -> str:
    """Return the text of the delta `number`, from 0, of `deltas`, `drip` and `events`."""
    return prefix + str(number).zfill(max(size - len(prefix), 0))


# Speaking


def text(value: str) -> Verb:
    """Say `value`, as one delta."""
    return {"do": "text", "value": value}


def deltas(n: int, size: int = 8, prefix: str = "") -> Verb:
    """Say n deltas of `size` characters, `delta_text(i, size, prefix)`."""
    return {"do": "deltas", "n": n, "size": size, "prefix": prefix}


def drip(n: int, ms: float, size: int = 8, prefix: str = "") -> Verb:
    """Say n deltas, `ms` milliseconds apart."""
    return {"do": "drip", "n": n, "ms": ms, "size": size, "prefix": prefix}


def events(n: int, size: int = 8, prefix: str = "") -> Verb:
    """Say n deltas as fast as the pipe takes them, many in one write."""
    return {"do": "events", "n": n, "size": size, "prefix": prefix}


def history() -> Verb:
    """Say the JSON list of all user prompts in the transcript, including this one."""
    return {"do": "history"}


def env() -> Verb:
    """Say the environment, a JSON object."""
    return {"do": "env"}


def argv() -> Verb:
    """Say the command line, a JSON list."""
    return {"do": "argv"}


def whoami() -> Verb:
    """Say the pid."""
    return {"do": "whoami"}


def credential() -> Verb:
    """Say the API key or token that was given by variable or descriptor, or nothing."""
    return {"do": "credential"}


def trace() -> Verb:
    """Say the `TRACEPARENT` in force: set by `apply_flag_settings`, else by environment."""
    return {"do": "trace"}


def system_prompt() -> Verb:
    """Say the `appendSystemPrompt` of `initialize`."""
    return {"do": "system_prompt"}


# Tools, retries and failures


def permission(tool: str = "Write", arguments: Mapping[str, object] | None = None) -> Verb:
    """Use a tool after asking for permission; say `Allowed.` or `Denied.` if nothing else.

    The tool does nothing; its result is the JSON of the input it was allowed.
    """
    return {"do": "permission", "tool": tool, "arguments": {**(arguments or _NOTE)}}


def tool(*, hang: bool = False) -> Verb:
    """Use Bash, allowed: a real child in a session of its own; `hang`: until interrupted."""
    return {"do": "tool", "hang": hang}


def api_retry(n: int = 1, ms: float = 0, status: int = 529) -> Verb:
    """Report n failed calls of the model, with a wait of `ms` after each."""
    return {"do": "api_retry", "n": n, "ms": ms, "status": status}


def api_error(status: int = 529) -> Verb:
    """Fail the turn for good: the outcome of an upstream status (frame)."""
    return {"do": "api_error", "status": status}


def writes_lost(at: str = "now") -> Verb:
    """Stop saving the transcript and report it, "now" or, as 2.1.330 does, at "exit"."""
    return {"do": "writes_lost", "at": at}


# Waiting


def hang() -> Verb:
    """Do nothing until interrupted; as the first step, the model is silent from the start."""
    return {"do": "hang"}


def chatty_hang() -> Verb:
    """Write lines that are no progress, 100 a second, until interrupted."""
    return {"do": "chatty_hang"}


def gate(path: object) -> Verb:
    """Wait until the file exists."""
    return {"do": "gate", "path": str(path)}


def touch(path: object) -> Verb:
    """Create a file."""
    return {"do": "touch", "path": str(path)}


# Framing


def partial_line(then: str) -> Verb:
    """Write half a line, then "exit" with 1 or "hang" and never write again."""
    return {"do": "partial_line", "then": then}


def bad_utf8() -> Verb:
    """Write a line that is not UTF-8."""
    return {"do": "bad_utf8"}


def huge_line(n: int) -> Verb:
    """Write an `assistant` line of n bytes, its newline not counted."""
    return {"do": "huge_line", "n": n}


def no_newline() -> Verb:
    """Write an object without its newline: the next one shares its line."""
    return {"do": "no_newline"}


def noise(n: int = 3) -> Verb:
    """Write n lines of plain text to stdout and to stderr."""
    return {"do": "noise", "n": n}


def stderr(value: str) -> Verb:
    """Write `value` to stderr."""
    return {"do": "stderr", "value": value}


def close_stdout_stay() -> Verb:
    """Close stdout and live on."""
    return {"do": "close_stdout_stay"}


def no_read_stdin() -> Verb:
    """Never read stdin again."""
    return {"do": "no_read_stdin"}


def line(type: str, **fields: object) -> Verb:
    """Write a line of that type with these fields and the ids that each line has."""
    return {"do": "line", "fields": {"type": type, **fields}}


def wrong_session_id() -> Verb:
    """Write an `assistant` line of another session."""
    return {"do": "wrong_session_id"}


# The frame of the turn


def double_result(*, after_end: bool = True) -> Verb:
    """Write a second `result`, after the turn's window or (False) after the first one."""
    return {"do": "double_result", "after_end": after_end}


def late_result(ms: float, *, after_end: bool = False) -> Verb:
    """Write the `result` `ms` late, inside the turn's window or after it."""
    return {"do": "late_result", "ms": ms, "after_end": after_end}


def late_end(ms: float) -> Verb:
    """Write the terminal state `ms` after the `result`."""
    return {"do": "late_end", "ms": ms}


def no_end() -> Verb:
    """Write neither a terminal state nor `idle`."""
    return {"do": "no_end"}


def unsolicited_turn(when: str) -> Verb:
    """Run a turn that was not asked for, "before" `started` or "after" `idle`."""
    return {"do": "unsolicited_turn", "when": when}


def ack_only() -> Verb:
    """Answer an interrupt and do nothing else about it."""
    return {"do": "ack_only"}


def result_only() -> Verb:
    """End an interrupted turn by `result` alone: no answer, no terminal state."""
    return {"do": "result_only"}


def never_ack() -> Verb:
    """Obey an interrupt and never answer it."""
    return {"do": "never_ack"}


def cancelled_before_start() -> Verb:
    """Stay queued until an interrupt comes, so that it always comes before `started`."""
    return {"do": "cancelled_before_start"}


def still_queued() -> Verb:
    """Stay queued until an interrupt comes, then be `still_queued` and run to the end."""
    return {"do": "still_queued"}


# Dying and the operating system


def die(phase: str, code: int = 1, signal: int = 0) -> Verb:
    """End the process by exit code or, if not 0, by signal.

    Phases: start, init (at `initialize`); in a turn before_started, after_started, mid_text (where
    the step stands), after_result, idle (after the window).
    """
    return {"do": "die", "phase": phase, "code": code, "signal": signal}


def stop() -> Verb:
    """Stop the process by SIGSTOP."""
    return {"do": "stop"}


def ignore(*what: str) -> Verb:
    """Ignore "eof", "term" or "int" from now on."""
    return {"do": "ignore", "what": list(what)}


def spin() -> Verb:
    """Burn a CPU and do nothing else."""
    return {"do": "spin"}


def balloon(mib: int) -> Verb:
    """Fill that much memory and keep it; exit with 134, as the CLI, if there is none."""
    return {"do": "balloon", "mib": mib}


def eat_fds() -> Verb:
    """Open files until no more may be opened."""
    return {"do": "eat_fds"}


def fill_disk(mib: int) -> Verb:
    """Write a file of up to `mib` (256 at most) into the config directory, or to the limit."""
    return {"do": "fill_disk", "mib": mib}


def grandchild(
    *,
    holds_stdout: bool = False,
    setsid: bool = False,
    hides_marker: bool = False,
    orphan: bool = False,
    tell: object = None,
) -> Verb:
    """Start a child that lives 30 s, and say `{"grandchild": pid}`, in the file `tell` too.

    `hides_marker`: its environment is empty; `orphan`: its parent is gone at once.
    """
    flags = {"holds_stdout": holds_stdout, "setsid": setsid}
    flags |= {"hides_marker": hides_marker, "orphan": orphan}
    return {"do": "grandchild", **flags, "tell": str(tell or "")}


def fork_bomb(n: int) -> Verb:
    """Start n (20 at most) children, each in a session of its own, and say their pids."""
    if not 0 < n <= MAX_FORKS:
        raise ValueError(f"a fork bomb of {n} is not bounded by {MAX_FORKS}")
    return {"do": "fork_bomb", "n": n}


def swarm(n: int) -> Verb:
    """Fork n (2,000 at most) children that only wait, half of them without a parent."""
    if not 0 < n <= MAX_SWARM:
        raise ValueError(f"a swarm of {n} is not bounded by {MAX_SWARM}")
    return {"do": "swarm", "n": n}


# Starting


def never_init() -> Verb:
    """Answer no control request."""
    return {"do": "never_init"}


def slow_init(ms: float) -> Verb:
    """Read nothing for `ms`."""
    return {"do": "slow_init", "ms": ms}


def no_lifecycle() -> Verb:
    """Write no `command_lifecycle` and list no capability, as old versions."""
    return {"do": "no_lifecycle"}


def no_settings() -> Verb:
    """Reject `apply_flag_settings` as unknown, as old versions."""
    return {"do": "no_settings"}


def exit_on_resume() -> Verb:
    """Find no conversation at `--resume=`."""
    return {"do": "exit_on_resume"}


def once(path: object, *verbs: Verb) -> Verb:
    """Run the steps, at start, if the file does not exist yet, and create it."""
    return {"do": "once", "path": str(path), "steps": list(verbs)}
