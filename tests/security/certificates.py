"""Client certificates that name no tenant, or more than one."""

import grpc

from security.actors import OK, Caller
from security.arena import ATTACKER, Arena
from security.catalog import attack
from security.identity import UNKNOWN

UNREACHED = grpc.StatusCode.UNAVAILABLE


async def refused(arena: Arena, caller: Caller, code: grpc.StatusCode = UNKNOWN) -> None:
    """Raise `AssertionError` unless a good certificate is taken and this caller is refused."""
    assert (await arena.attacker.call("ListSessions")).code is OK
    answer = await caller.call("ListSessions")
    assert answer.code is code, answer


@attack("edge.certificates.Certificates.credentials", "mtls", without="client certificate")
async def no_certificate(arena: Arena) -> None:
    """There is no connection without one."""
    await refused(arena, arena.caller(), UNREACHED)


@attack("edge.certificates.Files.client_ca", "mtls")
async def a_certificate_of_an_unknown_authority(arena: Arena) -> None:
    """It opens no connection, whatever name it bears."""
    await refused(arena, arena.caller(file="unknown"), UNREACHED)


@attack("edge.mtls.Mtls._identities", "mtls", without="one name")
async def a_certificate_with_two_tenants(arena: Arena) -> None:
    """Two URIs of the trust domain are no identity."""
    await refused(arena, arena.caller(file="twice"))


@attack("edge.mtls.Mtls.claims", "mtls", without="mapped names")
async def a_name_that_no_table_maps(arena: Arena) -> None:
    """A DNS name that only begins as a tenant's belongs to no tenant."""
    await refused(arena, arena.caller(file="unmapped"))


@attack("edge.mtls.Mtls.__init__", "mtls", without="trust domain")
async def a_trust_domain_that_begins_as_ours(arena: Arena) -> None:
    """`mesh.test.evil` is not `mesh.test`."""
    await refused(arena, arena.caller(file="foreign"))


@attack("edge.mtls.TENANT", "mtls", without="certificate's tenant")
async def a_tenant_that_is_escaped(arena: Arena) -> None:
    """What is behind the trust domain is taken as it is, and must be a tenant."""
    await refused(arena, arena.caller(file="odd"))


@attack("edge.identity.Identity", "mtls", without="one method")
async def a_certificate_and_a_key(arena: Arena) -> None:
    """Two credentials are none, even of one tenant."""
    await refused(arena, arena.caller(ATTACKER, arena.shown(ATTACKER)))
