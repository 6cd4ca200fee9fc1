"""Keep events that cannot be recorded yet, as they came, until their message appears or they are old.

Every id that an event names is entered beside it; it is tried again when these lead to more messages than they did.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec

from ledger.sealing import Column, SealedError
from ledger.store import Ledger, Session

#: Why an event stays parked whose payload our keys do not open.
SEALED = "sealed"


class ParkedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event that cannot be recorded now, as it came."""

    dedupe: bytes
    source: str
    reason: str
    #: Every id that it named, the best first; none when none could be read.
    names: tuple[bytes, ...]
    payload: bytes
    #: To how many messages the names led when it was parked.
    found: int = 0
    #: The blind index of whom it names; none where it names nobody.
    recipient_index: bytes | None = None
    #: When it was parked first; none: now.
    parked_at: datetime | None = None


async def park(session: Session, events: Sequence[ParkedEvent]) -> None:
    """Keep events; one that stands parked already stays as it is."""
    await session.execute(
        "park_events",
        [event.dedupe for event in events],
        [event.parked_at for event in events],
        [event.source for event in events],
        [event.reason for event in events],
        [event.names[0] if event.names else b"" for event in events],
        [session.sealer.seal(Column.PARKED, event.payload) for event in events],
        [event.found for event in events],
        [event.recipient_index for event in events],
    )
    names = [(event.dedupe, name) for event in events for name in event.names]
    if names:
        await session.execute("name_parked", [dedupe for dedupe, _ in names], [name for _, name in names])


async def unpark(session: Session, dedupes: Collection[bytes]) -> dict[bytes, datetime]:
    """Take events out of the parked ones; return those that were still there, with when they were parked."""
    return {row["dedupe"]: row["parked_at"] for row in await session.fetch("unpark_events", list(dedupes))}


async def repark(ledger: Ledger, dedupe: bytes, reason: str) -> None:
    """Give a parked event another reason."""
    await ledger.execute("repark_event", dedupe, reason)


async def matchable(
    ledger: Ledger, reasons: Collection[str], limit: int, *, since: datetime | None = None
) -> list[tuple[bytes, bytes, datetime]]:
    """Return dedupe id, payload and time of events that may be matched now, oldest first; those parked *since*.

    What our keys do not open is set aside.
    """
    found: list[tuple[bytes, bytes, datetime]] = []
    for row in await ledger.fetch("matchable_events", list(reasons), since, limit):
        try:
            found.append((row["dedupe"], ledger.sealer.open(Column.PARKED, row["payload"]), row["parked_at"]))
        except SealedError:
            await repark(ledger, row["dedupe"], SEALED)
    return found


async def drop_beyond(ledger: Ledger, most: int, limit: int) -> list[str]:
    """Let go of the oldest where a source has more than *most* parked, up to *limit*; return the source of each."""
    return [row["source"] for row in await ledger.fetch("drop_parked_beyond", most, limit)]
