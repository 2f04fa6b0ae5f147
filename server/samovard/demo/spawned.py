"""A message answered by a process of its own, which is the alternative to a service.

The CLI in its plainest form, with nothing of this program's environment.
"""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Spawned:
    """The answer of one spawned process and the seconds from its spawn to its end."""

    answer: str
    seconds: float


class _Result(msgspec.Struct, tag_field="type", tag="result"):
    result: str = ""


async def ask(cli: Path, text: str, home: Path, base_url: str, credential: str) -> Spawned:
    """Spawn the CLI for one message. Raise `TimeoutError` after a minute."""
    begin = time.monotonic()
    child = await asyncio.create_subprocess_exec(
        cli,
        "--print",
        "--output-format=stream-json",
        "--verbose",
        text,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=home,
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "ANTHROPIC_API_KEY": credential,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        }
        | ({"ANTHROPIC_BASE_URL": base_url} if base_url else {}),
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            output, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return Spawned(_answer(output), time.monotonic() - begin)


def _answer(output: bytes) -> str:
    for line in output.splitlines():
        try:
            return msgspec.json.decode(line, type=_Result).result
        except msgspec.DecodeError:
            continue  # a line of another type
    return ""
