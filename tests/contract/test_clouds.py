"""Profiles of Bedrock and Vertex, on the real CLI: it signs, and gets nothing of the API."""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from contract.test_broker import environ
from contract.test_isolation import isolated, walled
from rich.console import Console
from structlog.testing import capture_logs
from support.client_turns import ask, finished
from support.clouds import EXCHANGED, Clouds, clouds
from support.service import OPEN, Running, serving

import samovar
from samovard import serving as program
from samovard.agent.isolation.walls import Mechanism
from samovard.core.errors import Misconfigured
from samovard.standin import StandIn

API_KEY = "sk-ant-canary-4f1c9be2"
ARN = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc123"
SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
VERTEX = "claude-sonnet-4-5@20250929"
BEARER = "AWS_BEARER_TOKEN_BEDROCK=canary-bearer\n"
KEYS = (
    "AWS_ACCESS_KEY_ID=AKIACANARY\nAWS_SECRET_ACCESS_KEY=canary/secret+1=\n"
    "# of an hour\n\nAWS_SESSION_TOKEN=canary-session\n"
)

Story = Callable[[Running, Clouds], Awaitable[None]]


def put(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def bedrock(directory: Path, cloud: Clouds, secrets: str, **fields: Any) -> dict[str, Any]:
    given = {"AWS_REGION": "eu-west-1", "ANTHROPIC_BEDROCK_BASE_URL": cloud.url}
    return {
        "model": SONNET,
        "cloud": "bedrock",
        "cloud_environment": given,
        "cloud_secrets": put(directory / "bedrock.env", secrets),
        "cli_retries": 0,
        **fields,
    }


def vertex(directory: Path, cloud: Clouds) -> dict[str, Any]:
    """Return a profile with a workload's identity: its token is exchanged for the cloud's."""
    identity = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{cloud.url}/token",
        "credential_source": {"file": str(put(directory / "subject", "canary-subject"))},
    }
    given = {
        "CLOUD_ML_REGION": "europe-west1",
        "ANTHROPIC_VERTEX_PROJECT_ID": "ours",
        "ANTHROPIC_VERTEX_BASE_URL": f"{cloud.url}/v1",
        "GOOGLE_APPLICATION_CREDENTIALS": str(put(directory / "adc", json.dumps(identity))),
    }
    return {"model": VERTEX, "cloud": "vertex", "cloud_environment": given, "cli_retries": 0}


def told(
    directory: Path,
    story: Story,
    profile: Callable[[Clouds], dict[str, Any]],
    isolation: dict[str, Any] = OPEN,
) -> None:
    """Run a story of a service with a profile of a cloud beside one of the API."""
    key = put(directory / "canary", API_KEY)

    async def tell() -> None:
        async with clouds() as cloud:
            credentials = {
                "path": key,
                "allow_environment": True,
                "proxy": cloud.url,  # so that nothing leaves the machine, whatever the CLI asks
                "no_proxy": ["127.0.0.1"],
            }
            profiles = {"default": {"model": "haiku"}, "cloud": profile(cloud)}
            async with serving(
                directory, credentials=credentials, profiles=profiles, isolation=isolation
            ) as run:
                await story(run, cloud)
            assert API_KEY not in cloud.text

    asyncio.run(tell())


async def said(run: Running, session: str = "s", **options: Any) -> samovar.Answer:
    return await run.client.ask("Say hello", session=session, profile="cloud", **options)


@pytest.mark.parametrize("model", [SONNET, ARN])
def test_a_turn_of_bedrock_has_its_token(directory: Path, model: str) -> None:
    """In the requests for its answer, and for the list of models; an API turn has the API's key."""

    async def story(run: Running, cloud: Clouds) -> None:
        assert (await said(run)).text == "hello"
        ((path, _),) = cloud.answered
        assert path == f"/model/{model}/invoke-with-response-stream"
        assert {each["authorization"] for _, each in cloud.asked} == {"Bearer canary-bearer"}
        assert (await run.client.ask("Say there")).text == "there"
        (request,) = run.stand_in.requests
        assert set(request.credentials) == {API_KEY}

    told(directory, story, lambda cloud: bedrock(directory, cloud, BEARER, model=model))


def test_a_turn_of_bedrock_is_signed_with_its_keys(directory: Path) -> None:
    """By AWS's signature of that region, beside the session's token; the secret is not sent."""

    async def story(run: Running, cloud: Clouds) -> None:
        assert (await said(run)).text == "hello"
        ((_, headers),) = cloud.answered
        assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIACANARY/")
        assert "/eu-west-1/bedrock/aws4_request" in headers["authorization"]
        assert headers["x-amz-security-token"] == "canary-session"
        assert "canary/secret" not in cloud.text

    told(directory, story, lambda cloud: bedrock(directory, cloud, KEYS))


