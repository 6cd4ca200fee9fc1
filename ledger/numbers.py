"""Account for hits by their numbers: what a tracker kept and the ledger never saw shows as missing.

Every start of a tracker is a writer that numbers its hits from 1. A hit names the number up to which all before it are
in the stream, or known to be lost; so what waits in a journal is never taken for missing, however long it waits.
"""

from collections.abc import Sequence

import msgspec

from ledger.store import Ledger

#: Seconds after which what should have come before a recorded hit is missing: another courier may hold it as long.
PATIENCE_SECONDS = 600.0


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive numbers of one writer, and what their hits said of those before them."""

    writer: bytes
    first: int
    last: int
    #: Every number up to this one was in the stream before, or lost.
    settled: int
    #: So many of the writer's hits could be kept nowhere.
    lost: int


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What the trackers' numbers add up to; of writers that were heard of in the last 60 days."""

    #: Hits that were recorded, or set aside with a reason.
    recorded: int
    #: Hits that were answered and could be kept nowhere, as far as later ones told.
    lost: int
    #: Hits that were kept and never came: anything but 0 is a loss, or what a tracker had in hand when it was killed.
    missing: int


async def note_numbers(ledger: Ledger, spans: Sequence[Span]) -> None:
    """Remember that these numbers were recorded, once their hits are; twice is once."""
    if spans:
        await ledger.execute(
            "note_numbers",
            [span.writer for span in spans],
            [span.first for span in spans],
            [span.last for span in spans],
            [span.settled for span in spans],
            [span.lost for span in spans],
        )


async def fold_numbers(ledger: Ledger, *, patience: float = PATIENCE_SECONDS) -> None:
    """Move what was recorded *patience* seconds ago into one row per writer; call it every minute or so."""
    await ledger.execute("fold_numbers", patience)


async def account(ledger: Ledger) -> Account:
    """Return what the numbers add up to, judged by what is folded."""
    row = await ledger.fetchrow("account_numbers")
    assert row is not None, "an aggregate gives a row"  # noqa: S101 - tells mypy what SQL promises
    return msgspec.convert(dict(row), Account)
