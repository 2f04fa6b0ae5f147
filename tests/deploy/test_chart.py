"""The Helm chart: what it renders is what Kubernetes takes and samovard understands."""

import functools
import importlib
import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import chart
import pytest
import yaml
from support.optional_tools import missing, passes, tool
from support.timeouts import BOUND

import samovard
from samovard.settings import Settings, given, load

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "kubernetes"
#: Of the schemas that rendered manifests are held against.
KUBERNETES = "1.33"
#: Kinds of others, which those schemas do not have.
FOREIGN = {"ServiceMonitor", "PrometheusRule", "GRPCRoute", "BackendTrafficPolicy"}

DEFAULT: tuple[str, ...] = ("image.repository=registry.example/samovard",)
#: Everything that can be switched on, in pods without a volume.
FULL = (
    *DEFAULT,
    "persistence.enabled=false",
    "replicas=3",
    "secrets.apiKeys=samovar-keys",
    "secrets.tls=samovar-tls",
    "credentials.shared=false",
    "autoscaling.enabled=true",
    "serviceMonitor.enabled=true",
    "prometheusRule.enabled=true",
    "dashboard.enabled=true",
    "gateway.enabled=true",
    "gateway.hostnames={samovar.example}",
    "telemetry.endpoint=http://collector:4317",
    "networkPolicy.callers[0].podSelector.matchLabels.app=router",
    "networkPolicy.scrapers[0].namespaceSelector.matchLabels.name=monitoring",
    "networkPolicy.collector[0].podSelector.matchLabels.app=collector",
    "runtimeClassName=gvisor",
    "image.digest=sha256:" + "0" * 64,
    "settings.profiles.quick.model=haiku",
)
VALUES = pytest.mark.parametrize("values", [DEFAULT, FULL], ids=["default", "full"])


def helm(values: tuple[str, ...]) -> "subprocess.CompletedProcess[str]":
    options = [part for value in values for part in ("--set", value)]
    command = [tool("helm"), "template", "samovar", str(CHART), "--namespace=agents", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=BOUND)


@functools.cache
def rendered(values: tuple[str, ...]) -> dict[str, Any]:
    """Gives what is rendered, by kind; the dashboard is the second ConfigMap."""
    done = helm(values)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = {}
    for document in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader):
        if document:
            kind = document["kind"]
            name = "Dashboard" if document["metadata"]["name"].endswith("-dashboard") else kind
            assert name not in found
            found[name] = document
    return found


def container(values: tuple[str, ...]) -> Any:
    (one,) = rendered(values)["Deployment"]["spec"]["template"]["spec"]["containers"]
    return one