def test_a_turn_of_vertex_has_the_token_that_its_identity_is_given(directory: Path) -> None:
    """For a token of ours, which the model's requests do not have."""

    async def story(run: Running, cloud: Clouds) -> None:
        assert (await said(run)).text == "hello"
        ((path, headers),) = cloud.answered
        where = "/v1/projects/ours/locations/europe-west1/publishers/anthropic/models"
        assert path == f"{where}/{VERTEX}:streamRawPredict"
        assert headers["authorization"] == f"Bearer {EXCHANGED}"

    told(directory, story, lambda cloud: vertex(directory, cloud))


@walled
def test_an_agent_of_a_cloud_works_behind_walls(
    directory: Path, tmp_path: Path, mechanism: Mechanism
) -> None:
    """With the files of its identity, where agents may see them."""

    async def story(run: Running, cloud: Clouds) -> None:
        assert (await said(run)).text == "hello"
        assert len(cloud.answered) == 1

    isolation = isolated(mechanism) | {"visible": [tmp_path]}
    told(directory, story, lambda cloud: vertex(tmp_path, cloud), isolation)


def test_an_agent_of_a_cloud_has_nothing_of_the_api(directory: Path) -> None:
    """Neither a key, a placeholder nor an address; its way out is that of any other."""

    async def story(run: Running, cloud: Clouds) -> None:
        found = environ((await said(run)).started.pid)
        assert not {"ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_BASE_URL"} & {*found}
        assert not [name for name in found if "DESCRIPTOR" in name]
        assert "samovar-placeholder" not in found.values()
        assert found["CLAUDE_CODE_USE_BEDROCK"] == "1"
        assert (found["HTTPS_PROXY"], found["NO_PROXY"]) == (cloud.url, "127.0.0.1")

    told(directory, story, lambda cloud: bedrock(directory, cloud, BEARER))


def test_a_rotated_secret_is_used_by_the_next_process(directory: Path) -> None:
    """One that runs keeps its own."""

    async def story(run: Running, cloud: Clouds) -> None:
        await said(run, "a")
        put(directory / "bedrock.env", "AWS_BEARER_TOKEN_BEDROCK=canary-next\n")
        await said(run, "a")
        await said(run, "b")
        used = [headers["authorization"] for _, headers in cloud.answered]
        assert used == 2 * ["Bearer canary-bearer"] + ["Bearer canary-next"]

    told(directory, story, lambda cloud: bedrock(directory, cloud, BEARER))


def test_a_cloud_that_denies_fails_the_turn(directory: Path) -> None:
    """Nobody is told with what it was asked."""

    async def story(run: Running, cloud: Clouds) -> None:
        cloud.refuses = True
        with capture_logs() as lines:
            events = await ask(run, "Say hello", profile="cloud")
        assert finished(events).outcome is samovar.Outcome.FAILED
        assert "canary" not in repr(events) + repr(lines)
        assert cloud.answered

    told(directory, story, lambda cloud: bedrock(directory, cloud, BEARER))


def test_a_cloud_alone_needs_no_credential_of_the_api(directory: Path) -> None:
    """The service is ready by a start of its agent, and says what that agent can read."""

    async def tell() -> None:
        async with clouds() as cloud:
            credentials = {"provider": None, "allow_environment": True, "upstream": ""}
            profiles = {"default": bedrock(directory, cloud, BEARER)}
            async with serving(
                directory, trial=True, credentials=credentials, profiles=profiles
            ) as run:
                assert (await run.client.ask("Say hello")).text == "hello"
                shown = io.StringIO()
                program._say(run.service, "", "", Console(file=shown))
                assert "what default signs with is in the agent's environment" in shown.getvalue()
                assert "only turns of default can run" in shown.getvalue()  # there is another
                on = program.on_stand_in(run.service.settings, cloud.stand_in)
                assert on.clouds == []

    asyncio.run(tell())


def test_secrets_that_cannot_be_used_are_no_start(directory: Path) -> None:
    """The setting is named, with the variable and without a value."""

    async def tell() -> None:
        nowhere = Clouds(StandIn(), "https://127.0.0.1")
        profiles = {"default": bedrock(directory, nowhere, "PATH_X=canary\n")}
        credentials = {"allow_environment": True}
        async with serving(directory, credentials=credentials, profiles=profiles):
            pass

    with pytest.raises(Misconfigured) as caught:
        asyncio.run(tell())
    assert "profiles.default.cloud_secrets: PATH_X is not a variable" in str(caught.value)
    assert "canary" not in str(caught.value)
