"""Measure the courier, one process: what it records of a full stream, and how fast a full outbox leaves for AMS.

It is stopped while the load is put before it, and goes on when all of it waits. Afterwards the ledger must have every
event, the engagement and the items that follow from it, and AMS every item, each of them once.
"""

import asyncio
import itertools
import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from time import perf_counter
from typing import Any, Final

import asyncpg
import msgspec

from bench.ams import Ams, ams
from bench.mailing import Connection, Mailing, append, is_recorded, sent
from bench.paired import Bar, Load, Outcome
from bench.report import Found, of_loads
from bench.servers import outrider, role, stores
from bench.stage import Stage
from courier.settings import AmsSettings
from ledger.stream import connect
from sidecar.keys import load_keys

_ROUNDS: Final = 3
_PACKAGES: Final = ("aiohttp", "asyncpg", "msgspec", "redis", "uvloop")
_EVENTS: Final = 100_000
#: What one recipient does, on average.
_EVENTS_EACH: Final = 2
_ITEMS: Final = 500_000
_ITEMS_EACH: Final = 5
_SECONDS: Final = 300.0
_LOOK_SECONDS: Final = 0.02
#: The deliverer looks so often; a look costs little beside what is recorded meanwhile.
_INTERVAL: Final = 1.0

_RECORD: Final = "record: stream to ledger"
_FEW: Final = "deliver: a fifth of the items"
_MANY: Final = "deliver: outbox to AMS"

_RECORDED: Final = """
SELECT
    (SELECT count(*) FROM event e JOIN message m ON m.id = e.message WHERE m.campaign = $1) AS events,
    (SELECT count(*) FROM outbox WHERE campaign = $1) AS items,
    (
        SELECT sum(opens + clicks + machine_opens + machine_clicks)::bigint
        FROM engagement e JOIN message m ON m.id = e.message WHERE m.campaign = $1
    ) AS engagement,
    (
        SELECT sum(amount)::bigint FROM (
            SELECT campaign, counter, amount FROM campaign_delta
            UNION ALL SELECT campaign, counter, value FROM campaign_count
        ) told WHERE campaign = $1 AND counter IN ('opens', 'clicks', 'machine_opens', 'machine_clicks')
    ) AS counted
"""
_FILL: Final = """
INSERT INTO outbox (mailing, campaign, message, url)
SELECT $2, $1, message.id, 'https://shop.example.com/spring/offers?utm_campaign=spring&item=' || item
FROM generate_series(1, $3::bigint) AS item CROSS JOIN message WHERE message.campaign = $1
"""


async def bench(stage: Stage) -> Found:
    """Measure the recorder and the deliverer."""
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(stores(stage.servers))
        receiver = await stack.enter_async_context(ams())
        base = await stack.enter_async_context(outrider(place))
        settings = msgspec.structs.replace(
            base, ams=AmsSettings(url=receiver.url, api_key="K-1", interval=_INTERVAL, timeout=_SECONDS)
        )
        connection = await asyncpg.connect(settings.database_url)
        stack.push_async_callback(connection.close)
        client = connect(settings.redis_url)
        stack.push_async_callback(client.aclose)
        pids = await stack.enter_async_context(role(settings, "courier"))
        course = _Course(connection, client, receiver, identity=load_keys(settings).identity, pids=pids)
        events, items = stage.scaled(_EVENTS), stage.scaled(_ITEMS)
        # What is compiled, connected and planned on first use is nobody's round.
        await course.record(min(events, 1_000))
        await course.deliver(min(items, 1_000))
        record = Load(name=_RECORD, run=partial(course.record, events), pids=pids, bar=Bar(per_second=10_000))
        # With a fifth of it beside it one sees that memory does not grow with what waits.
        few = Load(name=_FEW, run=partial(course.deliver, max(1, items // 5)), pids=pids)
        many = Load(name=_MANY, run=partial(course.deliver, items), pids=pids, bar=Bar(per_second=50_000))
        return await of_loads([record, few, many], rounds=stage.rounds or _ROUNDS, packages=_PACKAGES)


class _Course:
    """Puts loads before a courier, and looks at what it made of them."""

    def __init__(
        self, connection: Connection, client: Any, receiver: Ams, *, identity: bytes, pids: Iterable[int]
    ) -> None:
        self._connection = connection
        self._client = client
        self._receiver = receiver
        self._identity = identity
        self._pids = tuple(pids)
        self._numbers = itertools.count(1)

    async def record(self, events: int) -> Outcome:
        """Record *events* of a fresh mailing, whose items wait for AMS."""
        mailing = await self._mailing(max(1, events // _EVENTS_EACH))
        # Not before tomorrow: what is delivered meanwhile is the other load's.
        await self._connection.execute(
            "INSERT INTO ams_mailing (mailing, failures, next_at) VALUES ($1, 1, now() + interval '1 day')",
            mailing.number,
        )
        with self._stopped():
            await append(self._client, mailing.hits(events))
        seconds = await self._passed(self._nothing_in_stream)
        told = await self._connection.fetchrow(_RECORDED, mailing.campaign)
        wrong = [f"{amount} {what}" for what, amount in dict(told or {}).items() if amount != events]
        await self._connection.execute("TRUNCATE outbox")
        return Outcome(units=events, seconds=seconds, flaw=f"{', '.join(wrong)} of {events} events" if wrong else None)

    async def deliver(self, items: int) -> Outcome:
        """Deliver *items* of a fresh mailing, which all wait at once."""
        each = min(items, _ITEMS_EACH)
        mailing = await self._mailing(items // each)
        waiting = len(mailing.letters) * each
        with self._stopped():
            await self._connection.execute(_FILL, mailing.campaign, mailing.number, each)
            await self._connection.execute("VACUUM ANALYZE outbox")
        seconds = await self._passed(self._nothing_in_outbox)
        counted = await self._receiver.counted(mailing.number)
        wrong = (counted.items, counted.different) != (waiting, waiting)
        return Outcome(
            units=waiting,
            seconds=seconds,
            flaw=f"AMS has {counted.items} items, {counted.different} different, of {waiting}" if wrong else None,
        )

    async def _mailing(self, messages: int) -> Mailing:
        return await sent(self._connection, self._identity, number=next(self._numbers), messages=messages)

    async def _nothing_in_stream(self) -> bool:
        return await is_recorded(self._client)

    async def _nothing_in_outbox(self) -> bool:
        return await self._connection.fetchval("SELECT NOT EXISTS (SELECT FROM outbox)") is True

    async def _passed(self, done: Callable[[], Awaitable[bool]]) -> float:
        """Return the seconds until *done*."""
        started = perf_counter()
        async with asyncio.timeout(_SECONDS):
            while not await done():  # noqa: ASYNC110 - another process does it
                await asyncio.sleep(_LOOK_SECONDS)
        return perf_counter() - started

    @contextmanager
    def _stopped(self) -> Iterator[None]:
        """Stop the courier for the time of the block."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._pids:
            os.kill(pid, number)
