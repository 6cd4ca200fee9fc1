"""What is told to sinks, as one test sets it up: events that are recorded, and the loop of one sink."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from courier.outlets import outlets
from courier.post import open_post
from courier.record import Recorder
from courier.settings import AmsSettings, ListmonkSettings, SinkSettings
from courier.sinks import Rule, rules
from courier.tell import Teller
from ledger import sinks
from ledger.ids import key_bytes
from ledger.store import Ledger
from providers.notice import Name, Notice, Step, What, encode_notice
from relay.intake import Submission
from tests.mailings import NOON_MS, READER, entries, hit
from tests.receiver import SECRET, Listmonk, Receiver
from tests.relaying import submission
from tests.rows import Pool, Row, Rows

#: A campaign and a subscriber of listmonk's.
CAMPAIGN = "1f3cbf60-30a5-4b53-9c8f-4c4e9b6a1b2c"
SUBSCRIBER = bytes(range(16))
SUBSCRIBER_TEXT = "00010203-0405-0607-0809-0a0b0c0d0e0f"

_numbers = iter(range(1, 100_000))


def crm(receiver: Receiver, **changed: Any) -> dict[str, SinkSettings]:
    """Return the settings of a sink, quick for tests."""
    quick = SinkSettings(url=receiver.url, secret=(SECRET,), interval=0.05, timeout=5)
    return {"crm": msgspec.structs.replace(quick, **changed)}


def mailer(listmonk: Listmonk, **changed: Any) -> ListmonkSettings:
    """Return the settings of listmonk, quick for tests."""
    quick = ListmonkSettings(url=listmonk.base, user="outrider", token="T-1", interval=0.05, timeout=5)
    return msgspec.structs.replace(quick, **changed)


def recorder(ledger: Ledger, asked: Sequence[Rule]) -> Recorder:
    """Return a recorder that queues for sinks."""
    return Recorder(ledger, READER, ams=AmsSettings(), rules=asked)


@asynccontextmanager
async def telling(
    ledger: Ledger,
    webhooks: Mapping[str, SinkSettings] | None = None,
    own: ListmonkSettings | None = None,
    *,
    process: int = 1,
    stopping: asyncio.Event | None = None,
) -> AsyncIterator[Teller]:
    """Return the loop of the one sink that is configured, whose backoff chance makes 0: each cycle tries everything."""
    asked, served = rules(webhooks or {}, own or ListmonkSettings()), outlets(webhooks or {}, own or ListmonkSettings())
    await sinks.keep(ledger, [rule.name for rule in asked])
    (outlet,) = served
    async with open_post(outlet.url, ca_file=outlet.ca_file, timeout=outlet.timeout) as post:
        yield Teller(ledger, outlet, post, process=process, stopping=stopping or asyncio.Event(), jitter=lambda: 0.0)


async def opened(ledger: Ledger, rows: Rows, count: int, asked: Sequence[Rule]) -> list[Row]:
    """Record an open of each of *count* messages of a campaign."""
    campaign = await rows.campaign("spring")
    messages = [await rows.message(f"r{number}@example.net", campaign=campaign) for number in range(count)]
    await recorder(ledger, asked).record(entries([hit(key_bytes(message.key)) for message in messages]))
    return messages


async def subscribed(rows: Rows, pool: Pool, subscriber: bytes = SUBSCRIBER) -> Row:
    """Insert a message of listmonk's."""
    known = await pool.fetchval("SELECT id FROM campaign WHERE campaign_id = $1", CAMPAIGN)
    message = await rows.message(campaign=known or await rows.campaign(CAMPAIGN))
    await pool.execute("UPDATE message SET subscriber = $1 WHERE id = $2", subscriber, message.id)
    return message


def notice(what: What, message: Row, **fields: Any) -> bytes:
    """Return a provider's notice of a message, another with each call."""
    common: dict[str, Any] = {"provider": "ses", "at_ms": NOON_MS, "recipient": "ann@example.net"}
    common["dedupe"] = f"e-{next(_numbers)}"
    return encode_notice(Notice(what=what, names=(Name(Step.TOKEN, message.key),), **(common | fields)))


async def record(ledger: Ledger, asked: Sequence[Rule], *raws: bytes) -> None:
    """Record what stands in the stream."""
    await recorder(ledger, asked).record([(b"0-0", raw) for raw in raws])


async def waiting(pool: Pool, name: str = "crm") -> tuple[int, int]:
    """Return how many items wait for a sink, and how many stand parked."""
    row = await pool.fetchrow(
        "SELECT count(*) FILTER (WHERE parked_at IS NULL) AS pending, count(parked_at) AS parked"
        " FROM sink_item WHERE sink = $1",
        name,
    )
    assert row is not None
    return row["pending"], row["parked"]


async def held(ledger: Ledger, name: str = "crm") -> str | None:
    """Return why a sink is held."""
    return (await sinks.state(ledger, name)).held


def of_listmonk(*recipients: str) -> Submission:
    """Return a submission as listmonk makes it."""
    return submission(
        *recipients,
        campaign=None,
        message_id=f"<{next(_numbers)}@listmonk.example>",
        extra=f"X-Listmonk-Campaign: {CAMPAIGN}\r\nX-Listmonk-Subscriber: {SUBSCRIBER_TEXT}\r\n",
    )
