"""The suppression list as an operator sees and steers it: enter, lift, list.

An entry of the source "" binds every source's campaign mail. What is lifted stays as the record that it was.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from ledger.sealing import Column
from ledger.store import Ledger, Record

#: The source of an entry that binds everybody's campaign mail.
EVERY_SOURCE = ""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient whom campaign mail may not reach, as an operator enters it."""

    source: str
    recipient_index: bytes
    recipient: str
    reason: str
    #: Since when; None: since now.
    at: datetime | None = None


class Suppression(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient whom campaign mail does not reach."""

    source: str
    #: None where neither an operator nor a message of ours says who it is.
    recipient: str | None
    reason: str
    at: datetime


class SuppressionPage(msgspec.Struct, frozen=True, kw_only=True):
    """Suppressions, and the position of the last when there may be more."""

    suppressions: tuple[Suppression, ...]
    next: tuple[str, bytes] | None


async def enter(ledger: Ledger, entries: Sequence[Entry]) -> int:
    """Enter recipients; return how many were not suppressed before. All of them, or none."""
    rows = await ledger.fetch(
        "enter_suppressions",
        [entry.source for entry in entries],
        [entry.recipient_index for entry in entries],
        [ledger.sealer.seal_address(Column.SUPPRESSED, entry.recipient) for entry in entries],
        [entry.reason for entry in entries],
        [entry.at for entry in entries],
    )
    return len(rows)


async def lift(ledger: Ledger, indexes: Sequence[bytes], *, source: str | None = None) -> int:
    """Let mail reach recipients again, that of *source* or everybody's; return how many entries were lifted."""
    return len(await ledger.fetch("lift_suppressions", indexes, source))


async def listing(
    ledger: Ledger,
    *,
    limit: int,
    after: tuple[str, bytes] | None = None,
    source: str | None = None,
    recipient_index: bytes | None = None,
) -> SuppressionPage:
    """Return up to *limit* suppressions behind the position *after*, by source and person."""
    rows = await ledger.fetch("list_suppressions", *(after or (None, None)), source, recipient_index, limit + 1)
    shown = rows[:limit]
    return SuppressionPage(
        suppressions=tuple(
            Suppression(
                source=row["source"],
                recipient=_recipient(ledger, row),
                reason=row["reason"],
                at=row["at"],
            )
            for row in shown
        ),
        next=(shown[-1]["source"], shown[-1]["recipient_index"]) if len(rows) > limit else None,
    )


def _recipient(ledger: Ledger, row: Record) -> str | None:
    """Return whom an operator entered, or else whom the message went to that was answered so."""
    if row["entered"] is not None:
        return ledger.sealer.show_address(Column.SUPPRESSED, row["entered"])
    if row["recipient"] is not None:
        return ledger.sealer.show_address(Column.RECIPIENT, row["recipient"])
    return None
