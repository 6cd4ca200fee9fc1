"""A mailing that was sent: its messages, correlated in the ledger as the relay does it, and what recipients do."""

import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import asyncpg
import msgspec

from ledger.events import EventType, Hit, encode_hit
from ledger.ids import key_text, recipient_index
from ledger.stream import FIELD, GROUP, STREAM

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_COLUMNS: Final = (
    "key",
    "accepted_at",
    "campaign",
    "generation",
    "size",
    "links",
    "injected",
    "source",
    "sender",
    "recipient",
    "recipient_index",
    "message_id",
    "body_digest",
)
_DOMAIN: Final = "example.net"
LINKS: Final = 20
_LINK: Final = "https://shop.example.com/spring/offers?utm_source=newsletter&utm_campaign=spring&item={}"
#: A person's browser, Apple's privacy proxy, Gmail's image proxy.
AGENTS: Final = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0",
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
)
_CLICKS: Final = 0.25
_HOURS_MS: Final = 10_000_000
_APPENDS: Final = 1_000


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient's message."""

    key: bytes
    recipient: str
    #: The Message-ID that left, without angle brackets.
    message_id: str


class Mailing(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign of AMS and its messages."""

    #: The row of the campaign.
    campaign: int
    #: What AMS calls it.
    number: int
    letters: Sequence[Letter]

    def hits(self, amount: int) -> list[bytes]:
        """Return what *amount* opens and clicks of recipients at random leave in the stream, the same in every run."""
        draw = random.Random(self.number)  # noqa: S311 - a load, no secret
        now = time.time_ns() // 1_000_000
        return [encode_hit(self._hit(draw, now)) for _ in range(amount)]

    def _hit(self, draw: random.Random, now: int) -> Hit:
        link = draw.randrange(LINKS) if draw.random() < _CLICKS else -1
        return Hit(
            id=draw.randbytes(16),
            type=EventType.OPENED if link < 0 else EventType.CLICKED,
            key=draw.choice(self.letters).key,
            at_ms=now - draw.randrange(_HOURS_MS),
            link=link,
            url="" if link < 0 else _LINK.format(link),
            network=f"192.0.{draw.randrange(256)}.0/24",
            user_agent=draw.choice(AGENTS),
        )


async def sent(connection: Connection, identity: bytes, *, number: int, messages: int) -> Mailing:
    """Enter a campaign that AMS calls *number*, with so many *messages* that were sent, and return it."""
    campaign = await connection.fetchval(
        "INSERT INTO campaign (source, campaign_id, ams_mailing) VALUES ('default', $1, $2) RETURNING id",
        str(number),
        number,
    )
    letters = [_letter(number, at) for at in range(messages)]
    now = datetime.now(UTC)
    rows = [
        (
            letter.key,
            now,
            campaign,
            0,
            20_000,
            LINKS,
            True,
            "default",
            b"news@example.com",
            letter.recipient.encode(),
            recipient_index(identity, letter.recipient),
            letter.message_id,
            letter.key,
        )
        for letter in letters
    ]
    await connection.copy_records_to_table("message", columns=_COLUMNS, records=rows)
    await connection.execute("VACUUM ANALYZE message")
    return Mailing(campaign=int(campaign), number=number, letters=letters)


def _letter(number: int, at: int) -> Letter:
    # Spread like digests, of which real ones are made.
    key = random.Random(number << 32 | at).randbytes(16)  # noqa: S311 - a load, no secret
    return Letter(key=key, recipient=f"r{at}.{number}@{_DOMAIN}", message_id=f"{key_text(key)}@example.com")


async def append(client: Any, payloads: Sequence[bytes]) -> None:
    """Append to the stream, as the tracker does."""
    for first in range(0, len(payloads), _APPENDS):
        pipe = client.pipeline(transaction=False)
        for payload in payloads[first : first + _APPENDS]:
            pipe.xadd(STREAM, {FIELD: payload})
        await pipe.execute()


async def is_recorded(client: Any) -> bool:
    """Return whether all that the stream holds is recorded."""
    if not await client.exists(STREAM):
        return True
    stream = await client.xinfo_stream(STREAM)
    group = next((group for group in await client.xinfo_groups(STREAM) if group["name"] == GROUP.encode()), None)
    return group is not None and not group["pending"] and group["last-delivered-id"] == stream["last-generated-id"]
