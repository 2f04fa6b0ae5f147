"""The answers of the stand-in, as the prompt itself prescribes them. No I/O.

A prompt may contain a script: a marker followed by a JSON object. Each step of the script is one
response of the model; the tool results that follow the prompt tell which step is next. So parallel
conversations share nothing.
"""

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MARKER = "samovar-script:"
#: The CLI's mark of an interrupted turn, in front of the next prompt (claude 2.1.330).
INTERRUPTED = "[Request interrupted by user"
Step = list[dict[str, Any]]
Kind = type | tuple[type, ...]
_NUMBER = (int, float)
#: The verbs of a script: the kind of each verb's value, and its other fields with theirs.
VERBS: dict[str, tuple[Kind, dict[str, Kind]]] = {
    "text": (str, {"deltas": int}),
    "think": (str, {"deltas": int}),
    "tool": (str, {"input": dict}),
    "usage": (dict, {}),
    "delay": (_NUMBER, {}),
    "drip": (int, {"seconds": _NUMBER, "word": str}),
    "big": (int, {}),
    "stall": (int, {}),
    "die": (int, {}),
    "status": (int, {"times": int, "kind": str, "message": str}),
}


class NotAScript(ValueError):
    """Raised if the text after the marker is not a valid script; the message says why."""


def text(words: str, *, deltas: int = 1) -> dict[str, Any]:
    """Answer with a text, in so many deltas."""
    return {"text": words, "deltas": deltas}


def think(words: str, *, deltas: int = 1) -> dict[str, Any]:
    """Answer with thinking, in so many deltas."""
    return {"think": words, "deltas": deltas}


def tool(name: str, input: dict[str, Any]) -> dict[str, Any]:
    """Call a tool; the next step follows its result."""
    return {"tool": name, "input": input}


def delay(seconds: float) -> dict[str, Any]:
    """Wait before the first byte of the response."""
    return {"delay": seconds}


def drip(count: int, seconds: float, word: str = "tick") -> dict[str, Any]:
    """Answer with so many words, so many seconds apart."""
    return {"drip": count, "seconds": seconds, "word": word}


def stall(after: int) -> dict[str, Any]:
    """Stop sending after so many events of the response, until the caller leaves."""
    return {"stall": after}


def die(after: int) -> dict[str, Any]:
    """Break the connection after so many events of the response."""
    return {"die": after}


def status(code: int, times: int = 1, **error: str) -> dict[str, Any]:
    """Fail with an HTTP status so many times, then run the rest of the step.

    `error` may have another `kind` and `message` than the usual ones.
    """
    return {"status": code, "times": times, **error}


def big(size: int) -> dict[str, Any]:
    """Answer with a text of so many bytes, at most 64 MB."""
    return {"big": min(size, 64_000_000)}


def usage(**tokens: int) -> dict[str, Any]:
    """Report these token counts."""
    return {"usage": tokens}


def script(*steps: dict[str, Any] | Step) -> str:
    """Return a prompt that contains a script. A step of several verbs is a list."""
    listed = [step if isinstance(step, list) else [step] for step in steps]
    return f"{MARKER}{json.dumps({'steps': listed})}"


@dataclass(frozen=True, slots=True)
class Conversation:
    """The content of a request: all texts, the last prompt, and the tool results since."""

    texts: tuple[str, ...]
    prompt: str
    results: int


def read(messages: list[dict[str, Any]]) -> Conversation:
    """Return the conversation in the messages of a request."""
    texts: list[str] = []
    prompt, results = "", 0
    for message in messages:
        blocks = _blocks(message)
        said = [b["text"] for b in _behind_results(blocks) if not _reminder(b)]
        said = _behind_interrupts(said)
        texts += [b["text"] for b in blocks if b.get("type") == "text"]
        texts += [str(b.get("content", "")) for b in blocks if b.get("type") == "tool_result"]
        count = sum(b.get("type") == "tool_result" for b in blocks)
        if message.get("role") == "user" and said:
            prompt, results = "\n".join(said), 0
        elif message.get("role") == "user" and count:
            results += 1
    return Conversation(tuple(texts), prompt, results)


