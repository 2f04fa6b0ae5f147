"""How callers of the chart's pods show who they are: keys, tokens, certificates."""

import pytest
from deploy.test_chart import DEFAULT, container, helm, rendered, settings

from samovard.settings import Settings

__all__ = ["settings"]  # a fixture

#: Callers without keys: by token, and by certificate.
TOKENS = (
    *DEFAULT,
    "persistence.enabled=false",
    "settings.auth.methods={jwt}",
    "settings.auth.jwt.issuer=https://login.example",
    "settings.auth.jwt.audience=samovar",
    "settings.auth.jwt.jwks=https://login.example/jwks.json",
    "settings.auth.jwt.algorithm=ES256",
    "settings.auth.jwt.tenant_claim=tenant",
)
CERTIFICATES = (
    *DEFAULT,
    "secrets.tls=samovar-tls",
    "secrets.clientCa=samovar-tls",
    "settings.auth.methods={mtls,api_key}",
    "settings.auth.mtls.trust_domain=mesh.example",
)
REFUSED = {
    ("settings.auth.methods={none}",): "none is for callers of the same machine",
    ("settings.auth.methods={mtls}",): "secrets.clientCa: is needed with mtls",
    ("secrets.clientCa=x",): "secrets.clientCa: needs secrets.tls",
    ("secrets.tls=x", "secrets.clientCa=x", "gateway.enabled=true"): "passes the gateway",
    ("settings.auth.methods={jwt,kerberos}",): "/settings/auth/methods/1",
}


@pytest.mark.parametrize(
    ("values", "methods"), [(TOKENS, ("jwt",)), (CERTIFICATES, ("mtls", "api_key"))]
)
def test_callers_show_what_the_settings_say(
    values: tuple[str, ...], methods: tuple[str, ...], settings: Settings
) -> None:
    """Tokens need no keys; certificates are signed by what is mounted, without its key."""
    assert settings.auth.methods == methods
    assert not any("--keys" in part for part in container(values)["args"])
    volumes = rendered(values)["Deployment"]["spec"]["template"]["spec"]["volumes"]
    found = {v["name"]: v for v in volumes}.get("client-ca")
    named = settings.server.tls_client_ca
    assert (named is not None) == (found is not None) == ("mtls" in methods)
    if named is not None and found is not None:
        places = {m["name"]: m["mountPath"] for m in container(values)["volumeMounts"]}
        assert str(named) == f"{places['client-ca']}/ca.crt"
        assert found["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]


@pytest.mark.parametrize("values", REFUSED, ids=lambda values: values[0])
def test_callers_that_could_not_be_served_are_refused(values: tuple[str, ...]) -> None:
    """What the service would refuse at its start, and what would lock callers out."""
    done = helm((*DEFAULT, *values))
    assert done.returncode != 0
    assert REFUSED[values] in done.stderr
