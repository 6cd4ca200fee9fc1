"""Say what became of a message from the set of its events.

A pure function of the set: any order, any duplication and any batching gives the same row, so flags only rise as
events arrive, until a burst becomes complete and its hits are a machine's after all (`courier.rules`). The ledger
counts the events (`tally_events` is `tallies` below in SQL); only this file judges them.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

import msgspec

from ledger.engagements import Engagement, Tally
from ledger.events import EventType

#: The source of what our own pixel and links saw.
OWN = "tracker"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What of an event decides engagement; equal `dedupe` means the same event."""

    dedupe: bytes
    type: EventType
    source: str
    machine: bool
    at: datetime


def engagement(events: Iterable[Event], *, injected: bool = True) -> Engagement:
    """Return what became of the message that all *events* tell of: the definition."""
    return sum_up(tallies(events), injected=injected)


def tallies(events: Iterable[Event]) -> list[Tally]:
    """Count *events*, each once, by type, source and whether a machine did it."""
    times: dict[tuple[EventType, str, bool], list[datetime]] = {}
    for event in {event.dedupe: event for event in events}.values():
        times.setdefault((event.type, event.source, event.machine), []).append(event.at)
    return [
        Tally(type=kind, source=source, machine=machine, amount=len(at), first_at=min(at), last_at=max(at))
        for (kind, source, machine), at in times.items()
    ]


def sum_up(told: Iterable[Tally], *, injected: bool) -> Engagement:
    """Return what became of the message that all tallies in *told* count.

    Flags are raised by whoever saw it. Times are counted by our own pixel and links where they were *injected*, else
    by the provider that saw the most: two that see the same reader must not count as two.
    """
    known = list(told)
    counted = [tally for tally in known if tally.source == OWN] if injected else known
    clicked = [tally for tally in known if tally.type is EventType.CLICKED and not tally.machine]
    # A click implies an open: who followed a link has read the message, also with images off.
    opened = [tally for tally in known if tally.type is EventType.OPENED and not tally.machine] + clicked
    return Engagement(
        opens=_times(counted, EventType.OPENED, machine=False),
        clicks=_times(counted, EventType.CLICKED, machine=False),
        machine_opens=_times(counted, EventType.OPENED, machine=True),
        machine_clicks=_times(counted, EventType.CLICKED, machine=True),
        delivered_at=_first(known, EventType.DELIVERED),
        first_opened_at=min((tally.first_at for tally in opened), default=None),
        last_opened_at=max((tally.last_at for tally in opened), default=None),
        first_clicked_at=min((tally.first_at for tally in clicked), default=None),
        bounced_at=_first(known, EventType.BOUNCED),
        complained_at=_first(known, EventType.COMPLAINED),
        unsubscribed_at=_first(known, EventType.UNSUBSCRIBED),
    )


def counters(row: Engagement) -> dict[str, int]:
    """Return what one message adds to its campaign's counters, by the counters' names."""
    return {
        "delivered": int(row.delivered_at is not None),
        "opens": row.opens,
        "unique_opens": int(row.first_opened_at is not None),
        "clicks": row.clicks,
        "unique_clicks": int(row.first_clicked_at is not None),
        "bounces": int(row.bounced_at is not None),
        "complaints": int(row.complained_at is not None),
        "unsubscribes": int(row.unsubscribed_at is not None),
        "machine_opens": row.machine_opens,
        "machine_clicks": row.machine_clicks,
    }


def changes(before: Engagement, after: Engagement) -> dict[str, int]:
    """Return by how much each counter moves when *before* becomes *after*; a counter that stays is absent."""
    moved = Counter(counters(after))
    moved.subtract(counters(before))
    return {counter: amount for counter, amount in moved.items() if amount}


def _times(told: Iterable[Tally], kind: EventType, *, machine: bool) -> int:
    return max((tally.amount for tally in told if tally.type is kind and tally.machine is machine), default=0)


def _first(told: Iterable[Tally], kind: EventType) -> datetime | None:
    return min((tally.first_at for tally in told if tally.type is kind), default=None)
