"""The command line of the child: flags, credential, transcript; then its life begins.

Refuses what the CLI refuses and every flag that the service is not known to use.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from typing import NoReturn

from . import faults
from .agent import Agent
from .controls import MODES, resolve_model
from .frames import VERSION, Json

_SWITCHES = {
    "--print",
    "--verbose",
    "--include-partial-messages",
    "--forward-subagent-text",
    "--strict-mcp-config",
    "--disable-slash-commands",
    "--restricted",
}
_VALUES = {
    "--input-format",
    "--output-format",
    "--setting-sources",
    "--mcp-config",
    "--settings",
    "--disallowedTools",
    "--tools",
    "--allowedTools",
    "--permission-prompt-tool",
    "--permission-mode",
    "--model",
    "--max-turns",
    "--max-thinking-tokens",
    "--json-schema",
    "--system-prompt",
    "--session-id",
    "--resume",
}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TOKENS = ("CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR")
_KEYS = ("ANTHROPIC_API_KEY", "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR")


@dataclass(frozen=True, slots=True)
class Options:
    """The options that a process was started with."""

    argv: list[str]
    session_id: str
    resumes: bool
    model: str
    permission_mode: str
    partial: bool
    state_events: bool
    config_dir: str
    credential: str
    account: Json

    @property
    def key_source(self) -> str:
        return str(self.account.get("apiKeySource", "none"))


def main(argv: list[str], script: str) -> NoReturn:
    """Run the fake CLI. `script` is the path of the script of its start, if there is one."""
    if "--version" in argv[1:]:
        os.write(1, f"{VERSION} (Claude Code)\n".encode())
        os._exit(0)
    agent = Agent(_options(argv))
    agent.install_signals()
    faults.start(agent, _start_script(script))
    _open_session(agent)
    os._exit(agent.run())


def _start_script(path: str) -> list[Json]:
    source = os.environ.get("FAKE_CLAUDE")
    if source is None and os.path.exists(path):
        with open(path, "rb") as file:
            source = file.read().decode()
    steps: list[Json] = json.loads(source or "[]")
    return steps


def _open_session(agent: Agent) -> None:
    known = bool(agent.transcript.uuids())
    if agent.options.resumes:
        if agent.forgets or not known:
            agent.write(agent.frames.no_conversation())
            os._exit(1)
    elif known:
        _refuse(f"Error: Session ID {agent.options.session_id} is already in use.")


def _options(argv: list[str]) -> Options:
    flags = _flags(argv[1:])
    _check(flags)
    credential, account = _credential()
    home = os.environ.get("HOME", os.path.expanduser("~"))
    return Options(
        argv=argv,
        session_id=flags.get("--session-id") or flags.get("--resume") or _random_uuid(),
        resumes="--resume" in flags,
        model=resolve_model(flags.get("--model")),
        permission_mode=flags.get("--permission-mode", "default"),
        partial="--include-partial-messages" in flags,
        state_events=os.environ.get("CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS") == "1",
        config_dir=os.environ.get("CLAUDE_CONFIG_DIR", os.path.join(home, ".claude")),
        credential=credential,
        account=account,
    )


def _flags(tokens: list[str]) -> dict[str, str]:
    flags: dict[str, str] = {}
    rest = iter(tokens)
    for token in rest:
        name, equals, value = token.partition("=")
        if name in _VALUES:
            flags[name] = value if equals else next(rest, "")
        elif name in _SWITCHES and not equals:
            flags[name] = ""
        else:
            _refuse(f"error: unknown option '{token}'")
    return flags


def _check(flags: dict[str, str]) -> None:
    formats = {flags.get("--input-format"), flags.get("--output-format")}
    if formats != {"stream-json"} or "--verbose" not in flags:
        _refuse("Error: only --verbose with stream-json in and out is spoken here")
    if "--session-id" in flags and "--resume" in flags:
        _refuse("Error: --session-id can only be used with --resume if --fork-session is given")
    for name in ("--session-id", "--resume"):
        if name in flags and not _UUID.fullmatch(flags[name]):
            _refuse(f"Error: Invalid value of {name}. Must be a valid UUID.")
    if flags.get("--permission-mode", "default") not in MODES:
        _refuse("error: option '--permission-mode <mode>' argument is invalid.")
    try:
        json.loads(flags.get("--settings", "{}"))
    except ValueError:
        _refuse("Error processing settings: Invalid JSON provided to --settings")


def _credential() -> tuple[str, Json]:
    """Return the credential and the `account` that `initialize` reports."""
    for name in (*_KEYS, *_TOKENS):
        value = os.environ.get(name, "")
        secret = _drain(value) if name.endswith("_DESCRIPTOR") else value
        if secret and name in _KEYS:
            source = {"tokenSource": "none", "apiKeySource": "ANTHROPIC_API_KEY"}
            return secret, source | {"apiProvider": "firstParty"}
        if secret:
            return secret, {"tokenSource": name, "apiProvider": "firstParty"}
    return "", {"tokenSource": "none", "apiProvider": "firstParty"}


def _drain(descriptor: str) -> str:
    """Read a pipe to its end, as the CLI does before anything else. A bad one is empty."""
    try:
        os.set_inheritable(int(descriptor), False)
        with open(int(descriptor), "rb", closefd=False) as pipe:
            return pipe.read().decode().strip()
    except (OSError, ValueError):
        return ""


def _random_uuid() -> str:
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"


def _refuse(why: str) -> NoReturn:
    sys.stderr.write(why + "\n")
    sys.stderr.flush()
    os._exit(1)
