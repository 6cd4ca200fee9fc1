"""Measure providers' events from the endpoint to the ledger: the tracker keeps them, the courier records them.

Requests are signed as their providers sign, and sent over a few connections. Afterwards every event has to be in the
ledger, on its own message, and none parked.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from time import perf_counter
from typing import Any, Final

import asyncpg

from bench.clients import drive
from bench.endpoint import Orders, endpoint
from bench.mailing import Connection, Mailing, is_recorded, sent
from bench.notices import Side, azure, mailgun, sendgrid, ses
from bench.paired import Bar, Load, Outcome
from bench.report import Found, of_loads
from bench.servers import free_port, outrider, role, stores
from bench.stage import Stage
from ledger.stream import connect
from sidecar.keys import load_keys

_ROUNDS: Final = 3
_PACKAGES: Final = ("aiohttp", "asyncpg", "cryptography", "msgspec", "redis", "uvloop")
_BAR: Final = Bar(per_second=2_000)
#: Event Grid's largest batch, and SendGrid's usual one.
_GRID_BATCH, _GRAIN_BATCH = 5_000, 1_000
_ARRAY_EVENTS: Final = 40_000
_SINGLE_EVENTS: Final = 10_000
#: What one recipient's message is told of.
_EVENTS_EACH: Final = 2
_CONNECTIONS: Final = 64
_SECONDS: Final = 120.0
_LOOK_SECONDS: Final = 0.02

_RECORDED: Final = """
SELECT
    (SELECT count(*) FROM event e JOIN message m ON m.id = e.message WHERE m.campaign = $1 AND e.source = $2) AS events,
    (SELECT count(*) FROM parked_event) AS parked
"""


async def bench(stage: Stage) -> Found:
    """Measure four providers, two that post arrays and two that post one event at a time."""
    many, few = stage.scaled(_ARRAY_EVENTS), stage.scaled(_SINGLE_EVENTS)
    plans = [
        (f"azure: arrays of {_GRID_BATCH:,}", azure(_GRID_BATCH), many),
        (f"sendgrid: arrays of {_GRAIN_BATCH:,}", sendgrid(_GRAIN_BATCH), many),
        ("ses: one at a time", ses(), few),
        ("mailgun: one at a time", mailgun(), few),
    ]
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(stores(stage.servers))
        settings = await stack.enter_async_context(outrider(place))
        connection = await asyncpg.connect(settings.database_url)
        stack.push_async_callback(connection.close)
        client = connect(settings.redis_url)
        stack.push_async_callback(client.aclose)
        orders = _orders([side for _, side, _ in plans], settings.redis_url, str(settings.data_dir / "journal"))
        pid = await stack.enter_async_context(endpoint(orders))
        pids = (pid, *await stack.enter_async_context(role(settings, "courier")))
        course = _Course(connection, client, port=orders.port, identity=load_keys(settings).identity)
        loads = [
            Load(name=name, run=partial(course.run, side, events), pids=pids, bar=_BAR) for name, side, events in plans
        ]
        for _, side, events in plans:
            # What is fetched, connected and planned on first use is nobody's round.
            await course.run(side, min(events, 100))
        return await of_loads(loads, rounds=stage.rounds or _ROUNDS, packages=_PACKAGES)


def _orders(sides: Sequence[Side], redis_url: str, journal: str) -> Orders:
    documents = {url: document for side in sides for url, document in side.documents.items()}
    trusts = {side.name: side.trust for side in sides}
    return Orders(redis_url=redis_url, journal=journal, port=free_port(), trusts=trusts, documents=documents)


class _Course:
    """Posts events of fresh mailings, and looks at what the ledger has of them."""

    def __init__(self, connection: Connection, client: Any, *, port: int, identity: bytes) -> None:
        self._connection = connection
        self._client = client
        self._port = port
        self._identity = identity
        self._numbers = itertools.count(1)

    async def run(self, side: Side, events: int) -> Outcome:
        """Post *events* of one provider, and wait until they are recorded."""
        mailing = await sent(
            self._connection, self._identity, number=next(self._numbers), messages=max(1, events // _EVENTS_EACH)
        )
        requests = side.requests(mailing.letters, events)
        driven = await drive(self._port, requests, connections=_CONNECTIONS, expected="HTTP/1.1 200")
        answered = perf_counter()
        flaw = driven.flaw or await self._missing(mailing, side.name, events)
        # Without what the clients' own start took.
        seconds = driven.seconds + perf_counter() - answered
        return Outcome(units=events, seconds=seconds, latencies_us=driven.latencies_us, flaw=flaw)

    async def _missing(self, mailing: Mailing, provider: str, events: int) -> str | None:
        """Wait until all *events* are recorded; return what the ledger lacks of them, or has too much."""
        told = (0, 0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS):
                # What went to the journal comes into the stream later.
                while told[0] < events:
                    while not await is_recorded(self._client):  # noqa: ASYNC110 - another process does it
                        await asyncio.sleep(_LOOK_SECONDS)
                    row = await self._connection.fetchrow(_RECORDED, mailing.campaign, provider)
                    told = tuple(row) if row is not None else told
                    await asyncio.sleep(_LOOK_SECONDS)
        return None if told == (events, 0) else f"{told[0]} recorded and {told[1]} parked of {events} events"
