"""Promise 7: AMS gets every event, once if it can be helped.

No TTL, no pop before acknowledgement, poison isolated, real addresses; a crash at any point loses no event.
"""

import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from ledger.events import EventType, Hit, encode_hit
from ledger.stream import FIELD, GROUP, STREAM
from sidecar.standin_ams import Fault, StandinAms
from tests.conftest import ROOT, Eventually
from tests.courier_process import Orders
from tests.mailings import APPLE, Connection, Seeded, ams_settings, counts, hit, make_campaign, seed

PROGRAM = Path(__file__).resolve().parent.parent / "courier_process.py"


@pytest_asyncio.fixture
async def standin() -> AsyncIterator[StandinAms]:
    """Return a stand-in AMS that listens."""
    async with StandinAms(api_key="K-1") as running:
        yield running


@contextmanager
def courier(orders: Orders) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a courier in a process of its own; at the end it is told to stop, and does."""
    process = subprocess.Popen([sys.executable, str(PROGRAM)], env={"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE)
    assert process.stdin is not None
    with process:
        process.stdin.write(msgspec.json.encode(orders) + b"\n")
        process.stdin.flush()
        try:
            yield process
        finally:
            process.stdin.close()
            if process.poll() is None:
                assert process.wait(timeout=20) == 0


async def append(redis: Redis, *hits: Hit) -> None:
    """Append hits as the tracker does."""
    for one in hits:
        await redis.xadd(STREAM, {FIELD: encode_hit(one)})


def drained(look: Connection, redis: Redis, events: int) -> Callable[[], Awaitable[bool]]:
    """Return the condition that every event is recorded, acknowledged and confirmed by AMS."""

    async def condition() -> bool:
        if await look.fetchval("SELECT count(*) FROM event") < events:
            return False
        if (await redis.xpending(STREAM, GROUP))["pending"]:
            return False
        return not await look.fetchval("SELECT count(*) FROM outbox WHERE parked_at IS NULL")

    return condition


def told(standin: StandinAms) -> Counter[tuple[int, str, str]]:
    """Return what AMS took, and how often."""
    return Counter((item.mailing, item.email, item.url) for item in standin.received)


def link(message: Seeded) -> str:
    """Return a link of one message's own."""
    return f"https://shop.example.com/{message.id}?a=1&b=2"


