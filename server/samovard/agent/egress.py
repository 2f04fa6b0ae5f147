"""How agents get out, as the settings say: proxies, authorities and hosts.

Knows the settings. Knows nothing of how a connection is made.
"""

import errno
import os
import ssl
import stat
from urllib.parse import urlsplit

from samovard.agent import launch
from samovard.core.errors import Misconfigured
from samovard.settings import Credentials, Profile


def egress_of(settings: Credentials) -> launch.Egress:
    """Return how agents reach the network.

    Raise `Misconfigured` (options-refused) if the CLI could not use the authorities.
    """
    if settings.ca_bundle is not None:
        try:
            if not stat.S_ISREG(os.stat(settings.ca_bundle).st_mode):  # reading a pipe would block
                raise OSError(errno.EINVAL, "is not a regular file")
            ssl.create_default_context(cafile=settings.ca_bundle)
        except OSError as error:  # also what `ssl` raises
            bad = isinstance(error, ssl.SSLError)
            why = "is not a PEM file of certificates" if bad else error.strerror
            raise Misconfigured(
                f"credentials.ca_bundle: {settings.ca_bundle}: {why}", cause="options-refused"
            ) from error
    return launch.Egress(settings.proxy, settings.no_proxy, settings.ca_bundle)


def check_hosts(profile: Profile, name: str) -> None:
    """Raise `Misconfigured` (options-refused) for an entry that is no host, or an MCP server whose
    host is not listed.
    """
    # Imported here: other profiles do not need it.
    from samovard.agent.broker.hosts import Hosts, place_of

    try:
        hosts = Hosts.of(profile.hosts)
    except ValueError as error:
        raise Misconfigured(
            f"profiles.{name}.hosts: {error}: write name, *.domain or either with :port",
            cause="options-refused",
        ) from error
    for server, options in profile.mcp.items():
        if not options.url or options.secret_headers:
            continue  # it needs no host, or the broker reaches it
        url = urlsplit(options.url)
        port = 80 if url.scheme == "http" else 443
        if not hosts.has(*place_of(url.netloc, port)):
            raise Misconfigured(
                f"profiles.{name}.mcp.{server}.url: profiles.{name}.hosts does not list its host",
                cause="options-refused",
            )
