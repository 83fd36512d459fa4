"""By what a listener tells strangers apart (docs/spec/limits.md §2)."""

import ipaddress
from typing import Final

NETWORK_BITS: Final = 64
"""Of an IPv6 address: whoever has one is given all those that begin alike."""
_MAX_LENGTH: Final = 64


def source_of(address: str) -> str:
    """Of an IPv6 address its network, of one that stands for an IPv4 address that one; anything else as it is.

    Some proxies name a port, which differs with each connection: it is left out.
    """
    try:
        parsed = ipaddress.ip_address(_without_port(address).partition("%")[0])
    except ValueError:
        return address[:_MAX_LENGTH]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, NETWORK_BITS), strict=False))


def _without_port(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address
