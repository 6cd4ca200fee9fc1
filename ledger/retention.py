"""Let go of what is old, in bites: recipients, parked events, months of events. Counts stay as they are.

Each function does one bite and says whether more is left; the courier takes turns at it. What events said of a message
is kept as a tally when they go, so that a late one is added to all that came before.
"""

import asyncio
from collections import Counter
from datetime import date, datetime

from ledger.erasure import BATCH, erase
from ledger.store import Ledger, Session

_RECIPIENTS = "recipients"
# Messages of which one statement keeps what a month of events said.
_TALLIED = 100_000
# How often a month is tried to be dropped; each try waits for a second.
_TRIES = 10


class BusyError(Exception):
    """A month of events is being read all the time and could not be dropped: it is tried again later."""


class Recipients:
    """A pass over messages that were accepted before *before*, from the oldest whose recipient is still known.

    What waits is passed over and looked at again in the next pass.
    """

    def __init__(self, ledger: Ledger, before: datetime) -> None:
        self._ledger = ledger
        self._before = before
        self._at: int | None = None
        # Everything up to here is done for good, until something has to be left.
        self._gap = False

    async def bite(self) -> tuple[Counter[str], bool]:
        """Erase who the next messages were from and to; return how many of what, and whether there are more."""
        async with self._ledger.transaction() as session:
            if self._at is None:
                row = await session.fetchrow("retention_reached", _RECIPIENTS)
                self._at = 0 if row is None else int(row["message"])
            rows = await session.fetch("next_messages", self._at, BATCH)
            old = [row for row in rows if row["accepted_at"] < self._before]
            due = [row["id"] for row in old if row["settled"] and not row["erased"]]
            erased = (await erase(session, due)).counts if due else Counter()
            self._at = old[-1]["id"] if old else self._at
            await self._note(session, next((row["id"] for row in rows if row not in old or not row["settled"]), None))
        return erased, len(old) == BATCH

    async def _note(self, session: Session, left: int | None) -> None:
        """Note how far everything is done, unless something before was left already."""
        if not self._gap:
            await session.execute("reach_retention", _RECIPIENTS, self._at if left is None else left - 1)
        self._gap = self._gap or left is not None


async def drop_parked(ledger: Ledger, before: datetime) -> tuple[int, bool]:
    """Let go of the oldest parked events from before *before*; return how many, and whether there may be more."""
    gone = len(await ledger.fetch("drop_old_parked", before, BATCH))
    return gone, gone == BATCH


async def drop_month(ledger: Ledger, before: date) -> tuple[str | None, bool]:
    """Drop the oldest month of events that ended by *before*; return its name, and whether there may be more.

    Raises `BusyError` when somebody stood in the way; nothing has changed then.
    """
    async with ledger.transaction() as session:
        lock = await session.fetchrow("lock_retention")
        if lock is None or not lock["ours"]:
            return None, False
        months = await session.fetch("old_months", before)
        if not months:
            return None, False
        oldest = months[0]
        await _tally(session, oldest["first"], oldest["next"])
        for _ in range(_TRIES):
            row = await session.fetchrow("drop_month", oldest["month"])
            if row is not None and row["done"]:
                return str(oldest["month"]), len(months) > 1
            await asyncio.sleep(0.1)
        raise BusyError(oldest["month"])


async def drop_strays(ledger: Ledger, before: date) -> tuple[int, bool]:
    """Let go of events from before *before* that stand in no month of their own; return how many, and if more may."""
    row = await ledger.fetchrow("drop_stray_events", before, BATCH)
    gone = 0 if row is None else int(row["gone"])
    return gone, gone == BATCH


async def _tally(session: Session, first: date, following: date) -> None:
    span = await session.fetchrow("month_span", first, following)
    if span is not None and span["first"] is not None:
        for message in range(span["first"], span["last"] + 1, _TALLIED):
            await session.execute("tally_month", first, following, message, message + _TALLIED)
