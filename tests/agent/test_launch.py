"""What an agent is started with."""

import contextlib
import dataclasses
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.file_descriptors import descriptors

from samovard.agent import launch
from samovard.agent.credentials import Credential, Kind, Secret
from samovard.agent.home import Home
from samovard.agent.launch import Delivery, LaunchOptions
from samovard.agent.mcp import McpServer
from samovard.core.errors import Misconfigured, NoProcess
from samovard.core.process import Launch

SESSION = "6f1c1f0e-3a52-4a2e-9d27-0d9d3f1d2b11"
PROFILE = LaunchOptions(model="claude-sonnet-4-5", path="/usr/bin:/bin")
LAUNCH = Launch("p1", "acme", "default", "0" * 32, SESSION, resume=False)
HOME = Home(Path("/srv/s") / LAUNCH.home)
KEY = Credential(Kind.API_KEY, Secret("sk-canary"), "1")


def changed(**fields: object) -> list[str]:
    """Gives the arguments of a profile that differs in some fields."""
    return launch.arguments(dataclasses.replace(PROFILE, **fields), LAUNCH)  # type: ignore[arg-type]


def refused(caught: pytest.ExceptionInfo[Misconfigured]) -> bool:
    """Says whether it was for the value of an option."""
    return caught.value.cause == "options-refused"


def test_arguments_are_these() -> None:
    """The whole line, as a snapshot: each word is there for a reason."""
    assert launch.arguments(PROFILE, LAUNCH) == [
        "--print",
        "--verbose",
        "--input-format=stream-json",
        "--output-format=stream-json",
        "--include-partial-messages",
        "--forward-subagent-text",
        "--setting-sources=",
        "--strict-mcp-config",
        "--disable-slash-commands",
        '--settings={"crossSessionInbound":"refuse",'
        '"permissions":{"deny":["SendMessage","ListAgents"]}}',
        "--disallowedTools=SendMessage,ListAgents,CronCreate,CronDelete,CronList,ScheduleWakeup,"
        "Monitor,Workflow,EnterWorktree,ExitWorktree,AskUserQuestion,EnterPlanMode,ExitPlanMode",
        "--permission-prompt-tool=stdio",
        "--tools=",
        "--permission-mode=dontAsk",
        "--model=claude-sonnet-4-5",
        f"--session-id={SESSION}",
        "--restricted",
    ]


def test_options_of_the_profile_are_added() -> None:
    """Bounds and tools are arguments if the profile has them."""
    found = changed(
        tools=("Read", "Bash"),
        allowed_tools=("Read", "Bash(git log:*)", "mcp__docs__search"),
        max_agent_steps=12,
    )
    assert found[-3:] == [
        f"--session-id={SESSION}",
        "--allowedTools=Read,Bash(git log:*),mcp__docs__search",
        "--max-turns=12",
    ]
    assert "--tools=Read,Bash" in found


def test_profile_without_bash_is_restricted() -> None:
    """File tools stay in the working directory unless the agent has a shell anyway."""
    assert "--restricted" in changed(tools=("Read", "Write"))
    assert "--restricted" not in changed(tools=("Read", "Bash"))


def test_resumed_session_is_named_by_resume_alone() -> None:
    """Exactly one of the two flags names the session."""
    found = launch.arguments(PROFILE, dataclasses.replace(LAUNCH, resume=True))
    named = [word for word in found if SESSION in word]
    assert named == [f"--resume={SESSION}"]


def test_the_launch_says_whether_it_asks() -> None:
    """A launch may want permission requests; without them all is denied unasked."""
    asking = launch.arguments(PROFILE, dataclasses.replace(LAUNCH, ask=True))
    assert "--permission-mode=default" in asking
    assert "--permission-mode=dontAsk" in changed()


def test_model_of_the_launch_comes_first() -> None:
    """A session may have chosen a model of its own."""
    found = launch.arguments(PROFILE, dataclasses.replace(LAUNCH, model="opus"))
    assert [word for word in found if word.startswith("--model")] == ["--model=opus"]


@pytest.mark.parametrize(
    "model",
    [
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc123",
        "claude-sonnet-4-5@20250929",
    ],
)
def test_models_of_clouds_are_models(model: str) -> None:
    """Their names have other signs."""
    assert f"--model={model}" in changed(model=model)


