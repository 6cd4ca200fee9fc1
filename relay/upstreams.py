"""Send each message through the first of its upstreams that is well, at the rate that it may go.

A message goes to the next upstream only while its final dot cannot be out. After that it is in doubt, and the queue
decides: a copy at a second upstream is never made in the same try.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

import msgspec
import structlog
from prometheus_client import Counter, Gauge

from ledger.ids import alias_digest
from ledger.upstreams import UpstreamState
from relay.circuit import Circuit, Permit
from relay.rate import Limit, Rate, Turn
from relay.routes import Routing
from relay.throttle import CampaignRate, limit_of
from relay.upstream import BeforeDot, Letter, Outcome, Trouble, Verdict
from relay.upstream_address import UpstreamAddress

log = structlog.get_logger()

STATE = Gauge(
    "outrider_upstream_state",
    "1 while mail is offered to the upstream, 0 while a process leaves it alone.",
    ["upstream"],
    multiprocess_mode="livemin",
)
FAILURES = Counter(
    "outrider_upstream_failures_total", "Messages that an upstream's own trouble kept back.", ["upstream", "kind"]
)

# What does not pass by itself, and where each further try counts against us.
_AT_ONCE = frozenset({"auth", "tls"})

# Seconds that a queued message of a campaign waits in hand for its turn: no less than from one look at the queue to the
# next, or what comes back in time is sent away again.
_QUEUE_PATIENCE = 2.0

# So many queued messages wait in hand at a time, half of those that a queue has: the others' mail goes past them.
_MOST_WAITING = 20


class Upstream(Protocol):
    """One of them: `relay.upstream_pool.SmtpUpstream`."""

    async def send(self, letter: Letter, before_dot: BeforeDot) -> Outcome:
        """Offer a letter."""

    async def close(self) -> None:
        """Close what is open."""


class Rates(Protocol):
    """Who gives out turns: `relay.upstream_rates.SharedRates`."""

    async def take(self, limits: Sequence[Limit], *, patience: float) -> Turn:
        """Give a turn under all *limits* within *patience* seconds, or under none of them."""

    async def close(self) -> None:
        """Close what is open."""


class _Member(msgspec.Struct, kw_only=True):
    address: UpstreamAddress
    upstream: Upstream
    circuit: Circuit
    #: While its circuit is open: since when, and why.
    left_since: datetime | None = None
    reason: str | None = None

    @property
    def name(self) -> str:
        return self.address.name

    @property
    def limits(self) -> list[Limit]:
        rate = self.address.rate
        if rate is None:
            return []
        # Two users of one server have a rate each; who they are is nobody's business in Redis.
        who = f"{self.name}/{alias_digest('upstream', self.name, self.address.user).hex()}"
        return [Limit(key=f"upstream:{who}", rate=rate)]


class Upstreams:
    """All upstreams of one process, as the relay's one upstream. *connect* makes the pool of each."""

    def __init__(
        self,
        routing: Routing,
        connect: Callable[[UpstreamAddress], Upstream],
        *,
        rates: Rates | None = None,
        domain_rates: Mapping[str, Rate] | None = None,
        campaign_rates: Sequence[CampaignRate] = (),
        patience: float = 0.0,
        circuit: Callable[[], Circuit] = lambda: Circuit(time.monotonic),
    ) -> None:
        self._routing = routing
        self._rates = rates
        self._domain_rates = dict(domain_rates or {})
        self._campaign_rates = tuple(campaign_rates)
        self._patience = patience
        self._waiting = 0
        self._members = {
            address: _Member(address=address, upstream=connect(address), circuit=circuit())
            for address in dict.fromkeys(routing.all_upstreams())
        }
        for member in self._members.values():
            self._show(member)

    @property
    def name(self) -> str:
        """The name of the first general upstream."""
        return self._routing.general[0].name

    def states(self) -> list[UpstreamState]:
        """Return how each upstream is found, by name; of two users of one server the one in trouble stands for both."""
        worst: dict[str, _Member] = {}
        for member in self._members.values():
            if member.left_since is not None or member.name not in worst:
                worst[member.name] = member
        return [
            UpstreamState(upstream=name, left_since=one.left_since, reason=one.reason) for name, one in worst.items()
        ]

    def room(self, wanted: int) -> int:
        """Return how many of *wanted* messages may be offered now: while all circuits are open, a few to find out."""
        circuits = [member.circuit for member in self._members.values()]
        if any(not circuit.is_open for circuit in circuits):
            return wanted
        return min(wanted, sum(circuit.wait == 0.0 for circuit in circuits))

    async def send(self, letter: Letter, before_dot: BeforeDot) -> Outcome:
        """Offer *letter* to its upstreams, one after the other, until one decides or may have it."""
        marked = False

        async def mark() -> None:
            nonlocal marked
            await before_dot()
            marked = True

        way = self._routing.upstreams_for(letter.sender, letter.campaign, notice=letter.notice)
        members = [self._members[one] for one in way]
        throttle = limit_of(letter.throttle, letter.campaign, self._campaign_rates)
        limits = self._domain_limits(letter.recipient) + ([] if throttle is None else [throttle])
        last: Trouble | None = None
        for member in members:
            if member.circuit.wait > 0.0:
                continue
            turn = await self._turn(letter, limits, member.limits, throttled=throttle is not None)
            if not turn.taken:
                return Trouble(reason="rate", wait=turn.seconds, held=throttle is not None, upstream=member.name)
            # Its turns at the recipient's domain and in its campaign stay its own, whoever takes it.
            limits = []
            outcome = await self._offer(member, letter, mark)
            if outcome is None:
                continue
            if isinstance(outcome, Verdict) or marked or not outcome.unwell:
                return outcome
            last = outcome
        if last is not None:
            return last
        wait = min(member.circuit.wait for member in members)
        return Trouble(reason="circuit", wait=wait, upstream=members[0].name)

    async def close(self) -> None:
        """Close what is open."""
        for member in self._members.values():
            await member.upstream.close()
        if self._rates is not None:
            await self._rates.close()

    def _domain_limits(self, recipient: str) -> list[Limit]:
        domain = recipient.rpartition("@")[2].lower()
        rate = self._domain_rates.get(domain)
        return [] if rate is None else [Limit(key=f"domain:{domain}", rate=rate)]

    async def _turn(self, letter: Letter, own: Sequence[Limit], shared: Sequence[Limit], *, throttled: bool) -> Turn:
        """Take a turn under the letter's *own* limits and those that an upstream's mail has together; wait for it."""
        limits = [*own, *shared]
        if self._rates is None or not limits:
            return Turn(taken=True, seconds=0.0)
        patience = self._patience
        if throttled:
            # Nobody's mailer waits for a hold, or it would keep back the mail of his other campaigns.
            patience = min(patience, _QUEUE_PATIENCE) if letter.queued else 0.0
        # Where all mail has one limit, nobody's goes past.
        in_the_way = letter.queued and (bool(own) or len(self._members) > 1)
        if in_the_way and self._waiting >= _MOST_WAITING:
            patience = 0.0
        self._waiting += in_the_way
        try:
            turn = await self._rates.take(limits, patience=patience)
            if turn.taken and turn.seconds > 0.0:
                await asyncio.sleep(turn.seconds)
        finally:
            self._waiting -= in_the_way
        return turn

    async def _offer(self, member: _Member, letter: Letter, mark: BeforeDot) -> Outcome | None:
        """Offer *letter* to one upstream; none when it is left alone."""
        permit = member.circuit.enter()
        if permit is None:
            return None
        try:
            outcome = await member.upstream.send(letter, mark)
        except asyncio.CancelledError:
            # Called back, because it took longer than anybody waits.
            self._failed(member, permit, Trouble(reason="slow"))
            raise
        except BaseException:
            member.circuit.leave(permit)
            raise
        if isinstance(outcome, Trouble) and outcome.unwell:
            self._failed(member, permit, outcome)
        elif member.circuit.succeed(permit):
            log.info("upstream_circuit_closed", upstream=member.name)
            member.left_since = member.reason = None
            self._show(member)
        return msgspec.structs.replace(outcome, upstream=member.name)

    def _failed(self, member: _Member, permit: Permit, trouble: Trouble) -> None:
        kind = trouble.reason
        FAILURES.labels(member.name, kind).inc()
        if not member.circuit.fail(permit, at_once=kind in _AT_ONCE):
            return
        code = (trouble.reply or "").partition(" ")[0]
        if kind == "auth":
            # The operator's to mend: nothing gets better by itself, and no mailer is told.
            log.error("upstream_rejects_us", upstream=member.name, code=code)
        member.left_since, member.reason = datetime.now(UTC), f"{kind} {code}".strip()
        log.warning("upstream_circuit_opened", upstream=member.name, kind=kind, code=code, pause=member.circuit.pause)
        self._show(member)

    def _show(self, member: _Member) -> None:
        same = [one.circuit for one in self._members.values() if one.name == member.name]
        STATE.labels(member.name).set(not any(circuit.is_open for circuit in same))
