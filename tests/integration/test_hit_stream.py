"""Hits move from the stream into the ledger, whoever dies or goes away in between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from courier.consume import run_recorder
from courier.settings import CourierSettings
from courier.stream import Backlog, Entry, StreamUnavailableError, backlog, emptied, open_stream
from ledger.events import encode_hit
from ledger.store import Ledger
from ledger.stream import FIELD, GROUP, STREAM
from tests.conftest import Eventually
from tests.mailings import READER, Connection, ams_settings, counts, hit, make_campaign, seed


async def append(redis: Redis, *values: bytes) -> None:
    """Append entries as the tracker does."""
    for value in values:
        await redis.xadd(STREAM, {FIELD: value})


async def stored(redis: Redis) -> list[tuple[bytes, bytes]]:
    """Return the id and the hit of every entry in the stream."""
    # The library types every protocol's shape at once.
    entries: Any = await redis.xrange(STREAM)
    return [(entry_id, fields[FIELD.encode()]) for entry_id, fields in entries]


def values(entries: list[Entry]) -> list[bytes]:
    """Return the entries' hits."""
    return [value for _, value in entries]


async def test_what_was_not_acknowledged_is_read_again_first(redis_url: str, redis: Redis) -> None:
    """A reader that starts over under its name gets its own entries before new ones, in batches."""
    async with open_stream(redis_url, "one", batch=2) as stream:
        await stream.prepare()
        await append(redis, b"a", b"b", b"c")
        assert values(await stream.read()) == [b"a", b"b"]
    await append(redis, b"d")
    async with open_stream(redis_url, "one", batch=2) as stream:
        await stream.prepare()
        own = await stream.read()
        assert values(own) == [b"a", b"b"]
        await stream.acknowledge(own)
        new = await stream.read()
        assert values(new) == [b"c", b"d"]
        stream.read_again()
        assert await stream.read() == new
        await stream.acknowledge(new)
        assert await stream.read() == []


async def test_a_cancellation_is_never_swallowed(redis: Redis) -> None:
    """At whatever turn of the loop it comes: who is told to stop while Redis answers stops, and Redis goes on."""
    turns, ended = 0, False
    while not ended:
        asking = asyncio.create_task(redis.execute_command("PING"))  # type: ignore[no-untyped-call] # redis-py's
        for _ in range(turns):
            await asyncio.sleep(0)
        ended = not asking.cancel()
        await asyncio.wait([asking])
        assert ended or asking.cancelled(), f"swallowed after {turns} turns"
        turns += 1
    assert turns > 3, "it never had to wait"
    assert await redis.execute_command("PING")  # type: ignore[no-untyped-call]


async def test_a_group_starts_at_the_oldest_entry(redis_url: str, redis: Redis) -> None:
    """What the tracker appended before any courier ever ran is read too."""
    await append(redis, b"early")
    async with open_stream(redis_url, "one", batch=10) as stream:
        await stream.prepare()
        await stream.prepare()
        assert values(await stream.read()) == [b"early"]


async def test_the_living_take_over_from_the_dead(redis_url: str, redis: Redis) -> None:
    """Entries that nobody acknowledged in time go to whoever claims them; fresh ones stay with their reader."""
    async with (
        open_stream(redis_url, "dead", batch=10) as dead,
        open_stream(redis_url, "alive", batch=10, claim_idle_ms=0) as alive,
        open_stream(redis_url, "patient", batch=10) as patient,
    ):
        await dead.prepare()
        await append(redis, b"a", b"b")
        held = await dead.read()
        await patient.claim()
        assert await patient.read() == []
        await alive.claim()
        taken = await alive.read()
        assert taken == held
        await alive.acknowledge(taken)
    assert (await redis.xpending(STREAM, GROUP))["pending"] == 0