def test_sub_agent_tool_has_both_names() -> None:
    """It is listed under one name and used under the other."""
    assert "--tools=Read,Task,Agent" in changed(tools=("Read", "Task"))
    assert "--allowedTools=Agent,Task" in changed(allowed_tools=("Agent",))
    assert "--tools=Task,Agent" in changed(tools=("Task", "Agent"))


def test_the_way_out_is_in_variables_of_both_cases() -> None:
    """A proxy, hosts past it and authorities; without them the agent has no such variable."""
    assert launch.Egress().variables() == {}
    egress = launch.Egress("http://proxy:3128", ("intern.example", "::1"), Path("/etc/ca.pem"))
    assert egress.variables() == {
        "HTTPS_PROXY": "http://proxy:3128",
        "https_proxy": "http://proxy:3128",
        "HTTP_PROXY": "http://proxy:3128",
        "http_proxy": "http://proxy:3128",
        "NO_PROXY": "intern.example,::1",
        "no_proxy": "intern.example,::1",
        "NODE_EXTRA_CA_CERTS": "/etc/ca.pem",
    }


@given(st.text(max_size=20))
def test_no_model_becomes_another_argument(model: str) -> None:
    """Whatever a session asks for is one token of the allowed form, or refused."""
    wanted = dataclasses.replace(LAUNCH, model="x" + model)
    if re.fullmatch(r"[A-Za-z0-9._:/@-]*", model):
        plain = launch.arguments(PROFILE, LAUNCH)
        found = launch.arguments(PROFILE, wanted)
        assert [word for word in found if word not in plain] == [f"--model=x{model}"]
        assert len(found) == len(plain)
    else:
        with pytest.raises(Misconfigured) as caught:
            launch.arguments(PROFILE, wanted)
        assert refused(caught)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": ""},
        {"model": "sonnet\n"},
        {"model": "x" * 257},
        {"model": "a b"},
        {"tools": ("Read,Bash",)},
        {"tools": ("",)},
        {"tools": ("--help",)},
        {"tools": ("Bash(git:*)",)},
        {"allowed_tools": ("Bash(a),Write",)},
        {"allowed_tools": ("Bash(a\n)",)},
        {"max_agent_steps": 0},
    ],
)
def test_option_of_another_form_is_refused(fields: dict[str, object]) -> None:
    """An operator's mistake stops the start instead of meaning something else."""
    with pytest.raises(Misconfigured) as caught:
        changed(**fields)
    assert refused(caught)


@pytest.mark.parametrize(
    "session", ["", SESSION.upper(), SESSION + "\n", f"/srv/{SESSION}.jsonl", "-" + SESSION]
)
def test_session_that_is_no_lower_case_uuid_is_refused(session: str) -> None:
    """A path to somebody's transcript is not resumed from."""
    with pytest.raises(Misconfigured) as caught:
        launch.arguments(PROFILE, dataclasses.replace(LAUNCH, agent_session=session))
    assert refused(caught)


def test_environment_is_this() -> None:
    """The whole environment, as a snapshot: nothing of the service's own is in it."""
    found = launch.environment(PROFILE, LAUNCH, HOME, {"KEY": "7"}, server_id="s1")
    assert found == {
        "LANG": "C.UTF-8",
        "CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST": "1",
        "CLAUDE_CODE_DISABLE_ATTACHMENTS": "1",
        "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
        "CLAUDE_CODE_DISABLE_CRON": "1",
        "CLAUDE_CODE_DISABLE_DEFERRED_TOOL_RESUME": "1",
        "CLAUDE_CODE_DISABLE_AGENT_VIEW": "1",
        "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_UPDATES": "1",
        "CLAUDE_CODE_MCP_ALLOWLIST_ENV": "1",
        "CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS": "1",
        "CLAUDE_CODE_STARTUP_FAILURE_RESULTS": "1",
        "PATH": "/usr/bin:/bin",
        "HOME": f"/srv/s/{LAUNCH.home}/home",
        "CLAUDE_CONFIG_DIR": f"/srv/s/{LAUNCH.home}/config",
        "TMPDIR": f"/srv/s/{LAUNCH.home}/tmp",
        "CLAUDE_CODE_TMPDIR": f"/srv/s/{LAUNCH.home}/tmp",
        "CLAUDE_CODE_MAX_RETRIES": "3",
        "SAMOVAR_PROCESS": "s1/p1",
        "KEY": "7",
    }


