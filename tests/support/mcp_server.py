"""A small MCP server on stdin and stdout, run as a program of its own.

With `hang` as its argument it never answers. Imports the standard library alone.
"""

import json
import os
import subprocess
import sys
from typing import Any

ASKED = {"type": "object", "properties": {"size": {"type": "string"}}, "required": ["size"]}
NAMES = ("add", "pid", "die", "hang", "daemon", "ask", "reach", "variables")


def say(**message: Any) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def ask() -> str:
    """Ask the user, and return what became of it."""
    question = {"message": "Which size?", "requestedSchema": ASKED}
    say(id="question", method="elicitation/create", params=question)
    for line in sys.stdin:
        if (message := json.loads(line)).get("id") == "question":
            return str(message.get("result", {}).get("action", "no action"))
    return "no answer"


def call(name: str, given: dict[str, Any]) -> str:
    match name:
        case "add":
            return str(given["a"] + given["b"])
        case "pid":
            return str(os.getpid())
        case "die":
            sys.exit(1)
        case "hang":
            return sys.stdin.read()
        case "daemon":
            command, null = ["sleep", "600"], subprocess.DEVNULL
            started = subprocess.Popen(
                command, start_new_session=True, stdin=null, stdout=null, stderr=null
            )
            return str(started.pid)
        case "ask":
            return ask()
        case "reach":
            try:
                os.close(os.open(given["path"], os.O_RDONLY))
            except OSError:
                return "denied"
            return "reached"
        case _:
            return json.dumps(dict(os.environ))


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    match method:
        case "initialize":
            about = {"name": "support", "version": "1"}
            version = params["protocolVersion"]
            return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about}
        case "tools/list":
            schema = {"type": "object"}
            return {"tools": [{"name": n, "description": n, "inputSchema": schema} for n in NAMES]}
        case "tools/call":
            text = call(params["name"], params.get("arguments", {}))
            return {"content": [{"type": "text", "text": text}]}
    return None


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message or "hang" in sys.argv:
            continue
        result = answer(message.get("method", ""), message.get("params", {}))
        if result is None:
            say(id=message["id"], error={"code": -32601, "message": "unknown"})
        else:
            say(id=message["id"], result=result)


if __name__ == "__main__":
    main()
