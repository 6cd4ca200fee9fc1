"""Walk through the messages in spans, and hand rows to statements that take columns."""

from collections.abc import AsyncIterator, Iterable, Sequence

from ledger.store import Ledger


async def spans(ledger: Ledger, messages: int) -> AsyncIterator[tuple[int, int]]:
    """Yield the first and the last row of each span of so many *messages*, from the oldest on."""
    span = await ledger.fetchrow("message_span")
    if span is not None and span["first"] is not None:
        for first in range(span["first"], span["last"] + 1, messages):
            yield first, first + messages - 1


def columns(rows: Iterable[Sequence[object]]) -> list[list[object]]:
    """Return *rows*, of which there is at least one, column by column."""
    return [list(column) for column in zip(*rows, strict=True)]
