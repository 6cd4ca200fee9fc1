"""Find the message that an event names: by its key, or by foreign ids that were entered or learnt.

Nothing here chooses: an id may lead to several messages, and whoever asks decides, or parks the event.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec

from ledger.store import Record, Session


class Correlated(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A message to which an id leads, and what an event touches through it."""

    id: int
    accepted_at: datetime
    #: The campaign's row; none for mail without one.
    campaign: int | None
    source: str
    #: Empty when the recipient had it erased: then nobody knows who it was.
    recipient_index: bytes
    #: The recipient's address is gone.
    erased: bool
    #: It left with our pixel or links in it.
    injected: bool
    #: The integer under which AMS knows the campaign; none for everybody else's.
    mailing: int | None
    #: The campaign's id in its mailer's words.
    campaign_id: str | None = None
    #: listmonk knows the recipient.
    subscribed: bool = False
    #: There is an engagement of it; false: there was none a moment ago, or nobody looked.
    engaged: bool = False


async def by_keys(session: Session, keys: Collection[bytes]) -> dict[bytes, Correlated]:
    """Return the messages that *keys* name; a key that names none is absent."""
    return {row["named"]: _correlated(row) for row in await session.fetch("resolve_keys", list(keys))}


async def count(session: Session, names: Collection[bytes]) -> dict[bytes, int]:
    """Return to how many messages each id leads: a key, a submission's key or an alias digest."""
    return {row["named"]: row["found"] for row in await session.fetch("count_named", list(names))}


async def by_aliases(
    session: Session, names: Collection[bytes], recipients: Collection[bytes]
) -> dict[bytes, list[Correlated]]:
    """Return the messages that alias digests and submission keys lead to: those of *recipients*, and two more of each.

    *recipients* are blind indexes.
    """
    led: dict[bytes, list[Correlated]] = {}
    for row in await session.fetch("resolve_aliases", list(names), list(recipients)):
        led.setdefault(row["named"], []).append(_correlated(row))
    return led


async def learn(session: Session, aliases: Sequence[tuple[bytes, int]]) -> None:
    """Remember foreign ids, given as digest and message, for events that have no other."""
    await session.execute("learn_aliases", [digest for digest, _ in aliases], [message for _, message in aliases])


def _correlated(row: Record) -> Correlated:
    return Correlated(
        id=row["id"],
        accepted_at=row["accepted_at"],
        campaign=row["campaign"],
        source=row["source"],
        recipient_index=row["recipient_index"],
        erased=row["erased"],
        injected=row["injected"],
        mailing=row["ams_mailing"],
        campaign_id=row["campaign_id"],
        subscribed=row["subscribed"],
        engaged=row["engaged"],
    )
