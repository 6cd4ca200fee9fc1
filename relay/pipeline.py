"""Mail in, in order: stamp, inject, correlate, forward; then, and only then, the reply.

250 is said when every recipient is decided and recorded. The upstream is tried while the mailer waits, at most
VERDICT_WAIT; whatever is not decided by then is stored. Whoever hangs up meanwhile changes nothing.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog
from prometheus_client import Counter, Histogram

from injector.dkim import Signer
from injector.tokens import Keyring
from ledger import ids
from ledger.ids import key_bytes
from ledger.mail import MailLedger
from ledger.mail_rows import Queued
from ledger.store import UNAVAILABLE
from providers.webhook import Provider
from relay import replies, stamp
from relay.correlate import Busy, Ready, Standing, correlate
from relay.flight import Flight, fly
from relay.forward import DOUBTS, Forwarder
from relay.hands import Hands
from relay.inject import Profile, UrlMinter
from relay.intake import Submission
from relay.notify import is_notice
from relay.patience import patiently, surely
from relay.replies import Reply
from relay.settings import RelaySettings
from relay.stamp import Addressed, Draft
from relay.upstream import Letter, Outcome, Trouble, Verdict

log = structlog.get_logger()

STORED = Counter("outrider_stored_total", "Messages stored to be sent later, by why.", ["reason"])
NOT_INJECTED = Counter("outrider_not_injected_total", "Messages that left without tracking, by reason.", ["reason"])
VERDICT_SECONDS = Histogram("outrider_verdict_seconds", "Seconds from the final dot to the reply.")

# Reading a message this large takes long enough to be felt by the others on this loop.
_LARGE = 256 * 1024

#: Tells a sender which recipients of a message that was answered 250 will not get it.
Tell = Callable[[Draft, Sequence[tuple[str, Verdict]]], None]


class Pipeline:
    """Decides about submissions: the relay's `Acceptor`.

    *has_room* says whether a body of so many octets may be stored.
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
        signer: Signer,
        profile: Profile,
        has_room: Callable[[int], bool],
        tell: Tell,
    ) -> None:
        self._ledger = ledger
        self._forwarder = forwarder
        self._settings = settings
        self._ams_headers = tuple(ams_headers)
        self._identity_key = identity_key
        self._keyring = keyring
        self._signer = signer
        self._profile = profile
        self._has_room = has_room
        self._tell = tell
        self._hands = Hands()
        #: The rows that this process has in hand: what the ledger says beyond that is an orphan.
        self.in_hand: set[int] = set()
        self._late: set[asyncio.Task[None]] = set()
        self._followed: set[int] = set()

    async def accept(self, submission: Submission) -> Reply:
        """Decide and record every recipient, then return the reply to the final dot."""
        with VERDICT_SECONDS.time():
            draft = await self._read(submission)
            recipients = stamp.unique_recipients(submission.recipients)
            addressed = [
                stamp.address(draft, recipient, identity_key=self._identity_key, generation=0)
                for recipient in recipients
            ]
            hand = await self._hands.take([one.key for one in addressed], patience=self._settings.verdict_wait)
            if hand is None:
                return replies.LOCAL_ERROR
            ready: list[Ready] = []
            try:
                standings = await self._correlate(draft, addressed, ready)
                self.in_hand.update(one.id for one in ready)
                submission_key = await self._enter(draft, standings)
                return await self._forward(draft, standings, submission_key)
            except UNAVAILABLE as error:
                log.warning("ledger_unavailable", error=type(error).__name__)
                await self._refuse(ready)
                return replies.LOCAL_ERROR
            finally:
                self.in_hand.difference_update(one.id for one in ready if one.id not in self._followed)
                self._hands.release(hand)

    async def close(self, *, patience: float) -> None:
        """Wait up to *patience* seconds for messages whose final dot is out."""
        if self._late:
            await asyncio.wait(self._late, timeout=patience)
        for task in self._late:
            task.cancel()

    async def _read(self, submission: Submission) -> Draft:
        if len(submission.content) > _LARGE:
            return await asyncio.to_thread(self._draft, submission, recalls=False)
        return self._draft(submission)

    def _draft(self, submission: Submission, *, recalls: bool = True) -> Draft:
        return stamp.draft_of(
            submission,
            settings=self._settings,
            ams_headers=self._ams_headers,
            profile=self._profile,
            recalls=recalls,
        )

    async def _correlate(self, draft: Draft, addressed: Sequence[Addressed], ready: list[Ready]) -> list[Standing]:
        """Commit every recipient's correlation; return where each stands, and enter what is ours into *ready*."""
        wait = self._settings.ledger_wait
        campaign: int | None = None
        named = draft.campaign
        if (name := named.id) is not None:
            words = (draft.submission.source, name, named.ams_mailing, named.to_send)
            campaign = self._ledger.known_campaign(*words)
            if campaign is None:
                campaign = await patiently(
                    lambda: self._ledger.campaign(*words, draft.submission.received_at), seconds=wait
                )
        group = await patiently(self._ledger.next_submission, seconds=wait) if len(addressed) > 1 else None
        found = await correlate(
            draft,
            addressed,
            ledger=self._ledger,
            identity_key=self._identity_key,
            campaign=campaign,
            submission=group,
            patience=self._settings.verdict_wait,
            ledger_wait=wait,
        )
        standings = [standing for standing in found if not isinstance(standing, BaseException)]
        ready += [standing for standing in standings if isinstance(standing, Ready)]
        for error in found:
            if isinstance(error, BaseException):
                raise error
        return standings

    async def _enter(self, draft: Draft, standings: Sequence[Standing]) -> str:
        """Return the key for the 250, under which the transaction's messages are found."""
        keys = [standing.addressed.key for standing in standings]
        if len(keys) == 1:
            return keys[0]
        key = ids.submission_key(self._identity_key, keys)
        # A repeat finds its rows under the submission that entered them; rows that came one by one have none.
        groups = [standing.submission for standing in standings if standing.submission is not None]
        if not groups:
            return keys[0]
        entered = min(groups)
        received_at = draft.submission.received_at
        await patiently(
            lambda: self._ledger.enter_submission(entered, key, received_at), seconds=self._settings.ledger_wait
        )
        return key

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
            self._tell(draft, refused)
        return replies.queued(submission_key)

    def _letter(self, draft: Draft, ready: Ready) -> Letter:
        minter = UrlMinter(self._keyring, draft.profile.options.public_url, key_bytes(ready.addressed.key))

        def content(provider: Provider | None) -> bytes:
            rendered = stamp.render(draft, ready.addressed, minter, self._signer, provider)
            if not rendered.injected:
                NOT_INJECTED.labels(rendered.reason or "nothing_to_inject").inc()
            return rendered.content

        return Letter(
            key=ready.addressed.key,
            sender=draft.submission.sender,
            recipient=ready.addressed.recipient,
            smtputf8=draft.submission.smtputf8,
            campaign=draft.campaign.id or "",
            throttle=ready.throttle,
            notice=is_notice(draft.submission),
            size=len(draft.submission.content),
            render=content,
        )

    async def _store(self, draft: Draft, undecided: Sequence[Flight], held: Sequence[Ready]) -> Reply | None:
        """Store what is not decided; return the reply that says why it could not be."""
        failure = None
        troubled = [flight for flight in undecided if not _is_held(flight.outcome)]
        if troubled and self._settings.on_trouble == "defer":
            failure = replies.UPSTREAM_TROUBLE
        elif not self._has_room(len(draft.submission.content)):
            failure = replies.NO_ROOM
        else:
            try:
                if await self._queue(draft, undecided, held):
                    return None
            except UNAVAILABLE as error:
                log.warning("ledger_unavailable", error=type(error).__name__)
            failure = replies.LOCAL_ERROR
        late = [flight.task for flight in undecided if not flight.task.done()]
        if late:
            # A final dot without an answer, and nothing stored: the mailer has to wait, or there would be two.
            await asyncio.wait(late)
        unsent = [flight for flight in undecided if not isinstance(flight.outcome, Verdict)]
        await self._refuse(held)
        for flight in unsent:
            outcome = flight.outcome
            doubtful = isinstance(outcome, Trouble) and outcome.doubtful
            tried = outcome.upstream if isinstance(outcome, Trouble) else ""
            await self._forwarder.refuse(flight.ready.id, flight.ready.turn, doubtful=doubtful, upstream=tried)
        return failure if held or unsent else None

    async def _queue(self, draft: Draft, undecided: Sequence[Flight], held: Sequence[Ready]) -> bool:
        """Store the body and queue what waits for it; false when a message is neither decided nor queued then."""
        # Asked once: while PostgreSQL is waited for, a flight may land.
        outcomes = [(flight, flight.outcome) for flight in undecided]
        entries = [self._entry(flight, outcome) for flight, outcome in outcomes]
        entries += [
            Queued(id=one.id, turn=one.turn, dotted=False, wait=0.0, reply=None, doubtful=False, tried=False)
            for one in held
        ]
        tried = next((one.upstream for _, one in outcomes if isinstance(one, Trouble) and one.upstream), "")
        stored = await patiently(
            lambda: self._ledger.queue(
                entries,
                envelope=stamp.stored(draft),
                profile=draft.profile.digest,
                content=draft.submission.content,
                upstream=tried or self._forwarder.upstream_name,
            ),
            seconds=self._settings.ledger_wait,
        )
        for flight, outcome in outcomes:
            STORED.labels(outcome.reason if isinstance(outcome, Trouble) else "slow").inc()
            DOUBTS.inc(isinstance(outcome, Trouble) and outcome.doubtful)
            if outcome is None and flight.ready.id in stored:
                self._follow(draft, flight)
        STORED.labels("held").inc(len(held))
        log.info("messages_stored", count=len(stored))
        landed = {flight.ready.id for flight in undecided if isinstance(flight.outcome, Verdict)}
        return stored | landed >= {entry.id for entry in entries}

    def _entry(self, flight: Flight, outcome: Outcome | None) -> Queued:
        trouble = outcome if isinstance(outcome, Trouble) else None
        return Queued(
            id=flight.ready.id,
            turn=flight.ready.turn,
            dotted=outcome is None,
            wait=self._settings.retry_first if trouble is None or trouble.wait is None else trouble.wait,
            reply=None if trouble is None else trouble.reply,
            doubtful=trouble is not None and trouble.doubtful,
            # What was told when to come again has not been offered to anybody; what is out counts when it is answered.
            tried=trouble is not None and trouble.wait is None,
        )

    async def _refuse(self, ready: Sequence[Ready]) -> None:
        # They were told to come again: found refused, they are tried again under the same keys.
        await asyncio.gather(*(self._forwarder.refuse(one.id, one.turn, doubtful=False) for one in ready))

    def _follow(self, draft: Draft, flight: Flight) -> None:
        task = asyncio.create_task(self._finish(draft, flight))
        self._followed.add(flight.ready.id)
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _finish(self, draft: Draft, flight: Flight) -> None:
        """Wait for the answer to a final dot that is out; a verdict is recorded by the flight itself."""
        ready = flight.ready
        try:
            await asyncio.wait([flight.task])
            match outcome := flight.outcome:
                case Trouble():
                    DOUBTS.inc(outcome.doubtful)
                    await surely(
                        lambda: self._ledger.postpone(
                            ready.id,
                            ready.turn,
                            wait=self._settings.retry_first,
                            reply=outcome.reply,
                            doubtful=outcome.doubtful,
                            upstream=outcome.upstream or self._forwarder.upstream_name,
                        )
                    )
                case Verdict() if not outcome.accepted:
                    # The mailer was answered 250 meanwhile.
                    self._tell(draft, [(ready.addressed.recipient, outcome)])
        finally:
            self._followed.discard(ready.id)
            self.in_hand.discard(ready.id)


def _is_held(outcome: Outcome | None) -> bool:
    return isinstance(outcome, Trouble) and outcome.held
