"""The queue as an operator sees and steers it: what waits and why, now instead of later, or never.

Only what is in nobody's hands is changed: a message that is being sent stays with its sender.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from ledger.ids import MessageKey, key_bytes, key_text
from ledger.sealing import Column, Sealer
from ledger.store import Ledger, Record

#: The reply of a message that an operator cancelled, where an upstream's would stand.
CANCELLED = "554 5.7.1 Cancelled by the operator"

_CANCEL_LIMIT = 10_000


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """One message that waits, or is being sent."""

    key: MessageKey
    message_id: str
    campaign_id: str | None
    source: str
    sender: str
    recipient: str
    accepted_at: datetime
    #: Octets of the submitted content.
    size: int
    status: str
    #: An operator holds its campaign.
    held: bool
    attempts: int
    #: How often it was tried again although the upstream may have had it.
    doubts: int
    #: None while it is held, or being sent.
    next_attempt_at: datetime | None
    upstream: str | None
    #: What the upstream said last.
    upstream_reply: str | None


class WaitingPage(msgspec.Struct, frozen=True, kw_only=True):
    """Messages that wait, and the position of the last when there may be more."""

    messages: tuple[Waiting, ...]
    next: int | None


async def waiting(
    ledger: Ledger,
    *,
    limit: int,
    after: int | None = None,
    campaign: int | None = None,
    rows: Sequence[int] | None = None,
) -> WaitingPage:
    """Return up to *limit* messages behind the position *after*, oldest first, narrowed to a campaign or to *rows*."""
    found = await ledger.fetch("list_queue", after, campaign, rows, limit + 1)
    shown = found[:limit]
    return WaitingPage(
        messages=tuple(_waiting(row, ledger.sealer) for row in shown),
        next=shown[-1]["id"] if len(found) > limit else None,
    )


async def rows_of(ledger: Ledger, keys: Sequence[MessageKey]) -> list[int]:
    """Return the rows of the messages with these keys; fewer where a key names none."""
    found = await ledger.fetch("report_messages_by_keys", [key_bytes(key) for key in keys])
    return [row["id"] for row in found]


async def content(ledger: Ledger, row: int) -> bytes | None:
    """Return the submission that a waiting message will be rendered from; None when it waits no more.

    Raises `SealedError` where our keys do not open it.
    """
    found = await ledger.fetchrow("queued_content", row)
    return None if found is None else ledger.sealer.open(Column.CONTENT, found["content"])


async def hurry(ledger: Ledger, *, campaign: int | None = None, rows: Sequence[int] | None = None) -> int:
    """Make due at once what waits for its next try; return how many. What is held stays held."""
    return len(await ledger.fetch("hurry_queued", campaign, rows))


async def cancel(ledger: Ledger, *, campaign: int | None = None, rows: Sequence[int] | None = None) -> int:
    """End what waits, with an event and without a word to its sender; return how many. At least one filter is given."""
    if campaign is None and rows is None:
        raise ValueError("name a campaign or messages: nothing cancels the whole queue")
    cancelled = 0
    while True:
        ended = len(await ledger.fetch("cancel_queued", campaign, rows, CANCELLED, _CANCEL_LIMIT))
        cancelled += ended
        if ended < _CANCEL_LIMIT:
            return cancelled


def _waiting(row: Record, sealer: Sealer) -> Waiting:
    return Waiting(
        key=key_text(row["key"]),
        message_id=row["message_id"],
        campaign_id=row["campaign_id"],
        source=row["source"],
        sender=sealer.show_address(Column.SENDER, row["sender"]),
        recipient=sealer.show_address(Column.RECIPIENT, row["recipient"]),
        accepted_at=row["accepted_at"],
        size=row["size"],
        status=row["status"],
        held=row["held"],
        attempts=row["attempts"],
        doubts=row["doubts"],
        next_attempt_at=row["next_at"],
        upstream=row["upstream"],
        upstream_reply=sealer.show_text(Column.REPLY, row["reply"]),
    )