async def test_trimming_stops_at_what_anybody_still_holds(redis_url: str, redis: Redis) -> None:
    """An entry leaves the stream only when it and all before it are acknowledged by the group."""
    async with open_stream(redis_url, "slow", batch=1) as slow, open_stream(redis_url, "fast", batch=10) as fast:
        await slow.prepare()
        await append(redis, b"a", b"b", b"c", b"d", b"e")
        first = await slow.read()
        second = await slow.read()
        await slow.acknowledge(first)
        rest = await fast.read()
        await fast.acknowledge(rest)
        await append(redis, b"f")
        await fast.trim()
        assert values(await stored(redis)) == [b"b", b"c", b"d", b"e", b"f"]
        await slow.acknowledge(second)
        await fast.trim()
        assert values(await stored(redis)) == [b"e", b"f"]
        assert values(await fast.read()) == [b"f"]


async def test_it_is_emptied_once_all_of_it_is_recorded(redis_url: str, redis: Redis) -> None:
    """Not while somebody holds a part, nor before anybody reads it; what comes meanwhile stays, and is read."""
    assert await emptied(redis_url, patience=0)
    await append(redis, b"a", b"b")
    assert not await emptied(redis_url, patience=0.1)
    async with open_stream(redis_url, "one", batch=1) as stream:
        await stream.prepare()
        first, second = await stream.read(), await stream.read()
        await stream.acknowledge(second)
        assert not await emptied(redis_url, patience=0.1)
        assert len(await stored(redis)) == 2
        waiting = asyncio.create_task(emptied(redis_url, patience=10))
        await asyncio.sleep(0)
        await stream.acknowledge(first)
        assert await waiting
        assert await stored(redis) == []
        await append(redis, b"c")
        assert values(await stream.read()) == [b"c"]
        await stream.trim()
    with pytest.raises(StreamUnavailableError):
        await emptied("redis://127.0.0.1:1/0", patience=0.1)


async def test_what_waits_and_for_how_long_is_told_from_outside(redis_url: str, redis: Redis) -> None:
    """Before any courier, with what a reader holds, and with nothing; the same that a courier measures."""
    assert await backlog(redis_url) == Backlog(hits=0, oldest_seconds=0.0)
    long_ago = 1_000_000_000_000
    await redis.xadd(STREAM, {FIELD: b"a"}, id=f"{long_ago}-0")
    await redis.xadd(STREAM, {FIELD: b"b"})
    assert (await backlog(redis_url)).hits == 2
    async with open_stream(redis_url, "one", batch=1) as stream:
        await stream.prepare()
        first = await stream.read()
        found = await backlog(redis_url)
        assert found.hits == 2
        assert found.oldest_seconds > 1e8
        await stream.trim()
        assert REGISTRY.get_sample_value("outrider_stream_oldest_age_seconds") == pytest.approx(
            found.oldest_seconds, abs=9
        )
        await stream.acknowledge(first)
        found = await backlog(redis_url)
        assert found.hits == 1
        assert found.oldest_seconds < 60
        await stream.acknowledge(await stream.read())
        assert await backlog(redis_url) == Backlog(hits=0, oldest_seconds=0.0)
    with pytest.raises(StreamUnavailableError):
        await backlog("redis://127.0.0.1:1/0")


async def test_foreign_and_deleted_entries_stop_nobody(redis_url: str, redis: Redis) -> None:
    """An entry without our field is handed on as it came; one deleted by hand is let go."""
    async with open_stream(redis_url, "one", batch=10) as stream:
        await stream.prepare()
        await redis.xadd(STREAM, {"x": "foreign"})
        await append(redis, b"a", b"b")
        read = await stream.read()
        assert values(read)[1:] == [b"a", b"b"]
        assert b"foreign" in values(read)[0]
        await redis.xdel(STREAM, read[1][0])
        stream.read_again()
        assert values(await stream.read()) == [values(read)[0], b"b"]
        assert (await redis.xpending(STREAM, GROUP))["pending"] == 2


async def test_names_of_the_dead_are_forgotten_but_not_what_they_hold(redis_url: str, redis: Redis) -> None:
    """Only a name that is long silent and holds nothing goes."""
    async with open_stream(redis_url, "one", batch=10) as stream:
        await stream.prepare()
        await append(redis, b"a")
        await stream.read()
        await stream.forget_readers()
        assert [reader["name"] for reader in await redis.xinfo_consumers(STREAM, GROUP)] == [b"one"]
    async with open_stream(redis_url, "two", batch=10) as stream:
        stream._forget_idle_ms = -1
        await stream.forget_readers()
        assert [reader["name"] for reader in await redis.xinfo_consumers(STREAM, GROUP)] == [b"one"]
        await redis.xack(STREAM, GROUP, (await stored(redis))[0][0])
        await stream.forget_readers()
        assert await redis.xinfo_consumers(STREAM, GROUP) == []


