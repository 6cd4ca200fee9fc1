"""Deliver what waits for AMS: a cycle every interval, one call in flight per endpoint, every mailing its turn.

A row leaves the outbox only after AMS confirmed it, so a crash at any point sends it again and loses nothing. One
mailing's trouble never keeps another from its turn; what fails backs off by itself and comes back without a hand.
"""

import asyncio
import hashlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import structlog
from prometheus_client import Counter, Gauge

from courier.answer import NO_ANSWER, Accepted, Answer, Unanswered
from courier.outbox import Ending, Item, Plan, Standing, Step, backoff, email_of, failures_after, fill, turn
from courier.pause import pause
from courier.settings import AmsSettings
from ledger import outbox
from ledger.processes import give_lease, take_lease
from ledger.store import UNAVAILABLE, Ledger
from ledger.traces import ERASED_BYTES

if TYPE_CHECKING:
    from courier.ams import Ams

log = structlog.get_logger()

PENDING = Gauge("outrider_outbox_pending_items", "Items that AMS has yet to hear.", multiprocess_mode="livemostrecent")
PARKED = Gauge(
    "outrider_outbox_parked_items", "Items set aside because AMS refused them.", multiprocess_mode="livemostrecent"
)
OLDEST = Gauge(
    "outrider_outbox_oldest_age_seconds",
    "For how long the oldest pending item has waited.",
    multiprocess_mode="livemostrecent",
)
SET_ASIDE = Counter("outrider_ams_parked_items", "Items that were set aside because AMS refused them.")

#: Seconds by which the lease outlives the longest call: time to settle it.
_LEASE_MARGIN = 30.0

#: Mailings in a row without an answer after which a cycle ends: then it is AMS that is away, not a mailing's trouble.
_GIVE_UP_AFTER = 2

_LEDGER_AWAY = "ledger_unavailable"


class _NotOursError(Exception):
    """Another courier holds the lease on the endpoint, or we are stopping: the cycle ends here."""


