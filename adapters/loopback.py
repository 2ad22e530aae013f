"""Recognises hosts that only this machine reaches."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host; an IPv6 address may be in brackets.

    >>> [is_loopback(host) for host in ("Localhost", "127.0.0.1", "[::1]", "0.0.0.0", "beamline")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
