"""What AMS has yet to hear: items wait here from the moment their event is recorded.

A row leaves only when AMS has confirmed it; one that AMS refuses is parked with the answer. Addresses are joined when
an item is about to be sent and stand nowhere in the outbox.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from ledger.ids import MessageKey, key_text
from ledger.sealing import Column, SealedError
from ledger.store import Ledger, Record, Session


class NewItem(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What AMS is to hear of one event."""

    mailing: int
    #: The rows of the campaign and of the message.
    campaign: int
    message: int
    url: str


class Withdrawn(msgspec.Struct, frozen=True, kw_only=True):
    """What AMS was to hear of one event, and is not any more."""

    #: The rows of the campaign and of the message.
    campaign: int
    message: int
    url: str
    #: When the event was recorded, and its item queued.
    recorded_at: datetime


class WaitingMailing(msgspec.Struct, frozen=True, kw_only=True):
    """A mailing with items waiting, and how its delivery goes."""

    mailing: int
    #: Failures in a row.
    failures: int
    last_error: str | None
    #: Why the whole mailing is held; none when it is not.
    held: str | None
    #: Seconds until it may be tried.
    wait: float


class WaitingItem(msgspec.Struct, frozen=True, kw_only=True):
    """One item, with the octets of the recipient's address; none where its message is gone."""

    id: int
    url: str
    recipient: bytes | None
    #: There is an address, and our keys do not open it.
    sealed: bool = False


class ParkedItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item that AMS refused; whom it is for is its message's to say."""

    id: int
    parked_at: datetime
    mailing: int
    #: The message's key; none where the message is gone.
    key: MessageKey | None
    url: str
    reason: str


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What AMS itself shows of a mailing, each address counted once."""

    opened: int
    clicks: int
    seen_at: datetime


class Depth(msgspec.Struct, frozen=True, kw_only=True):
    """How much AMS has yet to hear."""

    pending: int
    parked: int
    #: Seconds for which the oldest pending item has waited; 0 when there is none.
    age: float


async def queue(session: Session, items: Sequence[NewItem]) -> None:
    """Queue items in the transaction that records their events."""
    await session.copy("outbox", NewItem.__struct_fields__, [msgspec.structs.astuple(item) for item in items])


async def withdraw(session: Session, items: Sequence[Withdrawn]) -> None:
    """Let items go that AMS has not taken yet, one for each of *items*; what it has taken stays told."""
    await session.execute(
        "withdraw_items",
        [item.campaign for item in items],
        [item.message for item in items],
        [item.url for item in items],
        [item.recorded_at for item in items],
    )


async def waiting_mailings(ledger: Ledger) -> list[WaitingMailing]:
    """Return the mailings that have items waiting, the longest waiting first."""
    return [WaitingMailing(**dict(row)) for row in await ledger.fetch("waiting_mailings")]


async def waiting_items(ledger: Ledger, mailing: int, limit: int) -> list[WaitingItem]:
    """Return the oldest items of *mailing*, at most *limit*."""
    return [_waiting(ledger, row) for row in await ledger.fetch("waiting_items", mailing, limit)]


async def settle(ledger: Ledger, ids: Sequence[int]) -> None:
    """Let items go that AMS has confirmed, and count them for their campaigns, in one statement."""
    await ledger.execute("settle_items", ids)


async def park(ledger: Ledger, reasons: Mapping[int, str]) -> None:
    """Set items aside, each with the answer that refused it."""
    await ledger.execute("park_items", list(reasons), list(reasons.values()))


async def drop(ledger: Ledger, ids: Sequence[int]) -> None:
    """Let items go of which AMS is not to hear, uncounted."""
    await ledger.execute("drop_items_by_id", ids)


async def clear(ledger: Ledger, mailing: int) -> None:
    """Forget a mailing's troubles."""
    await ledger.execute("clear_mailing", mailing)


async def postpone(
    ledger: Ledger, mailing: int, *, failures: int, seconds: float, error: str, held: str | None
) -> None:
    """Note that a mailing failed, and try it again after *seconds*."""
    await ledger.execute("postpone_mailing", mailing, failures, seconds, error, held)


async def hasten(ledger: Ledger, mark: str) -> None:
    """Try at once the mailings whose last error begins with *mark*."""
    await ledger.execute("hasten_mailings", mark)


async def depth(ledger: Ledger) -> Depth:
    """Return how much waits for AMS."""
    row = await ledger.fetchrow("outbox_depth")
    assert row is not None  # noqa: S101 - an aggregate without GROUP BY gives a row
    return Depth(pending=row["pending"], parked=row["parked"], age=row["age"])


async def unpark(ledger: Ledger) -> int:
    """Let every parked item wait again, try every mailing at once, and return the number of items."""
    async with ledger.transaction() as session:
        rows = await session.fetch("unpark_items")
        await session.execute("retry_mailings")
    return len(rows)


async def rebuild(
    ledger: Ledger, since: datetime, *, open_url: str, unsubscribe_url: str, machines: bool, never: str
) -> int:
    """Queue items from the events recorded since *since* and return their number.

    Events whose own items still wait are left alone. *machines* says whether hits of machines are queued; those
    judged so for the reason *never* are not in any case, whichever version of the rules did it.
    """
    tag = await ledger.execute("rebuild_items", since, open_url, unsubscribe_url, machines, never)
    return int(tag.rpartition(" ")[2])


def _waiting(ledger: Ledger, row: Record) -> WaitingItem:
    if row["recipient"] is None:
        return WaitingItem(id=row["id"], url=row["url"], recipient=None)
    try:
        recipient = ledger.sealer.open(Column.RECIPIENT, row["recipient"])
    except SealedError:
        return WaitingItem(id=row["id"], url=row["url"], recipient=None, sealed=True)
    return WaitingItem(id=row["id"], url=row["url"], recipient=recipient)


async def parked(ledger: Ledger, limit: int) -> list[ParkedItem]:
    """Return up to *limit* items that AMS refused, the newest first."""
    return [
        ParkedItem(
            id=row["id"],
            parked_at=row["parked_at"],
            mailing=row["mailing"],
            key=None if row["key"] is None else key_text(row["key"]),
            url=row["url"],
            reason=row["reason"],
        )
        for row in await ledger.fetch("parked_items", limit)
    ]


async def note_shown(ledger: Ledger, shown: Mapping[int, tuple[int, int]]) -> None:
    """Note how many addresses AMS shows as opened and as clicked, of those mailings that are ours."""
    opened, clicks = [one for one, _ in shown.values()], [one for _, one in shown.values()]
    await ledger.execute("note_shown", list(shown), opened, clicks)


async def shown(ledger: Ledger, campaign: int) -> Shown | None:
    """Return what AMS shows of a campaign; none when it has not been asked, or the campaign is not AMS's."""
    row = await ledger.fetchrow("shown_of_campaign", campaign)
    return None if row is None else msgspec.convert(dict(row), Shown)
