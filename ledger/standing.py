"""How things stand: the queue, what matched nothing, what AMS and sinks have yet to hear, who is alive."""

from datetime import datetime

import msgspec

from ledger.numbers import Account, account
from ledger.sinks import SinkStanding, standings
from ledger.store import Ledger
from ledger.upstreams import UpstreamStanding, upstreams

#: Of so many of the newest messages the share of untouched ones is taken.
UNTOUCHED_SAMPLE = 10_000


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """How many of the newest messages were injected into, or not, and why."""

    injected: bool
    reason: str | None
    messages: int


class Unmatched(msgspec.Struct, frozen=True, kw_only=True):
    """A parked event: it named an id that nothing had yet."""

    id: int
    parked_at: datetime
    source: str
    reason: str
    #: The id that it named, in hex: a message key's bytes, or an alias digest.
    named: str


class UnmatchedCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many events stand parked, by who told them and why."""

    source: str
    reason: str
    events: int


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the whole."""

    #: Living processes by role.
    processes: dict[str, int]
    upstreams: tuple[UpstreamStanding, ...]
    #: Messages that wait to be sent.
    queued: int
    #: Age of the oldest of them, in seconds.
    oldest_seconds: float
    #: What the trackers' hits add up to.
    hits: Account
    ams_pending: int
    ams_parked: int
    #: For how long the oldest item of AMS's has waited, in seconds.
    ams_oldest_seconds: float
    #: What AMS answered last to the mailing that has waited longest; none when nothing went wrong.
    ams_error: str | None
    sinks: tuple[SinkStanding, ...]
    unmatched: tuple[UnmatchedCount, ...]
    #: Of the newest messages.
    tracking: tuple[Share, ...]


async def standing(ledger: Ledger) -> Standing:
    """Return the state of the whole."""
    async with ledger.session() as session:
        queue = await session.fetchrow("queue_depth")
        outbox = await session.fetchrow("outbox_depth")
        mailings = await session.fetch("waiting_mailings")
        processes = await session.fetch("report_processes")
    return Standing(
        processes={row["role"]: row["processes"] for row in processes},
        upstreams=await upstreams(ledger),
        queued=0 if queue is None else queue["waiting"],
        oldest_seconds=0.0 if queue is None else queue["oldest_seconds"] or 0.0,
        hits=await account(ledger),
        ams_pending=0 if outbox is None else outbox["pending"],
        ams_parked=0 if outbox is None else outbox["parked"],
        ams_oldest_seconds=0.0 if outbox is None else outbox["age"],
        ams_error=next((row["held"] or row["last_error"] for row in mailings if row["last_error"]), None),
        sinks=await standings(ledger),
        unmatched=await unmatched_counts(ledger),
        tracking=await tracking(ledger, None),
    )


async def tracking(ledger: Ledger, campaign: int | None) -> tuple[Share, ...]:
    """Return what was injected into the newest messages, of one campaign or of all, and why not."""
    async with ledger.transaction() as session:
        await session.execute("plan_afresh")
        rows = await session.fetch("report_untouched", campaign, UNTOUCHED_SAMPLE)
    return tuple(msgspec.convert(dict(row), Share) for row in rows)


async def unmatched_counts(ledger: Ledger) -> tuple[UnmatchedCount, ...]:
    """Return how many events stand parked, by who told them and why."""
    rows = await ledger.fetch("report_unmatched_counts")
    return tuple(msgspec.convert(dict(row), UnmatchedCount) for row in rows)


async def unmatched(
    ledger: Ledger, *, limit: int, before: int | None = None, source: str | None = None
) -> list[Unmatched]:
    """Return up to *limit* parked events older than the row *before*, newest first."""
    async with ledger.transaction() as session:
        await session.execute("plan_afresh")
        rows = await session.fetch("report_unmatched", before, source, limit)
    return [
        Unmatched(
            id=row["id"],
            parked_at=row["parked_at"],
            source=row["source"],
            reason=row["reason"],
            named=row["named"].hex(),
        )
        for row in rows
    ]
