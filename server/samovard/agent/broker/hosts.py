"""Which hosts the tools of a profile may reach, and which addresses none may.

Decides on texts alone. Knows nothing of connections or requests.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Self

PORTS = (80, 443)  # of an entry that names none
MAX_NAME = 253

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_.-]{1,254})(?::([0-9]{1,5}))?")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# The C library takes `0x7f.1`, `2130706433` and `0177.0.0.1` for addresses. No name ends so.
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Beside `is_global`, whose answers on these are not those of every Python, or not ours.
_NEVER = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # shared, where a cloud's metadata may be too
        "168.63.129.16/32",  # a cloud's metadata, behind an address that is public elsewhere
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "2001::/23",  # Teredo and other ways round
        "2001:db8::/32",
        "3fff::/20",
    )
)
_UNICAST = ipaddress.ip_network("2000::/3")


def place_of(authority: str, default: int = 0) -> tuple[str, int]:
    """Return the host and port that are written as `host:port`, the host in one spelling.

    Raise `ValueError` if they are none, or if there is neither a port nor a default.
    """
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise ValueError("no host")
    port = int(found[2] or default)
    if not 0 < port < 65536:
        raise ValueError("no port")
    return spelled(found[1]), port


def written(host: str, port: int) -> str:
    """Return a host that is `spelled` and its port as one text."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def spelled(host: str) -> str:
    """Return a host as it is compared: in lower case, without a dot at its end or brackets.

    Raise `ValueError` if it is neither a name nor an address in its usual form.
    """
    if host.startswith("["):
        return str(IPv6Address(host[1:-1]))
    name = host.lower().removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return str(IPv4Address(name))
    if len(name) > MAX_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("no name")
    return name


def is_address(host: str) -> bool:
    """True if a host that is `spelled` is an address, not a name."""
    return ":" in host or host.rpartition(".")[2].isdigit()


def is_public(text: str) -> bool:
    """True if an address is one of the Internet's: of no machine, network or cloud of its own."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        inner = _inside(address)
        if address.scope_id is not None or (inner is None and address not in _UNICAST):
            return False
        address = inner or address
    special = address.is_multicast or address.is_reserved or address.is_private
    return address.is_global and not special and not any(address in net for net in _NEVER)


def _inside(address: IPv6Address) -> IPv4Address | None:
    """Return the address that a packet to this one may end at by translation."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts that a profile lists, each with a port; none by default."""

    exact: frozenset[tuple[str, int]] = frozenset()
    below: frozenset[tuple[str, int]] = frozenset()

    @classmethod
    def of(cls, entries: Iterable[str]) -> Self:
        """Return the hosts of entries: `name`, `*.domain`, an address, each may have a `:port`.

        Raise `ValueError` with an entry that is none of these.
        """
        exact: set[tuple[str, int]] = set()
        below: set[tuple[str, int]] = set()
        for entry in entries:
            try:
                wild = entry.startswith("*.")
                host, ports = _entry(entry.removeprefix("*.") if wild else entry)
                if wild and is_address(host):
                    raise ValueError("no domain")
            except ValueError as error:
                raise ValueError(f"not a host: {entry!r}") from error
            (below if wild else exact).update((host, port) for port in ports)
        return cls(frozenset(exact), frozenset(below))

    def __bool__(self) -> bool:
        return bool(self.exact or self.below)

    def has(self, host: str, port: int) -> bool:
        """True if a host that is `spelled` is listed with this port."""
        if (host, port) in self.exact:
            return True
        if is_address(host):
            return False
        while "." in host:
            host = host.partition(".")[2]
            if (host, port) in self.below:
                return True
        return False


def _entry(text: str) -> tuple[str, tuple[int, ...]]:
    if text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"
    host, port = place_of(text, PORTS[0])
    named = not text.endswith("]") and ":" in text.rpartition("]")[2]
    return host, (port,) if named else PORTS
