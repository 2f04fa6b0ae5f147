"""Queries of the dashboard and of the alerts, held against what the service really exports."""

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import grpc
import promql_parser as promql
import pytest
import yaml
from contract.test_tls import certificate
from prometheus_client.parser import text_string_to_metric_families
from support.optional_tools import passes, tool
from support.service import Running, free_port, raw, serving, simple
from support.timeouts import BOUND

from samovar.v1 import session_pb2 as pb
from samovard.standin import script, text
from samovard.standin import tool as uses

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "samovar.json").read_text())
RULES = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yaml").read_text())
ALERTS = {rule["alert"]: rule["expr"] for group in RULES["groups"] for rule in group["rules"]}
PANELS = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", [])
}
#: What Prometheus adds when it scrapes, and what a histogram has.
ADDED = {"job", "instance"}
#: Labels that only what went wrong has: no failing agent is at hand in the run below.
OF_FAILURES = {"gen_ai_invoke_agent_duration_seconds_count": {"error_type"}}

Exported = dict[str, set[str]]


@pytest.fixture(scope="module")
def exported() -> Exported:
    """Gives each series that Prometheus fetches after some turns, with its labels."""
    found: Exported = {}
    for fetched in (asyncio.run(page()), asyncio.run(page_with_tls())):
        for family in text_string_to_metric_families(fetched):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    for name, labels in OF_FAILURES.items():
        found[name] |= labels
    return found


async def page() -> str:
    """Runs a turn with a tool and one that is refused, beside a collector that is not there."""
    with TemporaryDirectory(prefix="") as made, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        taken.close()
        nowhere = {"endpoint": "http://127.0.0.1:9", "protocol": "http/protobuf"}
        telemetry = nowhere | {"prometheus_listen": address, "tenants": ["local"]}
        async with serving(Path(made), telemetry=telemetry) as run:
            await turns(run)
            async with asyncio.timeout(BOUND):
                while "samovar_telemetry_dropped_total{" not in (text := await fetch(address)):
                    pass
            return text


async def page_with_tls() -> str:
    """Return what a service with TLS files exports."""
    with TemporaryDirectory(prefix="") as made:
        public, private = certificate(Path(made))
        server = {"tls": "files", "tls_certificate": public, "tls_key": private}
        address = f"127.0.0.1:{free_port()}"
        telemetry = {"prometheus_listen": address}
        async with serving(Path(made), fake=True, server=server, telemetry=telemetry):
            async with asyncio.timeout(BOUND):
                while "samovar_certificate_expiry" not in (text := await fetch(address)):
                    pass
            return text


async def turns(run: Running) -> None:
    spec = pb.SessionSpec(profile="tools")
    prompt = script(uses("Bash", {"command": "true"}), text("done"))
    await raw(run.stub, simple(prompt, session_id="s", spec=spec))
    with pytest.raises(grpc.aio.AioRpcError):
        await raw(run.stub, simple("Say no", session_id="none"))


async def fetch(address: str) -> str:
    def get() -> str:
        with urlopen(f"http://{address}/metrics") as response:
            return str(response.read(), "utf-8")

    return await asyncio.to_thread(get)


def plain(query: str) -> str:
    """Gives a query as Prometheus gets it: the dashboard's variables are in it."""
    return re.sub(r"\$(job|instance)", ".*", query.replace("$__rate_interval", "5m"))


def parts(
    node: promql.Expr, grouped: frozenset[str] = frozenset()
) -> Iterator[tuple[str, set[str]]]:
    """Gives each selector of a query: its metric, and the labels that are asked of it."""
    if isinstance(node, promql.AggregateExpr):
        labels = frozenset(node.modifier.labels) if node.modifier else frozenset()
        yield from parts(node.expr, grouped | labels)
    elif isinstance(node, promql.BinaryExpr):
        yield from parts(node.lhs, grouped)
        yield from parts(node.rhs, grouped)
    elif isinstance(node, promql.Call):
        for argument in node.args:
            yield from parts(argument, grouped)
    elif isinstance(node, (promql.ParenExpr, promql.UnaryExpr, promql.SubqueryExpr)):
        yield from parts(node.expr, grouped)
    elif isinstance(node, promql.MatrixSelector):
        yield from parts(node.vector_selector, grouped)
    elif isinstance(node, promql.VectorSelector):
        yield str(node.name), {matcher.name for matcher in node.matchers.matchers} | grouped
    else:
        assert isinstance(node, (promql.NumberLiteral, promql.StringLiteral)), node


