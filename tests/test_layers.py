"""A module imports only what lies below it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVER = Path(__file__).parent.parent / "server" / "samovard"
CLIENT = Path(__file__).parent.parent / "clients" / "python" / "samovar"

#: What each room may import of the others. `core.events`, `core.errors`, `core.process` and
#: `core.records` are words: the seams that rooms below the core implement.
WORDS = {"core.events", "core.errors", "core.process", "core.records"}
MAY = {
    "heap": set(),
    "quantities": set(),
    "settings": {"quantities"},
    "telemetry": set(),
    "standin": set(),
    "store": WORDS,
    "core": {"telemetry"},
    "agent": WORDS | {"standin", "settings", "telemetry.redaction"},
    "edge": {"audit", "core", "telemetry", "store.keys", "store.tenants"},
    "maintenance": {
        "agent",
        "audit",
        "bounding",
        "core",
        "deleting",
        "edge.certificates",
        "edge.health",
        "edge.revocation",
        "heap",
        "store.sqlite.database",
        "telemetry",
    },
    "bounding": {"agent", "core", "settings", "store.thread", "telemetry"},
    "deleting": {"core", "edge.revocation", "store.deletions"},
    "shutdown": {"core", "settings", "telemetry", "maintenance"},
    "reloading": {
        "agent",
        "audit",
        "auditing",
        "core",
        "edge.certificates",
        "settings",
        "store",
        "telemetry",
        "tenant_bounds",
    },
    "tenant_bounds": {"core.pool.queue", "core.sessions.quotas", "settings"},
    "rules": {"core", "settings", "state_lock", "tenant_bounds"},
    "listening": {"edge", "settings", "telemetry"},
    "authentication": {"edge", "settings"},
    "secret": {"settings"},
    "audit": {"core.errors", "telemetry"},
    "auditing": {"audit", "core.errors", "settings", "telemetry"},
    "state_lock": set(),
    "app": {
        "audit",
        "auditing",
        "__version__",
        "authentication",
        "bounding",
        "deleting",
        "listening",
        "rules",
        "shutdown",
        "secret",
        "state_lock",
        "tenant_bounds",
        "maintenance",
        "edge",
        "core",
        "agent",
        "store",
        "telemetry",
        "settings",
    },
    "serving": {
        "agent.process_tree",
        "app",
        "heap",
        "reloading",
        "settings",
        "standin",
        "telemetry",
    },
    "demo": {"app", "serving", "agent", "settings", "standin", "telemetry"},
    "listing": set(),
    "data_commands": {
        "agent.home",
        "agent.root",
        "commandline",
        "core.errors",
        "settings",
        "state_lock",
        "store.sqlite.backup",
        "tenant_deletion",
        "tenant_export",
    },
    "tenant_deletion": {"agent", "settings", "state_lock", "store"},
    "tenant_export": {
        "__version__",
        "agent.gone",
        "agent.home",
        "agent.transcripts",
        "settings",
        "store.sqlite.backup",
        "store.new_file",
        "store.sqlite.schema",
    },
    "commandline": {
        "auditing",
        "core.errors",
        "secret",
        "settings",
        "state_lock",
        "store.sqlite.database",
    },
    "key_commands": {
        "commandline",
        "edge.identity",
        "listing",
        "quantities",
        "secret",
        "settings",
        "store",
    },
    "tenant_commands": {"commandline", "data_commands", "listing", "store.tenants"},
    "store_commands": {
        "agent.home",
        "agent.root",
        "commandline",
        "core.errors",
        "settings",
        "state_lock",
        "store.sqlite.backup",
    },
    "checking": {"agent", "listing", "settings"},
    "cli": {
        "app",
        "commandline",
        "serving",
        "checking",
        "demo",
        "store_commands",
        "data_commands",
        "key_commands",
        "tenant_commands",
        "core",
        "edge",
        "store",
        "settings",
        "telemetry.log",
        "",
    },
    "__main__": {"cli"},
    "__init__": set(),
}
FILES = sorted(SERVER.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    return path.relative_to(SERVER).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SERVER)))
def test_imports_go_down(path: Path) -> None:
    """No module imports from a room that lies above its own or beside it."""
    own = room(path)
    for name in imports(path):
        if not name.startswith("samovard"):
            continue
        wanted = name.removeprefix("samovard").removeprefix(".")
        allowed = {own, *MAY[own]}
        inside = any(wanted == a or wanted.startswith(f"{a}.") for a in allowed if a)
        assert inside or (wanted.count(".") == 0 and "" in allowed), f"{own} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SERVER)))
def test_only_the_edge_knows_grpc(path: Path) -> None:
    """gRPC and generated code are imported by the edge, and by what builds it.

    OTLP's messages are not of the contract: who receives spans reads them. The exporter over gRPC
    takes how to compress in gRPC's own words.
    """
    if room(path) in ("edge", "app", "shutdown", "listening"):
        return
    others = ("opentelemetry.proto.", "grpc.Compression")
    ours = [name for name in imports(path) if not name.startswith(others)]
    foreign = [n for n in ours if n.split(".")[0] in ("grpc", "google") or "_pb2" in n]
    assert not foreign


def graph() -> dict[str, set[str]]:
    """What each module imports of the others, for types as well, wherever the import stands."""
    modules = {module(path): path for path in FILES}
    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        wanted = {each for each in imports(path) if each.startswith("samovard")}
        known = {each if each in modules else each.rpartition(".")[0] for each in wanted}
        found[name] = (known & modules.keys()) - {name}
    return found


def module(path: Path) -> str:
    parts = path.relative_to(SERVER.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circles(of: dict[str, set[str]]) -> list[str]:
    """The modules that stand in a circle: what is left once all that imports nothing left went."""
    left = {name: set(wanted) for name, wanted in of.items()}
    while leaves := {name for name, wanted in left.items() if not wanted}:
        left = {name: wanted - leaves for name, wanted in left.items() if name not in leaves}
    return sorted(left)


def test_no_import_leads_back() -> None:
    """There is no circle of modules anywhere, types counted."""
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]
    assert circles(graph()) == []


def test_rooms_of_the_core_import_downwards() -> None:
    """turn < pool < sessions < operator, and the words of the core below them all."""
    order = ["turn", "pool", "sessions", "operator"]
    for name, wanted in graph().items():
        if name.startswith("samovard.core."):
            own = name.split(".")[2]
            for other in wanted:
                theirs = other.split(".")[2] if other.startswith("samovard.core.") else ""
                if theirs in order:
                    assert own in order, f"{name} imports {other}"
                    assert order.index(theirs) <= order.index(own), f"{name} imports {other}"


def test_responses_are_written_in_one_place() -> None:
    """Elsewhere a write could be cut off so that its call can never end."""
    writers = [path.name for path in FILES if ".write(response" in path.read_text()]
    contexts = [path.name for path in FILES if "context.write(" in path.read_text()]
    assert writers == contexts == ["writes.py"]


def test_core_does_no_input_or_output() -> None:
    """The core opens, spawns and connects nothing, and knows no `claude`."""
    forbidden = {"os", "socket", "subprocess", "signal", "pathlib", "sqlalchemy", "aiohttp"}
    for path in (SERVER / "core").rglob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & forbidden, path
        assert "claude" not in path.read_text().replace("no `claude`", ""), path


def test_the_client_does_not_need_the_server() -> None:
    """The client imports nothing of the server."""
    for path in CLIENT.rglob("*.py"):
        assert not [name for name in imports(path) if name.startswith("samovard")], path
