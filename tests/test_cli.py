"""`samovard` as a person and a script meet it, without a service: help, keys, settings, files."""

import asyncio
import io
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.program import SAMOVARD, config_of, environ, started
from support.pseudo_terminal import terminal
from support.service import prepare
from support.timeouts import BOUND
from typer.testing import CliRunner, Result

from samovard import checking
from samovard.auditing import user
from samovard.cli import app
from samovard.serving import attempt, program
from samovard.settings import Settings, given, load

COMMANDS: list[tuple[str, ...]] = [(), ("serve",), ("demo",), ("check",), ("stand-in",), ("keys",)]
COMMANDS += [("keys", "add"), ("keys", "list"), ("keys", "export"), ("keys", "revoke")]
COMMANDS += [("store",), ("store", "backup"), ("store", "restore")]
COMMANDS += [("keys", "rotate"), ("tenants",), ("tenants", "list"), ("tenants", "show")]
COMMANDS += [("tenants", "enable"), ("tenants", "disable"), ("tenants", "export")]
COMMANDS += [("tenants", "delete")]


@pytest.fixture(autouse=True)
def _no_settings_around(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"HOME": "/nonexistent", "SAMOVAR_STATE__DIRECTORY": str(directory)}
    monkeypatch.setattr("os.environ", variables)


def call(*arguments: str, **variables: str) -> Result:
    os.environ.update(variables)
    return CliRunner().invoke(app, arguments)


def test_help_has_no_types_of_flags_and_whole_patterns() -> None:
    """What stands in brackets is no markup."""
    for command in COMMANDS:
        shown = call(*command, "--help").stdout
        assert "--help " in shown
        assert "<bool>" not in shown
    assert "[a-z0-9][a-z0-9-]{0,62}" in call("keys", "add", "--help").stdout


def test_keys_are_added_listed_and_revoked() -> None:
    """A key is shown once; the list has no secret; a revoked key stays listed as such."""
    key = call("keys", "add", "acme").stdout.strip()
    assert re.fullmatch(r"samovar_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}", key)
    listed = call("keys", "list").stdout
    assert key.split("_")[1] in listed
    assert key.split("_")[2] not in listed
    assert call("keys", "revoke", "acme").exit_code == 0
    assert "revoked" in call("keys", "list").stdout
    assert call("keys", "revoke", "acme").exit_code == 1
    assert call("keys", "add", "Bad Name").exit_code == 2


def test_an_operators_key_has_the_scope_admin_only() -> None:
    """It is listed as what it is, and a tenant's is not one."""
    for options in (("ops", "--admin"), ("acme",)):
        assert call("keys", "add", *options).exit_code == 0
    listed = call("keys", "list", "--json").stdout.splitlines()
    scopes = {row["tenant"]: row["scopes"] for row in map(json.loads, listed)}
    assert scopes == {
        "ops": ["admin"],
        "acme": ["session.control", "session.read", "session.send"],
    }


def test_keys_are_listed_with_header_expiry_and_scopes() -> None:
    """In a pipe there are tabs between them; JSON has the same."""
    assert call("keys", "add", "acme").exit_code == 0
    assert call("keys", "add", "ops", "--admin", "--expires-in", "1").exit_code == 0
    head, *rows = (line.split("\t") for line in call("keys", "list").stdout.splitlines())
    assert head == ["ID", "TENANT", "STATE", "CREATED", "EXPIRES", "SCOPES"]
    told = {row[1]: dict(zip(head, row, strict=True)) for row in rows}
    assert told["acme"]["EXPIRES"] == "never"
    assert told["acme"]["SCOPES"] == "session.control session.read session.send"
    assert told["ops"]["SCOPES"] == "admin"
    listed = map(json.loads, call("keys", "list", "--json").stdout.splitlines())
    expires = {row["tenant"]: row["expire_time"] for row in listed}
    assert expires == {"acme": None, "ops": told["ops"]["EXPIRES"]}
    assert call("keys", "list", "nobody").stdout == "\t".join(head) + "\n"


def test_a_terminal_sees_columns(directory: Path) -> None:
    """Each begins below its header."""
    assert call("keys", "add", "a-tenant-with-a-long-name").exit_code == 0
    code = "from samovard.cli import main; main()"
    state = {"SAMOVAR_STATE__DIRECTORY": str(directory)}
    with terminal(directory, "keys", "list", code=code, **state) as shown:
        assert shown.exit_code() == 0
        head, row = shown.raw.splitlines()
    assert "\t" not in shown.raw
    assert row.index("valid") == head.index("STATE")


@pytest.mark.parametrize("days", ["0", "-1", "nan", "inf", "1e300"])
def test_a_key_expires_at_a_time_that_can_be_told(days: str) -> None:
    """A number that is none would make a key that never ends."""
    assert call("keys", "add", "acme", f"--expires-in={days}").exit_code == 2


