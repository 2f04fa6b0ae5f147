"""Which hosts a list allows, however they are written, and which addresses nobody reaches."""

import pytest

from samovard.agent.broker.hosts import Hosts, is_public, place_of, written

LISTED = Hosts.of(
    (
        "Files.Example.com",
        "*.Packages.example.",
        "git.example:8443",
        "*.deep.example:8080",
        "93.184.215.14",
        "2606:2800:21f:cb07:6820:80da:af6b:8b2c",
        "[2606:4700::1]:8443",
        "xn--bcher-kva.example",
    )
)


@pytest.mark.parametrize(
    "place",
    [
        "files.example.com:443",
        "files.example.com:80",
        "FILES.example.COM:443",
        "files.example.com.:443",
        "a.packages.example:443",
        "a.b.packages.example:443",
        "git.example:8443",
        "a.deep.example:8080",
        "93.184.215.14:443",
        "[2606:2800:21f:cb07:6820:80da:af6b:8b2c]:443",
        "[2606:2800:021F:CB07:6820:80DA:AF6B:8B2C]:80",
        "[2606:4700:0:0:0:0:0:1]:8443",
        "xn--bcher-kva.example:443",
    ],
)
def test_what_is_listed_is_found(place: str) -> None:
    """In any case, with a dot at its end, an address in any spelling of its own kind."""
    assert LISTED.has(*place_of(place))


@pytest.mark.parametrize(
    "place",
    [
        "example.com:443",
        "evil.example:443",
        "xfiles.example.com:443",
        "files.example.com.evil.example:443",
        "sub.files.example.com:443",
        "packages.example:443",
        "xpackages.example:443",
        "a.packages.example:22",
        "files.example.com:8080",
        "files.example.com:65535",
        "git.example:443",
        "git.example:80",
        "deep.example:8080",
        "a.deep.example:443",
        "93.184.215.15:443",
        "93.184.215.14:8080",
        "[2606:4700::1]:443",
        "[::ffff:93.184.215.14]:443",
        "[::ffff:5db8:d70e]:443",
        "127.0.0.1:80",
        "[::1]:80",
        "localhost:443",
    ],
)
def test_what_is_not_listed_is_not_found(place: str) -> None:
    """No part of a name, no other port, no domain by its own pattern."""
    assert not LISTED.has(*place_of(place))


@pytest.mark.parametrize(
    "place",
    [
        "2130706433:80",
        "0x7f000001:80",
        "0x7f.1:80",
        "0177.0.0.1:80",
        "127.1:80",
        "127.0.0.01:80",
        "127.0.0.1.:0",
        "256.0.0.1:80",
        "1.2.3.4.5:80",
        "a.0x7f:80",
        "a.1:80",
        "0x:80",
        "[::1%25eth0]:80",
        "[::1%eth0]:80",
        "[127.0.0.1]:80",
        "[files.example.com]:80",
        "::1:80",
        "[]:80",
        "[::1:80",
        "files.example.com",
        "files.example.com:",
        "files.example.com:0",
        "files.example.com:65536",
        "files.example.com:+443",
        "files.example.com: 443",
        "files.example.com:４４３",
        "files.example.com:443:443",
        "me@files.example.com:443",
        "files.example.com\\@evil:443",
        "files.example.com..:443",
        ".files.example.com:443",
        "files..com:443",
        "-a.packages.example:443",
        "a-.packages.example:443",
        "%66iles.example.com:443",
        "files.example.com\0:443",
        "files.example.com/:443",
        "bücher.example:443",
        "*.packages.example:443",
        "a" * 64 + ".packages.example:443",
        "a." * 127 + "packages.example:443",
        ":443",
        ".:443",
        "",
    ],
)
def test_what_has_two_readings_is_no_host(place: str) -> None:
    """Above all an address that only the C library knows as one."""
    with pytest.raises(ValueError, match=r".+"):
        place_of(place)


@pytest.mark.parametrize(
    "entry",
    [
        *("*", "*.", "*.*.example", "a.*.example", "*example", "**.example", "", " a.example"),
        *("http://a.example", "a.example/x", "a.example:0", "a.example:x", "me@a.example"),
        *(
            "*.0.0.1",
            "*.10.0.0.1",
            "*.[::1]",
            "*.::1",
            "2130706433",
            "10.0.0.0/8",
            "bücher.example",
        ),
    ],
)
def test_an_entry_that_is_no_host_is_refused(entry: str) -> None:
    """And told as it is: it would list something else than is meant, or nothing."""
    with pytest.raises(ValueError, match="not a host: "):
        Hosts.of([entry])


def test_nothing_is_listed_by_default() -> None:
    """An empty list is no list."""
    assert not Hosts()
    assert not Hosts.of(())
    assert not Hosts().has("files.example.com", 443)
    assert LISTED
    assert Hosts.of(["*.a.example"])


def test_a_pattern_lists_no_addresses() -> None:
    """Not even one that ends as it does."""
    assert not Hosts(below=frozenset({("0.0.1", 80)})).has("127.0.0.1", 80)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "127.0.0.1", "127.255.0.1"),
        *("100.64.0.1", "100.100.100.200", "100.127.255.255", "169.254.0.1", "169.254.169.254"),
        *("168.63.129.16", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.9", "192.0.0.192"),
        *("192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255"),
        *("198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1"),
        "255.255.255.255",
    ],
)
@pytest.mark.parametrize("within", ["{0}", "::ffff:{0}", "64:ff9b::{0}", "::{0}", "2002:{1}::1"])
def test_no_address_of_a_network_of_its_own_is_reached(address: str, within: str) -> None:
    """Nor by any way of writing it into one of IPv6."""
    parts = [int(part) for part in address.split(".")]
    words = f"{parts[0]:02x}{parts[1]:02x}:{parts[2]:02x}{parts[3]:02x}"
    assert not is_public(within.format(address, words))


@pytest.mark.parametrize(
    "address",
    [
        *("::", "::1", "fe80::1", "fe80::1%1", "febf::1", "fec0::1", "fc00::1", "fd00:ec2::254"),
        *("ff02::1", "ff0e::1", "100::1", "2001::1", "2001:0:7f00:1::", "2001:1::1", "2001:3::1"),
        *("2001:10::1", "2001:20::1", "2001:db8::1", "3fff::1", "5f00::1", "64:ff9b:1::1"),
        *("4000::1", "8000::1", "::8.8.8.8", "2606:4700::1%1", "::ffff:0:8.8.8.8"),
        *("", "localhost", "8.8.8", "08.8.8.8", "8.8.8.8/32", "8.8.8.8 "),
    ],
)
def test_no_special_address_is_reached(address: str) -> None:
    """Of every kind that has a name, and of those that nobody has."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("8.8.8.8", "1.1.1.1", "93.184.215.14", "100.63.255.255", "100.128.0.1", "172.32.0.1"),
        *("192.0.1.1", "198.20.0.1", "223.255.255.255", "2606:4700:4700::1111", "2a00:1450::1"),
        *("::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"),
    ],
)
def test_addresses_of_the_internet_are_reached(address: str) -> None:
    """Also those beside what is special."""
    assert is_public(address)


def test_a_place_is_written_as_it_is_read() -> None:
    """With brackets where it needs them."""
    assert written("a.example", 443) == "a.example:443"
    assert place_of(written("2606:4700::1", 8443)) == ("2606:4700::1", 8443)
