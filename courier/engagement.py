"""Say what became of a message from the set of its events.

A pure function of the set: any order, any duplication and any batching gives the same row, so flags only rise as
events arrive, until a burst becomes complete and its hits are a machine's after all (`courier.rules`). The ledger
counts the events (`tally_events` is `tallies` below in SQL); only this file judges them.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from ledger.engagements import Engagement, Tally
from ledger.events import EventType

#: The source of what our own pixel and links saw.
OWN = "tracker"

#: What machines do too; then it counts apart and raises no flag.
_BY_PEOPLE = frozenset({EventType.OPENED, EventType.CLICKED})

# By names of this module, because a look at an enum's class takes longer than what is done with it.
_OPENED, _CLICKED, _DELIVERED = EventType.OPENED, EventType.CLICKED, EventType.DELIVERED
_BOUNCED, _COMPLAINED, _UNSUBSCRIBED = EventType.BOUNCED, EventType.COMPLAINED, EventType.UNSUBSCRIBED
_OPENS, _CLICKS = (_OPENED, False), (_CLICKED, False)
_MACHINE_OPENS, _MACHINE_CLICKS = (_OPENED, True), (_CLICKED, True)

#: What became of a message of which nothing was told.
NOTHING = Engagement()

#: The campaign counters that follow from engagement, in the order of `_amounts`.
_COUNTERS = (
    "delivered",
    "opens",
    "unique_opens",
    "clicks",
    "unique_clicks",
    "bounces",
    "complaints",
    "unsubscribes",
    "machine_opens",
    "machine_clicks",
)


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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
    once = {event.dedupe: event for event in events}.values()
    return tally_new((0, event.type, event.source, event.machine, event.at) for event in once).get(0, [])


def tally_new(events: Iterable[tuple[int, EventType, str, bool, datetime]]) -> dict[int, list[Tally]]:
    """Count events, which are all different, by message; each is given as message, type, source, machine and time."""
    times: defaultdict[tuple[int, EventType, str, bool], list[datetime]] = defaultdict(list)
    for message, kind, source, machine, at in events:
        times[message, kind, source, machine].append(at)
    told: defaultdict[int, list[Tally]] = defaultdict(list)
    for (message, kind, source, machine), when in times.items():
        told[message].append(
            Tally(type=kind, source=source, machine=machine, amount=len(when), first_at=min(when), last_at=max(when))
        )
    return dict(told)


def sum_up(told: Iterable[Tally], *, injected: bool) -> Engagement:
    """Return what became of the message that all tallies in *told* count.

    Flags are raised by whoever saw it. Times are counted by our own pixel and links where they were *injected*, else
    by the provider that saw the most: two that see the same reader must not count as two.
    """
    most: dict[tuple[EventType, bool], int] = {}
    first: dict[EventType, datetime] = {}
    last: datetime | None = None
    for tally in told:
        kind, machine = tally.type, tally.machine
        if (tally.source == OWN or not injected) and tally.amount > most.get((kind, machine), 0):
            most[kind, machine] = tally.amount
        if kind in _BY_PEOPLE:
            if machine:
                continue
            if last is None or tally.last_at > last:
                last = tally.last_at
        if kind not in first or tally.first_at < first[kind]:
            first[kind] = tally.first_at
    clicked = first.get(_CLICKED)
    opened = first.get(_OPENED, clicked)
    return Engagement(
        opens=most.get(_OPENS, 0),
        clicks=most.get(_CLICKS, 0),
        machine_opens=most.get(_MACHINE_OPENS, 0),
        machine_clicks=most.get(_MACHINE_CLICKS, 0),
        delivered_at=first.get(_DELIVERED),
        # A click implies an open: who followed a link has read the message, also with images off.
        first_opened_at=clicked if clicked is not None and opened is not None and clicked < opened else opened,
        last_opened_at=last,
        first_clicked_at=clicked,
        bounced_at=first.get(_BOUNCED),
        complained_at=first.get(_COMPLAINED),
        unsubscribed_at=first.get(_UNSUBSCRIBED),
    )


def counters(row: Engagement) -> dict[str, int]:
    """Return what one message adds to its campaign's counters, by the counters' names."""
    return {counter: int(amount) for counter, amount in zip(_COUNTERS, _amounts(row), strict=True)}


def changes(before: Engagement, after: Engagement) -> dict[str, int]:
    """Return by how much each counter moves when *before* becomes *after*; a counter that stays is absent."""
    return all_changes([(before, after)])


def all_changes(pairs: Sequence[tuple[Engagement, Engagement]]) -> dict[str, int]:
    """Return by how much each counter moves when, of each pair, the first becomes the second."""
    before = _sums(then for then, _ in pairs if then is not NOTHING)
    after = _sums(now for _, now in pairs)
    moved = zip(_COUNTERS, before, after, strict=True)
    return {counter: now - then for counter, then, now in moved if now != then}


def _sums(rows: Iterable[Engagement]) -> Sequence[int]:
    # Column by column: a sum over a thousand rows is one call.
    return [sum(column) for column in zip(_amounts(NOTHING), *map(_amounts, rows), strict=True)]


def _amounts(row: Engagement) -> tuple[int, ...]:
    return (
        row.delivered_at is not None,
        row.opens,
        row.first_opened_at is not None,
        row.clicks,
        row.first_clicked_at is not None,
        row.bounced_at is not None,
        row.complained_at is not None,
        row.unsubscribed_at is not None,
        row.machine_opens,
        row.machine_clicks,
    )
