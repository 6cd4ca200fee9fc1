"""What may be kept of whoever opened or clicked: a network instead of an address, and text that prints. Pure."""

import ipaddress
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: How much of an address is kept, in bits, by its version.
PREFIX = {4: 24, 6: 48}


@lru_cache(maxsize=4096)
def network_of(client: str) -> str:
    """Return the /24 or /48 that *client* is in, `192.0.2.0/24`; empty for what is no address."""
    address = address_of(client)
    if address is None:
        return ""
    return str(ipaddress.ip_network(f"{address}/{PREFIX[address.version]}", strict=False))


def address_of(text: str) -> Address | None:
    """Return the IP address that *text* spells, IPv4 where it is mapped into IPv6; none for anything else."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def printable(text: str, limit: int) -> str:
    """Return at most *limit* characters of *text*, without controls, bidi marks and undecodable octets."""
    if not text.isprintable():
        text = "".join(character for character in text if character.isprintable())
    return text[:limit]