def system(prompt: str | list[dict[str, Any]]) -> str:
    """Return the text of a system prompt."""
    return "\n".join(block.get("text", "") for block in _blocks({"content": prompt}))


def files(messages: list[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    """Return the media type and the SHA-256 of each image and document."""
    blocks = (block for message in messages for block in _blocks(message))
    sources = (block["source"] for block in blocks if block.get("type") in ("image", "document"))
    return tuple(
        (source["media_type"], hashlib.sha256(base64.b64decode(source["data"])).hexdigest())
        for source in sources
    )


def steps_of(prompt: str) -> list[Step]:
    """Return the steps that a prompt asks for: those of its last script.

    Raise `NotAScript` if the text after the marker is something else, or has an unknown verb.
    """
    before, marker, rest = prompt.partition(MARKER)
    if not marker:
        return [[text(_default(before))]]
    try:
        found, end = json.JSONDecoder().raw_decode(rest)
        steps = [list(step) for step in found["steps"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise NotAScript('it must be {"steps": [[VERB, ...], ...]}, as JSON') from None
    if MARKER in rest[end:]:
        return steps_of(rest[end:])
    for number, step in enumerate(steps, 1):
        for verb in step:
            try:
                _check(verb)
            except NotAScript as error:
                raise NotAScript(f"step {number}: {error}") from None
    return steps


def _check(verb: Any) -> None:
    """Raise `NotAScript` without quoting the prompt, which logs must leave out."""
    names = [name for name in VERBS if name in verb] if isinstance(verb, dict) else []
    if len(names) != 1:
        raise NotAScript(f"each verb is a table with one of {', '.join(VERBS)}")
    kind, others = VERBS[names[0]]
    known = {names[0]: kind} | others
    for field, value in verb.items():
        if field not in known:
            raise NotAScript(f"{names[0]} takes no fields but {', '.join(others) or 'its own'}")
        if isinstance(value, bool) or not isinstance(value, known[field]) or _endless(value):
            raise NotAScript(f"{names[0]} cannot have this value of {field}")
    if "status" in verb and not 400 <= verb["status"] < 600:
        raise NotAScript("status is that of a failure, 400 to 599")


def _endless(value: Any) -> bool:
    return isinstance(value, _NUMBER) and not 0 <= value < math.inf


def next_step(conversation: Conversation) -> Step:
    """Return the step that a conversation has reached; after the last one, a word."""
    steps = steps_of(conversation.prompt)
    at = conversation.results
    return steps[at] if at < len(steps) else [text("done")]


def _default(prompt: str) -> str:
    words = prompt.strip().splitlines()[-1].strip() if prompt.strip() else ""
    if words.startswith("Say ") and len(words) < 200:
        return words.removeprefix("Say ").rstrip(".")
    return f"I am a stand-in and no model. You said: {words[:80]}"


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content", "")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content if isinstance(block, dict)]


def _behind_results(blocks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the texts after the last tool result: if a turn ended with one, the CLI sends the
    result and the next prompt as one message.
    """
    results = [at for at, block in enumerate(blocks) if block.get("type") == "tool_result"]
    behind = blocks[results[-1] + 1 :] if results else blocks
    return [block for block in behind if block.get("type") == "text"]


def _behind_interrupts(said: list[str]) -> list[str]:
    """Return the texts after the last interrupt: a prompt that was interrupted before its answer
    stays in front of the next one, in the same message, and is not asked again.
    """
    ends = [at for at, text in enumerate(said) if text.startswith(INTERRUPTED)]
    return said[ends[-1] + 1 :] if ends else said


def _reminder(block: dict[str, Any]) -> bool:
    return str(block.get("text", "")).lstrip().startswith("<system-reminder>")