class Deliverer:
    """The rounds of one process. *jitter* gives random numbers in [0, 1)."""

    def __init__(
        self,
        ledger: Ledger,
        settings: AmsSettings,
        ams: "Ams",
        *,
        process: int,
        stopping: asyncio.Event,
        jitter: Callable[[], float] = random.random,  # noqa: S311 - spreads retries, guards nothing
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._ams = ams
        self._process = process
        self._stopping = stopping
        self._jitter = jitter
        self._lease = "ams:" + hashlib.sha256(settings.url.encode()).hexdigest()[:16]
        # For longer than a call may take, and renewed before each: nobody else calls meanwhile.
        self._seconds = settings.timeout + _LEASE_MARGIN
        # AMS did not answer when it was last asked; it answers again since this cycle began.
        self._away = False
        self._back = False

    async def cycle(self) -> float:
        """Give every mailing that is due its turns; return the seconds until the next cycle is worth while."""
        self._back = False
        try:
            mailings = await outbox.waiting_mailings(self._ledger)
            due = [mailing for mailing in mailings if mailing.wait <= 0]
            while due:
                due = await self._round(due)
        except _NotOursError:
            return self._settings.interval
        finally:
            await self._measure()
        if self._back:
            return 0.0
        waits = [mailing.wait for mailing in await outbox.waiting_mailings(self._ledger) if mailing.wait > 0]
        return min([self._settings.interval, *waits])

    async def look(self) -> None:
        """Note what AMS shows of its mailings, if it answers and nobody else is calling it."""
        if self._away or not await take_lease(self._ledger, self._lease, self._process, self._seconds):
            return
        if shown := await self._ams.progress():
            await outbox.note_shown(self._ledger, shown)

    async def close(self) -> None:
        """Let another courier take over at once."""
        await give_lease(self._ledger, self._lease, self._process)

    async def _round(self, due: Sequence[outbox.WaitingMailing]) -> list[outbox.WaitingMailing]:
        """Give each mailing one turn, and return those that have more waiting than one call takes."""
        unfinished: list[outbox.WaitingMailing] = []
        silent = 0
        for mailing in due:
            more = await self._turn(mailing)
            silent = silent + 1 if self._away else 0
            if silent >= _GIVE_UP_AFTER:
                return []
            if more:
                # What is left starts afresh: the turn went well.
                unfinished.append(
                    outbox.WaitingMailing(mailing=mailing.mailing, failures=0, last_error=None, held=None, wait=0)
                )
        return unfinished

    async def _turn(self, mailing: outbox.WaitingMailing) -> bool:
        """Run one mailing's turn; return whether it went well and more of it waits."""
        rows = await outbox.waiting_items(self._ledger, mailing.mailing, self._settings.max_batch)
        items = await self._sendable(rows)
        batch = fill(items, max_batch=self._settings.max_batch, max_bytes=self._settings.max_bytes)
        if not batch:
            return len(rows) == self._settings.max_batch
        standing = Standing(failures=mailing.failures, last_error=mailing.last_error, held=mailing.held)
        plan = turn(batch, standing, secret=self._settings.api_key)
        ending = await self._run(mailing.mailing, plan)
        await self._conclude(mailing.mailing, standing, ending)
        return ending.error is None and (len(batch) < len(items) or len(rows) == self._settings.max_batch)

    async def _sendable(self, rows: Sequence[outbox.WaitingItem]) -> list[Item]:
        items: list[Item] = []
        unsendable: dict[int, str] = {}
        # Queued in the instant in which its recipient was erased: AMS has nobody to count it for.
        if nobodys := [row.id for row in rows if row.recipient == ERASED_BYTES]:
            await self._surely(lambda: outbox.drop(self._ledger, nobodys))
        for row in rows:
            if row.recipient == ERASED_BYTES:
                continue
            email = email_of(row.recipient)
            if row.sealed:
                unsendable[row.id] = "the recipient's address is sealed under a key that this courier does not have"
            elif email is None:
                unsendable[row.id] = "the recipient's address is not UTF-8, so JSON cannot carry it"
            else:
                items.append(Item(id=row.id, email=email, url=row.url))
        if unsendable:
            await self._park(unsendable)
        return items

    async def _run(self, mailing: int, plan: Plan[Item]) -> Ending[Item]:
        """Make the calls that *plan* asks for, settle what AMS accepts, and return how it ends."""
        try:
            step = next(plan)
            while True:
                answer = await self._ask(mailing, step)
                step = plan.send(answer)
        except StopIteration as stop:
            ending: Ending[Item] = stop.value
            return ending

    async def _ask(self, mailing: int, step: Step[Item]) -> Answer:
        if self._stopping.is_set() or not await take_lease(self._ledger, self._lease, self._process, self._seconds):
            raise _NotOursError
        if isinstance(step, str):
            return await self._ams.probe()
        answer = await self._ams.post(mailing, step)
        if isinstance(answer, Accepted):
            ids = [item.id for item in step]
            await self._surely(lambda: outbox.settle(self._ledger, ids))
            log.info("ams_items_delivered", mailing=mailing, items=len(ids))
        away = isinstance(answer, Unanswered)
        if self._away and not away:
            await outbox.hasten(self._ledger, NO_ANSWER)
            self._back = True
        self._away = away
        return answer

    async def _conclude(self, mailing: int, standing: Standing, ending: Ending[Item]) -> None:
        if ending.parked:
            await self._park({item.id: reason for item, reason in ending.parked})
        if ending.error is None:
            if standing != Standing():
                await self._surely(lambda: outbox.clear(self._ledger, mailing))
            return
        error, held = ending.error, ending.held
        failures = failures_after(standing, error)
        seconds = backoff(failures, self._jitter())
        log.warning(
            "ams_mailing_postponed",
            mailing=mailing,
            failures=failures,
            seconds=round(seconds, 1),
            error=error,
            held=held is not None,
        )
        await self._surely(
            lambda: outbox.postpone(self._ledger, mailing, failures=failures, seconds=seconds, error=error, held=held)
        )

    async def _park(self, reasons: dict[int, str]) -> None:
        await self._surely(lambda: outbox.park(self._ledger, reasons))
        SET_ASIDE.inc(len(reasons))
        log.warning("ams_items_parked", items=len(reasons))

    async def _surely(self, write: Callable[[], Awaitable[None]]) -> None:
        """Repeat *write* until PostgreSQL is back: what AMS has accepted must not be sent again if it can be helped."""
        failures = 0
        while True:
            try:
                return await write()
            except UNAVAILABLE as error:
                if self._stopping.is_set():
                    raise
                failures += 1
                log.warning(_LEDGER_AWAY, error=type(error).__name__)
                await pause(self._stopping, min(5.0, backoff(failures, self._jitter())))

    async def _measure(self) -> None:
        try:
            depth = await outbox.depth(self._ledger)
        except UNAVAILABLE:
            return
        PENDING.set(depth.pending)
        PARKED.set(depth.parked)
        OLDEST.set(depth.age)


async def run_deliverer(ledger: Ledger, ams: AmsSettings, *, process: int, stopping: asyncio.Event) -> None:
    """Deliver until *stopping* is set; return at once when no endpoint is configured.

    A stop ends the loop after the call in flight. PostgreSQL's and AMS's absence are waited out.
    """
    if not ams.url:
        return
    # An HTTP client takes a third of a second to load, which nobody waits for without an endpoint.
    from courier.ams import open_ams

    async with open_ams(ams) as client:
        deliverer = Deliverer(ledger, ams, client, process=process, stopping=stopping)
        failures = 0
        look_at = time.monotonic() + ams.progress
        while not stopping.is_set():
            try:
                seconds = await deliverer.cycle()
                failures = 0
                if ams.progress and time.monotonic() >= look_at:
                    look_at = time.monotonic() + ams.progress
                    await deliverer.look()
            except UNAVAILABLE as error:
                failures += 1
                seconds = min(ams.interval, backoff(failures, random.random()))  # noqa: S311 - spreads retries, guards nothing
                log.warning(_LEDGER_AWAY, error=type(error).__name__)
            # A loop must outlive what nobody foresaw: the rows are still there, and the next cycle tries them again.
            except Exception as error:  # noqa: BLE001
                failures += 1
                seconds = max(ams.interval, backoff(failures, 1.0))
                log.error("delivery_cycle_failed", error=type(error).__name__)  # noqa: TRY400 - a traceback may hold values
            await pause(stopping, seconds)
        try:
            await deliverer.close()
        except UNAVAILABLE as error:
            log.warning(_LEDGER_AWAY, error=type(error).__name__)
