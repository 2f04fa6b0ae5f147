"""The service of Cloud Run: what the platform is told agrees with what the service is told."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from samovard.settings import Settings, load

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "deploy" / "cloudrun" / "service.yaml"


@pytest.fixture
def service() -> Any:
    return yaml.safe_load(MANIFEST.read_text())


@pytest.fixture
def container(service: Any) -> Any:
    (container,) = service["spec"]["template"]["spec"]["containers"]
    return container


@pytest.fixture
def settings(container: Any, monkeypatch: pytest.MonkeyPatch) -> Settings:
    variables = {row["name"]: row["value"] for row in container["env"]}
    monkeypatch.setattr("os.environ", {"XDG_STATE_HOME": "/var/lib"} | variables)
    return load()


def test_the_port_is_for_http2_without_tls(container: Any, settings: Settings) -> None:
    """The platform speaks h2c to the port that the service listens on, beyond loopback."""
    assert container["ports"] == [{"name": "h2c", "containerPort": 8080}]
    assert settings.server.listen == "0.0.0.0:8080"
    assert settings.server.tls == "terminated"
    assert settings.server.public_health
    assert settings.audit_sink == "stdout"


def test_probes_ask_the_right_names(container: Any) -> None:
    """Starting is over when turns can be served; alive is whose loop answers."""
    assert container["startupProbe"]["grpc"] == {"port": 8080, "service": "samovar.v1.Session"}
    assert container["livenessProbe"]["grpc"] == {"port": 8080}
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 60


def test_the_end_fits_into_the_platforms_ten_seconds(settings: Settings) -> None:
    """The three times leave something of what is between SIGTERM and SIGKILL."""
    server = settings.server
    assert server.platform_limit == 10
    assert (server.drains_for, server.drain_grace, server.stop_budget) == (0.5, 5, 4)


def test_concurrency_is_what_can_run_and_wait(service: Any, settings: Settings) -> None:
    """The platform sends as many calls as there are slots and waiting places."""
    spec = service["spec"]["template"]["spec"]
    assert spec["containerConcurrency"] == settings.slots + settings.queue_limit
    assert spec["timeoutSeconds"] == 3600


def test_memory_is_enough_for_every_slot(container: Any, settings: Settings) -> None:
    """512 MiB for each process, and room for what sessions write, which is memory here."""
    assert container["resources"]["limits"]["memory"] == "8Gi"
    assert settings.slots * 512 <= 0.75 * 8 * 1024


def test_one_instance_is_kept_and_works_between_requests(service: Any) -> None:
    """Sessions are in the instance's own files; agents need CPU without a request."""
    told = service["spec"]["template"]["metadata"]["annotations"]
    assert told["autoscaling.knative.dev/minScale"] == "1"
    assert told["autoscaling.knative.dev/maxScale"] == "1"
    assert told["run.googleapis.com/cpu-throttling"] == "false"
    assert told["run.googleapis.com/execution-environment"] == "gen2"
    assert told["run.googleapis.com/sessionAffinity"] == "false"


def test_secrets_are_files_that_the_settings_name(
    service: Any, container: Any, settings: Settings
) -> None:
    """Each secret is mounted, none is in a variable, and each file is one that is read."""
    assert all("value" in row for row in container["env"])
    places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    files = {
        f"{places[volume['name']]}/{item['path']}"
        for volume in service["spec"]["template"]["spec"]["volumes"]
        for item in volume["secret"]["items"]
    }
    (keys,) = [part for part in container["args"] if part.startswith("--keys=")]
    read = {settings.credentials.path, settings.auth.page_key, settings.auth.api_key.pepper}
    assert files == {str(path) for path in read} | {keys.removeprefix("--keys=")}
    assert settings.credentials.provider == "mount"
