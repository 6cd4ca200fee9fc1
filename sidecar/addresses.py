"""Read listen addresses and networks as an operator writes them.

Nothing is resolved here: a name in a listen address is looked up when the socket is bound.
"""

import ipaddress
import re
from collections.abc import Iterable

import msgspec

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PORT = re.compile(r"\A[0-9]{1,5}\Z")
_HOST = re.compile(r"\A(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?\Z")
_DOTTED = re.compile(r"\A[0-9.]+\Z")

_WILDCARDS = frozenset({"0.0.0.0", "::"})
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")

# The widest network that one owner can plausibly mean: 10.0.0.0/8, or a whole ISP's IPv6 allocation.
_WIDEST_V4 = 8
_WIDEST_V6 = 16


class Listen(msgspec.Struct, frozen=True, kw_only=True):
    """Where a socket is bound."""

    #: A name or an address; IPv6 without brackets.
    host: str
    #: 1 to 65535.
    port: int

    def __str__(self) -> str:
        """Return the address as the operator writes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def wildcard(self) -> bool:
        """Whether it means every address of the machine, so that nobody can be sent there."""
        return self.host in _WILDCARDS

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host.rstrip(".").lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_listen(text: str) -> Listen:
    """Return the address of `host:port`, IPv6 in brackets; raise `ValueError` with what is wrong."""
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError("expected host:port, such as 127.0.0.1:2525 or [::1]:2525")
    if not _PORT.match(port) or not 1 <= int(port) <= 65535:
        raise ValueError("expected a port from 1 to 65535 after the last colon")
    return Listen(host=_host(host), port=int(port))


def _host(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError:
            raise ValueError("expected an IPv6 address between the brackets") from None
    if ":" in text:
        raise ValueError("an IPv6 address stands in brackets: [::1]:2525")
    if _DOTTED.match(text):
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            raise ValueError("expected an IPv4 address of four numbers before the port") from None
    if not _HOST.match(text):
        raise ValueError("expected an address or a host name before the port")
    return text


def is_host(text: str) -> bool:
    """Tell whether *text* can be a host name: ASCII labels, dots between them."""
    return bool(_HOST.match(text))


def parse_network(text: str) -> Network:
    """Return the network of `10.0.0.0/8`, `::1` or `192.0.2.7`; raise `ValueError` with what is wrong."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("expected an address or a network such as 10.0.0.0/8") from None
    raise ValueError(f"{text} has bits beyond its prefix: write {meant} if the whole network is meant")


def too_wide(networks: Iterable[Network]) -> Network | None:
    """Return a network that no single owner can mean, such as 0.0.0.0/0, also when it is written in two halves."""
    narrow: list[ipaddress.IPv4Network] = []
    wide: list[ipaddress.IPv6Network] = []
    for network in networks:
        if isinstance(network, ipaddress.IPv4Network):
            narrow.append(network)
        elif network.subnet_of(_MAPPED):
            # A listener on [::] sees IPv4 clients under mapped addresses.
            packed = network.network_address.packed[12:]
            narrow.append(ipaddress.IPv4Network((packed, network.prefixlen - 96)))
        else:
            wide.append(network)
    for found in ipaddress.collapse_addresses(narrow):
        if found.prefixlen < _WIDEST_V4 and not found.is_private:
            return found
    for wider in ipaddress.collapse_addresses(wide):
        if _MAPPED.subnet_of(wider) or (wider.prefixlen < _WIDEST_V6 and not wider.is_private):
            return wider
    return None
