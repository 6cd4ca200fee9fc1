"""A relay without its listener: the pipeline, the queue and the ledger as the relay's process wires them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import injector
from injector.dkim import Signer
from injector.tokens import Keyring
from ledger import processes
from ledger.mail import MailLedger
from ledger.sealing import Sealer
from ledger.store import Ledger, open_ledger
from relay.forward import Forwarder, Upstream
from relay.inject import Profile
from relay.intake import Submission
from relay.notify import Notifier
from relay.pipeline import Pipeline
from relay.queue import Queue
from relay.settings import RelaySettings
from relay.stamp import Draft
from relay.upstream import Verdict
from relay.upstream_address import parse
from relay.upstream_pool import SmtpUpstream
from relay.upstreams import Upstreams

IDENTITY = b"a test's identity key"
SIGNING = b"a test's signing key"
PUBLIC_URL = "http://127.0.0.1:8080"


class Relay:
    """One process's worth of relay."""

    def __init__(self, ledger: Ledger, process: int, upstream: Upstream, settings: RelaySettings) -> None:
        self.ledger = ledger
        self.mail = MailLedger(ledger, process)
        self.forwarder = Forwarder(upstream, self.mail)
        self.keyring = Keyring([SIGNING])
        self.profile = Profile(
            options=injector.Options(public_url=PUBLIC_URL),
            signing=self.keyring.fingerprint,
            strip=(),
            hostname="relay.example.com",
        )
        self.notifier = Notifier(upstream=upstream.name)
        self.refused: list[tuple[str, Verdict]] = []
        self.has_room = True
        self.pipeline = Pipeline(
            ledger=self.mail,
            forwarder=self.forwarder,
            settings=settings,
            ams_headers=("X-Id-Mail",),
            identity_key=IDENTITY,
            keyring=self.keyring,
            signer=Signer(),
            profile=self.profile,
            has_room=lambda _: self.has_room,
            tell=self._tell,
        )
        self.notifier.acceptor = self.pipeline
        self.queue = Queue(
            ledger=self.mail,
            forwarder=self.forwarder,
            settings=settings,
            ams_headers=("X-Id-Mail",),
            keyring=self.keyring,
            signer=Signer(),
            tell=self._tell,
            room=upstream.room if isinstance(upstream, Upstreams) else None,
        )

    def _tell(self, draft: Draft, refused: Sequence[tuple[str, Verdict]]) -> None:
        self.refused += refused
        self.notifier.tell(draft, refused)

    async def statuses(self) -> list[str]:
        """Return the state of every message, oldest first."""
        async with self.ledger.session() as session:
            rows = await session._connection.fetch("SELECT status::text FROM delivery ORDER BY message")
        return [row[0] for row in rows]

    async def run_queue(self, stopping: asyncio.Event) -> None:
        """Make everything due now, and work on the queue until *stopping*."""
        async with self.ledger.session() as session:
            await session._connection.execute("UPDATE delivery SET next_at = now() WHERE status = 'queued'")
        await self.queue.run(stopping)


@asynccontextmanager
async def relaying(
    database_url: str,
    upstream: Upstream | str,
    settings: RelaySettings | None = None,
    *,
    sealer: Sealer | None = None,
) -> AsyncIterator[Relay]:
    """Wire a relay to *upstream*, given as itself or as a URL; its ledger seals with *sealer*."""
    own = settings or RelaySettings(verdict_wait=5.0, ledger_wait=5.0)
    where = SmtpUpstream(parse(upstream), hostname="relay.example.com") if isinstance(upstream, str) else upstream
    async with open_ledger(database_url, sealer=sealer, by_index=True) as ledger:
        relay = Relay(ledger, await processes.register(ledger, "relay"), where, own)
        await relay.mail.remember_profile(relay.profile.digest, relay.profile.encode())
        try:
            yield relay
        finally:
            await relay.queue.close(patience=5.0)
            await relay.pipeline.close(patience=5.0)
            await relay.notifier.close(patience=5.0)
            await relay.forwarder.close(patience=5.0)
            await relay.mail.close()


def submission(
    *recipients: str,
    message_id: str | None = "<original@mailer.example>",
    body: str = '<html><body><a href="https://example.com/?a=1&amp;b=2">x</a></body></html>',
    campaign: str | None = "65",
    sender: str = "bounce@shop.example",
    extra: str = "",
) -> Submission:
    """Return an ordinary HTML message as a mailer submits it."""
    lines = ["From: Shop <news@shop.example>", "To: everybody@example.net", "Subject: Sale"]
    lines.append("Date: Sun, 22 Nov 2026 10:00:00 +0000")
    if message_id is not None:
        lines.append(f"Message-ID: {message_id}")
    if campaign is not None:
        lines.append(f"X-Id-Mail: [{campaign}]")
    lines += ["MIME-Version: 1.0", "Content-Type: text/html; charset=utf-8"]
    header = "".join(line + "\r\n" for line in lines) + extra
    return Submission(
        sender=sender,
        recipients=recipients or ("ann@example.net",),
        content=(header + "\r\n" + body + "\r\n").encode(),
        source="default",
        client="127.0.0.1",
        helo="mailer.example",
        protocol="ESMTP",
        smtputf8=False,
        eight_bit=False,
        received_at=datetime.now(UTC),
    )
