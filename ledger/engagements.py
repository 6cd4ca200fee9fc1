"""What the courier writes when it records events: dedupe, events, engagement, counts, suppression, parked events.

Every function is one statement for a whole batch, inside the caller's transaction. Rows are touched in sorted order,
so two couriers that record at once wait for each other and never deadlock; nothing here decides what an event means.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import msgspec

from ledger.events import EventType
from ledger.store import Ledger, Record, Session


class Correlated(msgspec.Struct, frozen=True, kw_only=True):
    """The message that an event names, and what the event touches through it."""

    id: int
    #: The campaign's row; none for mail without one.
    campaign: int | None
    source: str
    #: Empty when the recipient had it erased: then nobody knows who it was.
    recipient_index: bytes
    #: The recipient's address is gone.
    erased: bool
    #: The integer under which AMS knows the campaign; none for everybody else's.
    mailing: int | None


class NewEvent(msgspec.Struct, frozen=True, kw_only=True):
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


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """How often one source said one thing of a message, from when to when."""

    type: EventType
    source: str
    machine: bool
    amount: int
    first_at: datetime
    last_at: datetime


class Engagement(msgspec.Struct, frozen=True, kw_only=True):
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


class ParkedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event that cannot be recorded now, as it came."""

    dedupe: bytes
    source: str
    reason: str
    #: The id that it named; empty when none could be read.
    named: bytes
    payload: bytes


async def remember(session: Session, dedupes: Collection[bytes]) -> set[bytes]:
    """Remember events by their dedupe ids and return those that nobody had seen."""
    return {row["dedupe"] for row in await session.fetch("remember_events", list(dedupes))}


async def unpark(session: Session, dedupes: Collection[bytes]) -> set[bytes]:
    """Take events out of the parked ones and return those that were still there."""
    return {row["dedupe"] for row in await session.fetch("unpark_events", list(dedupes))}


async def park(session: Session, events: Sequence[ParkedEvent]) -> None:
    """Keep events that cannot be recorded now; one that stands parked already stays as it is."""
    await session.execute(
        "park_events",
        [event.dedupe for event in events],
        [event.source for event in events],
        [event.reason for event in events],
        [event.named for event in events],
        [event.payload for event in events],
    )


async def repark(ledger: Ledger, dedupe: bytes, reason: str) -> None:
    """Give a parked event another reason."""
    await ledger.execute("repark_event", dedupe, reason)


async def matchable(ledger: Ledger, source: str, reason: str, limit: int) -> list[tuple[bytes, bytes]]:
    """Return dedupe id and payload of *source*'s events parked for *reason* whose message appeared, oldest first."""
    rows = await ledger.fetch("matchable_events", source, reason, limit)
    return [(row["dedupe"], row["payload"]) for row in rows]


async def resolve(session: Session, keys: Collection[bytes]) -> dict[bytes, Correlated]:
    """Return the messages that *keys* name; a key that names none is absent."""
    return {
        row["key"]: Correlated(
            id=row["id"],
            campaign=row["campaign"],
            source=row["source"],
            recipient_index=row["recipient_index"],
            erased=row["erased"],
            mailing=row["ams_mailing"],
        )
        for row in await session.fetch("resolve_keys", list(keys))
    }


async def hold_engagements(session: Session, messages: Collection[int]) -> dict[int, Engagement]:
    """Lock the engagement of each message until the transaction ends, made where it is missing, and return it."""
    ordered = sorted(messages)
    await session.execute("ensure_engagements", ordered)
    return {row["message"]: _engagement(row) for row in await session.fetch("lock_engagements", ordered)}


async def add_events(session: Session, events: Sequence[NewEvent]) -> None:
    """Insert events; the caller has made sure that each is new."""
    await session.execute(
        "add_events",
        [event.message for event in events],
        [event.occurred_at for event in events],
        [event.type for event in events],
        [event.source for event in events],
        [event.link for event in events],
        [event.machine for event in events],
        [event.verdict for event in events],
        [event.reason for event in events],
        [event.url for event in events],
        [event.network for event in events],
        [event.user_agent for event in events],
        [event.dedupe for event in events],
    )


async def tally(session: Session, messages: Collection[int]) -> dict[int, list[Tally]]:
    """Count every event of these messages by type, source and whether a machine did it."""
    tallies: dict[int, list[Tally]] = {message: [] for message in messages}
    for row in await session.fetch("tally_events", list(messages)):
        tallies[row["message"]].append(
            Tally(
                type=EventType(row["type"]),
                source=row["source"],
                machine=row["machine"],
                amount=row["amount"],
                first_at=row["first_at"],
                last_at=row["last_at"],
            )
        )
    return tallies


async def write_engagements(session: Session, engagements: Mapping[int, Engagement]) -> None:
    """Write the engagement of messages that `hold_engagements` has locked."""
    rows = list(engagements.values())
    await session.execute(
        "set_engagements",
        list(engagements),
        [row.opens for row in rows],
        [row.clicks for row in rows],
        [row.machine_opens for row in rows],
        [row.machine_clicks for row in rows],
        [row.delivered_at for row in rows],
        [row.first_opened_at for row in rows],
        [row.last_opened_at for row in rows],
        [row.first_clicked_at for row in rows],
        [row.bounced_at for row in rows],
        [row.complained_at for row in rows],
        [row.unsubscribed_at for row in rows],
    )


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
