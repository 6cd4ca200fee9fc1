"""What the courier writes when it records events: dedupe, events, engagement, counts, suppression.

Every function is one statement for a whole batch, inside the caller's transaction. Rows are touched in sorted order,
so two couriers that record at once wait for each other and never deadlock; nothing here decides what an event means.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import msgspec

from ledger.events import EventType
from ledger.sealing import Column
from ledger.store import Record, Session

_TYPES = {str(kind): kind for kind in EventType}


class NewEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event as it is stored."""

    #: The message's row.
    message: int
    occurred_at: datetime
    type: EventType
    #: Who said so: `tracker`, `relay`, or a provider's name.
    source: str
    link: int | None
    machine: bool
    verdict: str | None
    reason: str | None
    url: str | None
    network: str | None
    user_agent: str | None
    #: 16 bytes; makes the copies of an event one.
    dedupe: bytes
    #: By which id of a provider's notice the message was found; what follows is a provider's too.
    step: str | None = None
    bounce: str | None = None
    smtp_code: str | None = None
    enhanced_code: str | None = None
    description: str | None = None
    raw: bytes | None = None


class StoredHit(msgspec.Struct, frozen=True, kw_only=True):
    """An open or a click as it stands in the ledger: what says whether it belongs to a burst."""

    message: int
    #: With `recorded_at`, its row.
    id: int
    recorded_at: datetime
    occurred_at: datetime
    type: EventType
    source: str
    link: int | None
    machine: bool
    reason: str | None
    url: str | None
    network: str | None
    user_agent: str | None
    dedupe: bytes


