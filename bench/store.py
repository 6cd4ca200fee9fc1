"""Measure how fast the ledger correlates: commits in groups against a commit for each message.

The statement is the same for all of them, and so is the fsync; only how many messages share one differs. The table
grows while it is measured, for all loads alike.
"""

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Final

import asyncpg

from bench.correlating import SOURCE, Course, correlated, settled, stored
from bench.paired import Load, Outcome
from bench.report import Found, of_loads
from bench.servers import outrider, stores
from bench.stage import Stage
from ledger import processes
from ledger.mail import MailLedger
from ledger.store import open_ledger

_ROUNDS: Final = 5
_PACKAGES: Final = ("asyncpg", "msgspec")
#: As many as a relay's process has.
_CONNECTIONS: Final = 12

_ALONE: Final = "one at a time, each its commit"
_EACH: Final = "20 waiting, each its commit"
_GROUPED: Final = "20 waiting, in groups"


async def bench(stage: Stage) -> Found:
    """Measure correlations against a ledger of its own."""
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(stores(stage.servers))
        settings = await stack.enter_async_context(outrider(place))
        ledger = await stack.enter_async_context(
            open_ledger(settings.database_url, connections=_CONNECTIONS, by_index=True)
        )
        process = await processes.register(ledger, "relay")
        mails = [MailLedger(ledger, process) for _ in range(20)]
        # What the others leave undecided is in no relay's hands when it settles its own.
        settling = MailLedger(ledger, await processes.register(ledger, "relay"))
        campaign = await mails[0].campaign(SOURCE, "bench", None, None, datetime.now(UTC))
        connection = await asyncpg.connect(settings.database_url)
        stack.push_async_callback(connection.close)
        return await of_loads(
            list(_loads(stage, mails, settling, _Rows(connection), campaign)),
            rounds=stage.rounds or _ROUNDS,
            packages=_PACKAGES,
            programs={"PostgreSQL": str(connection.get_server_version().major)},
        )


class _Rows:
    """How many messages the ledger has, from one load to the next."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection
        self._seen = 0

    async def flaw(self, expected: int) -> str | None:
        before, self._seen = self._seen, int(await self._connection.fetchval("SELECT count(*) FROM message"))
        new = self._seen - before
        return None if new == expected else f"the ledger has {new} messages more, not {expected}"


def _loads(
    stage: Stage, mails: Sequence[MailLedger], settling: MailLedger, rows: _Rows, campaign: int
) -> Iterator[Load]:
    one = mails[:1]
    for name, ledgers, waiting, messages, course, also in (
        (_ALONE, one, 1, 600, correlated, {}),
        (_EACH, mails, 20, 2_000, correlated, {}),
        (_GROUPED, one, 20, 6_000, correlated, {_ALONE: 0.0, _EACH: 0.0}),
        ("100 waiting, in groups", one, 100, 8_000, correlated, {_ALONE: 0.0, _EACH: 0.0}),
        ("1,000 waiting, in groups", one, 1_000, 10_000, correlated, {_ALONE: 0.0, _EACH: 0.0}),
        ("20 waiting, correlation, intent and result", [settling], 20, 1_500, settled, {_GROUPED: 0.0}),
    ):
        run = partial(_run, ledgers, waiting, stage.scaled(messages), course, rows, campaign)
        yield Load(name=name, run=run, also=also)


async def _run(
    mails: Sequence[MailLedger], waiting: int, messages: int, course: Course, rows: _Rows, campaign: int
) -> Outcome:
    """Store *messages*, so many *waiting* at a time, spread over *mails*."""
    refused, seconds, latencies = await stored(mails, course, campaign, messages=messages, waiting=waiting)
    flaw = f"{refused} were not stored" if refused else await rows.flaw(messages)
    return Outcome(units=messages, seconds=seconds, latencies_us=latencies, flaw=flaw)
