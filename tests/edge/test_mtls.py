"""Tenants by client certificate."""

import asyncio
from collections.abc import Sequence

import pytest
from edge.test_identity import PEPPER, Clock, Shelf

from samovard.core.errors import CredentialInvalid
from samovard.edge.identity import SESSION_SCOPES, ApiKeys, Evidence, Identity, new_key
from samovard.edge.mtls import Admits, Mtls

NAMES = {"billing.internal": "acme", "other.internal": "blue"}
ACME = "spiffe://mesh.test/acme"


def shown(uris: Sequence[str] = (), names: Sequence[str] = (), *bearers: str) -> Evidence:
    metadata = tuple(("authorization", f"Bearer {bearer}") for bearer in bearers)
    return Evidence(metadata, "ipv4:10.0.0.7:40000", uris, names)


@pytest.mark.parametrize(
    ("uris", "names", "tenant"),
    [
        ([ACME], [], "acme"),
        ([ACME], ["pod-7.internal"], "acme"),
        ([], ["billing.internal"], "acme"),
        ([], ["Billing.Internal"], "acme"),
        (["spiffe://elsewhere.test/blue"], ["billing.internal"], "acme"),
        ([], [], None),
        (["spiffe://elsewhere.test/acme"], [], None),
        (["spiffe://mesh.test.evil/acme"], [], None),
        (["SPIFFE://mesh.test/acme"], [], None),
        (["https://mesh.test/acme"], [], None),
        ([ACME, "spiffe://mesh.test/blue"], [], None),
        ([ACME, "https://elsewhere.test"], [], None),
        ([ACME], ["other.internal"], None),
        (["spiffe://mesh.test/acme"], ["billing.internal"], None),
        (["spiffe://mesh.test/acme/"], [], None),
        (["spiffe://mesh.test/ns/acme"], [], None),
        (["spiffe://mesh.test/Acme"], [], None),
        (["spiffe://mesh.test/acme%20"], [], None),
        (["spiffe://mesh.test/acme\n"], [], None),
        (["spiffe://mesh.test/"], [], None),
        (["spiffe://mesh.test/" + 64 * "a"], [], None),
        ([], ["billing.internal", "other.internal"], None),
        ([], ["billing.internal", "unmapped.internal"], None),
        ([], ["*.internal"], None),
        ([], ["billing.internal."], None),
        ([], ["spiffe://mesh.test/acme"], None),
        (["billing.internal"], [], None),
    ],
)
def test_a_certificate_names_one_tenant_or_none(
    uris: list[str], names: list[str], tenant: str | None
) -> None:
    """Exactly one URI of the trust domain, or exactly one DNS name of the table, is a tenant."""
    identity = Identity([Mtls("mesh.test", NAMES)])
    if tenant is None:
        with pytest.raises(CredentialInvalid):
            asyncio.run(identity.caller(shown(uris, names)))
    else:
        caller = asyncio.run(identity.caller(shown(uris, names)))
        assert (caller.tenant, caller.scopes, caller.method) == (tenant, SESSION_SCOPES, "mtls")


@pytest.mark.parametrize("mtls", [Mtls("", NAMES), Mtls("mesh.test", {})])
def test_what_is_not_configured_counts_for_nothing(mtls: Mtls) -> None:
    """Without a trust domain no URI is a tenant, without a table no DNS name is."""
    other = shown([ACME]) if mtls.claims(shown([], ["billing.internal"])) else shown([], [*NAMES])
    with pytest.raises(CredentialInvalid):
        asyncio.run(Identity([mtls]).caller(other))


def test_a_certificate_and_a_bearer_are_two_credentials() -> None:
    """A call that shows both is refused, whatever the bearer is, if it is the same tenant's too."""
    key, record = new_key("acme", PEPPER, 0.0)
    keys = ApiKeys(Shelf(record), PEPPER, Clock(), Clock())
    for identity in (Identity([Mtls("mesh.test", {}), keys]), Identity([Mtls("mesh.test", {})])):
        for bearer in (key, "nonsense"):
            with pytest.raises(CredentialInvalid):
                asyncio.run(identity.caller(shown([ACME], [], bearer)))
    both = Identity([Mtls("mesh.test", {}), keys])
    assert asyncio.run(both.caller(shown([], ["elsewhere"], key))).method == "api_key"


def test_a_certificate_that_only_admits_names_no_tenant() -> None:
    """A call needs it and a key, and is the key's tenant's; neither is enough."""
    key, record = new_key("blue", PEPPER, 0.0)
    keys = ApiKeys(Shelf(record), PEPPER, Clock(), Clock())
    identity = Identity([keys], Admits("mesh.test", {}))
    assert asyncio.run(identity.caller(shown(["spiffe://mesh.test/a/b"], [], key))).tenant == "blue"
    refused = (
        shown([ACME]),
        shown([], [], key),
        shown(["spiffe://elsewhere.test/a"], [], key),
        shown([ACME, ACME], [], key),
    )
    for evidence in refused:
        with pytest.raises(CredentialInvalid):
            asyncio.run(identity.caller(evidence))
