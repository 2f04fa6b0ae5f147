"""The Python client behind the lines of `clients/conformance.md`, each call in a task."""

import asyncio
import base64
import dataclasses
import enum
import json
import re
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opentelemetry import context, propagate

import samovar

LONGEST_LINE = 16 << 20
#: The names of results that are a single value.
SINGLE = {"interrupt": "was_running", "close_session": "existed", "health": "status"}


def plain(value: Any) -> Any:
    """Return a value of the client as JSON has it."""
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode() or None
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, tuple):
        return [plain(inner) for inner in value]
    if not dataclasses.is_dataclass(value):
        return value
    fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, samovar.Timings):
        return {name + "_time" * (name != "permission_wait"): fields[name] for name in fields}
    if isinstance(value, samovar.Answer):
        return fields | {"turn_id": value.turn_id, "session": value.session}
    return fields | (fields.pop("usage") if isinstance(value, samovar.UsageUpdated) else {})


def _say(id: int, **what: Any) -> None:
    print(json.dumps({"id": id, **what}), flush=True)


def _snake(value: object) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(value).__name__).lower()


def _failure(error: Any) -> Any:
    names = {"samovar_error": "unrecognized", "value_error": "invalid_argument"}
    kind = names.get(_snake(error), _snake(error))
    fields = {"prompt_written": getattr(error, "prompt_written", None), **plain(vars(error))}
    code = fields.get("code") and error.code.name
    return {**fields, "kind": kind, "message": str(error), "code": code}


def _block(given: dict[str, Any]) -> Any:
    if "text" in given:
        return given["text"] * given.get("times", 1)
    made: Any = samovar.Image if "image" in given else samovar.Document
    data = Path(given.pop("image", None) or given.pop("document")).read_bytes()
    return made(data, **given)


class Driver:
    """The clients, and the calls that were made."""

    def __init__(self) -> None:
        self.clients: dict[str, samovar.AsyncClient] = {}
        self.calls: dict[int, asyncio.Task[None]] = {}
        self.gates: dict[int, asyncio.Event] = {}

    async def answer(self, id: int, call: str, **line: Any) -> None:
        """Say how a call ended."""
        try:
            _say(id, done=await self._run(id, call, **line))
        except asyncio.CancelledError:  # its stream was left
            _say(id, done={})
        except (samovar.SamovarError, ValueError) as error:
            _say(id, failed=_failure(error))

    async def _run(self, id: int, call: str, *, of: int = 0, client: str = "", **line: Any) -> Any:
        if call == "open":
            self.clients[client] = self._open(**line)
        elif call == "leave":
            self.calls[of].cancel()
            await asyncio.wait([self.calls[of]])
        elif call == "go_on":
            self.gates[of].set()
        elif call == "count":
            timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # no other
            due = sum(not timer.cancelled() for timer in timers)
            return {"running": len(asyncio.all_tasks()) + threading.active_count() + due}
        elif call in ("send", "attach"):
            await self._stream(id, client, call, **line)
        elif call == "list_sessions":
            return {"sessions": [plain(each) async for each in self._begin(client, call)]}
        else:
            result = await self._begin(client, call, **line)
            return {SINGLE[call]: result} if call in SINGLE else plain(result) or {}
        return {}

    def _open(self, target: str, tls: Any = None, credential: Any = None, **more: Any) -> Any:
        names = {"ca": "root_certificates", "certificate": "certificate_chain"}
        given = {"server_name": (tls or {}).pop("server_name", None)}
        given |= {names.get(n, "private_key"): Path(tls[n]).read_bytes() for n in tls or ()}
        trust = None if tls is None else samovar.Tls(**given)
        return samovar.AsyncClient(target, api_key=credential, tls=trust, **more)

    def _begin(self, client: str, call: str, **line: Any) -> Any:
        context.attach(propagate.extract({"traceparent": line.pop("traceparent", "")}))
        line |= line.pop("options", {})
        if "content" in line:
            line["content"] = [_block(each) for each in line["content"]]
        if isinstance(answer := line.pop("permissions", None), dict):
            made = {"allow": samovar.Allow, "deny": samovar.Deny}
            (answer,) = (made[name](**answer[name]) for name in answer)
        if answer is not None:
            line["on_permission"] = lambda asked: answer
        return getattr(self.clients[client], call)(**line)

    async def _stream(self, id: int, client: str, call: str, **line: Any) -> None:
        hold, leave = line.pop("hold_after", 0), line.pop("leave_after", 0)
        seen, gate = 0, self.gates.setdefault(id, asyncio.Event())
        async with self._begin(client, call, **line) as turn:
            async for event in turn:
                _say(id, event={"kind": _snake(event), **plain(event)})
                seen += 1
                if seen == leave:
                    break
                if seen == hold:
                    _say(id, held=True)
                    await gate.wait()


async def _main() -> None:
    driver, reader = Driver(), asyncio.StreamReader(LONGEST_LINE)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    while line := await reader.readline():
        call = json.loads(line)
        driver.calls[call["id"]] = asyncio.create_task(driver.answer(**call))
    for client in driver.clients.values():
        await client.close()


asyncio.run(_main())
