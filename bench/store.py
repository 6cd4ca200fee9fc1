"""Measure how fast the ledger correlates: commits in groups against a commit for each message.

The statement is the same for all of them, and so is the fsync; only how many messages share one differs. The table
grows while it is measured, for all loads alike.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import Final

import asyncpg

from bench.paired import Load, Outcome
from bench.report import Found, of_loads
from bench.servers import outrider, stores
from bench.stage import Stage
from ledger import processes
from ledger.ids import MessageId, key_text
from ledger.mail import MailLedger
from ledger.mail_rows import NewMessage, Settlement
from ledger.store import open_ledger

_ROUNDS: Final = 5
_PACKAGES: Final = ("asyncpg", "msgspec")
_SOURCE: Final = "bench"
#: As many as a relay's process has.
_CONNECTIONS: Final = 12

_ALONE: Final = "one at a time, each its commit"
_EACH: Final = "20 waiting, each its commit"
_GROUPED: Final = "20 waiting, in groups"

#: Stores one message; gives whether it was stored.
_Course = Callable[[MailLedger, NewMessage], Awaitable[bool]]


async def bench(stage: Stage) -> Found:
    """Measure correlations against a ledger of its own."""
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(stores(stage.servers))
        settings = await stack.enter_async_context(outrider(place))
        ledger = await stack.enter_async_context(open_ledger(settings.database_url, connections=_CONNECTIONS))
        process = await processes.register(ledger, "relay")
        mails = [MailLedger(ledger, process) for _ in range(20)]
        # What the others leave undecided is in no relay's hands when it settles its own.
        settling = MailLedger(ledger, await processes.register(ledger, "relay"))
        campaign = await mails[0].campaign(_SOURCE, "bench", None, None, datetime.now(UTC))
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
        (_ALONE, one, 1, 600, _correlated, {}),
        (_EACH, mails, 20, 2_000, _correlated, {}),
        (_GROUPED, one, 20, 6_000, _correlated, {_ALONE: 0.0, _EACH: 0.0}),
        ("100 waiting, in groups", one, 100, 8_000, _correlated, {_ALONE: 0.0, _EACH: 0.0}),
        ("1,000 waiting, in groups", one, 1_000, 10_000, _correlated, {_ALONE: 0.0, _EACH: 0.0}),
        ("20 waiting, correlation, intent and result", [settling], 20, 1_500, _settled, {_GROUPED: 0.0}),
    ):
        run = partial(_run, ledgers, waiting, stage.scaled(messages), course, rows, campaign)
        yield Load(name=name, run=run, also=also)


async def _run(
    mails: Sequence[MailLedger], waiting: int, messages: int, course: _Course, rows: _Rows, campaign: int
) -> Outcome:
    """Store *messages*, so many *waiting* at a time, spread over *mails*."""
    due = iter([_message(campaign) for _ in range(messages)])
    latencies: list[float] = []
    refused = 0

    async def wait(mail: MailLedger) -> None:
        nonlocal refused
        for message in due:
            started = perf_counter()
            refused += not await course(mail, message)
            latencies.append((perf_counter() - started) * 1_000_000)

    started = perf_counter()
    await asyncio.gather(*(wait(mails[number % len(mails)]) for number in range(waiting)))
    seconds = perf_counter() - started
    flaw = f"{refused} were not stored" if refused else await rows.flaw(messages)
    return Outcome(units=messages, seconds=seconds, latencies_us=latencies, flaw=flaw)


async def _correlated(mail: MailLedger, message: NewMessage) -> bool:
    return await mail.correlate(message) is not None


async def _settled(mail: MailLedger, message: NewMessage) -> bool:
    """Store all that a message leaves in the ledger on its way: three commits, one after the other."""
    found = await mail.correlate(message)
    if found is None:
        return False
    await mail.mark_dot(found.id, found.turn)
    key = secrets.token_bytes(16)
    return await mail.settle(
        Settlement(
            id=found.id,
            turn=found.turn,
            status="sent",
            upstream="127.0.0.1:25",
            reply="250 2.0.0 Ok: queued as 1",
            alias=key,
            dedupe=key,
        )
    )


def _message(campaign: int) -> NewMessage:
    raw = secrets.token_bytes(16)
    key = key_text(raw)
    return NewMessage(
        key=key,
        accepted_at=datetime.now(UTC),
        campaign=campaign,
        submission=None,
        generation=0,
        size=20_000,
        links=20,
        injected=True,
        reason=None,
        source=_SOURCE,
        campaign_reason=None,
        sender="bounce@example.com",
        recipient=f"{key}@example.net",
        recipient_index=raw,
        message_id=MessageId(f"{key}@example.com"),
        original_message_id=f"{key}@mailer.example.com",
        body_digest=raw,
        alias=raw,
    )
