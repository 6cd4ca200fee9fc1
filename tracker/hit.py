"""Turn what a request said, what its token claims and when it came into a `Hit`; pure, so that it can be proved.

Nothing here keeps a whole address: a client is a network of /24 or /48 before anything is written.
"""

import ipaddress
from collections.abc import Sequence

import msgspec

from injector.tokens import Claim
from ledger.events import EventType, Hit
from ledger.visitors import Address, address_of, network_of, printable

USER_AGENT_CHARS = 512
PURPOSE_CHARS = 64

# No chain of honest proxies is longer; a client may write as many entries as it likes.
_MAX_HOPS = 32


class Facts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a request says of itself, as it came in."""

    method: str
    #: The address at the other end of the connection; empty when unknown.
    peer: str
    #: The values of X-Forwarded-For, in order.
    forwarded: tuple[str, ...] = ()
    user_agent: str = ""
    #: The first of Sec-Purpose, Purpose, X-Purpose and X-Moz.
    purpose: str = ""


class Proxies:
    """The networks whose X-Forwarded-For is believed."""

    def __init__(self, networks: Sequence[str]) -> None:
        try:
            self._networks = tuple(ipaddress.ip_network(network.strip(), strict=False) for network in networks)
        except ValueError as error:
            raise ValueError(f"OUTRIDER_TRACKER__TRUSTED_PROXIES: {error}") from None

    def client(self, peer: str, forwarded: Sequence[str]) -> str:
        """Return the address that the request came from; empty when a trusted proxy does not say it readably.

        From the right, the first hop that is not a trusted proxy: everything left of it is its own invention.
        """
        if not self._networks or not self._trusts(address_of(peer)):
            return peer
        client = peer
        hops = [hop for line in forwarded[-_MAX_HOPS:] for hop in line[-_MAX_HOPS * 64 :].split(",")]
        for hop in reversed(hops[-_MAX_HOPS:]):
            address = address_of(_without_port(hop.strip()))
            if address is None:
                return ""
            client = str(address)
            if not self._trusts(address):
                break
        return client

    def _trusts(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)


def make_hit(
    event: EventType, claim: Claim, facts: Facts, *, proxies: Proxies, hit_id: bytes, at_ms: int, url: str = ""
) -> Hit:
    """Return the hit of one request; *url* is the destination as it was answered."""
    return Hit(
        id=hit_id,
        type=event,
        key=claim.key,
        at_ms=at_ms,
        link=claim.link,
        url=url,
        method=facts.method,
        network=network_of(proxies.client(facts.peer, facts.forwarded)),
        user_agent=printable(facts.user_agent, USER_AGENT_CHARS),
        purpose=printable(facts.purpose, PURPOSE_CHARS),
    )


def _without_port(hop: str) -> str:
    """Take a port off: `192.0.2.1:443` and `[2001:db8::1]:443` are what some proxies write."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    host, colon, _ = hop.partition(":")
    return host if colon and "." in host else hop
