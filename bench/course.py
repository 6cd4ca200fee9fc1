"""Run a batch of mail through a relay, and look at what arrived.

Nothing may be lost or doubled, and what should be rewritten is.
"""

import email
import re
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec

from bench import mails
from bench.mailer import Batch, submit, submit_watched
from bench.paired import Outcome
from bench.sink import Arrived, Sink

#: Of the page that is sent.
_OWN_LINKS: Final = 18
LINKS: Final = _OWN_LINKS + mails.OUTLOOK_LINKS
PUBLIC_URL: Final = "https://track.example.com"

_TRACKED: Final = re.compile(rb'(?:href|src)="' + re.escape(PUBLIC_URL.encode()) + rb'/track/([co])/[\w.~-]+"')


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Who is offered mail: a relay, or the sink itself."""

    port: int
    pids: tuple[int, ...] = ()
    #: It makes a message for each recipient, with links and a Message-ID of its own.
    tracks: bool = False
    #: It is Outrider, whose ledger has to know of every message.
    correlates: bool = False


class Course:
    """Runs batches, and remembers how many messages the ledger had."""

    def __init__(self, sink: Sink, connection: "asyncpg.Connection[asyncpg.Record]", directory: Path) -> None:
        self.sink = sink
        self.directory = directory
        self._connection = connection
        self._sent = 0

    async def run(self, batch: Batch, target: Target, *, watched: bool = False, counted: bool = True) -> Outcome:
        """Submit *batch* to *target*; *watched*, by ourselves. What is not *counted* goes to another sink."""
        await self.sink.begin()
        if watched:
            submitted = await submit_watched(batch, port=target.port)
        else:
            submitted = await submit(batch, port=target.port, directory=self.directory)
        flaw = submitted.flaw
        if target.correlates:
            flaw = await self._ledger_flaw(batch.units) or flaw
        if counted:
            flaw = flaw or arrival_flaw(await self.sink.report(), batch, tracks=target.tracks)
        return Outcome(units=batch.units, seconds=submitted.seconds, latencies_us=submitted.latencies_us, flaw=flaw)

    async def _ledger_flaw(self, expected: int) -> str | None:
        rows = await self._connection.fetch("SELECT status::text, count(*) AS n FROM delivery GROUP BY status")
        found = {row["status"]: int(row["n"]) for row in rows}
        before, self._sent = self._sent, found.pop("sent", 0)
        if found:
            return f"the ledger says {found} beside what was sent"
        new = self._sent - before
        return None if new == expected else f"the ledger has {new} messages more, not {expected}"


def newsletter() -> bytes:
    """Return the message that is sent: 20 KB, multipart/alternative, 20 links."""
    page = mails.newsletter(links=_OWN_LINKS, octets=17_000, per_card=2)
    return mails.message(page, "quoted-printable")


def arrival_flaw(arrived: Arrived, batch: Batch, *, tracks: bool) -> str | None:
    """Return what is wrong with what the sink saw of *batch*; None: everything came once, and as it should."""
    messages = batch.units if tracks else batch.messages
    if (arrived.messages, arrived.recipients) != (messages, batch.units):
        return f"{arrived.messages} messages to {arrived.recipients} recipients, not {messages} to {batch.units}"
    if not tracks:
        return None
    if arrived.message_ids != messages:
        return f"{arrived.message_ids} different Message-IDs, not {messages}"
    clicks, opens = tracked(arrived.content)
    return None if (clicks, opens) == (LINKS, 1) else f"{clicks} links and {opens} pixels, not {LINKS} and 1"


def tracked(content: bytes) -> tuple[int, int]:
    """Return how many signed links and pixels a message has, as the standard library reads it."""
    read = email.message_from_bytes(content.replace(b"\r\n..", b"\r\n."))
    pages: list[Any] = [part.get_payload(decode=True) for part in read.walk() if part.get_content_type() == "text/html"]
    kinds = [match[1] for page in pages for match in _TRACKED.finditer(page)]
    return kinds.count(b"c"), kinds.count(b"o")
