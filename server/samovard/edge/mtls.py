"""Tenants by client certificate: one SPIFFE ID of a trust domain, or one DNS name of a table.

Knows the names in a certificate that TLS has verified. Knows nothing of TLS or of files.
"""

from collections.abc import Mapping

from samovard.core.errors import CredentialInvalid
from samovard.edge.identity import SESSION_SCOPES, TENANT, Caller, Evidence


class Mtls:
    """Certificates of a trust domain, `spiffe://<trust domain>/<tenant>`, or of a table.

    A certificate has exactly one URI, or exactly one DNS name that `names`, in lower case, maps to
    a tenant; with an empty `trust_domain` URIs are ignored. With more than one identity it names no
    tenant.
    """

    needs_peer = True

    def __init__(self, trust_domain: str, names: Mapping[str, str]) -> None:
        self._prefix = f"spiffe://{trust_domain}/" if trust_domain else ""
        self._names = names

    def claims(self, evidence: Evidence) -> bool:
        """True if the certificate has an identity that names a tenant here."""
        return bool(self._identities(evidence))

    async def authenticate(self, evidence: Evidence) -> Caller:
        """Return the tenant that the certificate names. Raise `CredentialInvalid` without one."""
        identities = self._identities(evidence)
        # A bearer token beside it is a second credential, whatever its value.
        if len(identities) != 1 or evidence.values("authorization"):
            raise CredentialInvalid
        ((subject, tenant),) = identities.items()
        if not TENANT.fullmatch(tenant):
            raise CredentialInvalid
        return Caller(tenant, subject, SESSION_SCOPES, "mtls", subject)

    def _identities(self, evidence: Evidence) -> dict[str, str]:
        """Return the identities in the certificate, each with the tenant that it would name."""
        found = {}
        if self._prefix and len(evidence.uris) == 1 and evidence.uris[0].startswith(self._prefix):
            found[evidence.uris[0]] = evidence.uris[0].removeprefix(self._prefix)
        if len(evidence.names) == 1 and (name := evidence.names[0].lower()) in self._names:
            found[name] = self._names[name]
        return found


class Admits(Mtls):
    """Certificates of a trust domain that admit a call whose tenant another credential names."""

    async def authenticate(self, evidence: Evidence) -> Caller:
        """Return a caller without a tenant. Raise `CredentialInvalid`."""
        if len(self._identities(evidence)) != 1:
            raise CredentialInvalid
        return Caller("", evidence.uris[0], frozenset(), "mtls")
