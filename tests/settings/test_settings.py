"""Settings: where they come from and what they refuse."""

from collections.abc import Callable
from pathlib import Path

import pytest

from samovard.settings import (
    ApiKey,
    Jwt,
    Mtls,
    Profile,
    Settings,
    SettingsError,
    Tenant,
    load,
    memory,
)
from samovard.tenant_bounds import TenantBounds


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {"HOME": "/home/somebody"})


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "samovard.toml"
        path.write_text(text)
        return path

    return write


Toml = Callable[[str], Path]


def refused(config: Path | None) -> str:
    with pytest.raises(SettingsError) as error:
        load(config)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_no_settings_are_a_working_service() -> None:
    """Without any setting: loopback, identity `none`, SQLite in the user's state directory."""
    settings = load()
    assert settings.server.listen == "127.0.0.1:50051"
    assert settings.auth.methods == ("none",)
    assert str(settings.directory).endswith(".local/state/samovar")
    assert settings.url.startswith("sqlite:///")
    assert settings.slots >= 1
    assert settings.queue_limit == 4 * settings.slots


def test_a_tenant_has_its_own_bounds_or_those_of_default(toml: Toml) -> None:
    """A tenant that is not named has those of `default`; without that the default's own."""

    def limits(settings: Settings) -> list[int]:
        bounds = TenantBounds(settings.tenants)
        return [bounds.of(name).queue_limit for name in ("acme", "other")]

    assert limits(load()) == [16, 16]
    own = "[tenants.acme]\nqueue_limit = 3\n"
    assert limits(load(toml(own))) == [3, 16]
    assert limits(load(toml(own + "[tenants.default]\nqueue_limit = 2\n"))) == [3, 2]


