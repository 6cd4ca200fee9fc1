"""What an import of history writes: messages that were sent elsewhere, and how far each report has come.

Every function is one statement for a whole batch. A message of history has a key like every other, is `sent`, carries
nothing of ours, and is marked by its reason; nothing here decides what an event means.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec

from ledger.ids import MessageKey
from ledger.mail import storable
from ledger.sealing import Column
from ledger.store import Ledger, Session

#: Why nothing was injected into a message of history. queries.sql spells it, too.
REASON = "imported"

# A Message-ID that nobody ever wrote into a header: RFC 2606 keeps the domain free.
_DOMAIN = "imported.invalid"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where history goes: a campaign, which is a source and an id; and whence it comes."""

    source: str
    campaign_id: str
    origin: str


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """What stands of a target before an import."""

    #: The campaign's row; none where there is no such campaign yet.
    campaign: int | None = None
    #: Its mail went through us, and nothing was ever imported into it.
    ours: bool = False
    #: The reports that were begun and not read to their end, and where each goes on; empty: at its beginning.
    places: dict[str, str] = {}


class PastMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient of a campaign that was sent elsewhere."""

    #: The key, spelt and as its 16 bytes.
    key: MessageKey
    raw_key: bytes
    recipient: str
    recipient_index: bytes
    #: The first that history tells of it.
    at: datetime
    #: None where history does not say.
    sent_at: datetime | None
    original_message_id: str | None


class Dated(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch tells of the times of a message that stands in the ledger."""

    id: int
    at: datetime
    sent_at: datetime | None


async def before(ledger: Ledger, target: Target) -> Before:
    """Return what stands of *target*."""
    row = await ledger.fetchrow("find_import", target.source, target.campaign_id)
    if row is None:
        return Before()
    places = await ledger.fetch("import_places", row["id"], target.origin)
    return Before(
        campaign=row["id"],
        ours=row["mailed"] and not row["imported"],
        places={place["report"]: place["place"] for place in places},
    )


async def enter(session: Session, target: Target) -> int:
    """Return the target's campaign, made where it is missing: no AMS knows it."""
    row = await session.fetchrow("ensure_campaign", target.source, target.campaign_id, None, None, False)
    assert row is not None  # noqa: S101 - INSERT … RETURNING gives a row
    return int(row["id"])


async def begin(session: Session, campaign: int, origin: str, reports: Sequence[str]) -> None:
    """Note that these reports are read from their beginning."""
    await session.execute("begin_import", campaign, origin, list(reports))


async def reach(session: Session, campaign: int, origin: str, report: str, place: str | None) -> None:
    """Note where a report goes on; None: it is done."""
    await session.execute("reach_import", campaign, origin, report, storable(place))


async def lock(session: Session, campaign: int) -> None:
    """Let no other import write into this campaign until the transaction ends."""
    await session.fetch("lock_import", campaign)


async def add_messages(session: Session, campaign: int, source: str, messages: Sequence[PastMessage]) -> int:
    """Enter messages and count them as accepted and sent; return how many had not been there."""
    rows = await session.fetch(
        "import_messages",
        campaign,
        source,
        [message.raw_key for message in messages],
        [message.at for message in messages],
        [message.sent_at for message in messages],
        [session.sealer.seal_address(Column.RECIPIENT, message.recipient) for message in messages],
        [message.recipient_index for message in messages],
        [f"{message.key}@{_DOMAIN}" for message in messages],
        REASON,
        [storable(message.original_message_id) for message in messages],
    )
    return len(rows)


async def date_back(session: Session, dated: Sequence[Dated]) -> None:
    """Give messages the earliest times that history tells, so that any order of reports ends alike."""
    await session.execute(
        "date_imported", [one.id for one in dated], [one.at for one in dated], [one.sent_at for one in dated]
    )


async def remember(session: Session, dedupes: Collection[bytes]) -> set[bytes]:
    """Remember imported events for ever and return those that nobody had seen."""
    return {row["dedupe"] for row in await session.fetch("remember_imported", list(dedupes))}
