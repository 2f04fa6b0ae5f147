"""The tests mirror the service: a module's test file has its place and its name."""

import ast
from pathlib import Path

TESTS = Path(__file__).parent
SERVER = TESTS.parent / "server" / "samovard"

#: Modules without a test file of their own, each with the file that tests it: what is only
#: declared there, or shows only through another module.
ELSEWHERE = {
    "__main__": "test_samovard.py",
    "agent/broker/keys": "agent/broker/test_proxy.py",
    "agent/broker/passing": "agent/broker/test_proxy.py",
    "agent/capabilities": "agent/test_binary.py",
    "agent/frames": "agent/test_codec.py",
    "agent/gone": "agent/test_removal.py",
    "agent/host": "agent/test_process.py",
    "agent/isolation/attack": "agent/isolation/test_probe.py",
    "agent/selftest/checks": "agent/selftest/test_full.py",
    "agent/selftest/raw_cli": "agent/selftest/test_full.py",
    "agent/transcripts": "test_tenant_export.py",
    "auditing": "contract/test_audit.py",
    "authentication": "contract/test_tls.py",
    "checking": "agent/selftest/test_full.py",
    "commandline": "test_cli.py",
    "core/pool/background": "test_maintenance.py",
    "core/pool/counters": "core/operator/test_snapshot.py",
    "core/pool/listeners": "core/pool/test_supervisor.py",
    "core/pool/pooled_process": "core/turn/test_turn.py",
    "core/pool/registry": "core/test_state_machine.py",
    "core/pool/states": "core/test_state_machine.py",
    "core/process": "agent/test_process.py",
    "core/records": "store/test_store.py",
    "core/sessions/conversation": "core/sessions/test_sessions.py",
    "core/sessions/directory": "core/sessions/test_sessions.py",
    "core/sessions/listed": "edge/test_session_service.py",
    "core/sessions/session": "core/sessions/test_sessions.py",
    "core/sessions/trusted_clock": "core/sessions/test_expiry.py",
    "core/sessions/turn_runner": "core/turn/test_turn.py",
    "core/turn/telemetry": "telemetry/test_spans.py",
    "data_commands": "test_tenant_export.py",
    "deleting": "test_tenant_deletion.py",
    "demo/picture": "demo/test_demo.py",
    "demo/receiver": "demo/test_demo.py",
    "demo/report": "demo/test_demo.py",
    "demo/run": "demo/test_demo.py",
    "demo/spawned": "demo/test_demo.py",
    "demo/terminal": "demo/test_demo.py",
    "demo/traced": "demo/test_demo.py",
    "demo/waterfall": "demo/test_demo.py",
    "edge/audit": "contract/test_audit.py",
    "edge/certificates": "contract/test_certificates.py",
    "edge/jwks": "edge/test_tokens.py",
    "edge/pool_service": "contract/test_pool.py",
    "edge/pool_validate": "contract/test_pool.py",
    "edge/pool_wire": "contract/test_pool.py",
    "edge/receiving": "contract/test_bounds.py",
    "edge/writes": "edge/test_revocation.py",
    "key_commands": "test_cli.py",
    "listing": "test_cli.py",
    "quantities": "settings/test_settings.py",
    "rules": "test_app.py",
    "secret": "test_app.py",
    "serving": "test_samovard.py",
    "settings/auth": "settings/test_settings.py",
    "settings/checks": "settings/test_settings.py",
    "settings/difference": "test_reloading.py",
    "settings/memory": "settings/test_settings.py",
    "settings/origin": "test_cli.py",
    "settings/sections": "settings/test_settings.py",
    "settings/profile": "settings/test_settings.py",
    "settings/variables": "test_cli.py",
    "standin/server": "standin/test_standin.py",
    "standin/sse": "standin/test_standin.py",
    "standin/steps": "standin/test_standin.py",
    "state_lock": "test_app.py",
    "store/deletions": "test_tenant_deletion.py",
    "store/keys": "store/test_store.py",
    "store/ledger": "store/test_store.py",
    "store/migrations": "store/test_store.py",
    "store/new_file": "store/sqlite/test_backup.py",
    "store/sessions": "store/test_store.py",
    "store/sqlite/checkpoints": "store/sqlite/test_database.py",
    "store/sqlite/prepared": "store/sqlite/test_database.py",
    "store/sqlite/schema": "test_tenant_deletion.py",
    "store/sqlite/watch": "store/sqlite/test_database.py",
    "store/tables": "store/test_store.py",
    "store_commands": "store/sqlite/test_backup.py",
    "telemetry/context": "contract/test_traces.py",
    "telemetry/destination": "telemetry/test_export.py",
    "telemetry/facts": "telemetry/test_spans.py",
    "telemetry/loop_lag": "test_maintenance.py",
    "telemetry/names": "contract/test_observability.py",
    "telemetry/providers": "telemetry/test_exporters.py",
    "telemetry/recorder": "telemetry/test_spans.py",
    "tenant_bounds": "settings/test_settings.py",
}


def module_of(path: Path) -> str:
    """Return a module's path below the service, a package's own code as that of its directory."""
    name = path.relative_to(SERVER).with_suffix("")
    return str(name if name.name != "__init__" else name.parent / path.parent.name)


def file_of(module: str) -> str:
    """Return where the test file of a module is, below `tests/`."""
    path = Path(module)
    return str(path.with_name(f"test_{path.name}.py"))


def has_code(path: Path) -> bool:
    """True unless there is nothing but a docstring."""
    tree = ast.parse(path.read_text())
    return len(tree.body) > (ast.get_docstring(tree) is not None)


def test_every_module_has_its_test_file_or_a_line() -> None:
    """The table has the modules without a test file of their name, and no others."""
    modules = {module_of(path) for path in SERVER.rglob("*.py") if has_code(path)}
    alone = {module for module in modules if not (TESTS / file_of(module)).is_file()}
    assert len(modules) > 100
    assert alone - ELSEWHERE.keys() == set(), "neither a test file nor a line"
    assert ELSEWHERE.keys() - alone == set(), "a line, but a test file too, or no such module"


def test_every_line_names_a_test_file_that_is_there() -> None:
    """Renamed or taken away, it is missed."""
    assert [file for file in ELSEWHERE.values() if not (TESTS / file).is_file()] == []
