"""The recorded scenes: what samovard would send to the CLI, and when.

Knows samovard's side of a conversation and the stand-in's scripts; nothing of files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from samovard.agent import codec, launch
from samovard.core.process import Document, Image
from samovard.standin import delay, die, script, stall, status, text, think, tool, usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from recorder.studio import Studio

    Part = Callable[[Studio], Awaitable[None]]

TOOLS = ("Bash", "Read", "Write")
NOTE = {"file_path": "note.txt", "content": "hello"}
WRITES = [text("Using a tool. "), tool("Write", NOTE)]
WAITS = tool("Bash", {"command": "tail -f /dev/null", "description": "Wait"})
TICKS = script([text("tick0 tick1 tick2 tick3 ", deltas=4), stall(5)])
FULL = script([usage(input_tokens=1_150_000), text("one")])
NO_CREDIT = "Your credit balance is too low to access the Anthropic API."
TOO_LONG = "prompt is too long: 1208310 tokens > 1000000 maximum"
BAD_SCHEMA = "tools.0.custom.input_schema: JSON schema is invalid"
FOX = "The quick brown fox jumps over the lazy dog."
SCHEMA = '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}'
CONTEXTS = (
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "",
)
#: One white pixel, and a page with nothing on it.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c63f80f00010101001bb6ee560000000049454e44ae426082"
)
PAGE = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\n"
    b"trailer<</Root 1 0 R>>\n%%EOF\n"
)


def profile(**options: Any) -> launch.LaunchOptions:
    """Return the launch options of a scene: those of a profile, with few retries."""
    given: dict[str, Any] = {"tools": TOOLS, "cli_retries": 1, "max_subagents": 2, **options}
    return launch.LaunchOptions(model="haiku", path=os.defpath, **given)


@dataclass(frozen=True)
class Scene:
    """The input of each process of one session, the last of which is kept."""

    parts: tuple[Part, ...]
    profile: launch.LaunchOptions = field(default_factory=profile)
    ask: bool = False
    resumes: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)


def turns(*prompts: str) -> tuple[Part, ...]:
    """Turn after turn on one process."""

    async def play(studio: Studio) -> None:
        await studio.begin()
        for prompt in prompts:
            await studio.say(prompt)

    return (play,)


def answered(line: Callable[[str, msgspec.Raw], bytes], *behind: str) -> tuple[Part, ...]:
    """A turn that asks for permission and is answered."""

    async def play(studio: Studio) -> None:
        await studio.begin()
        studio.write(studio.message(script(WRITES, *([text(said) for said in behind]))))
        asked = await studio.asked()
        given = msgspec.Raw(msgspec.json.encode(asked["request"]["input"]))
        studio.write(line(asked["request_id"], given))
        await studio.end()

    return (play,)


async def _three_tools(studio: Studio) -> None:
    await studio.begin()
    notes = [tool("Write", NOTE | {"file_path": f"{name}.txt"}) for name in ("a", "b")]
    calls = [text("Three at once. "), *notes, tool("Read", {"file_path": "missing.txt"})]
    studio.write(studio.message(script(calls, text("All done."))))
    for _ in notes:
        asked = await studio.asked()
        given = msgspec.Raw(msgspec.json.encode(asked["request"]["input"]))
        studio.write(codec.allow(asked["request_id"], given))
    await studio.end()


async def _speaking(studio: Studio) -> None:
    await studio.deltas(3)


async def _asking(studio: Studio) -> None:
    await studio.asked()


async def _in_a_tool(studio: Studio) -> None:
    await studio.until("stream_event", event={"type": "message_stop"})
    await studio.works("tail")


def interrupted(prompt: str, moment: Part, then: str = "") -> tuple[Part, ...]:
    """A turn that is interrupted at a moment."""

    async def play(studio: Studio) -> None:
        await studio.begin()
        studio.write(studio.message(prompt))
        await moment(studio)
        studio.write(codec.interrupt("int-1"))
        await studio.end()
        if then:
            await studio.say(then)

    return (play,)


async def _interrupted_at_once(studio: Studio) -> None:
    await studio.begin()
    await studio.say("Say Warm")
    studio.write(studio.message("Say never"), codec.interrupt("int-1"))
    await studio.until("command_lifecycle", state="cancelled")
    await studio.until("control_response")


async def _usage_asked(studio: Studio) -> None:
    await studio.begin()
    studio.write(codec.usage("usage-1"))
    await studio.cli.answer("usage-1")
    running = [text("Counting. "), tool("Bash", {"command": "true", "description": "Nothing"})]
    studio.write(studio.message(script(running, [delay(0.3), text("Counted.")])))
    await studio.until("user")
    await studio.until("system", status="requesting")
    studio.write(codec.usage("usage-2"))
    await studio.end()


async def _structured(studio: Studio) -> None:
    await studio.begin(SCHEMA)
    wrong, right = ({"town": 1}, {"city": "Rome"})
    await studio.say(script(*[tool("StructuredOutput", given) for given in (wrong, right)]))
    await studio.say("Say words")


async def _files(studio: Studio) -> None:
    await studio.begin()
    image, page = Image("image/png", PIXEL), Document("application/pdf", PAGE, "page")
    await studio.say(image, page, script(text("Seen.")))


async def _killed(studio: Studio) -> None:
    await studio.begin()
    await studio.say("Say One")
    studio.write(studio.message(TICKS))
    await studio.deltas(3)
    studio.cli.kill()
    await studio.cli.ended()


async def _resumed(studio: Studio) -> None:
    await studio.begin()
    await studio.say("Say Three")
    studio.write(studio.message("Say never", turn_id=studio.turns[0]))
    await studio.until("command_lifecycle", state="completed")


async def _missing(studio: Studio) -> None:
    await studio.until("result")
    await studio.cli.ended()


async def _traced(studio: Studio) -> None:
    await studio.begin()
    for number, context in enumerate(CONTEXTS, 1):
        studio.write(codec.trace(f"trace-{number}", context), studio.message(f"Say {number}"))
        await studio.end()


def failing(code: int, times: int = 9, retries: int = 1, **error: str) -> Scene:
    """A turn whose call of the API fails."""
    prompt = script([status(code, times, **error), text("At last.")])
    return Scene(turns(prompt), profile(cli_retries=retries))


async def _unstructured(studio: Studio) -> None:
    await studio.begin(SCHEMA)
    await studio.say(script(*[tool("StructuredOutput", {"town": 1})] * 9))


_INNER = script(tool("Bash", {"command": "echo inner", "description": "Say"}), text("Inner."))
_AGENT = {"description": "d", "prompt": _INNER, "subagent_type": "general-purpose"}
_ALLOWED = profile(allowed_tools=TOOLS)

SCENES: dict[str, Scene] = {
    "plain-turn": Scene(turns("Say Hello")),
    "three-turns": Scene(turns("Say Answer 1", "Say Answer 2", "Say Answer 3")),
    "partial-messages": Scene(turns(script(text(FOX, deltas=4)))),
    "thinking": Scene(turns(script([think("Let me think.", deltas=3), text("Thought.")]))),
    "files": Scene((_files,)),
    "usage-asked": Scene((_usage_asked,), _ALLOWED),
    "structured-output": Scene((_structured,), profile(json_schema=SCHEMA)),
    "max-turns": Scene(
        turns(script(*[[text("Again. "), WRITES[1]]] * 3)), profile(max_agent_steps=2)
    ),
    "subagent": Scene(
        turns(script([text("Asking. "), tool("Agent", _AGENT)], text("Outer."))),
        profile(tools=(*TOOLS, "Agent"), allowed_tools=(*TOOLS, "Agent")),
    ),
    "compacted": Scene(turns(FULL, "Say three")),
    "model-fallback": Scene(
        turns(script([status(529, times=3), text("Here.")])),
        profile(fallback_models=("sonnet",), cli_retries=3),
    ),
    "tool-allowed": Scene(answered(codec.allow, "Written."), ask=True),
    "tool-denied": Scene(
        answered(lambda name, _: codec.deny(name, "Denied by the caller."), "I was not allowed."),
        ask=True,
    ),
    "tool-denied-and-interrupted": Scene(
        answered(lambda name, _: codec.deny(name, "Denied by the caller.", interrupt=True), "no"),
        ask=True,
    ),
    "tool-denied-by-mode": Scene(turns(script(WRITES, text("I may not.")))),
    "three-tools-in-one-message": Scene((_three_tools,), ask=True),
    "interrupt-before-start": Scene((_interrupted_at_once,)),
    "interrupt-mid-stream": Scene(interrupted(TICKS, _speaking, "Say Still here")),
    "interrupt-mid-tool": Scene(
        interrupted(script([text("Using a tool. "), WAITS]), _in_a_tool), _ALLOWED
    ),
    "interrupt-while-asking": Scene(interrupted(script(WRITES), _asking), ask=True),
    "api-400": failing(400, message=BAD_SCHEMA),
    "api-400-billing": failing(400, message=NO_CREDIT),
    "api-400-too-long": failing(400, message=TOO_LONG),
    "api-401": failing(401),
    "api-403": failing(403),
    "api-404": failing(404),
    "api-413": failing(413),
    "api-413-too-long": failing(413, message=TOO_LONG),
    "api-429": failing(429),
    "api-500": failing(500),
    "api-529": failing(529, retries=2),
    "api-529-recovered": failing(529, times=1),
    "api-unreachable": Scene(
        turns("Say Hello"),
        profile(cli_retries=1),
        variables={"ANTHROPIC_BASE_URL": "http://127.0.0.1:9"},
    ),
    "not-compacted": Scene(turns(FULL, "Say two", "Say three"), variables={"DISABLE_COMPACT": "1"}),
    "structured-output-exhausted": Scene((_unstructured,), profile(json_schema=SCHEMA)),
    "stream-restarted": Scene(turns(script([text("tick0 tick1 tick2 tick3 ", deltas=4), die(5)]))),
    "kill-mid-turn": Scene((_killed,)),
    "resume-after-kill": Scene((_killed, _resumed)),
    "resume-missing": Scene((_missing,), resumes=True),
    "traceparent-per-turn": Scene((_traced,)),
}
