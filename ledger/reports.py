"""What an operator asks: messages, events and campaigns as the console API words them.

The field names of these values are the contract's JSON fields: encoding one is the answer. Every listing is bounded,
and pages by a position that stays valid while rows arrive.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from ledger.ids import MessageKey, key_bytes, key_text
from ledger.sealing import Column, Sealer
from ledger.store import Ledger, Record

#: Events that one message of a listing carries; `events` pages through all of them.
EVENTS_IN_LIST = 50
EVENTS_IN_MESSAGE = 1000

# Events of so many messages are found by the messages; of more, by walking back in time.
_FEW_MESSAGES = 20_000


class DeliveryStatus(StrEnum):
    """Where a message stands."""

    ACCEPTED = "accepted"
    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    REFUSED = "refused"
    SUPPRESSED = "suppressed"


class ExportFilter(StrEnum):
    """Which messages an export holds."""

    ALL = "all"
    ENGAGED = "engaged"
    BOUNCED = "bounced"
    UNSUBSCRIBED = "unsubscribed"


class Tracking(msgspec.Struct, frozen=True, kw_only=True):
    """What was injected, or why not."""

    injected: bool
    reason: str | None
    links: int


class Engagement(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a message; the flags and counts of people, and the counts of machines."""

    delivered: bool
    opened: bool
    clicked: bool
    bounced: bool
    complained: bool
    unsubscribed: bool
    opens: int
    clicks: int
    machine_opens: int
    machine_clicks: int
    first_opened_at: datetime | None
    last_opened_at: datetime | None
    first_clicked_at: datetime | None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to a message."""

    type: str
    source: str
    occurred_at: datetime
    url: str | None
    machine: bool
    reason: str | None
    #: What only a provider's event has, and then only what it said; `step` is by which id its message was found.
    step: str | UnsetType = UNSET
    bounce: str | UnsetType = UNSET
    smtp_code: str | UnsetType = UNSET
    enhanced_code: str | UnsetType = UNSET
    description: str | UnsetType = UNSET


class ListedEvent(Event, frozen=True, kw_only=True):
    """An event outside its message, so it names it."""

    recorded_at: datetime
    key: MessageKey
    message_id: str
    campaign_id: str | None
    recipient: str


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient's message."""

    message_id: str
    key: MessageKey
    campaign_id: str | None
    recipient: str
    original_message_id: str | None
    status: str
    accepted_at: datetime
    sent_at: datetime | None
    upstream_reply: str | None
    tracking: Tracking
    engagement: Engagement
    events: tuple[Event, ...]


class MessageFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which messages are meant; what is none does not narrow."""

    #: The campaign's row.
    campaign: int | None = None
    source: str | None = None
    status: DeliveryStatus | None = None
    recipient_index: bytes | None = None
    submission: MessageKey | None = None
    #: Rows found by an id.
    ids: tuple[int, ...] | None = None
    #: Accepted at or after.
    since: datetime | None = None
    export: ExportFilter = ExportFilter.ALL


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events are meant; what is none does not narrow."""

    campaign: int | None = None
    source: str | None = None
    type: str | None = None
    recipient_index: bytes | None = None
    ids: tuple[int, ...] | None = None
    #: Recorded at or after, so that a poller misses none that is told late.
    since: datetime | None = None


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Messages, and the position of the last when there may be more."""

    messages: tuple[Message, ...]
    next: int | None


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """Events, and the position of the last when there may be more."""

    events: tuple[ListedEvent, ...]
    next: tuple[datetime, int] | None


async def messages(
    ledger: Ledger, wanted: MessageFilter, *, limit: int, before: int | None = None, events: int = EVENTS_IN_LIST
) -> Page:
    """Return up to *limit* messages older than the position *before*, newest first, each with its newest *events*."""
    async with ledger.transaction() as session:
        await session.execute("plan_afresh")
        ids, submission = wanted.ids, None
        if wanted.submission is not None:
            row = await session.fetchrow("report_submission", key_bytes(wanted.submission))
            submission = None if row is None else row["id"]
            if submission is None:
                # With one recipient the message's key is the submission's.
                row = await session.fetchrow("report_message_by_key", key_bytes(wanted.submission))
                ids = _both(ids, () if row is None else (row["id"],))
        if wanted.recipient_index is not None and wanted.campaign is None:
            rows = await session.fetch("report_messages_of_recipient", wanted.recipient_index)
            ids = _both(ids, tuple(row["id"] for row in rows))
        rows = await session.fetch(
            "report_messages",
            before,
            wanted.campaign,
            wanted.source,
            wanted.status,
            wanted.recipient_index,
            submission,
            ids,
            wanted.since,
            limit + 1,
            wanted.export,
        )
        shown = rows[:limit]
        told: dict[int, list[Event]] = {}
        if events and shown:
            for row in await session.fetch("report_events_of_messages", [row["id"] for row in shown], events):
                told.setdefault(row["message"], []).append(Event(**_told(row, ledger.sealer)))
    return Page(
        messages=tuple(_message(row, told.get(row["id"], []), ledger.sealer) for row in shown),
        next=shown[-1]["id"] if len(rows) > limit else None,
    )


async def find_messages(ledger: Ledger, key: MessageKey | None, domain: str | None, alias: bytes) -> tuple[int, ...]:
    """Return the rows that an id names: by our own *key* (its Message-ID at *domain*, when given), else by *alias*."""
    if key is not None:
        row = await ledger.fetchrow("report_message_by_key", key_bytes(key))
        if row is not None and domain in {None, row["message_id"].rpartition("@")[2]}:
            return (row["id"],)
    return tuple(row["id"] for row in await ledger.fetch("report_messages_by_alias", alias))


async def events(
    ledger: Ledger, wanted: EventFilter, *, limit: int, before: tuple[datetime, int] | None = None
) -> EventPage:
    """Return up to *limit* events recorded before the position *before*, newest first."""
    async with ledger.transaction() as session:
        await session.execute("plan_afresh")
        ids = wanted.ids
        if wanted.recipient_index is not None:
            rows = await session.fetch("report_messages_of_recipient", wanted.recipient_index)
            ids = _both(ids, tuple(row["id"] for row in rows))
        if ids is None and wanted.campaign is not None:
            rows = await session.fetch("report_messages_of_campaign", wanted.campaign, _FEW_MESSAGES + 1)
            ids = tuple(row["id"] for row in rows) if len(rows) <= _FEW_MESSAGES else None
        filters = (*(before or (None, None)), wanted.campaign, wanted.source, wanted.type, wanted.since, limit + 1)
        rows = (
            await session.fetch("report_events", *filters)
            if ids is None
            else await session.fetch("report_events_of", *filters, ids)
        )
    shown = rows[:limit]
    return EventPage(
        events=tuple(_listed(row, ledger.sealer) for row in shown),
        next=(shown[-1]["recorded_at"], shown[-1]["id"]) if len(rows) > limit else None,
    )


def _both(first: tuple[int, ...] | None, second: tuple[int, ...]) -> tuple[int, ...]:
    return second if first is None else tuple(set(first).intersection(second))


def _listed(row: Record, sealer: Sealer) -> ListedEvent:
    return ListedEvent(
        **_told(row, sealer),
        recorded_at=row["recorded_at"],
        key=key_text(row["key"]),
        message_id=row["message_id"],
        campaign_id=row["campaign_id"],
        recipient=sealer.show_address(Column.RECIPIENT, row["recipient"]),
    )


_PROVIDERS = ("step", "bounce", "smtp_code", "enhanced_code", "description")


def _told(row: Record, sealer: Sealer) -> dict[str, Any]:
    # A machine's reason is the evidence against it; an event of a person has one only when its teller gave one.
    reason = sealer.show_text(Column.REPLY, row["reason"]) or (row["verdict"] if row["machine"] else None)
    known = {name: row[name] for name in ("type", "source", "occurred_at", "url", "machine")}
    words = {name: row[name] for name in _PROVIDERS if row[name] is not None}
    if "description" in words:
        words["description"] = sealer.show_text(Column.DESCRIPTION, words["description"])
    return known | {"reason": reason} | words


def _message(row: Record, told: Sequence[Event], sealer: Sealer) -> Message:
    return Message(
        message_id=row["message_id"],
        key=key_text(row["key"]),
        campaign_id=row["campaign_id"],
        recipient=sealer.show_address(Column.RECIPIENT, row["recipient"]),
        original_message_id=row["original_message_id"],
        status=row["status"],
        accepted_at=row["accepted_at"],
        sent_at=row["sent_at"],
        upstream_reply=sealer.show_text(Column.REPLY, row["upstream_reply"]),
        tracking=Tracking(injected=row["injected"], reason=row["reason"], links=row["links"]),
        engagement=Engagement(**{name: row[name] for name in Engagement.__struct_fields__}),
        events=tuple(told),
    )
