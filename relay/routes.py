"""Which upstreams a message may take: by its sender's domain or its campaign, else the general ones.

Nothing is connected here. The first route that matches decides alone: its mail never falls back to the general
upstreams, because it was routed for a reason.
"""

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from providers.webhook import Provider
from relay.upstream_address import UpstreamAddress, parse

_PATTERN = re.compile(r"\A[A-Za-z0-9._:*-]{1,253}\Z")

_EXPECTED = "expected from:DOMAIN=URL or campaign:NAME=URL, such as from:example.com=smtp://mail.example.com:587"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Messages and the upstreams that they take, the first healthy one first."""

    by: Literal["from", "campaign"]
    #: A domain in lower case, or a campaign; `*` stands for any characters.
    pattern: str
    upstreams: tuple[UpstreamAddress, ...]

    def matches(self, domain: str, campaign: str) -> bool:
        """Tell whether a message from *domain* (in lower case), of *campaign* (empty: none), takes this route."""
        text = domain if self.by == "from" else campaign
        return bool(text) and fnmatchcase(text, self.pattern)


class Routing(msgspec.Struct, frozen=True, kw_only=True):
    """Every way that mail may take."""

    #: In the order of their priority.
    general: tuple[UpstreamAddress, ...]
    #: The first match wins.
    routes: tuple[Route, ...] = ()
    #: The way of our own notifications; none: the general one.
    notices: tuple[UpstreamAddress, ...] = ()

    def upstreams_for(self, sender: str, campaign: str, *, notice: bool = False) -> tuple[UpstreamAddress, ...]:
        """Return the upstreams of a message by its envelope sender and its campaign (empty: none).

        *notice*: it is a notification of ours.
        """
        if notice and self.notices:
            return self.notices
        domain = sender.rpartition("@")[2].lower()
        for route in self.routes:
            if route.matches(domain, campaign):
                return route.upstreams
        return self.general

    def all_upstreams(self) -> Iterator[UpstreamAddress]:
        """Yield every upstream, once for each place where it stands."""
        yield from self.general
        for route in self.routes:
            yield from route.upstreams
        yield from self.notices

    def guessed(self) -> Iterator[tuple[UpstreamAddress, Provider]]:
        """Yield each upstream whose provider is told by its host's name, with that provider."""
        for address in dict.fromkeys(self.all_upstreams()):
            if not address.profile and (provider := address.provider) is not None:
                yield address, provider


def parse_route(text: str) -> Route:
    """Return the route of `from:example.com=URL` or `campaign:spring*=URL`; raise `ValueError` with what is wrong.

    Several URLs, separated by spaces, are tried in their order.
    """
    named, equals, urls = text.partition("=")
    by, _, pattern = named.strip().partition(":")
    if not equals or not urls.split() or not _PATTERN.match(pattern):
        raise ValueError(_EXPECTED)
    match by:
        case "from":
            return Route(by="from", pattern=pattern.lower(), upstreams=_parsed(urls.split()))
        case "campaign":
            return Route(by="campaign", pattern=pattern, upstreams=_parsed(urls.split()))
        case _:
            raise ValueError(_EXPECTED)


def parse_notices(dsn: str) -> tuple[UpstreamAddress, ...]:
    """Return the upstream that `relay.dsn` names; none where it names no URL. Raise `ValueError` with what is wrong."""
    if dsn in {"upstream", "off"}:
        return ()
    if "://" not in dsn:
        raise ValueError("expected upstream, off, smtp://host:port or smtps://host:port")
    return (parse(dsn),)


def parse_routing(upstreams: Sequence[str], routes: Sequence[str], dsn: str = "upstream") -> Routing:
    """Return what `relay.upstream`, `relay.routes` and `relay.dsn` say; raise `ValueError` with the first fault."""
    return Routing(general=_parsed(upstreams), routes=tuple(map(parse_route, routes)), notices=parse_notices(dsn))


def _parsed(urls: Sequence[str]) -> tuple[UpstreamAddress, ...]:
    return tuple(map(parse, urls))