def test_names_that_no_tenant_has_are_refused_everywhere() -> None:
    """With the pattern, and before a store is opened; bytes that are no text, too."""
    for command in (("add",), ("list",), ("revoke",)):
        for name in ("Bad Name", "\udcff"):
            done = call("keys", *command, name)
            assert done.exit_code == 2
            assert "[a-z0-9][a-z0-9-]{0,62}" in done.stderr
    assert call("keys", "revoke", "acme", "--key", "\udcff").exit_code == 1


def shown(*options: str, **variables: str) -> dict[str, tuple[Any, str]]:
    done = call("check", "--show", "--json", *options, **variables)
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)["settings"]
    return {row["name"]: (row["value"], row["source"]) for row in rows}


def test_every_setting_in_force_is_shown_with_its_source(directory: Path) -> None:
    """The file, a variable, a variable that holds a table, and what is in force by default."""
    config = directory / "samovard.toml"
    config.write_text(
        '[pool]\nslots = 3\nmax_wait = "30 s"\n'
        '[profiles.default]\n[profiles.quick]\nmodel = "haiku"\n'
    )
    told = shown(
        f"--config={config}",
        SAMOVAR_POOL__SLOTS="7",
        SAMOVAR_PROFILES='{"quick": {"tools": ["Read"]}}',
    )
    assert told["pool.slots"] == (7, "SAMOVAR_POOL__SLOTS")
    assert told["pool.max_wait"] == (30.0, str(config))
    assert told["pool.queue_limit"] == (28, "default")
    assert told["profiles.quick.model"] == ("haiku", str(config))
    assert told["profiles.quick.tools"] == (["Read"], "SAMOVAR_PROFILES")
    assert told["profiles.quick.turn_timeout"] == (1800.0, "default")
    assert told["state.directory"] == (str(directory), "SAMOVAR_STATE__DIRECTORY")
    assert told["auth.api_key.pepper"] == (None, "default")
    for name, section in Settings.model_fields.items():
        for key in getattr(section.annotation, "model_fields", {}):
            assert any(row.startswith(f"{name}.{key}") for row in told), key


def test_secrets_are_shown_as_set_or_unset() -> None:
    """The credential's variable, and a URL that holds a password."""
    env = {"SAMOVAR_CREDENTIALS__PROVIDER": "env"}
    assert shown(**env)["ANTHROPIC_API_KEY"] == ("unset", "environment")
    upstream = {"SAMOVAR_CREDENTIALS__UPSTREAM": "https://me:hunter2@api.example"}
    told = shown(**env, **upstream, ANTHROPIC_API_KEY="sk-secret")
    assert told["ANTHROPIC_API_KEY"] == ("set", "environment")
    assert told["credentials.upstream"] == ("set", "SAMOVAR_CREDENTIALS__UPSTREAM")
    assert "hunter2" not in str(told) and "sk-secret" not in str(told)


def test_headers_of_a_server_are_shown_as_set() -> None:
    """By their names, as the server's variables are."""
    variable = "SAMOVAR_PROFILES__DEFAULT__MCP"
    server = '{"m": {"url": "https://mcp.example", "headers": {"x-team": "blue"}}}'
    told = shown(**{variable: server}, SAMOVAR_PROFILES__DEFAULT__NETWORK="open")
    assert told["profiles.default.mcp.m.headers.x-team"] == ("set", variable)


def test_variables_of_a_cloud_are_shown_as_set() -> None:
    """By their names: one may hold more than it should."""
    variable = "SAMOVAR_PROFILES__DEFAULT__CLOUD_ENVIRONMENT"
    needed = {"SAMOVAR_PROFILES__DEFAULT__CLOUD": "bedrock"}
    needed |= {"SAMOVAR_CREDENTIALS__ALLOW_ENVIRONMENT": "true"}
    told = shown(**{variable: '{"AWS_REGION": "eu-west-1"}'}, **needed)
    assert told["profiles.default.cloud_environment.AWS_REGION"] == ("set", variable)
    assert "eu-west-1" not in str(told)


