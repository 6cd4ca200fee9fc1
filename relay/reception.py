"""Who may come in, how many at a time, and whose work must be finished before the process ends.

One `Reception` is shared by all sessions of a server. A submission's work belongs to it and not to the session, so
that a client that hangs up after the final dot changes nothing.
"""

import asyncio
import ipaddress
import ssl
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import structlog
from prometheus_client import Counter, Gauge

from relay import intake, replies
from relay.auth import Gate, Lockout
from relay.budget import Budget, Turns, give_large_blocks_back
from relay.intake import Acceptor, Submission
from relay.passwords import PasswordHash
from relay.replies import Reply

log = structlog.get_logger()

CONNECTIONS_OPEN = Gauge(
    "outrider_relay_open_connections", "SMTP sessions that are open now.", multiprocess_mode="livesum"
)
CONNECTIONS = Counter("outrider_relay_connections_total", "SMTP sessions that were greeted.")
CONNECTIONS_REFUSED = Counter(
    "outrider_relay_refused_connections_total",
    "SMTP sessions answered 421 at once, by what was full: all, client or draining.",
    ["reason"],
)


Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Tells whether a source's mail to a recipient is refused.
Unwanted = Callable[[str, str], Awaitable[bool]]


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the SMTP server needs to know; times are in seconds, sizes in octets."""

    #: What the banner and EHLO say we are.
    hostname: str
    max_bytes: int = 26_214_400
    max_recipients: int = 1000
    #: Networks that may submit without AUTH.
    allow: tuple[str, ...] = ("127.0.0.0/8", "::1")
    #: AUTH is offered only when set, and then only under TLS or to loopback.
    users: Mapping[str, PasswordHash] | None = None
    #: STARTTLS is offered, and implicit TLS possible, only when set.
    tls: ssl.SSLContext | None = None
    #: From one command to the next, and from one block of content to the next.
    idle_timeout: float = 300.0
    #: From 354 to the final dot. RFC 5321 4.5.3.2 gives a client 10 minutes after it.
    data_timeout: float = 600.0
    #: How long a failed AUTH waits for its answer.
    auth_delay: float = 1.0
    max_auth_failures: int = 5
    max_connections: int = 1000
    #: Loopback is exempt.
    max_connections_per_client: int = 50
    #: Errors of the client in one session, until a message is accepted.
    max_errors: int = 10
    #: Commands that bring no message nearer, in one session, until a message is accepted.
    max_junk: int = 100
    #: Received fields in a message.
    loop_limit: int = 50
    #: Proxies that say with the PROXY protocol, versions 1 and 2, whom they speak for.
    proxies: tuple[str, ...] = ()
    #: Where large contents wait on disk for their end; None: where the system keeps such files.
    spool: Path | None = None
    #: Octets of large contents that are worked on at a time.
    large_octets: int = 64 * 1024 * 1024
    #: Tells for a source and a recipient whether RCPT is refused; None: never.
    unwanted: Unwanted | None = None


class Guest(Protocol):
    """A session, as its server sees it."""

    client: str

    def leave_when_idle(self) -> None:
        """Answer 421 and close as soon as no transaction is in progress."""

    def abort(self) -> None:
        """Close without another word."""


class Reception:
    """The state that all sessions of one server share."""

    def __init__(self, acceptor: Acceptor, settings: ServerSettings) -> None:
        self.settings = settings
        self.gate = None if settings.users is None else Gate(settings.users)
        self.draining = False
        self._acceptor = acceptor
        self.budget = Budget(settings.large_octets)
        self.turns = Turns()
        give_large_blocks_back()
        self.lockout = Lockout()
        self._allowed = _networks(settings.allow)
        self._proxies = _networks(settings.proxies)
        self._guests: set[Guest] = set()
        self._per_client: Tally[str] = Tally()
        self._work: set[asyncio.Task[Reply]] = set()
        self._changed = asyncio.Event()

    def enter(self, guest: Guest) -> Reply | None:
        """Count a new session in; the reply refuses it, and it must `leave` all the same."""
        self._guests.add(guest)
        self._per_client[guest.client] += 1
        CONNECTIONS_OPEN.inc()
        reason, reply = self._refusal(guest.client)
        if reply is None:
            CONNECTIONS.inc()
        else:
            CONNECTIONS_REFUSED.labels(reason).inc()
        return reply

    def _refusal(self, client: str) -> tuple[str, Reply | None]:
        settings = self.settings
        if self.draining:
            return "draining", replies.SHUTTING_DOWN
        if len(self._guests) > settings.max_connections:
            return "all", replies.TOO_MANY_CONNECTIONS
        exempt = is_loopback(client) or self.is_proxy(client)
        if self._per_client[client] > settings.max_connections_per_client and not exempt:
            return "client", replies.TOO_MANY_CONNECTIONS
        return "", None

    def leave(self, guest: Guest) -> None:
        """Count a session out."""
        if guest not in self._guests:
            return
        self._guests.remove(guest)
        CONNECTIONS_OPEN.dec()
        self._uncount(guest.client)
        self._changed.set()

    def rename(self, guest: Guest, client: str) -> Reply | None:
        """Count a session for the client that its proxy named; the reply refuses it."""
        self._uncount(guest.client)
        guest.client = client
        self._per_client[client] += 1
        reason, reply = self._refusal(client)
        if reply is not None:
            CONNECTIONS_REFUSED.labels(reason).inc()
        return reply

    def allows(self, client: str) -> bool:
        """Say whether this peer may submit without AUTH."""
        return _is_in(client, self._allowed)

    def is_proxy(self, client: str) -> bool:
        """Say whether this peer is a proxy that says whom it speaks for."""
        return _is_in(client, self._proxies)

    def _uncount(self, client: str) -> None:
        self._per_client[client] -= 1
        if not self._per_client[client]:
            del self._per_client[client]

    async def accept(self, submission: Submission) -> Reply:
        """Have a submission decided; the work goes on when the caller is cancelled."""
        work = asyncio.get_running_loop().create_task(intake.submit(self._acceptor, submission))
        self._work.add(work)
        work.add_done_callback(self._done)
        return await asyncio.shield(work)

    def _done(self, work: asyncio.Task[Reply]) -> None:
        self._work.discard(work)
        self._changed.set()

    async def drain(self, seconds: float) -> None:
        """Let every transaction in progress end, and every idle session at once; after *seconds* end the rest too."""
        self.draining = True
        for guest in tuple(self._guests):
            guest.leave_when_idle()
        try:
            async with asyncio.timeout(seconds):
                await self._empty()
        except TimeoutError:
            log.warning("drain_cut_short", sessions=len(self._guests), submissions=len(self._work))
            for work in tuple(self._work):
                work.cancel()
            for guest in tuple(self._guests):
                guest.abort()
            await self._empty()

    async def _empty(self) -> None:
        while self._guests or self._work:
            self._changed.clear()
            await self._changed.wait()


def _networks(texts: Sequence[str]) -> list[Network]:
    return [ipaddress.ip_network(text, strict=False) for text in texts]


def _is_in(client: str, networks: Sequence[Network]) -> bool:
    try:
        address = _address(client)
    except ValueError:
        return False
    return any(address in network for network in networks)


def is_loopback(client: str) -> bool:
    """Say whether a peer is on this machine."""
    try:
        return _address(client).is_loopback
    except ValueError:
        return False


def _address(client: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(client.partition("%")[0])
    # A dual-stack socket shows an IPv4 peer as ::ffff:192.0.2.1, which no IPv4 network would hold.
    return getattr(address, "ipv4_mapped", None) or address