def test_a_file_and_the_environment_over_it(toml: Toml, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment wins over the file, key by key."""
    config = toml('[pool]\nslots = 3\nidle_ttl = "5 min"\n[profiles.fast]\nmodel = "haiku"\n')
    monkeypatch.setattr(
        "os.environ",
        {
            "HOME": "/home/somebody",
            "SAMOVAR_POOL__SLOTS": "7",
            "SAMOVAR_POOL__DEFAULT_PROFILE": "fast",
        },
    )
    settings = load(config)
    assert (settings.slots, settings.pool.idle_ttl) == (7, 300.0)
    assert settings.profiles["fast"].model == "haiku"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [('"30 s"', 30.0), ('"5 min"', 300.0), ('"12 h"', 43200.0), ("2.5", 2.5), ('"200 ms"', 0.2)],
)
def test_durations(toml: Toml, written: str, seconds: float) -> None:
    """Durations have units, or are seconds."""
    assert load(toml(f"[pool]\nmax_wait = {written}\n")).pool.max_wait == seconds


@pytest.mark.parametrize(("written", "size"), [('"64 MiB"', 64 << 20), ("100", 100)])
def test_sizes(toml: Toml, written: str, size: int) -> None:
    """Sizes have units, or are bytes."""
    assert load(toml(f"[agent]\nmax_line_bytes = {written}\n")).agent.max_line_bytes == size


def test_settings_do_not_change() -> None:
    """Settings are frozen."""
    with pytest.raises(ValueError, match="frozen"):
        load().pool.slots = 3


UNKNOWN = {
    "[pool]\nslotz = 3\n": "pool.slotz",
    "[pools]\nslots = 3\n": "pools",
    "[profiles.x]\nmodell = 'a'\n": "profiles.x.modell",
}


@pytest.mark.parametrize("text", UNKNOWN)
def test_an_unknown_key_is_named(toml: Toml, text: str) -> None:
    """What is not a setting is refused by name."""
    assert UNKNOWN[text] in refused(toml(text))


@pytest.mark.parametrize("name", ["SAMOVAR_POOLS__SLOTS", "SAMOVAR_POOL__SLOTZ"])
def test_an_unknown_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A variable that is no setting is refused by name."""
    monkeypatch.setattr("os.environ", {"HOME": "/home/somebody", name: "3"})
    assert name.split("__")[1].lower() in refused(None).lower()


CLIENT_CA = (
    '[server]\nlisten = "127.0.0.1:1"\ntls = "files"\ntls_certificate = "/c"\ntls_key = "/k"\n'
    'tls_client_ca = "/ca"\n'
)
JWT = (
    '[auth]\nmethods = ["jwt"]\n[auth.jwt]\nissuer = "i"\naudience = "a"\ntenant_claim = "t"\n'
    'algorithm = "ES256"\n'
)
SECRET = '[profiles.default.mcp.b]\nurl = "https://d"\nsecret_headers = {x = "/y"}\n'
BEDROCK = "[credentials]\nallow_environment = true\n[profiles.default]\ncloud = 'bedrock'\n"
CONTRADICTIONS = {
    '[server]\nlisten = "0.0.0.0:1"\n': "auth.methods",
    '[server]\nlisten = "0.0.0.0:1"\n[auth]\nmethods = ["api_key"]\n': "server.tls",
    '[auth]\nmethods = ["none", "api_key"]\n': "auth.methods",
    '[server]\ntls = "files"\n': "server.tls",
    '[server]\nplatform_limit = "10 s"\n': "server.platform_limit",
    '[pool]\ndefault_profile = "x"\n': "pool.default_profile",
    '[server]\ntls_client_ca = "/ca.pem"\n': "server.tls_client_ca",
    '[server]\ntls = "terminated"\ntls_key = "/key.pem"\n': "server.tls_key",
    '[server]\noperator_listen = "127.0.0.1:50052"\n': "server.operator_listen",
    '[server]\noperator_listen = "unix:relative"\n': "server.operator_listen",
    '[server]\nlisten = "127.0.0.1:65536"\n': "server.listen",
    '[server]\nlisten = ":::::"\n': "server.listen",
    '[state]\ndirectory = "/tmp/a\\u0000b"\n': "state.directory: must not hold a NUL",
    '[auth]\nmethods = ["a\\u0000b"]\n': "auth.methods.0: must not hold a NUL",
    f"a = {'[' * 5000}{']' * 5000}\n": "recursion",
    '[credentials]\nproxy = "http://proxy:65536"\n': "credentials.proxy",
    '[credentials]\nproxy = "http://proxy:\u0663"\n': "credentials.proxy",
    '[server]\noperator_listen = "0.0.0.0:2"\n[auth]\nmethods = ["api_key"]\n': "tls_client_ca",
    '[auth]\nmethods = ["mtls"]\nmtls.trust_domain = "a"\n': "mtls needs server.tls_client_ca",
    '[auth]\nmethods = ["jwt"]\n': "auth.jwt.issuer: is needed with jwt",
    '[auth]\njwt.issuer = "a"\n': "auth.jwt: needs jwt in auth.methods",
    '[auth]\nmethods = ["jwt"]\njwt.algorithm = "HS256"\n': "auth.jwt.algorithm",
    f'{JWT}jwks = "http://keys.example"\n': "auth.jwt.jwks: must be https",
    f'{JWT}jwks = "keys.json"\n': "auth.jwt.jwks: must be https",
    f'{CLIENT_CA}[auth]\nmethods = ["mtls"]\n': "auth.mtls: needs trust_domain or names",
    f'{CLIENT_CA}[auth]\nmtls.trust_domain = "a"\n': "auth.mtls: needs mtls in auth.methods",
    f'{CLIENT_CA}[auth]\nmethods = ["mtls"]\nmtls.trust_domain = "a"\nmtls.tenant = false\n': (
        "auth.mtls.tenant: false needs another method"
    ),
    f'{CLIENT_CA}[auth]\nmethods = ["mtls"]\nmtls.trust_domain = "A/b"\n': "auth.mtls.trust_domain",
    f'{CLIENT_CA}[auth]\nmethods = ["mtls"]\nmtls.names = {{"*.x" = "a"}}\n': "auth.mtls.names",
    f'{CLIENT_CA}[auth]\nmethods = ["mtls"]\nmtls.names = {{"x" = "A b"}}\n': "auth.mtls.names",
    '[state]\nurl = "postgresql://db/samovar"\n': "state.url",
    '[credentials]\nupstream = "http://api.example"\n': "credentials.upstream",
    '[credentials]\nupstream = "http://localhost.example"\n': "credentials.upstream",
    '[credentials]\nproxy = "proxy:3128"\n': "credentials.proxy",
    '[credentials]\nproxy = "http://me:secret@proxy:3128"\n': "credentials.proxy: must be",
    '[credentials]\nno_proxy = ["intern.example"]\n': "no_proxy: needs credentials.proxy",
    '[credentials]\nprovider = "command"\n': "credentials.command: belongs to",
    '[credentials]\ncommand = ["/bin/true"]\n': "credentials.command: belongs to",
    '[credentials]\nprovider = "command"\ncommand = ["true"]\n': "credentials.command: must begin",
    '[credentials]\nproxy = "http://p:1"\nno_proxy = ["a,b"]\n': "credentials.no_proxy",
    '[credentials]\nprovider = "file"\n': "credentials.path",
    '[credentials]\nprovider = "mount"\n': "credentials.path",
    '[credentials]\ndelivery = "environment"\n': "credentials.delivery",
    '[credentials]\nkind = "oauth_token"\n': "credentials.kind",
    f'[agent]\nroot = "/{"x" * 60}"\n': "agent.root",
    f'[agent]\nroot = "/{"x" * 56}"\n': "14 bytes too long, it may have 43",
    f'[server]\nlisten = "unix:/{"x" * 108}"\n': "server.listen: its path is 2 bytes too long",
    f'[server]\noperator_listen = "unix:/{"x" * 107}"\n': "server.operator_listen: its path is 1",
    f"[telemetry]\ntenants = {[str(number) for number in range(101)]}\n": "telemetry.tenants",
    '[pool]\nmax_wait = "soon"\n': "pool.max_wait",
    "[profiles.default]\nsession_queue = 17\n": "profiles.default.session_queue",
    '[profiles."Bad Name"]\n': "profiles",
    '[profiles.default.mcp."b c"]\ncommand = "d"\n': "profiles.default.mcp.b c: its name must be",
    '[profiles.default.mcp.b__c]\ncommand = "d"\n': "profiles.default.mcp.b__c: its name must be",
    '[profiles.default]\ntools = ["WebFetch"]\n': "default.network: the tool WebFetch needs",
    '[profiles.default.mcp.b]\nurl = "https://d"\n': "network: the MCP server b needs the network",
    '[credentials]\ndelivery = "descriptor"\n[profiles.default]\nnetwork = "broker"\n': (
        "profiles.default.network: broker needs credentials.delivery = broker"
    ),
    '[profiles.default]\nnetwork = "hosts"\n': "default.network: hosts belongs to a list",
    '[profiles.default]\nhosts = ["a.example"]\n': "default.network: hosts belongs to a list",
    f'[credentials]\ndelivery = "descriptor"\n{SECRET}': "secret_headers need credentials.delivery",
    '[profiles.default.mcp.b]\ncommand = "c"\nsecret_headers = {x = "/y"}\n': "headers need url",
    f'{SECRET}headers = {{X = "y"}}\n': "a header is given twice",
    SECRET.replace("x =", "Host ="): "and not the connection's",
    f'{SECRET}headers = {{y = "a\\nb"}}\n': "a header's value must be printable ASCII",
    BEDROCK + SECRET: "profiles.default.cloud: secret_headers of MCP servers need the broker",
    '[profiles.default]\ncloud = "bedrock"\n': (
        "profiles.default.cloud: bedrock needs credentials.allow_environment"
    ),
    '[profiles.default]\ncloud = "azure"\n': "profiles.default.cloud",
    '[profiles.default]\ncloud_secrets = "/s"\n': "profiles.default.cloud_secrets: needs cloud",
    '[profiles.default]\ncloud_environment = {AWS_REGION = "x"}\n': "environment: needs cloud",
    f'{BEDROCK}network = "broker"\n': "profiles.default.network: broker has no way to bedrock",
    f'{BEDROCK}cloud_environment = {{CLOUD_ML_REGION = "secret"}}\n': (
        "profiles.default.cloud_environment.CLOUD_ML_REGION: is not a variable of bedrock"
    ),
    f'{BEDROCK}cloud_environment = {{AWS_SESSION_TOKEN = "secret"}}\n': (
        "cloud_environment.AWS_SESSION_TOKEN: is a secret, which belongs in cloud_secrets"
    ),
    f'{BEDROCK}cloud_environment = {{AWS_REGION = "secret\\n"}}\n': "must be printable ASCII",
    f'{BEDROCK}cloud_environment = {{AWS_ENDPOINT_URL = "http://secret.example"}}\n': (
        "AWS_ENDPOINT_URL: must be https, or http on loopback"
    ),
    "[profiles.default.mcp.b]\n": "profiles.default.mcp.b: needs either command or url",
    '[profiles.default.mcp.b]\ncommand = "c"\nurl = "https://d"\n': "needs either command or url",
    '[profiles.default.mcp.b]\nurl = "http://mcp.example"\n': "url must be https",
    '[profiles.default.mcp.b]\nurl = "https://d"\nargs = ["e"]\n': "args and env need command",
    '[profiles.default.mcp.b]\ncommand = "c"\nheaders = {x = "y"}\n': "headers need url",
    '[profiles.default.mcp.b]\ncommand = "c"\nenv = {x = "${HOME}"}\n': "no value may hold `${`",
    '[profiles.default.mcp.b]\ncommand = "c"\ntimeout = "1 ms"\n': "profiles.default.mcp.b.timeout",
    "[tenants.acme]\nqueue_limit = 0\n": "tenants.acme.queue_limit",
    "[tenants.Acme]\n": "tenants",
    "[server]\nmax_turn_streams = 1\n": "server.max_turn_streams",
    "[server]\nmax_turn_streams = 66\n[pool]\nslots = 1\nqueue_limit = 1\n": (
        "server.max_turn_streams: must be less than the calls of one tenant, which are 66"
    ),
}


@pytest.mark.parametrize("text", CONTRADICTIONS)
def test_a_contradiction_is_named(toml: Toml, text: str) -> None:
    """What cannot be is refused in one sentence that names the key."""
    assert CONTRADICTIONS[text] in refused(toml(text))


@pytest.mark.parametrize("text", [each for each in CONTRADICTIONS if BEDROCK in each])
def test_no_variable_of_a_cloud_is_shown(toml: Toml, text: str) -> None:
    """It may be a secret in the wrong place."""
    assert '"secret' not in text or "secret" not in refused(toml(text)).partition(": is a")[0]


def test_a_profile_of_a_cloud_reaches_the_network(toml: Toml) -> None:
    """The broker has no way there; its variables are in no text of the settings."""
    settings = load(toml(f'{BEDROCK}cloud_environment = {{AWS_REGION = "eu-west-1"}}\n'))
    assert settings.profiles["default"].reaches("broker") == "open"
    assert (settings.offline, settings.clouds) == ([], ["default"])
    assert "eu-west-1" not in repr(settings)


@pytest.mark.parametrize(
    ("value", "why"), [("\udcff", "is not UTF-8"), (100_000 * "[", "auth.methods")]
)
def test_a_variable_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, value: str, why: str
) -> None:
    """Bytes that are no text, and JSON that is nested too deep."""
    monkeypatch.setattr("os.environ", {"HOME": "/home/somebody", "SAMOVAR_AUTH__METHODS": value})
    assert why in refused(None)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("SAMOVAR_AUTH__METHODS", "auth.methods"),
        ("SAMOVAR_PROFILES__DEFAULT__TOOLS", "profiles.default.tools"),
        ("SAMOVAR_PROFILES", "profiles"),
        ("SAMOVAR_POOL", "pool"),
    ],
)
def test_a_variable_that_is_not_json_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, key: str
) -> None:
    """Lists and tables in the environment are JSON; what is not is refused by its key."""
    monkeypatch.setattr("os.environ", {"HOME": "/home/somebody", name: "[Bash"})
    assert refused(None).startswith(f"{key}: ")