async def test_a_flushed_stream_is_made_anew(redis_url: str, redis: Redis) -> None:
    """Without its group the stream is unavailable until it is prepared again."""
    async with open_stream(redis_url, "one", batch=10) as stream:
        await stream.prepare()
        await redis.flushdb()
        with pytest.raises(StreamUnavailableError):
            await stream.read()
        with pytest.raises(StreamUnavailableError):
            await stream.trim()
        await stream.prepare()
        await append(redis, b"a")
        assert values(await stream.read()) == [b"a"]


class Running:
    """A recorder that runs, and what it said of its readiness."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []

    @property
    def missing(self) -> tuple[str, ...] | None:
        return self.told[-1] if self.told else None


@asynccontextmanager
async def recording(redis_url: str, ledger: Ledger, *, process: int = 1) -> AsyncIterator[Running]:
    """Run a recorder until the end of the block, and expect it to stop when told."""
    stopping, running = asyncio.Event(), Running()
    task = asyncio.create_task(
        run_recorder(
            redis_url,
            ledger,
            READER,
            CourierSettings(),
            ams_settings(),
            process=process,
            stopping=stopping,
            ready=running.told.append,
        )
    )
    try:
        yield running
    finally:
        stopping.set()
        await asyncio.wait_for(task, 10)


async def test_hits_reach_the_ledger_and_leave_the_stream(
    redis_url: str, redis: Redis, ledger: Ledger, look: Connection, eventually: Eventually
) -> None:
    """Two couriers record every hit once; rubbish among them is acknowledged too, for it stands parked."""
    campaign = await make_campaign(look)
    messages = await seed(look, campaign, *(f"r{n}@example.net" for n in range(50)))
    await append(redis, b"rubbish", *(encode_hit(hit(message)) for message in messages))
    async with recording(redis_url, ledger), recording(redis_url, ledger, process=2) as second:
        await append(redis, *(encode_hit(hit(message)) for message in messages))

        async def all_recorded() -> bool:
            return (await counts(look, campaign)).get("opens") == 100

        await eventually(all_recorded)

        async def all_acknowledged() -> bool:
            group = (await redis.xinfo_groups(STREAM))[0]
            return bool(group["pending"] == 0 and group["entries-read"] == 101)

        await eventually(all_acknowledged)
        await eventually(lambda: second.missing == ())
    assert await look.fetchval("SELECT count(*) FROM event") == 100
    assert await look.fetchval("SELECT count(*) FROM parked_event") == 1


async def test_the_loop_outlives_its_stores(
    redis_url: str, redis: Redis, ledger: Ledger, look: Connection, eventually: Eventually
) -> None:
    """PostgreSQL drops connections and lacks a table for a while, Redis is flushed: hits go on, readiness tells."""
    campaign = await make_campaign(look)
    (ann,) = await seed(look, campaign, "ann@example.net")

    async def opens(expected: int) -> None:
        async def reached() -> bool:
            return (await counts(look, campaign)).get("opens") == expected

        await eventually(reached, timeout=20)

    async with recording(redis_url, ledger) as running:
        await append(redis, encode_hit(hit(ann)))
        await opens(1)
        await look.execute("ALTER TABLE event_seen RENAME TO elsewhere")
        await look.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'outrider' AND datname = current_database()"
        )
        await append(redis, encode_hit(hit(ann)))
        await eventually(lambda: running.missing == ("postgresql",))
        await look.execute("ALTER TABLE elsewhere RENAME TO event_seen")
        await opens(2)
        await eventually(lambda: running.missing == ())
        await redis.flushdb()
        await eventually(lambda: running.told.count(("redis",)) >= 1)
        await append(redis, encode_hit(hit(ann)))
        await opens(3)
        await eventually(lambda: running.missing == ())
