"""What sinks have yet to hear: names of events wait here from the moment that these are recorded.

A row leaves only when its sink has confirmed it; one that it refuses is parked with the answer. What is told is read
from the event and its message when it is about to be sent, so that an erased or relabelled event is told as it stands.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from ledger.ids import MessageKey, key_text
from ledger.sealing import Column, SealedError
from ledger.store import Ledger, Record, Session
from ledger.traces import ERASED_BYTES


class NewTelling(msgspec.Struct, frozen=True, kw_only=True):
    """That a sink is to hear of one event."""

    sink: str
    #: The message's row.
    message: int
    #: The event's dedupe id.
    event: bytes
    #: What this sink is told once of a message; empty: every event.
    kind: str = ""
    #: When the event was recorded; none: in this transaction.
    recorded_at: datetime | None = None


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it stands, with what decides who hears of it."""

    message: int
    #: Its dedupe id.
    event: bytes
    #: None: in this transaction.
    recorded_at: datetime | None
    type: str
    #: Who said so: `tracker`, `relay`, `operator` or a provider's name.
    teller: str
    machine: bool
    bounce: str | None
    #: Its message left with our pixel or links in it.
    injected: bool
    #: Who submitted the message.
    source: str
    campaign_id: str | None
    #: listmonk knows its recipient.
    subscribed: bool


class Gone(msgspec.Struct, frozen=True, kw_only=True):
    """An item of which nothing can be told any more: its event is gone, or whom it is of was erased."""

    id: int


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """An item that names somebody, whom our keys do not open."""

    id: int
    #: Its intent mark stands: it may have been told.
    tried: bool


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """One item, with its event and message as they stand now."""

    id: int
    #: Its intent mark stands: it may have been told.
    tried: bool
    kind: str
    #: The event's dedupe id.
    event: bytes
    type: str
    teller: str
    occurred_at: datetime
    recorded_at: datetime
    url: str | None
    machine: bool
    reason: str | None
    bounce: str | None
    smtp_code: str | None
    enhanced_code: str | None
    description: str | None
    key: MessageKey
    message_id: str
    source: str
    campaign_id: str | None
    #: None where it is not UTF-8, so that JSON cannot carry it.
    recipient: str | None
    #: The 16 octets of its UUID in listmonk; none for everybody else's mail.
    subscriber: bytes | None


class SinkState(msgspec.Struct, frozen=True, kw_only=True):
    """How delivery to a sink goes."""

    #: Failures in a row.
    failures: int = 0
    last_error: str | None = None
    #: Why it is held; none when it is not.
    held: str | None = None
    #: Seconds until it may be tried.
    wait: float = 0.0


class SinkStanding(msgspec.Struct, frozen=True, kw_only=True):
    """What a sink has yet to hear, and how it goes."""

    name: str
    #: It stands in the settings of the courier that started last.
    configured: bool
    pending: int
    parked: int
    #: For how long the oldest pending item has waited; 0 when there is none.
    oldest_seconds: float
    failures: int
    last_error: str | None
    held: str | None


class ParkedTelling(msgspec.Struct, frozen=True, kw_only=True):
    """An item that a sink refused."""

    id: int
    parked_at: datetime
    #: None where its event or its message is gone.
    type: str | None
    occurred_at: datetime | None
    key: MessageKey | None
    reason: str


async def keep(ledger: Ledger, names: Sequence[str]) -> None:
    """Let *names* be the sinks that there are; with none, what only sinks needed is let go."""
    await ledger.execute("forget_sinks", list(names))
    if names:
        await ledger.execute("enter_sinks", list(names))
    else:
        await ledger.execute("forget_fresh_events")


async def queue(session: Session, tellings: Sequence[NewTelling]) -> int:
    """Queue items, in the transaction that records their events; return how many were not told or waiting already."""
    tag = await session.execute(
        "tell_sinks",
        [one.sink for one in tellings],
        [one.message for one in tellings],
        [one.event for one in tellings],
        [one.recorded_at for one in tellings],
        [one.kind for one in tellings],
    )
    return int(tag.rpartition(" ")[2])


async def withdraw(session: Session, names: Sequence[str], events: Sequence[tuple[int, bytes]]) -> None:
    """Let go of what sinks have not taken yet of *events*, given as message and dedupe id."""
    await session.execute(
        "withdraw_from_sinks", list(names), [message for message, _ in events], [event for _, event in events]
    )


async def take_fresh(session: Session, limit: int) -> list[StoredEvent]:
    """Take up to *limit* events that no courier recorded; they are queued in the same transaction, or stay."""
    return [_stored(row) for row in await session.fetch("take_fresh_events", limit)]