def test_a_list_in_the_environment_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of methods can be set by a variable."""
    name = "SAMOVAR_AUTH__METHODS"
    monkeypatch.setattr("os.environ", {"HOME": "/home/somebody", name: '["api_key"]'})
    assert load().auth.methods == ("api_key",)


def test_a_secret_in_the_proxys_address_is_not_told(toml: Toml) -> None:
    """A user name and a password are refused, and not repeated."""
    told = refused(toml('[credentials]\nproxy = "http://me:hunter2@proxy.example:3128"\n'))
    assert "without a user name or password" in told
    assert "hunter2" not in told and "me:" not in told


@pytest.mark.parametrize("url", ["https://api.example", "http://127.0.0.1:9", "http://[::1]:9/v"])
def test_an_upstream_is_https_or_near(toml: Toml, url: str) -> None:
    """The credential leaves this machine over https only."""
    assert load(toml(f'[credentials]\nupstream = "{url}"\n')).credentials.upstream == url


def test_the_state_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`XDG_STATE_HOME` counts if it is absolute, as its specification says."""
    for named, expected in (("/var/x", "/var/x/samovar"), ("x", "/home/a/.local/state/samovar")):
        monkeypatch.setattr("os.environ", {"HOME": "/home/a", "XDG_STATE_HOME": named})
        assert load().directory == Path(expected)


