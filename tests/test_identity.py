"""Who calls, and what a credential must look like."""

import asyncio

import pytest

from samovard.core.errors import CredentialInvalid
from samovard.edge.identity import (
    SESSION_SCOPES,
    ApiKeys,
    Evidence,
    Identity,
    Nobody,
    current_caller,
    new_key,
)
from samovard.store.keys import KeyRecord

PEPPER = b"pepper" * 6


class Shelf:
    """Keys in memory."""

    def __init__(self, *keys: KeyRecord) -> None:
        self.keys = {key.id: key for key in keys}

    async def get(self, id: str) -> KeyRecord | None:
        return self.keys.get(id)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def bearer(*keys: str) -> Evidence:
    return Evidence(tuple(("authorization", f"Bearer {key}") for key in keys))


def refused(identity: Identity, evidence: Evidence) -> CredentialInvalid:
    with pytest.raises(CredentialInvalid) as error:
        asyncio.run(identity.caller(evidence))
    return error.value


def keys_of(*records: KeyRecord, clock: Clock | None = None) -> Identity:
    clock = clock or Clock()
    return Identity([ApiKeys(Shelf(*records), PEPPER, clock, clock)])


def test_a_key_names_its_tenant() -> None:
    """A key that was given out says whose it is and what it may do."""
    text, record = new_key("acme", PEPPER, 0.0)
    caller = asyncio.run(keys_of(record).caller(bearer(text)))
    assert (caller.tenant, caller.scopes) == ("acme", SESSION_SCOPES)
    assert (caller.method, caller.credential_id) == ("api_key", record.id)


def test_the_secret_is_not_in_the_record() -> None:
    """What is stored cannot be used as a key."""
    text, record = new_key("acme", PEPPER, 0.0)
    assert text.split("_")[2] not in repr(record)
    assert len(record.mac) == 32


def test_every_fault_is_told_alike() -> None:
    """Missing, malformed, unknown, wrong, expired or revoked: the same error."""
    text, record = new_key("acme", PEPPER, 0.0, expire_time=2000.0)
    other, _ = new_key("acme", PEPPER, 0.0)
    wrong = text[:-1] + ("a" if text[-1] != "a" else "b")
    late = Clock()
    late.now = 2000.0
    revoked = KeyRecord(record.id, "acme", SESSION_SCOPES, record.mac, 0.0, None, 1.0)
    errors = [
        refused(keys_of(record), Evidence(())),
        refused(keys_of(record), bearer("nonsense")),
        refused(keys_of(record), bearer(other)),
        refused(keys_of(record), bearer(wrong)),
        refused(keys_of(record), bearer(text, text)),
        refused(keys_of(record, clock=late), bearer(text)),
        refused(keys_of(revoked), bearer(text)),
        refused(Identity(()), bearer(text)),
    ]
    assert len({repr(error) for error in errors}) == 1


def test_another_pepper_opens_nothing() -> None:
    """A stolen table of keys is useless without the pepper."""
    text, record = new_key("acme", b"another" * 5, 0.0)
    refused(keys_of(record), bearer(text))


def test_a_revoked_key_ends_within_5_seconds() -> None:
    """What the store said is believed for 5 s, not longer."""
    text, record = new_key("acme", PEPPER, 0.0)
    shelf, clock = Shelf(record), Clock()
    identity = Identity([ApiKeys(shelf, PEPPER, clock, clock)])
    asyncio.run(identity.caller(bearer(text)))
    shelf.keys.clear()
    clock.now += 4.9
    asyncio.run(identity.caller(bearer(text)))
    clock.now += 0.2
    refused(identity, bearer(text))


@pytest.mark.parametrize(
    ("authority", "peer", "admitted"),
    [
        ("localhost:50051", "ipv4:127.0.0.1:40000", True),
        ("127.0.0.1:50051", "", True),
        ("[::1]:50051", "ipv6:%5B::1%5D:40000", True),
        ("anything", "unix:", True),
        ("rebound.example:50051", "ipv4:127.0.0.1:40000", False),
        ("localhost:50051", "ipv4:10.0.0.7:40000", False),
    ],
)
def test_without_credentials_only_this_machine_is_served(
    authority: str, peer: str, admitted: bool
) -> None:
    """Identity `none` admits local peers that call by a local name, as tenant `local`."""
    evidence = Evidence(((":authority", authority),), peer)
    if admitted:
        assert asyncio.run(Identity([Nobody()]).caller(evidence)).tenant == "local"
    else:
        refused(Identity([Nobody()]), evidence)


def test_two_claims_are_none() -> None:
    """Exactly one authenticator must claim a call."""
    text, record = new_key("acme", PEPPER, 0.0)
    keys = ApiKeys(Shelf(record), PEPPER, Clock(), Clock())
    refused(Identity([keys, Nobody()]), bearer(text))


def test_outside_of_a_call_there_is_no_caller() -> None:
    """Nothing can act for a tenant outside of a call."""
    with pytest.raises(LookupError):
        current_caller()