async def events_since(
    session: Session, since: datetime, behind: tuple[datetime, int] | None, limit: int
) -> tuple[list[StoredEvent], tuple[datetime, int] | None]:
    """Return the next events recorded since *since* behind a place, and the place of the last; none: no more."""
    rows = await session.fetch("events_since", since, *(behind or (None, None)), limit)
    place = (rows[-1]["recorded_at"], rows[-1]["id"]) if len(rows) == limit else None
    return [_stored(row) for row in rows], place


async def state(ledger: Ledger, name: str) -> SinkState:
    """Return how delivery to a sink goes; one that somebody with other settings has forgotten is entered again."""
    row = await ledger.fetchrow("sink_state", name)
    if row is None:
        await ledger.execute("enter_sinks", [name])
    return SinkState() if row is None else SinkState(**dict(row))


async def waiting(ledger: Ledger, name: str, limit: int) -> list[Waiting | Gone | Sealed]:
    """Return the oldest items of a sink, at most *limit*."""
    return [_waiting(ledger, row) for row in await ledger.fetch("sink_waiting", name, limit)]


async def mark_tried(ledger: Ledger, ids: Sequence[int]) -> bool:
    """Commit the intent to tell items, before it is done; false when one of them is told, marked or gone already."""
    return len(await ledger.fetch("try_sink_items", ids)) == len(ids)


async def unmark_tried(ledger: Ledger, ids: Sequence[int]) -> None:
    """Take the intent back: the sink has surely not taken them."""
    await ledger.execute("untry_sink_items", ids)


async def drop(ledger: Ledger, ids: Sequence[int]) -> None:
    """Let items go: they are told, or there is nothing to tell."""
    await ledger.execute("drop_sink_items_by_id", ids)


async def park(ledger: Ledger, reasons: Mapping[int, str]) -> None:
    """Set items aside, each with its reason."""
    await ledger.execute("park_sink_items", list(reasons), list(reasons.values()))


async def clear(ledger: Ledger, name: str) -> None:
    """Forget a sink's troubles."""
    await ledger.execute("clear_sink", name)


async def postpone(ledger: Ledger, name: str, *, failures: int, seconds: float, error: str, held: str | None) -> None:
    """Note that a sink failed, and try it again after *seconds*."""
    await ledger.execute("postpone_sink", name, failures, seconds, error, held)


async def standings(ledger: Ledger, name: str | None = None) -> tuple[SinkStanding, ...]:
    """Return how every sink stands, or the one of that *name*: those in the settings, and those with items left."""
    return tuple(SinkStanding(**dict(row)) for row in await ledger.fetch("sink_standings", name))


async def parked(ledger: Ledger, name: str, limit: int) -> list[ParkedTelling]:
    """Return the newest parked items of a sink."""
    return [
        ParkedTelling(**(dict(row) | {"key": None if row["key"] is None else key_text(row["key"])}))
        for row in await ledger.fetch("parked_sink_items", name, limit)
    ]


async def unpark(ledger: Ledger, name: str) -> int:
    """Let every parked item of a sink wait again, try it at once, and return the number of items."""
    return len(await ledger.fetch("unpark_sink_items", name))


def _stored(row: Record) -> StoredEvent:
    return StoredEvent(**{name: row[name] for name in StoredEvent.__struct_fields__})


_AS_THEY_ARE = (
    "id", "tried", "kind", "event", "type", "teller", "occurred_at", "recorded_at", "url", "machine", "bounce",
    "smtp_code", "enhanced_code", "message_id", "source", "campaign_id",
)  # fmt: skip


def _waiting(ledger: Ledger, row: Record) -> Waiting | Gone | Sealed:
    if row["type"] is None or row["key"] is None or row["recipient"] == ERASED_BYTES:
        return Gone(id=row["id"])
    sealer = ledger.sealer
    known = {name: row[name] for name in _AS_THEY_ARE}
    try:
        recipient = sealer.open(Column.RECIPIENT, row["recipient"])
        subscriber = row["subscriber"]
        return Waiting(
            **known,
            key=key_text(row["key"]),
            # A machine's reason is the evidence against it; an event of a person has one only when its teller gave one.
            reason=sealer.open_text(Column.REPLY, row["reason"]) or (row["verdict"] if row["machine"] else None),
            description=sealer.open_text(Column.DESCRIPTION, row["description"]),
            recipient=_text(recipient),
            subscriber=None if subscriber is None else sealer.open(Column.SUBSCRIBER, subscriber),
        )
    except SealedError:
        return Sealed(id=row["id"], tried=row["tried"])


def _text(address: bytes) -> str | None:
    try:
        return address.decode("utf-8")
    except UnicodeDecodeError:
        return None