def test_without_a_home_a_state_directory_is_needed(
    toml: Toml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user that the machine does not know must say where state is kept."""

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    assert "state.directory" in refused(None)
    assert load(toml('[state]\ndirectory = "/s"\n')).directory == Path("/s")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A missing file is said to be missing."""
    assert "none.toml" in refused(tmp_path / "none.toml")


def test_a_file_that_is_not_toml_is_named(toml: Toml) -> None:
    """So is one that cannot be read."""
    assert "samovard.toml" in refused(toml("not toml"))


@pytest.mark.parametrize(
    "text",
    [
        '[server]\noperator_listen = "unix:/run/samovar/operator.sock"\n',
        '[server]\noperator_listen = "[::1]:2"\n[auth]\nmethods = ["api_key"]\n',
        '[server]\noperator_listen = "0.0.0.0:2"\ntls = "files"\ntls_client_ca = "/ca"\n'
        'tls_key = "/k"\ntls_certificate = "/c"\n[auth]\nmethods = ["api_key"]\n',
    ],
)
def test_an_operator_calls_by_socket_or_with_a_key(toml: Toml, text: str) -> None:
    """On this machine a key is enough, beyond it a certificate is needed, too."""
    assert load(toml(text)).server.operator_listen


def test_every_setting_is_described() -> None:
    """Each setting says what it is for."""
    kinds = {name: field.annotation for name, field in Settings.model_fields.items()}
    for section, kind in (
        kinds
        | {"profiles": Profile, "tenants": Tenant, "api_key": ApiKey, "jwt": Jwt, "mtls": Mtls}
    ).items():
        for name, inner in getattr(kind, "model_fields", {}).items():
            nested = hasattr(inner.annotation, "model_fields")
            assert inner.description or nested, f"{section}.{name}"


@pytest.mark.parametrize(
    ("ours", "limits", "least"),
    [
        ("0::/\n", {"": "1000"}, 1000),
        ("0::/system.slice/samovard.service\n", {"system.slice/samovard.service": "2000"}, 2000),
        ("0::/a/b\n", {"a": "3000", "a/b": "max"}, 3000),
        ("0::/a/b\n", {"": "max", "a": "3000", "a/b": "9000"}, 3000),
        ("0::/../a\n", {"": "4000", "a": "10"}, 4000),
        ("4:memory:/a\n", {"a": "10"}, None),
        ("", {}, None),
    ],
)
def test_memory_is_the_least_that_any_group_around_allows(
    tmp_path: Path, ours: str, limits: dict[str, str], least: int | None
) -> None:
    """A container's own limit, a unit's and that of the slice above it all count."""
    for group, limit in limits.items():
        (tmp_path / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / group / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "cgroup").write_text(ours)
    found = memory.usable(tmp_path / "cgroup", tmp_path)
    assert found == least if least is not None else found > 1 << 28


def test_a_server_with_secret_headers_needs_no_network(toml: Toml) -> None:
    """The broker reaches it for the agent."""
    profile = load(toml(SECRET)).profiles["default"]
    assert profile.reaches("broker") == "broker"
    assert profile.mcp["b"].secret_headers == {"x": Path("/y")}