def test_settings_are_lines_for_people() -> None:
    """With a header, as TOML writes them; what is not set is said to be so."""
    lines = call("check", "--show").stdout.splitlines()
    assert lines[0] == "SETTING\tVALUE\tFROM"
    assert 'server.listen\t"127.0.0.1:50051"\tdefault' in lines
    assert 'pool.default_profile\t"default"\tdefault' in lines
    assert "server.tls_key\tunset\tdefault" in lines


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("keys", "list", "--config", "/proc/x"), "/proc/x: No such file or directory"),
        (("keys", "list", "--config", "/proc"), "/proc: Is a directory"),
        (("stand-in", "--port", "65536"), "'--port'"),
        (("demo", "--idle", "nan"), "nan is not a number of seconds"),
        (("demo", "--idle", "-1"), "-1.0 is not a number of seconds"),
    ],
)
def test_what_it_is_called_wrongly_with_is_told(command: tuple[str, ...], said: str) -> None:
    """In words, with exit code 2."""
    done = call(*command)
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_state_directory_that_takes_no_secret_is_one_line(directory: Path) -> None:
    """The pepper that a key needs cannot be made there."""
    (directory / "pepper").mkdir()
    done = call("keys", "add", "acme")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert f"{directory}/pepper: " in done.stderr


