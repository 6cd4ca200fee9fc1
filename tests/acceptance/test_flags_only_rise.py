"""Promise 6: flags only rise. Engagement is a pure function of the set of events.

Any order, any duplication, any batching and any number of couriers give the same; a click implies an open.
"""

import asyncio
from random import Random

import pytest

from courier.consume import run_recorder
from courier.engagement import Event, engagement
from courier.record import Recorder
from courier.settings import CourierSettings
from ledger.engagements import Engagement
from ledger.events import EventType, Hit, encode_hit
from ledger.store import Ledger
from ledger.stream import FIELD, STREAM, connect
from tests.conftest import Eventually
from tests.mailings import (
    APPLE,
    BROWSER,
    NOON_MS,
    READER,
    Connection,
    Seeded,
    ams_settings,
    counts,
    entries,
    hit,
    make_campaign,
    seed,
)

#: One life of a message: prefetched by Apple, opened twice, clicked twice, scanned by HEAD, unsubscribed.
LIFE = (
    (EventType.OPENED, 1, "GET", APPLE),
    (EventType.OPENED, 60, "GET", BROWSER),
    (EventType.OPENED, 4000, "GET", BROWSER),
    (EventType.CLICKED, 2, "HEAD", BROWSER),
    (EventType.CLICKED, 90, "GET", BROWSER),
    (EventType.CLICKED, 95, "GET", "curl/8.5.0"),
    (EventType.CLICKED, 30, "GET", BROWSER),
    (EventType.UNSUBSCRIBED, 120, "POST", ""),
)


def life_of(message: Seeded) -> list[Hit]:
    """Return the hits of one life on *message*."""
    return [
        hit(message, kind, at_ms=NOON_MS + second * 1000, method=method, user_agent=agent)
        for kind, second, method, agent in LIFE
    ]


def defined(hits: list[Hit]) -> Engagement:
    """Return what the pure definition makes of hits on one message."""
    sightings = [sighting for one in hits if (sighting := READER.read(encode_hit(one))) is not None]
    return engagement(
        Event(
            dedupe=sighting.id,
            type=sighting.type,
            source="tracker",
            machine=sighting.machine,
            at=sighting.at,
        )
        for sighting in sightings
    )


async def recorded(look: Connection, message: Seeded) -> Engagement:
    """Return what the ledger holds of *message*."""
    row = await look.fetchrow("SELECT * FROM engagement WHERE message = $1", message.id)
    return Engagement() if row is None else Engagement(**{name: row[name] for name in Engagement.__struct_fields__})


@pytest.mark.parametrize("order", range(6))
async def test_any_order_and_any_copies_give_the_same(ledger: Ledger, look: Connection, order: int) -> None:
    """After every single hit the row is the definition's for the hits so far, and no flag has fallen."""
    random = Random(order)  # noqa: S311 - a test's order, repeatable
    campaign = await make_campaign(look)
    (ann,) = await seed(look, campaign, "ann@example.net")
    life = life_of(ann)
    arriving = life + random.choices(life, k=6)
    random.shuffle(arriving)
    recorder = Recorder(ledger, READER, ams=ams_settings())
    before = Engagement()
    for count, one in enumerate(arriving, start=1):
        await recorder.record(entries([one]))
        row = await recorded(look, ann)
        assert row == defined(arriving[:count])
        for flag in ("first_opened_at", "first_clicked_at", "unsubscribed_at"):
            was, now = getattr(before, flag), getattr(row, flag)
            assert was is None or (now is not None and now <= was)
        assert row.first_clicked_at is None or row.first_opened_at is not None
        before = row
    assert before == defined(life)
    assert (before.opens, before.clicks, before.machine_opens, before.machine_clicks) == (2, 2, 1, 2)
    assert await counts(look, campaign) == {
        "opens": 2,
        "unique_opens": 1,
        "clicks": 2,
        "unique_clicks": 1,
        "machine_opens": 1,
        "machine_clicks": 2,
        "unsubscribes": 1,
    }


async def test_a_click_alone_is_an_open_but_counts_none(ledger: Ledger, look: Connection) -> None:
    """Who clicks with images off has opened; the number of opens stays what was seen."""
    campaign = await make_campaign(look)
    (ann,) = await seed(look, campaign, "ann@example.net")
    await Recorder(ledger, READER, ams=ams_settings()).record(entries([hit(ann, EventType.CLICKED)]))
    row = await recorded(look, ann)
    assert row.first_opened_at == row.first_clicked_at is not None
    assert await counts(look, campaign) == {"unique_opens": 1, "clicks": 1, "unique_clicks": 1}
    assert [record["url"] for record in await look.fetch("SELECT url FROM outbox")] == [
        "https://shop.example.com/?a=1&b=2"
    ]


async def test_many_lives_through_the_stream_and_three_couriers(
    redis_url: str, ledger: Ledger, look: Connection, eventually: Eventually
) -> None:
    """Thirty messages live the same life in thirty orders, every hit arrives twice: thirty equal rows, exact counts."""
    random = Random(6)  # noqa: S311 - a test's order, repeatable
    campaign = await make_campaign(look)
    messages = await seed(look, campaign, *(f"r{n}@example.net" for n in range(30)))
    lives = {message.id: life_of(message) for message in messages}
    arriving = [one for life in lives.values() for one in life] * 2
    random.shuffle(arriving)
    stopping = asyncio.Event()
    couriers = [
        asyncio.create_task(
            run_recorder(
                redis_url,
                ledger,
                READER,
                CourierSettings(batch=7),
                ams_settings(),
                process=number,
                stopping=stopping,
                ready=lambda _missing: None,
            )
        )
        for number in range(3)
    ]
    client = connect(redis_url)
    try:
        for one in arriving:
            await client.xadd(STREAM, {FIELD: encode_hit(one)})

        async def all_seen() -> bool:
            return bool(await look.fetchval("SELECT count(*) FROM event") == len(arriving) // 2)

        await eventually(all_seen, timeout=30)
    finally:
        stopping.set()
        await asyncio.wait_for(asyncio.gather(*couriers), 10)
        await client.aclose()
    for message in messages:
        assert await recorded(look, message) == defined(lives[message.id])
    assert await counts(look, campaign) == {
        "opens": 60,
        "unique_opens": 30,
        "clicks": 60,
        "unique_clicks": 30,
        "machine_opens": 30,
        "machine_clicks": 60,
        "unsubscribes": 30,
    }
