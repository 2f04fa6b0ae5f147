"""The start of an agent: its arguments, its environment, and the spawn itself.

Knows the CLI's flags and variables. Does not know pools, the content of pipes or how a process
ends. Nothing here reads the service's own environment: a child's is built from nothing.
"""

import enum
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from samovard.agent.clouds import Cloud
from samovard.agent.credentials import Credential, Kind, Secret
from samovard.agent.home import Home
from samovard.agent.isolation.walls import OPEN, Enclosure
from samovard.agent.machine import cause_of
from samovard.agent.mcp import McpServer
from samovard.agent.process_tree import MARKER, marker
from samovard.core.errors import Internal, Misconfigured, NoProcess
from samovard.core.process import Launch

LAUNCHER = Path(__file__).with_name("launcher.py")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Also as Bedrock and Vertex have it: an ARN, or with a version behind `@`.
_MODEL = re.compile(r"[A-Za-z0-9._:/@-]{1,256}")
_TOOL = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,127}")
# A tool, or a tool with what it may be used for, as in `Bash(git log:*)`.
_RULE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,127}(\([A-Za-z0-9 ._:/*~@=+-]{1,256}\))?")
_ADDRESS = re.compile(r"https?://[A-Za-z0-9._:/\[\]-]{1,512}")
_SEARCH_PATH = re.compile(r"[^\x00-\x1f\x7f]{0,4096}")

_REFUSED_TOOLS = (
    "SendMessage,ListAgents,CronCreate,CronDelete,CronList,ScheduleWakeup,Monitor,Workflow,"
    "EnterWorktree,ExitWorktree,AskUserQuestion,EnterPlanMode,ExitPlanMode"
)
_SETTINGS = {
    "crossSessionInbound": "refuse",
    "permissions": {"deny": ["SendMessage", "ListAgents"]},
}
_FIXED_ARGUMENTS = (
    "--print",
    "--verbose",
    "--input-format=stream-json",
    "--output-format=stream-json",
    "--include-partial-messages",
    "--forward-subagent-text",
    "--setting-sources=",
    "--strict-mcp-config",
    "--disable-slash-commands",
    f"--settings={json.dumps(_SETTINGS, separators=(',', ':'))}",
    f"--disallowedTools={_REFUSED_TOOLS}",
    "--permission-prompt-tool=stdio",
)
_FIXED_VARIABLES = {
    "LANG": "C.UTF-8",
    # Settings can no longer change key or endpoint.
    "CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST": "1",
    "CLAUDE_CODE_DISABLE_ATTACHMENTS": "1",
    # A background command that ends would start a turn that was not asked for.
    "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
    "CLAUDE_CODE_DISABLE_CRON": "1",
    # A call that was deferred would run at `--resume`, before any message.
    "CLAUDE_CODE_DISABLE_DEFERRED_TOOL_RESUME": "1",
    "CLAUDE_CODE_DISABLE_AGENT_VIEW": "1",
    "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_UPDATES": "1",
    "CLAUDE_CODE_MCP_ALLOWLIST_ENV": "1",
    "CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS": "1",
    "CLAUDE_CODE_STARTUP_FAILURE_RESULTS": "1",
}
# What a custom base URL turns off unless told otherwise.
_BASE_URL_VARIABLES = {
    "ENABLE_TOOL_SEARCH": "true",
    "CLAUDE_CODE_ENABLE_FINE_GRAINED_TOOL_STREAMING": "1",
}
_VARIABLES = {
    Kind.API_KEY: "ANTHROPIC_API_KEY",
    Kind.OAUTH_TOKEN: "CLAUDE_CODE_OAUTH_TOKEN",
}
_DESCRIPTOR_VARIABLES = {
    Kind.API_KEY: "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR",
    Kind.OAUTH_TOKEN: "CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR",
}
#: What an agent of the broker has in place of a credential: the CLI does not start without one,
#: and the variable decides which headers it sends.
PLACEHOLDER = "samovar-placeholder"


class Delivery(enum.Enum):
    """How a credential reaches the agent, or, with the broker, does not."""

    BROKER = "broker"
    DESCRIPTOR = "descriptor"
    ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """The launch options of a profile.

    `tools` exist, `allowed_tools` need no permission; `path` is the agent's search path. A bound
    that is None is left to the CLI. `mcp` are MCP servers by name, which the CLI is told of by a
    file of its own; a start waits `mcp_timeout` seconds for them at most. One that is `offline` is
    to reach the broker alone, and by it `hosts`. With a `cloud` the CLI signs requests itself, and
    gets no credential and no address.
    """

    model: str
    path: str
    fallback_models: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    allowed_tools: tuple[str, ...] = ()
    cli_retries: int = 3
    max_agent_steps: int | None = None
    json_schema: str = ""
    max_subagents: int | None = None
    mcp: Mapping[str, McpServer] = field(default_factory=dict)
    mcp_timeout: float = 10.0
    offline: bool = False
    hosts: tuple[str, ...] = ()
    max_processes: int | None = 512
    max_memory: int | None = 2 << 30
    cloud: Cloud | None = None


@dataclass(frozen=True, slots=True)
class Egress:
    """How an agent and its tools reach the network: a proxy, hosts that bypass it, and additional
    certificate authorities.
    """

    proxy: str = ""
    no_proxy: tuple[str, ...] = ()
    ca_bundle: Path | None = None

    def variables(self, *near: str) -> dict[str, str]:
        """Return the variables of the agent; hosts that are `near` are reached directly.

        Some tools read only names in lower case.
        """
        found = {}
        if self.proxy:
            found = {"HTTPS_PROXY": self.proxy, "HTTP_PROXY": self.proxy}
            if direct := (*self.no_proxy, *near):
                found["NO_PROXY"] = ",".join(direct)
        found |= {name.lower(): value for name, value in found.items()}
        if self.ca_bundle is not None:
            found["NODE_EXTRA_CA_CERTS"] = str(self.ca_bundle.absolute())
        return found


DIRECT = Egress()


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """Limits of each process of a tree: open files, bytes per file, processes of the user, bytes
    of memory that are its own.
    """

    files: int = 4096
    file_bytes: int = 100 * 1024 * 1024
    processes: int | None = None
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Handover:
    """A credential for one spawn: a variable, and the descriptors that the child must keep."""

    variables: Mapping[str, str] = field(repr=False)
    descriptors: tuple[int, ...] = ()


def limits(profile: LaunchOptions, *, nested: bool) -> ProcessLimits:
    """Return the limits of a profile's agents; `nested` if they have a user namespace each."""
    # Elsewhere the processes of all agents of this user would count, so that one agent's would
    # keep the others from starting any.
    processes = profile.max_processes if nested else None
    return ProcessLimits(processes=processes, memory=profile.max_memory)


def arguments(profile: LaunchOptions, launch: Launch) -> list[str]:
    """Return the CLI's arguments, without its name.

    Each is one token, so that no value can become a flag. Raise `Misconfigured` (options-refused)
    for a value that is not of the expected form.
    """
    model = _checked(_MODEL, launch.model or profile.model, "model")
    session = _checked(_UUID, launch.agent_session, "agent session")
    result = [
        *_FIXED_ARGUMENTS,
        f"--tools={_joined(_TOOL, profile.tools)}",
        f"--permission-mode={'default' if launch.ask else 'dontAsk'}",
        f"--model={model}",
        f"--resume={session}" if launch.resume else f"--session-id={session}",
    ]
    if profile.allowed_tools:
        result.append(f"--allowedTools={_joined(_RULE, profile.allowed_tools)}")
    if profile.fallback_models:
        result.append(f"--fallback-model={_listed(_MODEL, profile.fallback_models, 'model')}")
    if profile.max_agent_steps is not None:
        result.append(f"--max-turns={_counted(profile.max_agent_steps, 1)}")
    if "Bash" not in profile.tools:
        result.append("--restricted")
    return result


def environment(
    profile: LaunchOptions,
    launch: Launch,
    home: Home,
    credential: Mapping[str, str],
    *,
    server_id: str,
    base_url: str = "",
) -> dict[str, str]:
    """Return the whole environment of the agent.

    `credential` comes from a `Handover`. Raise `Misconfigured` (options-refused) as `arguments`
    does.
    """
    result = {
        **_FIXED_VARIABLES,
        "PATH": _checked(_SEARCH_PATH, profile.path, "path"),
        "HOME": str(home.home),
        "CLAUDE_CONFIG_DIR": str(home.config),
        "TMPDIR": str(home.tmp),
        "CLAUDE_CODE_TMPDIR": str(home.tmp),
        "CLAUDE_CODE_MAX_RETRIES": _counted(profile.cli_retries, 0),
        MARKER: marker(server_id, launch.process_id),
        **credential,
    }
    if profile.max_subagents is not None:
        count = _counted(profile.max_subagents, 0)
        result["CLAUDE_CODE_MAX_SUBAGENTS_PER_SESSION"] = count
    if profile.mcp:
        result["MCP_TIMEOUT"] = str(round(1000 * profile.mcp_timeout))
    if base_url:
        result["ANTHROPIC_BASE_URL"] = _checked(_ADDRESS, base_url, "base url")
        result.update(_BASE_URL_VARIABLES)
    return result


@contextmanager
def handed_over(credential: Credential, delivery: Delivery) -> Iterator[Handover]:
    """Prepare a credential for one spawn, which must happen inside the `with` block.

    With the broker, the child gets a placeholder. By descriptor, the secret waits in a pipe that
    the child reads once, and only the number is in the environment. Our end of the pipe is closed
    on every way out.
    """
    if delivery is Delivery.BROKER:
        yield Handover({_VARIABLES[credential.kind]: PLACEHOLDER})
        return
    if delivery is Delivery.ENVIRONMENT:
        yield Handover({_VARIABLES[credential.kind]: credential.value.reveal()})
        return
    descriptor = _filled_pipe(credential.value)
    try:
        yield Handover({_DESCRIPTOR_VARIABLES[credential.kind]: str(descriptor)}, (descriptor,))
    finally:
        os.close(descriptor)


def spawn(
    cli: Path,
    arguments: Sequence[str],
    environ: Mapping[str, str],
    *,
    directory: int,
    descriptors: Sequence[int] = (),
    limits: ProcessLimits = ProcessLimits(),
    enclosure: Enclosure = OPEN,
) -> "subprocess.Popen[bytes]":
    """Start the agent in `directory`, with three unbuffered pipes and a session of its own.

    Return once the launcher runs, or what puts up the walls around it; if the launcher fails, it
    exits with 127 and a line on stderr.
    The caller closes `directory` and `descriptors`. Blocks for about a millisecond. Call it on the
    main thread only: the child is killed when the *thread* that started it ends (prctl(2),
    PR_SET_PDEATHSIG). Raise `NoProcess` with the resource that was lacking as its cause.
    """
    if threading.current_thread() is not threading.main_thread():
        raise Internal("a process was to be started off the main thread")
    command = [*enclosure.before, enclosure.python, "-I", "-S", str(LAUNCHER)]
    command += _numbers(directory, descriptors, limits, enclosure)
    try:
        return subprocess.Popen(
            [*command, "--", str(cli), *arguments],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environ),
            start_new_session=True,
            pass_fds=(directory, *descriptors, *enclosure.descriptors),
        )
    except OSError as error:
        raise _not_started("the agent could not be started", error) from error


def _numbers(
    directory: int, descriptors: Sequence[int], limits: ProcessLimits, enclosure: Enclosure
) -> list[str]:
    # In a PID namespace this process has no pid.
    parent = "-" if enclosure.nested else str(os.getpid())
    bounds = (limits.files, limits.file_bytes, limits.processes, limits.memory)
    keep = ",".join(map(str, descriptors)) or "-"
    sizes = ["-" if bound is None else str(bound) for bound in bounds]
    rules = "-" if enclosure.rules is None else str(enclosure.rules)
    where = "-" if enclosure.listening is None else "{}:{}".format(*enclosure.listening)
    return [parent, str(directory), *sizes, keep, rules, where]


def _filled_pipe(secret: Secret) -> int:
    data = secret.reveal().encode("ascii")
    try:
        reading, writing = os.pipe()
    except OSError as error:
        raise _not_started("no pipe for the credential", error) from error
    try:
        # A user over the kernel's limit for pipes gets small ones: never wait for a reader here.
        os.set_blocking(writing, False)
        if os.write(writing, data) != len(data):
            raise BlockingIOError("the pipe took a part")
    except OSError as error:
        os.close(reading)
        raise _not_started("no pipe for the credential", error) from error
    finally:
        os.close(writing)
    return reading


def _not_started(message: str, error: OSError) -> NoProcess:
    return NoProcess(message, cause=cause_of(error), retry_after=1.0)


def _listed(form: re.Pattern[str], names: Sequence[str], what: str) -> str:
    return ",".join(_checked(form, name, what) for name in names)


def _joined(form: re.Pattern[str], names: Sequence[str]) -> str:
    known = [_checked(form, name, "tool") for name in names]
    # One tool with two names: `Task` where tools are listed, `Agent` where they are used.
    for name, other in (("Task", "Agent"), ("Agent", "Task")):
        if name in names and other not in names:
            known.append(other)
    return ",".join(known)


def _checked(form: re.Pattern[str], value: str, what: str) -> str:
    if not form.fullmatch(value):
        raise Misconfigured(f"the {what} is not of the expected form", cause="options-refused")
    return value


def _counted(value: int, least: int) -> str:
    if value < least:
        raise Misconfigured(f"a count is below {least}", cause="options-refused")
    return str(value)
