"""While much waits, the next batch is read as one is written; that shows in nothing but its speed."""

import asyncio
from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from courier.consume import run_recorder
from courier.record import Recorder
from courier.settings import CourierSettings
from courier.stream import open_stream
from ledger.events import encode_hit
from ledger.store import Ledger, Session
from ledger.stream import FIELD, GROUP, STREAM
from tests.conftest import Eventually
from tests.mailings import READER, Connection, ams_settings, counts, hit, make_campaign, seed

BATCH = 20
HITS = 300


async def fill(redis: Redis, look: Connection) -> int:
    """Put hits of thirty messages into the stream, ten each, and return their campaign."""
    campaign = await make_campaign(look)
    messages = await seed(look, campaign, *(f"r{number}@example.net" for number in range(30)))
    for number in range(HITS):
        await redis.xadd(STREAM, {FIELD: encode_hit(hit(messages[number % 30]))})
    return campaign


def begin(redis_url: str, ledger: Ledger, stopping: asyncio.Event) -> asyncio.Task[None]:
    """Record what waits, in small batches, until *stopping* is set."""
    return asyncio.create_task(
        run_recorder(
            redis_url,
            ledger,
            READER,
            CourierSettings(batch=BATCH),
            ams_settings(),
            process=1,
            stopping=stopping,
            ready=lambda _: None,
        )
    )


async def pending(redis: Redis) -> int:
    """Return how many hits were read and are not acknowledged."""
    return int((await redis.xpending(STREAM, GROUP))["pending"])


async def test_two_batches_are_on_their_way_and_no_more(
    redis_url: str, redis: Redis, ledger: Ledger, look: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ends when the second has begun; told to stop, it ends both and reads no more."""
    await fill(redis, look)
    stopping, second = asyncio.Event(), asyncio.Event()
    record, at_once, most = Recorder.record, 0, 0

    async def watched(recorder: Recorder, entries: Sequence[tuple[bytes, bytes]]) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == 2:
            stopping.set()
            second.set()
        await asyncio.wait_for(second.wait(), 10)
        await record(recorder, entries)
        at_once -= 1

    monkeypatch.setattr(Recorder, "record", watched)
    await asyncio.wait_for(begin(redis_url, ledger, stopping), 20)
    assert most == 2
    assert await look.fetchval("SELECT count(*) FROM event") == 2 * BATCH
    assert await pending(redis) == 0


async def test_a_batch_that_fails_takes_nothing_with_it(
    redis_url: str,
    redis: Redis,
    ledger: Ledger,
    look: Connection,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:
    """PostgreSQL goes in the middle of some: what was read meanwhile is read again, and each hit is recorded once."""
    campaign = await fill(redis, look)
    copy, failing, calls = Session.copy, {3, 4, 9}, 0

    async def fails(session: Session, *arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls in failing:
            raise ConnectionResetError
        await copy(session, *arguments)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(Session, "copy", fails)
    stopping = asyncio.Event()
    task = begin(redis_url, ledger, stopping)

    async def all_recorded() -> bool:
        return (await counts(look, campaign)).get("opens") == HITS and not await pending(redis)

    await eventually(all_recorded, timeout=20)
    stopping.set()
    await asyncio.wait_for(task, 10)
    assert calls > max(failing)
    assert await look.fetchval("SELECT count(*) FROM event") == HITS
    assert await look.fetchval("SELECT array_agg(DISTINCT opens) FROM engagement") == [HITS // 30]
    assert await look.fetchval("SELECT count(*) FROM outbox") == HITS


async def test_all_that_a_dead_reader_held_is_taken_over_at_once(
    redis_url: str, redis: Redis, look: Connection
) -> None:
    """It held two batches; the next reader has both with one claim."""
    await fill(redis, look)
    async with open_stream(redis_url, "dead", batch=BATCH) as dead:
        await dead.prepare()
        held = [*await dead.read(), *await dead.read()]
    async with open_stream(redis_url, "alive", batch=BATCH, claim_idle_ms=0) as alive:
        await alive.claim()
        found = []
        for _ in range(2):
            entries = await alive.read()
            await alive.acknowledge(entries)
            found += entries
    assert found == held


async def test_batches_with_the_same_messages_end_alike(ledger: Ledger, look: Connection) -> None:
    """Four are recorded at once, half of each a copy of what is in another."""
    campaign = await make_campaign(look)
    messages = await seed(look, campaign, *(f"r{number}@example.net" for number in range(40)))
    entries = [(b"", encode_hit(hit(message))) for _ in range(20) for message in messages]
    recorder = Recorder(ledger, READER, ams=ams_settings())
    await asyncio.gather(*(recorder.record(entries[first : first + 400]) for first in (0, 200, 400, 200)))
    assert await counts(look, campaign) == {"opens": 800, "unique_opens": 40}
    assert await look.fetchval("SELECT array_agg(DISTINCT opens) FROM engagement") == [20]
    assert await look.fetchval("SELECT count(*) FROM event") == 800