UNKNOWN = {
    "SAMOVAR_POOL_SLOTS": "did you mean SAMOVAR_POOL__SLOTS?",
    "SAMOVAR_PROFILES_DEFAULT_MODEL": "did you mean SAMOVAR_PROFILES__DEFAULT__MODEL?",
    "SAMOVAR_AUTH_API_KEY_PEPPER": "did you mean SAMOVAR_AUTH__API_KEY__PEPPER?",
    "SAMOVAR_NONSENSE": "SAMOVAR_NONSENSE is not a setting and has no effect\n",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_variable_that_has_no_effect_is_warned_of(name: str) -> None:
    """By every command that reads settings, with what was probably meant."""
    for command in (("check",), ("keys", "list")):
        done = call(*command, **{name: "3"})
        assert done.exit_code == 0
        assert done.stderr.count("\n") == 1
        assert f"samovard: {name} is not a setting and has no effect" in done.stderr
        assert UNKNOWN[name] in done.stderr


def test_variables_that_others_read_are_not_warned_of() -> None:
    """Those of `samovar`, and what Kubernetes sets for a Service of that name."""
    names = ["TARGET", "API_KEY", "OPERATOR", "OPERATOR_KEY", "SERVICE_HOST", "PORT"]
    names += ["TLS_CERT", "TLS_KEY"]
    names += ["SERVICE_PORT_GRPC", "PORT_50051_TCP_ADDR", "ENVOY_SERVICE_HOST"]
    assert call("check", **{f"SAMOVAR_{name}": "x" for name in names}).stderr == ""


def test_an_address_of_the_command_line_wins(directory: Path) -> None:
    """Over the variable and over a file that could not be served with."""
    config = directory / "samovard.toml"
    config.write_text('[server]\nlisten = "0.0.0.0:1"\n')
    os.environ["SAMOVAR_SERVER__LISTEN"] = "127.0.0.1:2"
    assert load(config, "127.0.0.1:3").server.listen == "127.0.0.1:3"
    assert load(config).server.listen == "127.0.0.1:2"
    refused = call("serve", "--listen", "nowhere")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "server.listen" in refused.stderr


SECURED = {"tls": "files"} | dict.fromkeys(("tls_certificate", "tls_key", "tls_client_ca"), "/x")


@pytest.mark.parametrize(
    ("sections", "address", "command"),
    [
        ({}, "127.0.0.1:50051", 'send "Say hello"'),
        ({}, "127.0.0.1:1", 'send --target 127.0.0.1:1 "Say hello"'),
        ({}, "unix:/a b", "send --target 'unix:/a b' \"Say hello\""),
        ({"auth": {"methods": ["api_key"]}}, "127.0.0.1:50051", 'send "Say hello"'),
        ({"server": SECURED}, "0.0.0.0:1", "send --tls --tls-cert FILE --tls-key FILE --target"),
        ({"server": {"tls": "terminated"}}, "0.0.0.0:1", "send --target 127.0.0.1:1 "),
    ],
)
def test_what_to_try_works(sections: dict[str, Any], address: str, command: str) -> None:
    """The address as it is called, and a key where one is needed."""
    tried = attempt(given(sections), address)
    assert command in tried
    assert tried.startswith("SAMOVAR_API_KEY=... ") == ("auth" in sections)


def test_a_program_is_named_as_it_can_be_started(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name if that is on the path, else by where it is."""
    (directory / "bin").mkdir()
    for name in ("python", "samovar"):
        (directory / "bin" / name).touch(0o755)
    monkeypatch.setattr("sys.executable", str(directory / "bin" / "python"))
    monkeypatch.chdir("/")
    os.environ["PATH"] = "/nonexistent"
    assert program("samovar") == str(directory / "bin" / "samovar")[1:]
    monkeypatch.chdir(directory)
    assert program("samovar") == "bin/samovar"
    (directory / "elsewhere").mkdir()
    monkeypatch.chdir(directory / "elsewhere")
    assert program("samovar") == str(directory / "bin" / "samovar")
    os.environ["PATH"] = str(directory / "bin")
    assert program("samovar") == "samovar"
    assert program("none") == "none"


def test_a_key_that_nothing_uses_is_told(directory: Path) -> None:
    """A stand-in answers although there is a key: the first lines say so, and what uses it."""
    place = directory / "[old]"  # which is no markup
    place.mkdir()
    config = config_of(place, asyncio.run(prepare(place, fake=True)))
    config.write_text(config.read_text().partition("[credentials]")[0])
    key = {"ANTHROPIC_API_KEY": "sk-secret"}
    with started(config, "--stand-in-if-no-credential", variables=key) as run:
        assert "a stand-in for the Messages API" in run.said
        assert (
            "ANTHROPIC_API_KEY is set and not used: SAMOVAR_CREDENTIALS__PROVIDER=env" in run.said
        )
        assert "sk-secret" not in run.said
        assert f"state: {place}" in run.said
        assert run.end() == 0


@pytest.mark.parametrize("command", [("check", "--show"), ("--help",)])
def test_outputs_that_take_nothing_are_one_line_or_none(
    command: tuple[str, ...], directory: Path
) -> None:
    """A full device is told; a reader that left is not."""
    variables = environ(SAMOVAR_STATE__DIRECTORY=str(directory))
    done = []
    reading, writing = os.pipe()
    os.close(reading)
    for file in (os.open("/dev/full", os.O_WRONLY), writing):
        with os.fdopen(file, "w") as out:
            one = subprocess.run(
                [*SAMOVARD, *command],
                env=variables,
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                timeout=BOUND,
            )
            done.append((one.returncode, one.stderr))
    assert done == [(1, "samovard: No space left on device\n"), (141, "")]


def test_a_path_is_no_markup() -> None:
    """What `check --agent` shows of where the CLI is."""
    out = io.StringIO()
    checking.show(Console(file=out, force_terminal=True, width=80), Path("/[old]/claude"), "2", [])
    assert "/[old]/claude" in out.getvalue()


def test_the_audit_log_has_what_is_done_with_keys(directory: Path) -> None:
    """Each has a line with its user before it is done; without the line it is not done."""
    log = directory / "log" / "audit"
    log.parent.mkdir(mode=0o700)
    to = {"SAMOVAR_AUTH__AUDIT_SINK": str(log)}
    key = call("keys", "add", "acme", **to).stdout.split("_")[1]
    log.parent.chmod(0o777)
    refused = call("keys", "add", "acme", **to)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == f"samovard: auth.audit_sink: others can write to {log.parent}\n"
    assert call("keys", "revoke", "acme", **to).exit_code == 1
    log.parent.chmod(0o700)
    assert call("keys", "revoke", "acme", **to).stdout == "revoked 1\n"
    call("tenants", "delete", "acme", "--yes", **to)
    lines = [json.loads(line) for line in log.read_bytes().splitlines()]
    assert [(line["act"], line["tenant"], line["credential"]) for line in lines] == [
        ("keys.add", "acme", key),
        ("keys.revoke", "acme", ""),
        ("tenants.delete", "acme", ""),
    ]
    assert {line["user"] for line in lines} == {user()}
    beside = call("keys", "add", "acme", SAMOVAR_AUTH__AUDIT_SINK="stdout")
    assert beside.stdout.startswith("samovar_")


def test_the_audit_log_has_a_key_that_replaces_another(directory: Path) -> None:
    """With the id and the scopes of the new one."""
    old = call("keys", "add", "acme", "--admin").stdout.split("_")[1]
    new = call("keys", "rotate", old).stdout.split("_")[1]
    assert call("keys", "rotate", "nobody").exit_code == 1
    first, last = (directory / "audit.jsonl").read_bytes().splitlines()
    assert json.loads(first)["credential"] == old
    line = json.loads(last)
    assert (line["act"], line["tenant"], line["credential"]) == ("keys.rotate", "acme", new)
    assert line["scopes"] == ["admin"]


ACTS = {
    "keys.revoke": ("keys", "revoke", "acme"),
    "tenants.disable": ("tenants", "disable", "acme"),
    "tenants.enable": ("tenants", "enable", "acme"),
    "tenants.export": ("tenants", "export", "acme", "--to"),
    "store.backup": ("store", "backup"),
    "store.restore": ("store", "restore"),
}


@pytest.mark.parametrize("act", ACTS)
def test_what_an_administrator_does_is_in_the_audit_log(directory: Path, act: str) -> None:
    """Before it is known whether it can be done."""
    command = ACTS[act]
    files = [] if command[-1] == "acme" else [str(directory / "none")]
    call(*command, *files)
    (line,) = (directory / "audit.jsonl").read_bytes().splitlines()
    assert json.loads(line)["act"] == act