@pytest.mark.parametrize("query", [*PANELS.values(), *ALERTS.values()], ids=[*PANELS, *ALERTS])
def test_queries_ask_for_what_is_exported(query: str, exported: Exported) -> None:
    """Each metric of a query is one of the service's, and has the labels that are asked of it."""
    asked = list(parts(promql.parse(plain(query))))
    assert asked
    for name, labels in asked:
        assert name in exported, name
        assert labels <= exported[name] | ADDED, f"{name}: {labels - exported[name] - ADDED}"


def test_variables_of_the_dashboard_are_exported(exported: Exported) -> None:
    """The lists of jobs and servers come from a metric that each server has."""
    queries = [found.get("definition", "") for found in DASHBOARD["templating"]["list"]]
    named = [match[1] for query in queries if (match := re.match(r"label_values\((\w+)", query))]
    assert named == ["samovar_process_count"] * 2
    assert set(named) <= exported.keys()


def test_legends_name_labels_of_their_query() -> None:
    """A label in a legend is one that the query leaves."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            asked = [labels for _, labels in parts(promql.parse(plain(target["expr"])))]
            assert shown <= set.union(*asked), panel["title"]


def test_panels_are_apart_and_explained() -> None:
    """Each has an id, a place and a description of its own."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 20
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        grid = panel["gridPos"]
        cells = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells)
        taken |= cells
        assert panel["type"] == "row" or panel["description"].endswith("."), panel["title"]


def test_prometheus_takes_the_alerts() -> None:
    """`promtool check rules` finds no fault with them."""
    passes(tool("promtool"), "check", "rules", ROOT / "deploy" / "prometheus" / "rules.yaml")


def test_alerts_fire_when_they_should() -> None:
    """On made-up series, by Prometheus' own rules: when, with which labels and words."""
    story = ROOT / "tests" / "deploy" / "rules_test.yaml"
    passes(tool("promtool"), "test", "rules", story)
    told = {
        check["alertname"]
        for test in yaml.safe_load(story.read_text())["tests"]
        for check in test["alert_rule_test"]
        if check["exp_alerts"]
    }
    assert told == ALERTS.keys()


RUNBOOK = (ROOT / "docs" / "operations.md").read_text().partition("\n## Alerts\n")[2]
RUNBOOK = RUNBOOK.partition("\n## ")[0]
SECTIONS = {name: text for name, _, text in (s.partition("\n") for s in RUNBOOK.split("### ")[1:])}


def test_each_alert_has_its_section_in_the_runbook() -> None:
    """Every alert, in the order of the rules, and none that is not there."""
    assert list(SECTIONS) == list(ALERTS)


@pytest.mark.parametrize("alert", SECTIONS)
def test_a_section_says_what_it_means_where_to_look_and_what_to_do(alert: str) -> None:
    """In this order, and what it names is there: panels, lines of the log, settings, alerts."""
    text = SECTIONS[alert]
    assert re.findall(r"^\*\*(\w+)\.\*\* \S", text, re.MULTILINE) == ["Means", "Look", "Do"]
    flat = " ".join(text.split())
    panels = {panel["title"] for panel in DASHBOARD["panels"]}
    assert set(re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", flat)) <= panels
    assert set(re.findall(r"Samovar[A-Z]\w+", text)) <= ALERTS.keys()
    docs = ("observability.md", "configuration.md")
    known = "".join((ROOT / "docs" / name).read_text() for name in docs)
    assert not [word for word in re.findall(r"`[a-z_]+\.[a-z_]+`", text) if word not in known]
