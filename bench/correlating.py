"""Correlate and settle without mail: what the ledger alone takes, as the relay's group commits ask it."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from time import perf_counter
from typing import Final

from bench.mailing import Connection
from bench.paired import Outcome
from ledger import processes
from ledger.ids import MessageId, key_text
from ledger.mail import MailLedger
from ledger.mail_rows import NewMessage, Settlement
from ledger.store import Ledger, open_ledger

#: Whose mail it is.
SOURCE: Final = "default"
#: What is correlated and never sent is in nobody's hands afterwards: a relay would take it over.
_LET_GO: Final = """
UPDATE delivery SET status = 'sent', worker = NULL, settled_at = now() WHERE worker = $1 AND status = 'accepted'
"""

#: Stores one message; gives whether it was stored.
Course = Callable[[MailLedger, NewMessage], Awaitable[bool]]


class Correlating:
    """Correlates messages that are new, with random keys and aliases."""

    def __init__(self, ledger: Ledger, connection: Connection) -> None:
        self._ledger = ledger
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def on(cls, database_url: str, connection: Connection) -> AsyncIterator["Correlating"]:
        """Work on a ledger for the time of the block."""
        async with open_ledger(database_url, connections=4, by_index=True) as ledger:
            yield cls(ledger, connection)

    async def run(self, messages: int, *, waiting: int, whole: bool = False) -> Outcome:
        """Correlate so many *messages*, so many *waiting* at a time; *whole*, with their intents and results."""
        process = await processes.register(self._ledger, "relay")
        mail = MailLedger(self._ledger, process)
        campaign = await mail.campaign(SOURCE, "42", None, None, datetime.now(UTC))
        course = settled if whole else correlated
        refused, seconds, latencies = await stored([mail], course, campaign, messages=messages, waiting=waiting)
        let_go = int((await self._connection.execute(_LET_GO, process)).split()[-1])
        expected = 0 if whole else messages
        flaw = None if (refused, let_go) == (0, expected) else f"{refused} refused, {let_go} not sent, not {expected}"
        return Outcome(units=messages, seconds=seconds, latencies_us=latencies, flaw=flaw)


async def stored(
    mails: Sequence[MailLedger], course: Course, campaign: int, *, messages: int, waiting: int
) -> tuple[int, float, list[float]]:
    """Have *course* store new messages, so many *waiting* at a time, spread over *mails*.

    Return how many were refused, the seconds that all took, and the microseconds that each did.
    """
    due = iter([_message(campaign) for _ in range(messages)])
    latencies: list[float] = []

    async def wait(mail: MailLedger) -> int:
        refused = 0
        for message in due:
            started = perf_counter()
            refused += not await course(mail, message)
            latencies.append((perf_counter() - started) * 1_000_000)
        return refused

    started = perf_counter()
    refused = sum(await asyncio.gather(*(wait(mails[number % len(mails)]) for number in range(waiting))))
    return refused, perf_counter() - started, latencies


async def correlated(mail: MailLedger, message: NewMessage) -> bool:
    """Correlate a message; tell whether it was new."""
    return await mail.correlate(message) is not None


async def settled(mail: MailLedger, message: NewMessage) -> bool:
    """Leave all that a message leaves in the ledger on its way; the upstream gives it an id of its own."""
    found = await mail.correlate(message)
    if found is None:
        return False
    await mail.mark_dot(found.id, found.turn)
    return await mail.settle(
        Settlement(
            id=found.id,
            turn=found.turn,
            status="sent",
            upstream="127.0.0.1:25",
            reply="250 2.0.0 Ok: queued as 4F2A1B3C9D",
            alias=secrets.token_bytes(16),
            dedupe=secrets.token_bytes(16),
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
        source=SOURCE,
        campaign_reason=None,
        sender="bounce@example.com",
        recipient=f"{key}@example.net",
        recipient_index=secrets.token_bytes(16),
        message_id=MessageId(f"{key}@example.com"),
        original_message_id=f"{key}@mailer.example.com",
        body_digest=secrets.token_bytes(32),
        alias=secrets.token_bytes(16),
    )
