"""The composition for one machine: its files fit together."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.optional_tools import passes, tool

from samovard.settings import Settings, load

ROOT = Path(__file__).parents[2]
FILES = ROOT / "deploy" / "compose"
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("os.environ", {"XDG_STATE_HOME": "/var/lib"})
    return load(FILES / "samovard.toml")


def mounts(service: str) -> dict[str, str]:
    """Gives where each file of the repository is in a service."""
    return {
        inside: outside
        for outside, inside in (row.split(":")[:2] for row in SERVICES[service]["volumes"])
    }


def test_compose_takes_it() -> None:
    """The file is valid by the specification's own schema."""
    schema = ("--builtin-schema", "vendor.compose-spec")
    passes(tool("check-jsonschema"), *schema, ROOT / "compose.yaml")


def test_images_have_a_version() -> None:
    """None is whatever is newest."""
    for name, service in SERVICES.items():
        assert re.search(r":v?\d+\.\d+(\.\d+)?$", service["image"]), name


def test_files_that_are_mounted_exist() -> None:
    """Each is in the repository, and cannot be written to; the rest are named volumes."""
    for name, service in SERVICES.items():
        for row in service.get("volumes", []):
            outside = row.partition(":")[0]
            if outside.startswith("."):
                assert (ROOT / outside).is_file(), f"{name}: {outside}"
                assert row.endswith(":ro"), row
            else:
                assert outside in COMPOSE["volumes"]


def test_nothing_is_published_beyond_this_machine() -> None:
    """Each port is on loopback; samovard's is the one that it listens on."""
    for service in SERVICES.values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
    assert SERVICES["samovard"]["ports"] == ["127.0.0.1:50051:50051"]


def test_samovard_is_confined() -> None:
    """A read-only root, no capability, no new privileges, bounds on memory and processes."""
    service = SERVICES["samovard"]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"]
    assert service["mem_limit"]
    assert "privileged" not in service


def test_samovard_takes_its_settings(settings: Settings) -> None:
    """The file is one that the service starts with, and its end fits into what it is given."""
    assert settings.server.listen == "0.0.0.0:50051"
    assert mounts("samovard")["/var/lib/samovar"] == "state"
    assert settings.directory == Path("/var/lib/samovar")
    assert settings.audit_sink == "stdout"
    (limit,) = {SERVICES["samovard"]["stop_grace_period"]}
    assert f"{settings.server.platform_limit:g}s" == limit


def test_telemetry_goes_where_the_collector_listens(settings: Settings) -> None:
    """By gRPC for the service, by HTTP for agents, and from there on to the right names."""
    collector = yaml.safe_load((FILES / "collector.yaml").read_text())
    listening = collector["receivers"]["otlp"]["protocols"]
    ports = {kind: row["endpoint"].rpartition(":")[2] for kind, row in listening.items()}
    assert settings.telemetry.endpoint == f"http://collector:{ports['grpc']}"
    assert settings.telemetry.agent_endpoint == f"http://collector:{ports['http']}"
    pipelines = collector["service"]["pipelines"]
    for pipeline in pipelines.values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= collector[kind].keys()
    hosts = [
        re.sub(r"^\w+://", "", exporter["endpoint"]).partition(":")[0]
        for exporter in collector["exporters"].values()
    ]
    assert hosts == ["jaeger", "prometheus"]
    assert set(hosts) <= SERVICES.keys()


def test_the_collector_forgets_what_agents_add() -> None:
    """Spans of agents bring attributes that nobody asked for: none gets through."""
    collector = yaml.safe_load((FILES / "collector.yaml").read_text())
    actions = collector["processors"]["attributes"]["actions"]
    dropped = {row["key"] for row in actions if row["action"] == "delete"}
    assert dropped == {"user.id", "bash_argv0", "bash_command_class"}
    assert "attributes" in collector["service"]["pipelines"]["traces"]["processors"]


def test_prometheus_takes_its_configuration() -> None:
    """`promtool check config` finds no fault with it; alerts are where it looks for them."""
    file = FILES / "prometheus.yaml"
    passes(tool("promtool"), "check", "config", "--syntax-only", file)
    (rules,) = yaml.safe_load(file.read_text())["rule_files"]
    assert mounts("prometheus")[rules] == "./deploy/prometheus/rules.yaml"
    assert "--web.enable-otlp-receiver" in SERVICES["prometheus"]["command"]


def test_grafana_finds_the_dashboard_and_its_sources() -> None:
    """The dashboard is mounted where the provider looks; sources are services of the file."""
    provided = yaml.safe_load((FILES / "grafana" / "dashboards.yaml").read_text())
    (provider,) = provided["providers"]
    inside = f"{provider['options']['path']}/samovar.json"
    assert mounts("grafana")[inside] == "./deploy/grafana/samovar.json"
    sources = yaml.safe_load((FILES / "grafana" / "datasources.yaml").read_text())["datasources"]
    hosts = {re.sub(r"^\w+://", "", source["url"]).partition(":")[0] for source in sources}
    assert hosts <= SERVICES.keys()
    uids = {source["uid"] for source in sources}
    for source in sources:
        for link in source.get("jsonData", {}).get("exemplarTraceIdDestinations", []):
            assert link["datasourceUid"] in uids