@pytest.fixture
def settings(values: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("os.environ", {"XDG_STATE_HOME": "/var/lib"})
    config = tmp_path / "samovard.toml"
    config.write_text(rendered(values)["ConfigMap"]["data"]["samovard.toml"])
    return load(config)


def test_helm_has_nothing_to_say() -> None:
    """The chart passes `helm lint --strict`."""
    passes(tool("helm"), "lint", "--strict", CHART, "--set", *DEFAULT)
    assert helm(FULL).stderr == ""


def test_the_schema_and_the_copies_are_up_to_date() -> None:
    """What is made of the settings' models and of other files is as it would be made now."""
    assert chart.stale() == []


def test_kinds_are_as_asked_for() -> None:
    """By default what every cluster knows; kinds of others only when switched on."""
    always = {"Deployment", "Service", "ServiceAccount", "ConfigMap", "NetworkPolicy"}
    always |= {"PodDisruptionBudget"}
    assert rendered(DEFAULT).keys() == always | {"PersistentVolumeClaim"}
    more = {"HorizontalPodAutoscaler", "Dashboard"} | FOREIGN
    assert rendered(FULL).keys() == always | more


@VALUES
def test_kubernetes_takes_each_manifest(values: tuple[str, ...]) -> None:
    """Each is valid by the cluster's own schemas, without a field that they do not know."""
    try:
        validator = importlib.import_module("kubernetes_validate")
    except ImportError:
        missing("kubernetes-validate is not installed: `make deploy-tools` sets it up")
    for kind, document in rendered(values).items():
        if kind not in FOREIGN:
            validator.validate(document, KUBERNETES, strict=True)


@VALUES
def test_everything_is_labelled_and_found(values: tuple[str, ...]) -> None:
    """Whatever selects pods selects those of this release."""
    found = rendered(values)
    pod = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= pod.items()
    for document in found.values():
        assert document["metadata"]["labels"]["app.kubernetes.io/instance"] == "samovar"


@VALUES
def test_pods_meet_the_restricted_standard(values: tuple[str, ...]) -> None:
    """No root, no privileges, no capability, the platform's seccomp profile, a read-only root."""
    pod = rendered(values)["Deployment"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert rendered(values)["ServiceAccount"]["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    assert container(values)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}


@VALUES
def test_secrets_are_mounted_and_nowhere_else(values: tuple[str, ...]) -> None:
    """None is a variable or in a manifest; a group may read them, others not."""
    assert "env" not in container(values)
    volumes = rendered(values)["Deployment"]["spec"]["template"]["spec"]["volumes"]
    modes = {volume["secret"]["defaultMode"] for volume in volumes if "secret" in volume}
    assert modes == {0o440}


@VALUES
def test_samovard_takes_its_settings(values: tuple[str, ...], settings: Settings) -> None:
    """The file in the ConfigMap is one that the service starts with."""
    assert settings.auth.methods == ("api_key",)
    assert settings.credentials.provider == "mount"
    assert settings.slots == 12
    assert set(settings.profiles) == {"default", *(("quick",) if values is FULL else ())}
    assert settings.directory == Path("/var/lib/samovar")
    assert settings.audit_sink == "stdout"


@VALUES
def test_files_that_settings_name_are_mounted(values: tuple[str, ...], settings: Settings) -> None:
    """Each path of a setting or an argument lies in a mount."""
    places = [Path(mount["mountPath"]) for mount in container(values)["volumeMounts"]]
    named = [
        settings.credentials.path,
        settings.auth.page_key,
        settings.auth.api_key.pepper,
        settings.server.tls_certificate,
        settings.server.tls_key,
        settings.directory,
        *(part.partition("=")[2] for part in container(values)["args"] if "=" in part),
    ]
    assert len([path for path in named if path]) == (8 if values is FULL else 5)
    for path in named:
        assert not path or any(Path(path).is_relative_to(place) for place in places), path
    assert settings.credentials.path
    assert settings.credentials.path.name == ("credentials" if values is FULL else "key")


@VALUES
def test_ports_agree(values: tuple[str, ...], settings: Settings) -> None:
    """The service listens where the pod, the Service and the probes say."""
    ports = {port["name"]: port["containerPort"] for port in container(values)["ports"]}
    assert settings.server.listen == f"0.0.0.0:{ports['grpc']}"
    assert settings.server.health_listen == f"0.0.0.0:{ports['health']}"
    assert settings.telemetry.prometheus_listen == f"0.0.0.0:{ports['metrics']}"
    service = rendered(values)["Service"]["spec"]
    assert service["clusterIP"] == "None"
    assert {port["name"]: port["port"] for port in service["ports"]} == ports
    assert {port["targetPort"] for port in service["ports"]} == ports.keys()


def test_probes_ask_the_right_names() -> None:
    """Ready is who could serve a turn; alive is whose loop answers; the port is a number."""
    one = container(DEFAULT)
    session = {"port": 50052, "service": "samovar.v1.Session"}
    assert one["startupProbe"]["grpc"] == session
    assert one["readinessProbe"]["grpc"] == session
    assert one["livenessProbe"]["grpc"] == {"port": 50052}
    assert (one["readinessProbe"]["periodSeconds"], one["readinessProbe"]["failureThreshold"]) == (
        2,
        1,
    )
    assert "lifecycle" not in one


def test_probes_are_the_same_behind_tls() -> None:
    """Kubernetes' own do not speak TLS, and the port for probes does not either."""
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container(FULL)[name] == container(DEFAULT)[name]


@VALUES
def test_the_pod_has_the_time_that_the_service_needs(
    values: tuple[str, ...], settings: Settings
) -> None:
    """Waiting, grace, stopping and 15 s; the service knows when it will be killed."""
    pod = rendered(values)["Deployment"]["spec"]["template"]["spec"]
    server = settings.server
    needed = server.drains_for + server.drain_grace + server.stop_budget
    assert pod["terminationGracePeriodSeconds"] == needed + 15 == server.platform_limit


def test_one_volume_is_one_pods() -> None:
    """The next pod starts when the last has gone; conversations outlive the release."""
    found = rendered(DEFAULT)
    assert found["Deployment"]["spec"]["replicas"] == 1
    assert found["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}
    claim = found["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


REFUSED = {
    ("replicas=2",): "one volume allows one pod",
    ("persistence.enabled=false",): "keys that are added in a pod die with it",
    ("autoscaling.enabled=true",): "one volume allows one pod",
    ("serviceMonitor.enabled=true", "telemetry.metricsPort=0"): "needs telemetry.metricsPort",
    ("settings.server.listen=0.0.0.0:1",): "settings.server.listen: is decided by the chart",
    ("settings.server.health_listen=0.0.0.0:1",): "health_listen: is decided by the chart",
    ("settings.server.tls_client_ca=/x",): "tls_client_ca: is decided by the chart",
    ("settings.credentials.path=/x",): "settings.credentials.path: is decided by the chart",
    ("image.repository=",): "image.repository: is needed",
    ("settings.nonsense.x=1",): "'nonsense' not allowed",
    ("settings.pool.slotz=1",): "'slotz' not allowed",
    ("settings.profiles.default.modl=x",): "'modl' not allowed",
    ("settings.profiles.Bad=x",): "'Bad'",
    ("settings.auth.api_key.peppr=x",): "'peppr' not allowed",
    ("settings.pool.slots=many",): "got string, want integer",
    ("settings.pool.max_wait=soon",): "'soon' does not match",
    ("settings.agent.max_line_bytes=64 MB",): "'64 MB' does not match",
    ("settings.pool.max_wait=-1",): "minimum: got -1, want 0",
    ("image.tagg=x",): "tagg",
    ("drain.stopSeconds=1",): "stopSeconds",
    ("service.port=80",): "port",
}


@pytest.mark.parametrize("values", REFUSED, ids=lambda values: values[0])
def test_values_that_cannot_be_are_refused(values: tuple[str, ...]) -> None:
    """A contradiction, a misspelt name and a value out of bounds end in a sentence."""
    done = helm((*DEFAULT, *values))
    assert done.returncode != 0
    assert REFUSED[values] in done.stderr


def test_the_schema_knows_every_value_and_no_other() -> None:
    """Each table of `values.yaml` has the keys that the schema allows."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def agree(table: Any, allowed: Any, where: str) -> None:
        assert table.keys() == allowed["properties"].keys() - {"global"}, where
        for key, value in table.items():
            inner = allowed["properties"][key]
            if isinstance(value, dict) and "properties" in inner and key != "settings":
                agree(value, inner, f"{where}.{key}")

    agree(values, schema, "values")


def test_quantities_are_numbers_or_texts_with_units() -> None:
    """The schema takes what the settings take."""
    values = (*DEFAULT, "settings.pool.max_wait=30 s", "settings.agent.max_line_bytes=64 MiB")
    text = rendered(values)["ConfigMap"]["data"]["samovard.toml"]
    made = given(tomllib.loads(text))
    assert (made.pool.max_wait, made.agent.max_line_bytes) == (30.0, 64 << 20)


def test_the_autoscaler_looks_at_turns() -> None:
    """Not at CPU: turns wait for the model. One pod at most goes at a time."""
    found = rendered(FULL)
    assert "replicas" not in found["Deployment"]["spec"]
    spec = found["HorizontalPodAutoscaler"]["spec"]
    (metric,) = spec["metrics"]
    assert metric["pods"]["metric"] == {"name": "samovar_turn_running"}
    assert spec["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    assert found["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def test_the_network_is_closed_but_for_what_is_named() -> None:
    """In: callers and scrapers. Out: DNS, the model's API, the collector."""
    spec = rendered(FULL)["NetworkPolicy"]["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    allowed = [[port["port"] for port in row["ports"]] for row in spec["ingress"]]
    assert allowed == [["grpc", "health"], ["metrics"]]
    assert [row["ports"][0]["port"] for row in spec["egress"]] == [53, 443, 4317]
    (world, _) = rendered(DEFAULT)["NetworkPolicy"]["spec"]["egress"][1]["to"]
    assert "169.254.0.0/16" in world["ipBlock"]["except"]


def test_alerts_and_dashboard_are_the_ones_of_the_repository() -> None:
    """The chart carries them as they are, none of their own braces taken for Helm's."""
    found = rendered(FULL)
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yaml").read_text())
    assert found["PrometheusRule"]["spec"] == rules
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "samovar.json").read_text())
    assert json.loads(found["Dashboard"]["data"]["samovar.json"]) == dashboard


def test_the_gateway_keeps_sessions_with_their_pod() -> None:
    """By key and session on a hash, without time-outs, healthy pods only."""
    found = rendered(FULL)
    (rule,) = found["GRPCRoute"]["spec"]["rules"]
    services = [match["method"]["service"] for match in rule["matches"]]
    assert services == ["samovar.v1.Session", "grpc.health.v1.Health"]
    (backend,) = rule["backendRefs"]
    assert backend["name"] == found["Service"]["metadata"]["name"]
    policy = found["BackendTrafficPolicy"]["spec"]
    assert policy["targetRefs"][0]["name"] == found["GRPCRoute"]["metadata"]["name"]
    hashing = policy["loadBalancer"]["consistentHash"]
    assert [header["name"] for header in hashing["headers"]] == ["authorization", "session-id"]
    assert policy["timeout"]["http"]["requestTimeout"] == "0s"
    asked = policy["healthCheck"]["active"]
    assert asked["grpc"] == {"service": "samovar.v1.Session"}
    assert asked["overrides"] == {"port": 50052}


def test_the_chart_is_of_this_version() -> None:
    """Chart, application and image go together."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == samovard.__version__
    assert container(DEFAULT)["image"] == f"registry.example/samovard:{samovard.__version__}"
    assert container(FULL)["image"].startswith("registry.example/samovard@sha256:")


def test_toml_of_the_chart_is_toml() -> None:
    """The template engine writes numbers as TOML has them."""
    values = (*DEFAULT, "settings.server.event_hold_bytes=8388608", "settings.pool.slots=3")
    text = rendered(values)["ConfigMap"]["data"]["samovard.toml"]
    assert tomllib.loads(text)["server"]["event_hold_bytes"] == 8388608
