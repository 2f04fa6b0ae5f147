"""Answer the control requests of 2.1.330, each with the fields recorded for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .frames import VERSION, Json

if TYPE_CHECKING:
    from .agent import Agent

MODELS = {
    "default": "claude-opus-5-5",
    "opus": "claude-opus-5-5",
    "sonnet": "claude-sonnet-5-5",
    "haiku": "claude-haiku-5-5",
}
_EXPLORE = {"name": "Explore", "description": "Fast read-only search", "model": "inherit"}
_DEFAULT: Json = {
    "value": "default",
    "resolvedModel": MODELS["default"],
    "displayName": "Default (recommended)",
    "description": "Use the default model",
    "supportsEffort": True,
    "supportedEffortLevels": ["low", "medium", "high", "xhigh", "max"],
    "supportsAdaptiveThinking": True,
    "supportsFastMode": True,
    "supportsAutoMode": True,
    "supportsThinkingOff": False,
}
MODES = ("default", "acceptEdits", "plan", "dontAsk")


def answer(agent: Agent, request_id: str, request: Json) -> None:
    """Write the answer to one request."""
    match request.get("subtype"):
        case "initialize":
            _initialize(agent, request_id, request)
        case "get_binary_version":
            succeed(agent, request_id, _binary())
        case "interrupt":
            agent.interrupt(request_id, cancel_queued=bool(request.get("cancel_queued")))
        case "set_model":
            agent.frames.model = resolve_model(request.get("model"))
            succeed(agent, request_id, {"model": agent.frames.model})
        case "set_permission_mode":
            _set_mode(agent, request_id, str(request.get("mode")))
        case "apply_flag_settings" if agent.takes_settings:
            _apply_settings(agent, request_id, request.get("settings"))
        case "get_session_cost":
            succeed(agent, request_id, {"text": "Estimated cost:        $0.0000"})
        case "get_usage":
            session = {"total_cost_usd": agent.totals.cost}
            succeed(agent, request_id, {"session": session, "rate_limits": None})
        case other:
            error = f"Unsupported control request subtype: {other}"
            _fail(agent, request_id, error, error_code="unsupported_request")


def resolve_model(name: object) -> str:
    """Return the full name of an alias; any other name is returned as it is."""
    return MODELS.get(str(name), str(name)) if name else MODELS["default"]


def succeed(agent: Agent, request_id: str, payload: Json | None) -> None:
    """Write a success, with a payload or without."""
    response: Json = {"subtype": "success", "request_id": request_id}
    response |= {} if payload is None else {"response": payload}
    agent.write({"type": "control_response", "response": response})


def _fail(agent: Agent, request_id: str, error: str, **fields: str) -> None:
    response = {"subtype": "error", "request_id": request_id, "error": error, **fields}
    agent.write({"type": "control_response", "response": response})


def _binary() -> Json:
    built = "2026-11-20T17:34:37Z"
    return {"version": VERSION, "buildTime": built, "oldestDesktopSdk": "0.3.280"}


def _initialize(agent: Agent, request_id: str, request: Json) -> None:
    agent.system_prompt = agent.system_prompt or str(request.get("appendSystemPrompt") or "")
    response = {
        "subtype": "success",
        "request_id": request_id,
        "response": _welcome(agent),
        "pending_permission_requests": [],
        "pending_user_dialog_requests": [],
    }
    agent.write({"type": "control_response", "response": response})


def _welcome(agent: Agent) -> Json:
    return {
        "commands": [],
        "agents": [_EXPLORE],
        "output_style": "default",
        "available_output_styles": ["default"],
        "models": [_DEFAULT],
        "account": agent.options.account,
        "pid": os.getpid(),
        "claude_code_version": VERSION,
        "current_permission_mode": agent.frames.mode,
        "hook_on_failure_supported": True,
        "hooks_when_unanswered_kept": 0,
        "other_hook_ask_outranks_host": True,
        "feedback_mode": {"kind": "disabled"},
        "analytics_disabled": True,
        "remote_control_auto_enable": False,
        "remote_control_auto_connect_default": False,
        "remote_control_available": False,
        "remote_control_auto_on_by_default": False,
        "ide_rc_auto_enable_gate": False,
        "fast_mode_state": "off",
        "fast_mode_disabled_reason": "sdk_opt_in_required",
        "session_state": "running" if agent.turn else "idle",
        "capabilities": ["ui_surface_v1", *agent.capabilities],
    }


def _set_mode(agent: Agent, request_id: str, mode: str) -> None:
    if mode == "bypassPermissions":
        why = "the session was not launched with --dangerously-skip-permissions"
        error = f"Cannot set permission mode to bypassPermissions because {why}"
        _fail(agent, request_id, error, error_code="bypass_not_launched")
        return
    agent.frames.mode = mode
    succeed(agent, request_id, {"mode": mode})
    agent.write(agent.frames.system("status", status=None, permissionMode=mode))


def _apply_settings(agent: Agent, request_id: str, settings: object) -> None:
    if not isinstance(settings, dict):
        got = "undefined" if settings is None else type(settings).__name__
        error = f"apply_flag_settings requires `settings` to be an object, got {got}"
        _fail(agent, request_id, error)
        return
    agent.flag_env.update(settings.get("env") or {})
    succeed(agent, request_id, None)
