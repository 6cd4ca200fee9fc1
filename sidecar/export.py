"""Write messages as CSV (RFC 4180): a header row, UTF-8, CRLF, page by page, so that memory stays the same at any size.

A cell that a spreadsheet would run as a formula gets a leading apostrophe: addresses, ids and an upstream's words are
written by strangers.
"""

import csv
import io
from collections.abc import AsyncIterator, Iterable
from datetime import datetime

import msgspec

from ledger.reports import Message, MessageFilter, messages
from ledger.store import Ledger

PAGE = 500

COLUMNS = (
    "message_id",
    "key",
    "campaign_id",
    "recipient",
    "original_message_id",
    "status",
    "accepted_at",
    "sent_at",
    "upstream_reply",
    "injected",
    "untracked_reason",
    "links",
    "delivered",
    "opened",
    "clicked",
    "bounced",
    "complained",
    "unsubscribed",
    "opens",
    "clicks",
    "machine_opens",
    "machine_clicks",
    "first_opened_at",
    "last_opened_at",
    "first_clicked_at",
)

# ASVS 1.2.10; spreadsheets of East Asian editions read the full-width signs alike.
_FORMULA = frozenset(
    "=+-@\t\r\n\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}"
)

Cell = str | int | bool | datetime | None


async def export_csv(ledger: Ledger, wanted: MessageFilter, *, page: int = PAGE) -> AsyncIterator[bytes]:
    """Yield the CSV of the messages that *wanted* names, newest first, one piece for each *page* of them."""
    before: int | None = None
    header: Iterable[Iterable[Cell]] = (COLUMNS,)
    while True:
        found = await messages(ledger, wanted, limit=page, before=before, events=0)
        yield rows_text([*header, *(message_cells(message) for message in found.messages)])
        if found.next is None:
            return
        header, before = (), found.next


def message_cells(message: Message) -> list[Cell]:
    """Return a message's cells in the order of `COLUMNS`."""
    return [
        message.message_id,
        message.key,
        message.campaign_id,
        message.recipient,
        message.original_message_id,
        message.status,
        message.accepted_at,
        message.sent_at,
        message.upstream_reply,
        message.tracking.injected,
        message.tracking.reason,
        message.tracking.links,
        *msgspec.structs.astuple(message.engagement),
    ]


def rows_text(rows: Iterable[Iterable[Cell]]) -> bytes:
    """Return rows of cells as the octets of a CSV file."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerows([cell_text(cell) for cell in row] for row in rows)
    return text.getvalue().encode("utf-8", "replace")


def as_written(cell: str) -> str:
    """Return the text of a cell that `cell_text` made harmless to a spreadsheet; any other as it is."""
    return cell[1:] if cell[:1] == "'" and cell[1:2] in _FORMULA else cell


def cell_text(cell: Cell) -> str:
    """Return a cell as text: lower-case booleans, times in ISO 8601, and nothing that a spreadsheet runs."""
    match cell:
        case None:
            return ""
        case bool():
            return "true" if cell else "false"
        case int():
            return str(cell)
        case datetime():
            return cell.isoformat().replace("+00:00", "Z")
        case str():
            text = cell.replace("\0", "\N{REPLACEMENT CHARACTER}")
            return f"'{text}" if text[:1] in _FORMULA else text
