"""Messages that are correlated already, hits on them, and a look at what the ledger made of those."""

import hashlib
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeAlias

import asyncpg
import msgspec

from courier.settings import AmsSettings
from courier.sighting import Reader
from injector.tokens import Keyring
from ledger.events import EventType, Hit, encode_hit

#: A browser that a person sits before.
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
#: Apple's Mail Privacy Protection.
APPLE = "Mozilla/5.0"
#: When the hits of these tests happened, in milliseconds since the epoch.
NOON_MS = 1_790_000_000_000

#: A connection of a test's own.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

#: The keys of these tests: of recipients' indexes, and of our links.
IDENTITY = b"an identity key made up for tests"
KEYRING = Keyring([b"a signing key made up for tests"])
READER = Reader(identity=IDENTITY, keyring=KEYRING)

_numbers = itertools.count(1)


class Seeded(msgspec.Struct, frozen=True, kw_only=True):
    """A message as the relay would have correlated it."""

    id: int
    key: bytes
    campaign: int | None
    recipient: str


def ams_settings(**changed: Any) -> AmsSettings:
    """Return settings of an AMS that is switched on, quick for tests."""
    quick = AmsSettings(url="http://127.0.0.1:9/api/v1", api_key="K-1", interval=0.05, timeout=5)
    return msgspec.structs.replace(quick, **changed)


def hit(
    message: Seeded | bytes,
    kind: EventType = EventType.OPENED,
    *,
    at_ms: int = NOON_MS,
    url: str = "",
    link: int = -1,
    method: str = "GET",
    user_agent: str = BROWSER,
    hit_id: bytes | None = None,
) -> Hit:
    """Return a hit on *message*, another with each call unless *hit_id* is given."""
    if kind is EventType.CLICKED:
        url, link = url or "https://shop.example.com/?a=1&b=2", max(link, 0)
    if kind is EventType.UNSUBSCRIBED:
        method = "POST"
    return Hit(
        id=hit_id or hashlib.sha256(b"hit%d" % next(_numbers)).digest()[:16],
        type=kind,
        key=message if isinstance(message, bytes) else message.key,
        at_ms=at_ms,
        link=link,
        url=url,
        method=method,
        network="192.0.2.0/24",
        user_agent=user_agent,
    )


def entries(hits: Sequence[Hit]) -> list[tuple[bytes, bytes]]:
    """Return *hits* as the stream would give them."""
    return [(b"%d-0" % number, encode_hit(one)) for number, one in enumerate(hits, start=1)]


@asynccontextmanager
async def connected(database_url: str) -> AsyncIterator[Connection]:
    """Connect to the ledger's database for a test's own look."""
    connection = await asyncpg.connect(database_url)
    try:
        yield connection
    finally:
        await connection.close()


async def make_campaign(connection: Connection, campaign_id: str = "42", *, mailing: int | None = 42) -> int:
    """Make a campaign and return its row."""
    return int(
        await connection.fetchval(
            "INSERT INTO campaign (source, campaign_id, ams_mailing) VALUES ('default', $1, $2) RETURNING id",
            campaign_id,
            mailing,
        )
    )


async def seed(
    connection: Connection,
    campaign: int | None,
    *recipients: str | bytes,
    keys: Sequence[bytes] = (),
) -> list[Seeded]:
    """Correlate one message per recipient."""
    seeded: list[Seeded] = []
    for position, recipient in enumerate(recipients):
        raw = recipient if isinstance(recipient, bytes) else recipient.encode()
        key = keys[position] if keys else hashlib.sha256(b"key%d" % next(_numbers)).digest()[:16]
        row = await connection.fetchval(
            "INSERT INTO message (key, accepted_at, campaign, generation, size, links, injected, source, sender,"
            " recipient, recipient_index, message_id, body_digest)"
            " VALUES ($1, $2, $3, 0, 1000, 2, true, 'default', 'news@example.com', $4, $5, $6, 'd') RETURNING id",
            key,
            datetime.now(UTC),
            campaign,
            raw,
            hashlib.sha256(raw).digest()[:16],
            f"{key.hex()}@example.com",
        )
        seeded.append(Seeded(id=row, key=key, campaign=campaign, recipient=raw.decode(errors="replace")))
    return seeded


async def counts(connection: Connection, campaign: int) -> dict[str, int]:
    """Return a campaign's counters that are not 0."""
    rows = await connection.fetch(
        "SELECT counter, sum(amount)::bigint AS value FROM campaign_delta WHERE campaign = $1"
        " GROUP BY counter HAVING sum(amount) <> 0",
        campaign,
    )
    return {row["counter"]: row["value"] for row in rows}


async def queue(connection: Connection, mailing: int, messages: Sequence[Seeded], url: str = "open_trace") -> None:
    """Queue an item for AMS for each of *messages*."""
    await connection.executemany(
        "INSERT INTO outbox (mailing, campaign, message, url) VALUES ($1, $2, $3, $4)",
        [(mailing, message.campaign, message.id, url) for message in messages],
    )
