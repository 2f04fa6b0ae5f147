"""Which requests and headers pass."""

import pytest
from multidict import CIMultiDict

from samovard.agent.broker import rules
from samovard.agent.broker.rules import Why
from samovard.agent.credentials import Credential, Kind, Secret

TOKEN = "samovar_broker_0a"
KEY = Credential(Kind.API_KEY, Secret("sk-canary"), "1")
TOKEN_KEY = Credential(Kind.OAUTH_TOKEN, Secret("sk-canary"), "1")


@pytest.mark.parametrize(
    "rest",
    [
        "/v1/messages",
        "/v1/messages?beta=true",
        "/v1/messages/count_tokens",
        "/v1/messages/count_tokens?beta=true",
    ],
)
def test_the_paths_of_the_api_pass_as_they_were_sent(rest: str) -> None:
    """With whatever query the CLI sends."""
    assert rules.path_of("POST", f"/{TOKEN}{rest}", TOKEN) == rest


@pytest.mark.parametrize(
    "target",
    [
        f"/{TOKEN}/v1/%6dessages",
        f"/{TOKEN}/v1/../v1/messages",
        f"/{TOKEN}//v1/messages",
        f"//{TOKEN}/v1/messages",
        f"/{TOKEN}/v1/messages/",
        f"/{TOKEN}/v1/messages/../organizations",
        f"/{TOKEN}/v1/messages?a=/../b",
        f"/{TOKEN}/v1/messages?a=#b",
        f"/{TOKEN}/v1/messages#x",
        f"/{TOKEN}/v1/messages/batches",
        f"/{TOKEN}/v1/files",
        f"/{TOKEN}/api/claude_code/settings",
        f"/{TOKEN}/api/hello",
        f"/{TOKEN}",
        f"/{TOKEN}/",
        f"/{TOKEN.upper()}/v1/messages",
        f"/{TOKEN}x/v1/messages",
        "/samovar_broker_0b/v1/messages",
        "/v1/messages",
        "/",
        "*",
        "",
        "é/v1/messages",
        f"http://api/{TOKEN}/v1/messages",
        f"x{TOKEN}/v1/messages",
    ],
)
def test_no_other_path_passes(target: str) -> None:
    """Neither another path, nor one that is written in another way, nor another's token."""
    assert rules.path_of("POST", target, TOKEN) is None


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "CONNECT", "OPTIONS", "post", "PATCH"])
def test_no_other_method_passes(method: str) -> None:
    """A model is asked by POST alone."""
    assert rules.path_of(method, f"/{TOKEN}/v1/messages", TOKEN) is None


def test_the_credential_takes_the_place_of_all_that_an_agent_may_send() -> None:
    """Of a key in one header, of a token in the other, and nothing that names another way."""
    sent = CIMultiDict(
        [
            ("x-api-key", "mine"),
            ("X-API-Key", "mine too"),
            ("Authorization", "Bearer mine"),
            ("cookie", "a=b"),
            ("forwarded", "for=1"),
            ("x-forwarded-host", "evil"),
            ("proxy-authorization", "Basic x"),
            ("host", "evil"),
            ("connection", "close"),
            ("expect", "100-continue"),
            ("anthropic-beta", "one"),
            ("anthropic-beta", "two"),
            ("X-Stainless-Lang", "js"),
            ("x-claude-code-session-id", "s"),
            ("user-agent", "claude-cli"),
            ("content-type", "application/json"),
        ]
    )
    passed = rules.to_api(sent, 2, KEY)
    assert passed.getall("x-api-key") == ["sk-canary"]
    assert passed.getall("anthropic-beta") == ["one", "two"]
    assert {name.lower() for name in passed} == {
        "x-api-key",
        "anthropic-beta",
        "x-stainless-lang",
        "x-claude-code-session-id",
        "user-agent",
        "content-type",
        "content-length",
        "accept-encoding",
    }
    passed = rules.to_api(sent, 2, TOKEN_KEY)
    assert passed.getall("authorization") == ["Bearer sk-canary"]
    assert "x-api-key" not in passed


def test_an_answers_headers_are_those_that_the_cli_needs() -> None:
    """No cookies, no ids of organizations, no place to go to instead."""
    given = {
        "content-type": "text/event-stream",
        "request-id": "r",
        "retry-after": "1",
        "anthropic-ratelimit-requests-remaining": "2",
        "set-cookie": "a=b",
        "anthropic-organization-id": "o",
        "location": "http://evil",
        "server": "s",
        "content-encoding": "gzip",
    }
    assert {*rules.to_agent(given)} == {
        "content-type",
        "request-id",
        "retry-after",
        "anthropic-ratelimit-requests-remaining",
    }


@pytest.mark.parametrize(
    ("headers", "length", "why"),
    [
        ({}, 0, None),
        ({"a": "b"}, rules.MAX_BODY, None),
        ({}, rules.MAX_BODY + 1, Why.TOO_LARGE),
        ({}, None, Why.MALFORMED),
        ({"Upgrade": "h2c"}, 0, Why.MALFORMED),
        ({"Transfer-Encoding": "chunked"}, 0, Why.MALFORMED),
        ({"anthropic-beta": "caf\udce9"}, 0, Why.MALFORMED),
        ({"anthropic-beta": "a\rb"}, 0, Why.MALFORMED),
        ({"a": "x" * rules.MAX_HEADERS}, 0, Why.MALFORMED),
    ],
)
def test_a_request_of_another_form_is_refused(
    headers: dict[str, str], length: int | None, why: Why | None
) -> None:
    """What would have to be passed on in another way than it came."""
    assert rules.fault_of(CIMultiDict(headers), length) is why
