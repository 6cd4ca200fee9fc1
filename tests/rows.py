"""Builders of ledger rows for tests that read: each inserts one row by SQL and returns what names it."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

import asyncpg
import msgspec

from ledger import ids
from ledger.ids import MessageKey

IDENTITY = b"an identity key made up for tests"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was inserted."""

    id: int
    key: MessageKey
    message_id: str


class Rows:
    """Inserts rows through one pool."""

    def __init__(self, database: Pool) -> None:
        self._database = database
        self._made = 0

    async def campaign(
        self,
        campaign_id: str = "42",
        *,
        source: str = "default",
        ams_mailing: int | None = None,
        to_send: int | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> int:
        """Insert a campaign with its folded counts; return its row."""
        campaign = await self._database.fetchval(
            "INSERT INTO campaign (source, campaign_id, ams_mailing, to_send) VALUES ($1, $2, $3, $4) RETURNING id",
            source,
            campaign_id,
            ams_mailing,
            to_send,
        )
        for counter, value in (counts or {}).items():
            await self._database.execute(
                "INSERT INTO campaign_count (campaign, counter, value) VALUES ($1, $2, $3)", campaign, counter, value
            )
        return int(campaign)

    async def message(
        self,
        recipient: str = "ann@example.net",
        *,
        campaign: int | None = None,
        source: str = "default",
        status: str = "sent",
        submission: int | None = None,
        original: str | None = None,
        message_id: str | None = None,
        reason: str | None = None,
        reply: str | None = None,
        accepted_at: datetime = NOON,
        key: MessageKey | None = None,
    ) -> Row:
        """Insert a message, its delivery, and the alias of its original Message-ID."""
        self._made += 1
        key = key or ids.message_key(
            IDENTITY,
            source=source,
            campaign=str(campaign),
            recipient=recipient,
            origin=ids.origin_of_content(str(self._made).encode()),
            generation=0,
        )
        own_id = message_id or f"{key}@example.com"
        row = await self._database.fetchval(
            "INSERT INTO message (key, accepted_at, campaign, submission, generation, size, links, injected, reason,"
            " source, sender, recipient, recipient_index, message_id, original_message_id, body_digest)"
            " VALUES ($1, $2, $3, $4, 0, 1000, 3, $5, $6, $7, $8, $9, $10, $11, $12, $13) RETURNING id",
            ids.key_bytes(key),
            accepted_at,
            campaign,
            submission,
            reason is None,
            reason,
            source,
            b"news@example.com",
            recipient.encode("utf-8", "surrogateescape"),
            ids.recipient_index(IDENTITY, recipient),
            own_id,
            original,
            hashlib.sha256(key.encode()).digest()[:16],
        )
        settled_at = None if status in {"accepted", "queued", "sending"} else accepted_at
        await self._database.execute(
            "INSERT INTO delivery (message, status, settled_at, reply) VALUES ($1, $2::text::delivery_status, $3, $4)",
            row,
            status,
            settled_at,
            reply,
        )
        if original is not None:
            await self._database.execute(
                "INSERT INTO alias (digest, message) VALUES ($1, $2)",
                ids.alias_digest("message-id", "", original),
                row,
            )
        return Row(id=row, key=key, message_id=own_id)

    async def submission(self, key: MessageKey) -> int:
        """Insert a submission of several recipients; return its row."""
        return int(
            await self._database.fetchval(
                "INSERT INTO submission (key, accepted_at) VALUES ($1, $2) RETURNING id", ids.key_bytes(key), NOON
            )
        )

    async def engagement(self, message: Row, **columns: Any) -> None:
        """Insert a message's engagement."""
        names = ["message", *columns]
        marks = ", ".join(f"${number}" for number in range(1, len(names) + 1))
        await self._database.execute(
            f"INSERT INTO engagement ({', '.join(names)}) VALUES ({marks})",  # noqa: S608 - names that the test wrote
            message.id,
            *columns.values(),
        )

    async def event(
        self,
        message: Row,
        kind: str = "opened",
        *,
        at: datetime = NOON,
        recorded_at: datetime | None = None,
        url: str | None = None,
        machine: bool = False,
        reason: str | None = None,
        source: str = "tracker",
    ) -> None:
        """Insert an event of a message."""
        self._made += 1
        await self._database.execute(
            "INSERT INTO event (message, occurred_at, recorded_at, type, source, url, machine, verdict, reason, dedupe)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            message.id,
            at,
            recorded_at or at,
            kind,
            source,
            url,
            machine,
            "machine" if machine else "person",
            reason,
            hashlib.sha256(f"{kind} {self._made}".encode()).digest()[:16],
        )

    async def outbox(self, message: Row, campaign: int, *, mailing: int = 42, reason: str | None = None) -> None:
        """Insert an item for AMS; with a *reason* it is parked."""
        await self._database.execute(
            "INSERT INTO outbox (mailing, campaign, message, url, parked_at, reason)"
            " VALUES ($1, $2, $3, 'open_trace', CASE WHEN $4::text IS NOT NULL THEN now() END, $4)",
            mailing,
            campaign,
            message.id,
            reason,
        )

    async def parked(self, *, source: str = "tracker", reason: str = "unknown_key") -> None:
        """Insert an event that matched nothing."""
        self._made += 1
        digest = hashlib.sha256(str(self._made).encode()).digest()[:16]
        await self._database.execute(
            "INSERT INTO parked_event (dedupe, source, reason, named, payload) VALUES ($1, $2, $3, $1, $1)",
            digest,
            source,
            reason,
        )
