"""The section of the settings that decides who may call.

Knows nothing of where values come from, or of constraints between settings.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from samovard.quantities import Duration
from samovard.settings.sections import Section

TENANT = r"[a-z0-9][a-z0-9-]{0,62}"
HOST = r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63}){0,9}"


class ApiKey(Section):
    """Keys that samovard gives out itself."""

    pepper: Path | None = Field(
        default=None,
        description="File with the secret that keys are hashed with. "
        "Unset: made in `state.directory` at first use.",
    )


class Mtls(Section):
    """Client certificates, of `server.tls_client_ca`."""

    trust_domain: str = Field(
        default="",
        pattern=r"^[a-z0-9._-]{0,255}$",
        description="The trust domain of `spiffe://<trust domain>/<tenant>`, which must be the "
        "certificate's only URI. Empty: no URI counts.",
    )
    names: dict[
        Annotated[str, Field(pattern=f"^{HOST}$")], Annotated[str, Field(pattern=f"^{TENANT}$")]
    ] = Field(
        default={},
        description="Tenants by DNS name, in lower case, which must be the certificate's only one.",
    )
    tenant: bool = Field(
        default=True,
        description="`false`: a certificate of the trust domain is needed, and another method "
        "names the tenant.",
    )


class Jwt(Section):
    """JSON Web Tokens of one issuer."""

    issuer: str = Field(default="", description="The claim `iss`, to the letter.")
    audience: str = Field(default="", description="What the claim `aud` is or has.")
    jwks: str = Field(
        default="",
        description="The issuer's keys: a URL, `https://...`, or the absolute path of a file.",
    )
    algorithm: Literal["ES256", "RS256", "EdDSA"] | None = Field(
        default=None, description="The only algorithm that is taken."
    )
    tenant_claim: str = Field(default="", description="The claim that is the tenant.")
    scope_claim: str = Field(
        default="",
        description="The claim with scopes, a list or a text with spaces. Empty: every token has "
        "those of callers.",
    )
    header: str = Field(
        default="authorization",
        pattern=r"^[a-z0-9._-]{1,64}$",
        description="The metadata key that carries it: `Bearer <token>`, or the bare token where "
        "it is not `authorization`.",
    )
    max_lifetime: Duration = Field(
        default=86400.0, gt=0, description="The most from `iat` to `exp`."
    )


class Auth(Section):
    """Who may call."""

    methods: tuple[Literal["none", "api_key", "jwt", "mtls"], ...] = Field(
        default=("none",),
        min_length=1,
        description="`none` (this machine only), `api_key`, `jwt` (tokens of an issuer), "
        "`mtls` (a client certificate): one or more, of which each call must show exactly one.",
    )
    api_key: ApiKey = ApiKey()
    jwt: Jwt = Jwt()
    mtls: Mtls = Mtls()
    page_key: Path | None = Field(
        default=None,
        description="File with the secret that page tokens are signed with. "
        "Unset: made in `state.directory` at first start.",
    )
    audit_sink: str = Field(
        default="",
        description="Where the audit log goes: a file, `stdout`, `stderr`, `fd:N` of a descriptor "
        "that the service is started with, or `off`. Empty: `audit.jsonl` in `state.directory`.",
    )