async def test_every_event_arrives_once(
    database_url: str, redis_url: str, redis: Redis, look: Connection, standin: StandinAms, eventually: Eventually
) -> None:
    """Opens, clicks and unsubscribes of two mailings, with the addresses as submitted, each exactly once."""
    orders = Orders(database_url=database_url, redis_url=redis_url, ams=ams_settings(url=standin.url))
    expected: Counter[tuple[int, str, str]] = Counter()
    hits: list[Hit] = []
    for number in (7, 42):
        campaign = await make_campaign(look, str(number), mailing=number)
        for message in await seed(look, campaign, *(f"R{n}+x@Example.net" for n in range(20))):
            hits += [
                hit(message),
                hit(message, EventType.CLICKED, url=link(message)),
                hit(message, EventType.UNSUBSCRIBED),
                hit(message, user_agent=APPLE),
                hit(message, method="HEAD"),
            ]
            expected[number, message.recipient, "open_trace"] += 2
            expected[number, message.recipient, link(message)] += 1
            expected[number, message.recipient, "Unsubscribe_Click:DC,AE{|;"] += 1
    with courier(orders):
        await append(redis, *hits)
        await eventually(drained(look, redis, len(hits)), timeout=30)
    assert told(standin) == expected
    assert standin.most_in_flight == 1


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rounds", [40])
async def test_no_kill_and_no_fault_loses_an_event(
    database_url: str,
    redis_url: str,
    redis: Redis,
    look: Connection,
    standin: StandinAms,
    eventually: Eventually,
    rounds: int,
) -> None:
    """Kill -9 in the middle of work, again and again, with an AMS that fails in every way: everything arrives.

    What is sent more than once is what AMS may have taken before a kill or behind a lost answer; nothing else is.
    """
    ams = ams_settings(url=standin.url, timeout=0.5, max_batch=10)
    orders = Orders(database_url=database_url, redis_url=redis_url, ams=ams, batch=10)
    campaign = await make_campaign(look)
    messages = await seed(look, campaign, *(f"r{n}@example.net" for n in range(50 * rounds)))
    faults = [Fault.NONE, Fault.ANSWER_LOST, Fault.ERROR, Fault.SILENT, Fault.NONE, Fault.HTML, Fault.BROKEN]
    for position in range(rounds):
        fault = faults[position % len(faults)]
        share = messages[position * 50 : (position + 1) * 50]
        standin.fault = fault
        calls, recorded = len(standin.calls), await look.fetchval("SELECT count(*) FROM event")
        with courier(orders) as process:
            await append(redis, *(hit(message, EventType.CLICKED, url=link(message)) for message in share))

            async def busy(calls: int = calls, recorded: int = recorded) -> bool:
                events = await look.fetchval("SELECT count(*) FROM event")
                return bool(len(standin.calls) > calls and events > recorded)

            await eventually(busy, timeout=20)
            process.kill()
            process.wait(timeout=10)
        # A dead courier's leases and entries go to the next at once: the waiting is tested elsewhere.
        await look.execute("UPDATE lease SET lease_until = now() - interval '1 second'")
        await look.execute("UPDATE ams_mailing SET next_at = now()")
        await _release(redis)
    standin.fault = Fault.NONE
    with courier(orders):
        await eventually(drained(look, redis, len(messages)), timeout=40)
    assert set(told(standin)) == {(42, message.recipient, link(message)) for message in messages}
    assert await look.fetchval("SELECT count(*) FROM event") == len(messages)
    assert (await counts(look, campaign))["ams_delivered"] == len(messages)
    assert (await counts(look, campaign))["clicks"] == len(messages)
    # A kill leaves at most the one batch in doubt that was in flight.
    repeats = sum(told(standin).values()) - len(messages)
    lost = sum(call.items for call in standin.calls if call.fault is Fault.ANSWER_LOST)
    assert repeats <= lost + rounds * ams.max_batch


async def test_a_long_outage_and_a_poisoned_item(
    database_url: str, redis_url: str, redis: Redis, look: Connection, standin: StandinAms, eventually: Eventually
) -> None:
    """AMS is down while events come in, for longer than any TTL; back again it refuses one address: only that waits."""
    orders = Orders(database_url=database_url, redis_url=redis_url, ams=ams_settings(url=standin.url))
    messages = await seed(look, await make_campaign(look), *(f"r{n}@example.net" for n in range(60)))
    await standin.stop()
    with courier(orders):
        await append(redis, *(hit(message) for message in messages))

        async def failed() -> bool:
            waiting = await look.fetchval("SELECT count(*) FROM outbox")
            return bool(waiting == 60 and await look.fetchval("SELECT failures >= 1 FROM ams_mailing"))

        await eventually(failed, timeout=20)
    # Two days later.
    await look.execute("UPDATE outbox SET created_at = created_at - interval '2 days'")
    await look.execute("UPDATE ams_mailing SET next_at = now()")
    assert await redis.xlen(STREAM) <= 60
    standin.refused_addresses = {"r31@example.net"}
    await standin.start()
    with courier(orders):
        await eventually(drained(look, redis, len(messages)), timeout=30)
    assert set(told(standin)) == {(42, m.recipient, "open_trace") for m in messages if m.recipient != "r31@example.net"}
    assert max(told(standin).values()) == 1
    parked = await look.fetch("SELECT message, reason FROM outbox WHERE parked_at IS NOT NULL")
    assert [tuple(row) for row in parked] == [(messages[31].id, "-32603: Invalid email <address>")]


async def _release(redis: Redis) -> None:
    """Age what dead couriers hold, so that the next one claims it at its start."""
    pending = await redis.xpending(STREAM, GROUP)
    for consumer in pending["consumers"]:
        entries = await redis.xpending_range(STREAM, GROUP, "-", "+", 1000, consumer["name"])
        ids: list[Any] = [entry["message_id"] for entry in entries]
        await redis.xclaim(STREAM, GROUP, consumer["name"], 0, ids, idle=120_000, justid=True)