class Tally(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How often one source said one thing of a message, from when to when."""

    type: EventType
    source: str
    machine: bool
    amount: int
    first_at: datetime
    last_at: datetime


class Engagement(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What became of a message: counts and flags of people, and the counts of machines.

    A flag is a time: that of the first event that raised it. `first_opened_at` is set by a click too.
    """

    opens: int = 0
    clicks: int = 0
    machine_opens: int = 0
    machine_clicks: int = 0
    delivered_at: datetime | None = None
    first_opened_at: datetime | None = None
    last_opened_at: datetime | None = None
    first_clicked_at: datetime | None = None
    bounced_at: datetime | None = None
    complained_at: datetime | None = None
    unsubscribed_at: datetime | None = None


class Suppressed(msgspec.Struct, frozen=True, kw_only=True):
    """A recipient whom campaign mail of one source no longer reaches."""

    source: str
    recipient_index: bytes
    reason: str
    message: int
    #: When the recipient said so.
    at: datetime


async def remember(session: Session, dedupes: Collection[bytes]) -> set[bytes]:
    """Remember events by their dedupe ids and return those that nobody had seen."""
    return {row["dedupe"] for row in await session.fetch("remember_events", list(dedupes))}


async def begin_engagements(session: Session, engagements: Mapping[int, Engagement]) -> set[int]:
    """Write each message's engagement where there is none, and hold it; return the messages of those written.

    Nothing was told of these before, by anybody whose word changes an engagement.
    """
    if not engagements:
        return set()
    return {row["message"] for row in await session.fetch("begin_engagements", *_written(engagements))}


async def lock_engagements(session: Session, messages: Collection[int]) -> dict[int, Engagement]:
    """Lock the engagement of each message until the transaction ends, and return it; all of them are there."""
    if not messages:
        return {}
    return {row["message"]: _engagement(row) for row in await session.fetch("lock_engagements", sorted(messages))}


async def hold_engagements(session: Session, messages: Collection[int]) -> dict[int, Engagement]:
    """Lock the engagement of each message until the transaction ends, made where it is missing, and return it."""
    begun = await begin_engagements(session, dict.fromkeys(messages, Engagement()))
    return dict.fromkeys(begun, Engagement()) | await lock_engagements(session, set(messages) - begun)


async def add_events(session: Session, events: Sequence[NewEvent]) -> None:
    """Insert events; the caller has made sure that each is new."""
    sealer = session.sealer
    rows = [
        msgspec.structs.astuple(
            event
            if event.description is None and event.raw is None
            else msgspec.structs.replace(
                event,
                description=sealer.seal_text(Column.DESCRIPTION, event.description),
                raw=None if event.raw is None else sealer.seal(Column.RAW, event.raw),
            )
        )
        for event in events
    ]
    await session.copy("event", NewEvent.__struct_fields__, rows)


async def hits_around(
    session: Session, spans: Mapping[int, tuple[datetime, datetime]], seconds: float
) -> dict[int, list[StoredHit]]:
    """Return each message's opens and clicks from *seconds* before the first of two times to as long after the last."""
    hits: dict[int, list[StoredHit]] = {message: [] for message in spans}
    firsts, lasts = [first for first, _ in spans.values()], [last for _, last in spans.values()]
    for row in await session.fetch("hits_around", list(spans), firsts, lasts, seconds):
        hits[row["message"]].append(StoredHit(**{**row, "type": EventType(row["type"])}))
    return hits


async def rejudge(session: Session, hits: Sequence[StoredHit], reason: str) -> None:
    """Label *hits* as a machine's for *reason*, in the place of what they were taken for."""
    await session.execute(
        "rejudge_events",
        [hit.message for hit in hits],
        [hit.recorded_at for hit in hits],
        [hit.id for hit in hits],
        reason,
    )


async def tally(session: Session, messages: Collection[int]) -> dict[int, list[Tally]]:
    """Count every event of these messages by type, source and whether a machine did it."""
    tallies: dict[int, list[Tally]] = {message: [] for message in messages}
    rows = await session.fetch("tally_events", list(messages))
    for message, kind, source, machine, amount, first_at, last_at in rows:
        tallies[message].append(
            Tally(type=_TYPES[kind], source=source, machine=machine, amount=amount, first_at=first_at, last_at=last_at)
        )
    return tallies


async def write_engagements(session: Session, engagements: Mapping[int, Engagement]) -> None:
    """Write the engagement of messages that `hold_engagements` has locked."""
    await session.execute("set_engagements", *_written(engagements))


async def add_deltas(session: Session, deltas: Mapping[tuple[int, str], int]) -> None:
    """Append changes of campaign counters, keyed by the campaign's row and the counter's name."""
    await session.execute(
        "add_campaign_deltas",
        [campaign for campaign, _ in deltas],
        [counter for _, counter in deltas],
        list(deltas.values()),
    )


async def suppress(session: Session, recipients: Sequence[Suppressed]) -> None:
    """Keep campaign mail from these recipients."""
    await session.execute(
        "suppress_recipients",
        [recipient.source for recipient in recipients],
        [recipient.recipient_index for recipient in recipients],
        [recipient.reason for recipient in recipients],
        [recipient.message for recipient in recipients],
        [recipient.at for recipient in recipients],
    )


def _written(engagements: Mapping[int, Engagement]) -> tuple[list[int], str]:
    """Return the messages in their order, and their rows as one document of what is not empty.

    As arrays, times would cost the driver ten times as much; a whole row, PostgreSQL half as much again.
    """
    messages = sorted(engagements)
    return messages, msgspec.json.encode([engagements[message] for message in messages]).decode()


def _engagement(row: Record) -> Engagement:
    return Engagement(
        opens=row["opens"],
        clicks=row["clicks"],
        machine_opens=row["machine_opens"],
        machine_clicks=row["machine_clicks"],
        delivered_at=row["delivered_at"],
        first_opened_at=row["first_opened_at"],
        last_opened_at=row["last_opened_at"],
        first_clicked_at=row["first_clicked_at"],
        bounced_at=row["bounced_at"],
        complained_at=row["complained_at"],
        unsubscribed_at=row["unsubscribed_at"],
    )