def test_base_url_comes_with_what_it_would_turn_off() -> None:
    """A custom address costs no feature; a bound on sub-agents is of the profile."""
    servers = {"docs": McpServer("docs")}
    profile = dataclasses.replace(PROFILE, max_subagents=2, mcp=servers, mcp_timeout=1.5)
    url = "http://127.0.0.1:4711/token"
    found = launch.environment(profile, LAUNCH, HOME, {}, server_id="s1", base_url=url)
    plain = launch.environment(PROFILE, LAUNCH, HOME, {}, server_id="s1")
    assert dict(found.items() - plain.items()) == {
        "ANTHROPIC_BASE_URL": url,
        "ENABLE_TOOL_SEARCH": "true",
        "CLAUDE_CODE_ENABLE_FINE_GRAINED_TOOL_STREAMING": "1",
        "CLAUDE_CODE_MAX_SUBAGENTS_PER_SESSION": "2",
        "MCP_TIMEOUT": "1500",
    }


@pytest.mark.parametrize("url", ["ftp://x", "http://a b", "http://a\n", "127.0.0.1", "http://a?b"])
def test_address_of_another_form_is_refused(url: str) -> None:
    """The agent talks to the address that was meant or is not started."""
    with pytest.raises(Misconfigured) as caught:
        launch.environment(PROFILE, LAUNCH, HOME, {}, server_id="s1", base_url=url)
    assert refused(caught)


def test_longest_secret_fits_its_pipe() -> None:
    """Nobody reads while it is written, so the pipe must hold it all."""
    secret = "k" * 65535
    with launch.handed_over(
        Credential(Kind.API_KEY, Secret(secret), "1"), Delivery.DESCRIPTOR
    ) as h:
        assert os.read(h.descriptors[0], 70000) == secret.encode()
        assert os.read(h.descriptors[0], 1) == b""


@pytest.mark.parametrize("delivery", list(Delivery))
def test_handover_shows_no_secret_and_leaves_no_descriptor(delivery: Delivery) -> None:
    """Also when the start fails inside it."""
    before, shown = descriptors(), ""
    with contextlib.suppress(NoProcess), launch.handed_over(KEY, delivery) as handover:
        shown = repr(handover)
        raise NoProcess("the start failed")
    assert shown.startswith("Handover(")
    assert "canary" not in shown
    assert descriptors() <= before


def test_environment_delivery_is_one_variable() -> None:
    """The last resort: the agent can read it."""
    with launch.handed_over(KEY, Delivery.ENVIRONMENT) as handover:
        assert dict(handover.variables) == {"ANTHROPIC_API_KEY": "sk-canary"}
        assert handover.descriptors == ()


def test_full_descriptor_table_is_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that runs out of descriptors says so and keeps those that it has."""

    def fail() -> tuple[int, int]:
        raise OSError(24, "too many open files")

    before = descriptors()
    monkeypatch.setattr(os, "pipe", fail)
    with pytest.raises(NoProcess) as caught, launch.handed_over(KEY, Delivery.DESCRIPTOR):
        pass
    assert caught.value.cause == "out-of-descriptors"
    assert descriptors() <= before


def test_processes_are_limited_by_the_kernel_only_in_a_namespace() -> None:
    """Elsewhere those of all agents of the user would count, and one could keep all others from
    starting any."""
    profile = dataclasses.replace(PROFILE, max_processes=64)
    assert launch.limits(profile, nested=True).processes == 64
    assert launch.limits(profile, nested=False).processes is None


@pytest.mark.parametrize("nested", [True, False])
def test_memory_is_limited_everywhere(*, nested: bool) -> None:
    """Each process counts for itself."""
    profile = dataclasses.replace(PROFILE, max_memory=3 << 30)
    assert launch.limits(profile, nested=nested).memory == 3 << 30
