"""Mail in, in order: stamp, inject, correlate, forward; then, and only then, the reply.

250 is said when every recipient is decided and recorded. The upstream is tried while the mailer waits, at most
VERDICT_WAIT; whatever is not decided by then is stored. Whoever hangs up meanwhile changes nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from prometheus_client import Counter, Histogram

from injector.tokens import Keyring
from ledger import ids
from ledger.ids import key_bytes
from ledger.mail import MailLedger, Queued
from ledger.store import UNAVAILABLE
from relay import replies, stamp
from relay.correlate import Busy, Ready, Standing, correlate
from relay.flight import Flight, fly
from relay.forward import Forwarder
from relay.hands import Hands
from relay.inject import Profile, UrlMinter
from relay.intake import Submission
from relay.patience import patiently, surely
from relay.replies import Reply
from relay.settings import RelaySettings
from relay.stamp import Draft
from relay.upstream import Letter, Trouble, Verdict

log = structlog.get_logger()

STORED = Counter("outrider_stored_total", "Messages stored to be sent later, by why.", ["reason"])
NOT_INJECTED = Counter("outrider_not_injected_total", "Messages that left without tracking, by reason.", ["reason"])
VERDICT_SECONDS = Histogram("outrider_verdict_seconds", "Seconds from the final dot to the reply.")

# Reading a message this large takes long enough to be felt by the others on this loop.
_LARGE = 256 * 1024

Refused = Callable[[Draft, Sequence[tuple[str, Verdict]]], Awaitable[None]]


class Pipeline:
    """Decides about submissions: the relay's `Acceptor`.

    *has_room* says whether a body of so many octets may be stored; *on_refused* tells a sender which recipients of a
    message that was accepted will not get it.
    """

    def __init__(
        self,
        *,
        ledger: MailLedger,
        forwarder: Forwarder,
        settings: RelaySettings,
        ams_headers: Sequence[str],
        identity_key: bytes,
        keyring: Keyring,
        profile: Profile,
        has_room: Callable[[int], bool],
        on_refused: Refused,
    ) -> None:
        self._ledger = ledger
        self._forwarder = forwarder
        self._settings = settings
        self._ams_headers = tuple(ams_headers)
        self._identity_key = identity_key
        self._keyring = keyring
        self._profile = profile
        self._has_room = has_room
        self._on_refused = on_refused
        self._hands = Hands()
        self._late: set[asyncio.Task[None]] = set()

    async def accept(self, submission: Submission) -> Reply:
        """Decide and record every recipient, then return the reply to the final dot."""
        with VERDICT_SECONDS.time():
            draft = await self._read(submission)
            recipients = stamp.unique_recipients(submission.recipients)
            identities = [
                stamp.address(draft, recipient, identity_key=self._identity_key, generation=0).key
                for recipient in recipients
            ]
            hand = await self._hands.take(identities, patience=self._settings.verdict_wait)
            if hand is None:
                return replies.LOCAL_ERROR
            try:
                standings, submission_key = await self._correlate(draft, recipients)
                return await self._forward(draft, standings, submission_key)
            except UNAVAILABLE as error:
                log.warning("ledger_unavailable", error=type(error).__name__)
                return replies.LOCAL_ERROR
            finally:
                self._hands.release(hand)

    async def close(self, *, patience: float) -> None:
        """Wait up to *patience* seconds for messages whose final dot is out."""
        if self._late:
            await asyncio.wait(self._late, timeout=patience)
        for task in self._late:
            task.cancel()

    async def _read(self, submission: Submission) -> Draft:
        if len(submission.content) > _LARGE:
            return await asyncio.to_thread(self._draft, submission)
        return self._draft(submission)

    def _draft(self, submission: Submission) -> Draft:
        return stamp.draft_of(submission, settings=self._settings, ams_headers=self._ams_headers, profile=self._profile)

    async def _correlate(self, draft: Draft, recipients: Sequence[str]) -> tuple[list[Standing], str]:
        """Commit every recipient's correlation; return where each stands, and the key for the 250."""
        wait = self._settings.ledger_wait
        campaign: int | None = None
        named = draft.campaign
        if (name := named.id) is not None:
            source = draft.submission.source
            campaign = await patiently(lambda: self._ledger.campaign(source, name, named.ams_mailing), seconds=wait)
        group = await patiently(self._ledger.next_submission, seconds=wait) if len(recipients) > 1 else None

        async def one(recipient: str) -> Standing:
            return await patiently(
                lambda: correlate(
                    draft,
                    recipient,
                    ledger=self._ledger,
                    identity_key=self._identity_key,
                    campaign=campaign,
                    submission=group,
                    patience=self._settings.verdict_wait,
                ),
                seconds=wait,
            )

        standings = await asyncio.gather(
            *map(one, recipients),
            return_exceptions=True,
        )
        decided = [standing for standing in standings if not isinstance(standing, BaseException)]
        for error in standings:
            if isinstance(error, BaseException):
                # What was correlated leaves our hands unsent; the mailer comes again and finds it.
                await self._refuse([standing for standing in decided if isinstance(standing, Ready)])
                raise error
        keys = [standing.addressed.key for standing in decided]
        if group is None:
            return decided, keys[0]
        key = ids.submission_key(self._identity_key, keys)
        received_at = draft.submission.received_at
        await patiently(lambda: self._ledger.enter_submission(group, key, received_at), seconds=wait)
        return decided, key

    async def _forward(self, draft: Draft, standings: Sequence[Standing], submission_key: str) -> Reply:
        """Try the upstream, store what it does not decide, and return the reply."""
        ready = [standing for standing in standings if isinstance(standing, Ready)]
        held = [one for one in ready if one.paused]
        flights = await fly(
            [one for one in ready if not one.paused],
            forwarder=self._forwarder,
            letter=lambda one: self._letter(draft, one),
            seconds=self._settings.verdict_wait,
        )
        undecided = [flight for flight in flights if not isinstance(flight.outcome, Verdict)]
        if (undecided or held) and (failure := await self._store(draft, undecided, held)) is not None:
            return failure
        refused = [
            (flight.ready.addressed.recipient, outcome)
            for flight in flights
            if isinstance(outcome := flight.outcome, Verdict) and not outcome.accepted
        ]
        if any(isinstance(standing, Busy) for standing in standings):
            return replies.LOCAL_ERROR
        if refused and len(refused) == len(standings):
            return Reply.passed_through(refused[0][1].code, refused[0][1].text)
        if refused:
            await self._on_refused(draft, refused)
        return replies.queued(submission_key)

    def _letter(self, draft: Draft, ready: Ready) -> Letter:
        minter = UrlMinter(self._keyring, draft.profile.options.public_url, key_bytes(ready.addressed.key))

        def content() -> bytes:
            rendered = stamp.render(draft, ready.addressed, minter)
            if not rendered.injected:
                NOT_INJECTED.labels(rendered.reason or "nothing_to_inject").inc()
            return rendered.content

        return Letter(
            key=ready.addressed.key,
            sender=draft.submission.sender,
            recipient=ready.addressed.recipient,
            smtputf8=draft.submission.smtputf8,
            render=content,
        )

    async def _store(self, draft: Draft, undecided: Sequence[Flight], held: Sequence[Ready]) -> Reply | None:
        """Store what is not decided; return the reply that says why it could not be."""
        failure = None
        if undecided and self._settings.on_trouble == "defer":
            failure = replies.UPSTREAM_TROUBLE
        elif not self._has_room(len(draft.submission.content)):
            failure = replies.NO_ROOM
        else:
            try:
                await self._queue(draft, undecided, held)
            except UNAVAILABLE as error:
                log.warning("ledger_unavailable", error=type(error).__name__)
                failure = replies.LOCAL_ERROR
        late = [flight for flight in undecided if flight.outcome is None]
        if failure is None:
            for flight in late:
                self._follow(flight)
            return None
        if late:
            # A final dot without an answer, and nothing stored: the mailer has to wait, or there would be two.
            await asyncio.wait([flight.task for flight in late])
        unsent = [flight.ready for flight in undecided if not isinstance(flight.outcome, Verdict)]
        await self._refuse([*held, *unsent])
        return failure if held or unsent else None

    async def _queue(self, draft: Draft, undecided: Sequence[Flight], held: Sequence[Ready]) -> None:
        entries = [
            Queued(
                id=flight.ready.id,
                dotted=flight.outcome is None,
                wait=self._settings.retry_first,
                reply=flight.outcome.reply if isinstance(flight.outcome, Trouble) else None,
            )
            for flight in undecided
        ]
        entries += [Queued(id=one.id, dotted=False, wait=0.0, reply=None) for one in held]
        envelope = stamp.stored(draft)
        await patiently(
            lambda: self._ledger.queue(
                entries,
                envelope=envelope,
                profile=draft.profile.digest,
                content=draft.submission.content,
                upstream=self._forwarder.upstream_name,
            ),
            seconds=self._settings.ledger_wait,
        )
        for flight in undecided:
            STORED.labels(flight.outcome.reason if isinstance(flight.outcome, Trouble) else "slow").inc()
        STORED.labels("held").inc(len(held))
        log.info("messages_stored", count=len(entries))

    async def _refuse(self, ready: Sequence[Ready]) -> None:
        # They were told to come again: found refused, they are tried again under the same keys.
        for one in ready:
            await self._forwarder.refuse(one.id)

    def _follow(self, flight: Flight) -> None:
        task = asyncio.create_task(self._finish(flight))
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _finish(self, flight: Flight) -> None:
        """Wait for the answer to a final dot that is out; a verdict is recorded by the flight itself."""
        await asyncio.wait([flight.task])
        outcome = flight.outcome
        if isinstance(outcome, Trouble):
            await surely(
                lambda: self._ledger.postpone(
                    flight.ready.id,
                    wait=self._settings.retry_first,
                    reply=outcome.reply,
                    doubtful=outcome.doubtful,
                    upstream=self._forwarder.upstream_name,
                )
            )
