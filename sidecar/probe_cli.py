"""What `probe` does: send one message through an upstream, and say by which ids its provider's events find it.

The message is stamped, correlated and forwarded as every other is; a tracker that takes the provider's webhooks and a
courier must run. It belongs to no campaign.
"""

import argparse
import asyncio
import email.utils
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP

import msgspec

from injector.tokens import Keyring
from ledger import reports
from ledger import standing as whole
from ledger.ids import MessageKey
from ledger.mail import MailLedger
from ledger.reports import Event, Message, MessageFilter
from ledger.store import Ledger
from relay.forward import Forwarder
from relay.intake import Submission
from relay.pipeline import Pipeline
from relay.upstream_address import parse
from sidecar import dkim_keys
from sidecar.answers import mailbox, say
from sidecar.failures import CommandError
from sidecar.keys import load_keys
from sidecar.reach import opened
from sidecar.settings import CAPTURE, Settings
from sidecar.wiring.presence import hostname, present
from sidecar.wiring.relay import profile_of
from sidecar.wiring.upstreams import upstream_of

_LOOK_SECONDS = 1.0
_EVENTS = 200
_PARKED = 20


async def probe(settings: Settings, given: argparse.Namespace) -> int:
    """Send, print the upstream's answer, and wait for events; 0 when the upstream took it."""
    settings = _with_upstream(settings, given.upstream)
    try:
        recipient, sender = mailbox(given.to), mailbox(given.sender or f"outrider@{hostname(settings)}")
    except ValueError as error:
        raise CommandError(f"probe: {error}", code=2) from error
    async with opened(settings, connections=4) as ledger:
        begun = datetime.now(UTC)
        async with _pipeline(settings, ledger) as pipeline:
            reply = await pipeline.accept(_submission(settings, sender, recipient, begun))
        if reply.code != 250:
            say([f"refused: {reply}"])
            return 1
        key = MessageKey(reply.text.rpartition(" ")[2])
        message = await _message(ledger, key)
        say(_sent_lines(settings, message))
        found = await _watch(ledger, key, seconds=given.wait) if given.wait else []
        if given.wait:
            parked = [one for one in await whole.unmatched(ledger, limit=_PARKED) if one.parked_at >= begun]
            say(_summary_lines(found, Counter((one.source, one.reason) for one in parked)))
    return 0


def _with_upstream(settings: Settings, url: str | None) -> Settings:
    if url is not None:
        try:
            parse(url)
        except ValueError as error:
            raise CommandError(f"probe: --upstream: {error}", code=2) from error
    where = settings.relay.upstream if url is None else (url,)
    if not where:
        raise CommandError("probe: name an upstream with --upstream, or set relay.upstream", code=2)
    # Trouble is told, not queued: somebody waits for it.
    own = msgspec.structs.replace(settings.relay, upstream=where, routes=(), on_trouble="defer", dsn="off")
    return msgspec.structs.replace(settings, relay=own)


@asynccontextmanager
async def _pipeline(settings: Settings, ledger: Ledger) -> AsyncIterator[Pipeline]:
    keys = load_keys(settings)
    keyring, signer = Keyring(keys.signing), dkim_keys.load_signer(settings.inject.dkim_keys)
    profile = profile_of(settings, keyring, signer)
    async with present(ledger, "probe") as process:
        mail = MailLedger(ledger, process)
        await mail.remember_profile(profile.digest, profile.encode())
        forwarder = Forwarder(upstream_of(settings, hostname(settings)), mail, settle_wait=settings.relay.ledger_wait)
        pipeline = Pipeline(
            ledger=mail,
            forwarder=forwarder,
            settings=settings.relay,
            ams_headers=(),
            identity_key=keys.identity,
            keyring=keyring,
            signer=signer,
            profile=profile,
            has_room=lambda _: True,
            tell=lambda _draft, _refused: None,
        )
        try:
            yield pipeline
        finally:
            await pipeline.close(patience=settings.relay.verdict_wait)
            await forwarder.close(patience=settings.relay.ledger_wait)
            await mail.close()


def _submission(settings: Settings, sender: str, recipient: str, now: datetime) -> Submission:
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"], message["Subject"] = sender, recipient, "Outrider probe"
    message["Date"] = email.utils.format_datetime(now)
    message.set_content("Open the HTML part, or follow its link, and `outrider probe` says what came of it.\n")
    link = "https://example.com/outrider-probe"
    message.add_alternative(f'<p>Open this, or <a href="{link}">follow this link</a>.</p>\n', subtype="html")
    return Submission(
        sender=sender,
        recipients=(recipient,),
        content=message.as_bytes(),
        source="default",
        client="",
        helo=hostname(settings),
        protocol="ESMTP",
        smtputf8=not recipient.isascii(),
        eight_bit=False,
        received_at=now,
    )


async def _message(ledger: Ledger, key: MessageKey) -> Message:
    rows = await reports.find_messages(ledger, key, None, b"")
    page = await reports.messages(ledger, MessageFilter(ids=rows), limit=1, events=_EVENTS)
    return page.messages[0]


def _sent_lines(settings: Settings, message: Message) -> list[str]:
    (url, *_) = settings.relay.upstream
    lines = [
        f"Message-ID that we wrote: <{message.message_id}>",
        f"the upstream's answer:    {message.upstream_reply}",
    ]
    if url == CAPTURE:
        return lines
    provider = parse(url).provider
    if provider is None:
        return [*lines, "profile:                  none; name one with profile= to have its events attributed"]
    named = provider.reply_id((message.upstream_reply or "").partition(" ")[2])
    kept = "reaches its events" if provider.keeps_message_id else "may not reach its events"
    return [
        *lines,
        f"profile:                  {provider.name}; our Message-ID {kept}",
        f"id in the answer:         {named or 'none that we know the shape of'}",
    ]


async def _watch(ledger: Ledger, key: MessageKey, *, seconds: float) -> list[Event]:
    """Print each event as it comes, for so many seconds, and return them all."""
    shown = 0
    events: tuple[Event, ...] = ()
    say([f"waiting {seconds:g} s for events; a running Outrider must take the provider's webhooks"])
    with_deadline = asyncio.timeout(seconds)
    try:
        async with with_deadline:
            while True:
                events = (await _message(ledger, key)).events
                say(_event_line(one) for one in events[shown:])
                shown = len(events)
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        if not with_deadline.expired():
            raise
    return list(events)


def _event_line(event: Event) -> str:
    step = f", found by {event.step}" if isinstance(event.step, str) else ""
    return f"{event.occurred_at:%H:%M:%S} {event.type} from {event.source}{step}"


def _summary_lines(events: list[Event], parked: Counter[tuple[str, str]]) -> list[str]:
    steps = Counter((one.source, one.step) for one in events if isinstance(one.step, str))
    lines = [f"{source}: {amount} found by {step}" for (source, step), amount in sorted(steps.items())]
    if not lines:
        lines = ["no event of a provider found this message: is its webhook set up, and its secret or topic named?"]
    return [*lines, *(f"{source}: {amount} parked as {reason}" for (source, reason), amount in sorted(parked.items()))]
