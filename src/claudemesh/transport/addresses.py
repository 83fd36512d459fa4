"""By what a listener tells strangers apart (docs/spec/limits.md §2)."""

import ipaddress
from typing import Final

NETWORK_BITS: Final = 64
"""Of an IPv6 address: whoever has one is given all those that begin alike."""
_MAX_LENGTH: Final = 64


def source_of(address: str) -> str:
    """Of an IPv6 address its network, of one that stands for an IPv4 address that one; anything else as it is."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:_MAX_LENGTH]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, NETWORK_BITS), strict=False))
