"""Send later what could not be sent at once: claim, render the same bytes again, forward, or put back.

Several processes may work on one queue: a message is claimed by one of them, and what a process held is taken over
when its lease has run out.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime

import structlog
from prometheus_client import Counter, Gauge

from injector.dkim import Signer
from injector.tokens import Keyring
from ledger.ids import key_bytes
from ledger.mail import MailLedger
from ledger.mail_rows import Claimed, Due
from ledger.store import UNAVAILABLE
from relay import stamp
from relay.forward import DOUBTS, Forwarder
from relay.inject import Profile, UrlMinter, decode_profile
from relay.notify import is_notice
from relay.patience import surely
from relay.settings import RelaySettings
from relay.stamp import Addressed, Draft
from relay.upstream import Letter, Outcome, Trouble, Verdict, label_of

log = structlog.get_logger()

RETRIES = Counter("outrider_queue_attempts_total", "Queued messages that were tried, by outcome.", ["outcome"])
DEPTH = Gauge("outrider_queue_messages", "Messages that wait in the queue.", multiprocess_mode="livemostrecent")
AGE = Gauge(
    "outrider_queue_oldest_seconds",
    "How long the oldest queued message has waited.",
    multiprocess_mode="livemostrecent",
)

#: The longest wait between two tries, in seconds.
LONGEST_WAIT = 4 * 3600.0

# Messages of one process in hand at once, and octets of stored submissions kept read.
_IN_HAND = 40
_READ_OCTETS = 64 * 1024 * 1024

# Seconds between two looks at a queue with nothing due.
_IDLE = 1.0
_NOTHING = Claimed(due=[], passed=0)


def retry_wait(attempts: int, *, first: float, chance: float) -> float:
    """Return the seconds until the next try: doubling from *first*, with a jitter of a tenth by *chance* (0 to 1)."""
    wait = min(first * 2.0 ** min(attempts, 30), LONGEST_WAIT)
    return wait * (0.9 + 0.2 * chance)


class Queue:
    """Works on the queue for one process.

    *room* says how many of so many messages the upstreams would take now: what nobody takes is left where it is.
    """

    def __init__(
        self,
        *,
        ledger: MailLedger,
        forwarder: Forwarder,
        settings: RelaySettings,
        ams_headers: Sequence[str],
        keyring: Keyring,
        signer: Signer,
        tell: Callable[[Draft, Sequence[tuple[str, Verdict]]], None],
        room: Callable[[int], int] | None = None,
    ) -> None:
        self._room = room or (lambda wanted: wanted)
        self._ledger = ledger
        self._forwarder = forwarder
        self._settings = settings
        self._ams_headers = tuple(ams_headers)
        self._keyring = keyring
        self._signer = signer
        self._tell = tell
        self._drafts: OrderedDict[tuple[date, int], asyncio.Task[Draft | None]] = OrderedDict()
        self._profiles: dict[bytes, Profile] = {}
        self._tasks: dict[asyncio.Task[None], int] = {}
        self._freed = asyncio.Event()

    async def run(self, stopping: asyncio.Event) -> None:
        """Claim and start work until *stopping*; `close` finishes what is in hand."""
        while not stopping.is_set():
            claimed = await self._claim()
            for due in claimed.due:
                self._start(due)
            if (not claimed.due and not claimed.passed) or not self._room(1):
                await _wait_for(stopping, _IDLE)
            elif len(self._tasks) >= _IN_HAND:
                self._freed.clear()
                await self._freed.wait()

    async def close(self, *, patience: float) -> None:
        """Wait up to *patience* seconds for what is in hand; the rest is taken over when this process is gone."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
        for task in self._tasks:
            task.cancel()

    @property
    def in_hand(self) -> set[int]:
        """The rows that this queue has in hand."""
        return set(self._tasks.values())

    async def observe(self) -> None:
        """Set the queue's gauges."""
        waiting, oldest = await self._ledger.queue_depth()
        DEPTH.set(waiting)
        AGE.set(oldest)

    async def _claim(self) -> Claimed:
        room = self._room(_IN_HAND - len(self._tasks))
        if room <= 0:
            return _NOTHING
        try:
            return await self._ledger.claim(room)
        except UNAVAILABLE as error:
            log.warning("ledger_unavailable", error=type(error).__name__)
            return _NOTHING

    def _start(self, due: Due) -> None:
        task = asyncio.create_task(self._work(due))
        self._tasks[task] = due.id
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._freed.set()

    async def _work(self, due: Due) -> None:
        dots: list[int] = []
        draft: Draft | None = None
        outcome: Outcome
        try:
            draft = await self._draft(due.body_day, due.body)
            if draft is None:
                outcome = Verdict(code=554, text="5.3.0 Its content is gone")
                await self._forwarder.settle(due.id, due.turn, outcome)
            else:
                outcome = await self._forward(due, draft, dotted=lambda: dots.append(due.id))
        except Exception as error:  # noqa: BLE001 - a claimed message must go back, whatever happened to it
            log.error("queue_task_failed", error=type(error).__name__)  # noqa: TRY400 - its text may hold values
            outcome = Trouble(reason="error", doubtful=bool(dots))
        if isinstance(outcome, Trouble):
            outcome = await self._postponed(due, outcome)
        RETRIES.labels(label_of(outcome)).inc()
        if draft is not None and isinstance(outcome, Verdict) and not outcome.accepted:
            self._tell(draft, [(due.recipient, outcome)])

    async def _postponed(self, due: Due, trouble: Trouble) -> Outcome:
        """Put a message back; one that is too old gets the verdict that it has failed."""
        DOUBTS.inc(trouble.doubtful)
        age = (datetime.now(UTC) - due.accepted_at).total_seconds()
        # What an operator holds back is not late.
        if age > self._settings.retry_max_age and not trouble.held:
            said = f": {trouble.reply}" if trouble.reply else ""
            verdict = Verdict(code=554, text=f"5.4.7 Not delivered in time{said}", upstream=trouble.upstream)
            await self._forwarder.settle(due.id, due.turn, verdict)
            return verdict
        wait = trouble.wait
        if wait is None:
            wait = retry_wait(due.attempts, first=self._settings.retry_first, chance=random.random())  # noqa: S311 - jitter
        await surely(
            lambda: self._ledger.postpone(
                due.id,
                due.turn,
                wait=wait,
                reply=trouble.reply,
                doubtful=trouble.doubtful,
                upstream=trouble.upstream or self._forwarder.upstream_name,
                # One that was told when to come again has not been offered to anybody.
                tried=trouble.wait is None,
            )
        )
        return trouble

    async def _forward(self, due: Due, draft: Draft, *, dotted: Callable[[], None]) -> Outcome:
        addressed = Addressed(
            recipient=due.recipient,
            key=due.key,
            generation=due.generation,
            message_id=due.message_id,
            doubts=due.doubts,
        )
        keyring = self._keyring.pinned(draft.profile.signing)
        minter = UrlMinter(keyring, draft.profile.options.public_url, key_bytes(due.key))
        letter = Letter(
            key=due.key,
            sender=draft.submission.sender,
            recipient=due.recipient,
            smtputf8=draft.submission.smtputf8,
            campaign=draft.campaign.id or "",
            throttle=due.throttle,
            queued=True,
            notice=is_notice(draft.submission),
            size=len(draft.submission.content),
            render=lambda provider: stamp.render(draft, addressed, minter, self._signer, provider).content,
        )
        return await self._forwarder.forward(due.id, due.turn, letter, dotted=dotted)

    async def _draft(self, day: date, body: int) -> Draft | None:
        """Return a stored submission, read once for all of its recipients that are at hand."""
        place = (day, body)
        reading = self._drafts.get(place)
        if reading is None or (reading.done() and (reading.cancelled() or reading.exception() is not None)):
            reading = self._drafts[place] = asyncio.create_task(self._read(day, body))
        self._drafts.move_to_end(place)
        draft = await asyncio.shield(reading)
        self._forget()
        return draft

    def _forget(self) -> None:
        """Let go of what was read longest ago, beyond the octets that are kept."""
        octets = 0
        for place, reading in reversed(list(self._drafts.items())):
            if not reading.done():
                continue
            whole = reading.result() if not reading.cancelled() and reading.exception() is None else None
            octets += 0 if whole is None else len(whole.submission.content)
            if whole is None or (octets > _READ_OCTETS and place != next(reversed(self._drafts))):
                del self._drafts[place]

    async def _read(self, day: date, body: int) -> Draft | None:
        stored = await self._ledger.load_body(day, body)
        profile = None if stored is None else await self._profile(stored.profile)
        if stored is None or profile is None:
            log.error("queued_body_missing", body=body)
            return None
        submission, campaign = stamp.unstored(stored.envelope, stored.content)
        return await asyncio.to_thread(
            stamp.draft_of,
            submission,
            settings=self._settings,
            ams_headers=self._ams_headers,
            profile=profile,
            campaign=campaign,
            recalls=False,
        )

    async def _profile(self, digest: bytes) -> Profile | None:
        if digest not in self._profiles:
            text = await self._ledger.load_profile(digest)
            if text is None:
                return None
            self._profiles[digest] = decode_profile(text)
        return self._profiles[digest]


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
