"""Tell each sink what waits for it: a turn every interval, one request in flight per endpoint.

A row leaves only after its sink confirmed it, so a crash at any point loses nothing. What a sink would take twice for
two things is marked before the request leaves, and stands aside when nobody knows whether it arrived.
"""

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import structlog
from prometheus_client import Counter, Gauge

from courier.answer import Accepted, Refused
from courier.outbox import Standing, backoff, failures_after
from courier.outlets import Outlet
from courier.pause import pause
from courier.sinks import (
    STOPPED,
    Answer,
    Doubtful,
    End,
    Later,
    Plan,
    Step,
    Telling,
    TooLarge,
    fill,
)
from ledger import sinks as rows
from ledger.processes import give_lease, take_lease
from ledger.sinks import Gone, Sealed
from ledger.store import UNAVAILABLE, Ledger

if TYPE_CHECKING:
    from courier.post import Post

log = structlog.get_logger()

PENDING = Gauge(
    "outrider_sink_pending_items", "Events that a sink has yet to hear.", ["sink"], multiprocess_mode="livemostrecent"
)
PARKED = Gauge(
    "outrider_sink_parked_items", "Events set aside for a sink.", ["sink"], multiprocess_mode="livemostrecent"
)
OLDEST = Gauge(
    "outrider_sink_oldest_age_seconds",
    "For how long the oldest event that a sink has yet to hear has waited.",
    ["sink"],
    multiprocess_mode="livemostrecent",
)
CALLS = Counter("outrider_sink_calls", "Requests to a sink by what became of them.", ["sink", "outcome"])
TOLD = Counter("outrider_sink_told_items", "Events that a sink has confirmed.", ["sink"])
SET_ASIDE = Counter("outrider_sink_set_aside_items", "Events that were set aside for a sink.", ["sink"])

#: Seconds by which the lease outlives the longest request: time to settle it.
_LEASE_MARGIN = 30.0

_UNREADABLE = "it names somebody whose address is sealed under a key that this courier does not have"
LEDGER_AWAY = "ledger_unavailable"


class _NotOursError(Exception):
    """Another courier holds the lease on the endpoint, or had it meanwhile, or we are stopping: the cycle ends here."""


class Teller:
    """The rounds of one process for one sink. *jitter* gives random numbers in [0, 1)."""

    def __init__(
        self,
        ledger: Ledger,
        outlet: Outlet,
        post: "Post",
        *,
        process: int,
        stopping: asyncio.Event,
        jitter: Callable[[], float] = random.random,  # noqa: S311 - spreads retries, guards nothing
    ) -> None:
        self._ledger = ledger
        self._outlet = outlet
        self._post = post
        self._process = process
        self._stopping = stopping
        self._jitter = jitter
        self._lease = "sink:" + hashlib.sha256(outlet.url.encode()).hexdigest()[:16]
        # Less than is allowed, once a body was too large for the receiver.
        self._room = outlet.max_bytes
        # When the receiver asked to be asked again, in seconds.
        self._asked_for = 0.0

    async def cycle(self) -> float:
        """Tell what waits, if the sink may be tried; return the seconds until the next cycle is worth while."""
        try:
            state = await self._state()
            while state.wait <= 0:
                standing = Standing(failures=state.failures, last_error=state.last_error, held=state.held)
                more = await self._turn(standing)
                state = await self._state()
                if not more:
                    break
        except _NotOursError:
            return self._outlet.interval
        finally:
            await self._measure()
        return min(self._outlet.interval, state.wait) if state.wait > 0 else self._outlet.interval

    async def close(self) -> None:
        """Let another courier take over at once."""
        await give_lease(self._ledger, self._lease, self._process)

    async def _state(self) -> rows.SinkState:
        return await rows.state(self._ledger, self._outlet.name)

    async def _turn(self, standing: Standing) -> bool:
        """Run one turn; return whether it went well and more waits."""
        if not await rows.waiting(self._ledger, self._outlet.name, 1):
            return False
        await self._hold_lease()
        # Read while nobody else may tell them: what was read before might be told by now.
        waiting = await rows.waiting(self._ledger, self._outlet.name, self._outlet.most)
        full = len(waiting) == self._outlet.most
        items = await self._sendable(waiting)
        batch = fill(items, max_batch=self._outlet.most, max_bytes=self._room)
        if not batch:
            return full
        room = self._room
        ending = await self._run(self._outlet.plan(batch, standing))
        await self._conclude(standing, ending)
        left = len(batch) < len(items) or full or self._room < room
        return ending.error is None and left

    async def _sendable(self, waiting: Sequence[rows.Waiting | Gone | Sealed]) -> list[Telling]:
        """Return what can be told; what cannot is dropped, or parked with the reason."""
        items: list[Telling] = []
        gone: list[int] = []
        aside: dict[int, str] = {}
        for row in waiting:
            match row:
                case Gone():
                    gone.append(row.id)
                # We hold the lease, so nobody is at it now.
                case _ if row.tried and self._outlet.once:
                    aside[row.id] = STOPPED
                case Sealed():
                    aside[row.id] = _UNREADABLE
                case _:
                    try:
                        items.append(Telling(id=row.id, content=self._outlet.compose(row), at=row.recorded_at))
                    # One that nobody foresaw must not stand before the others for ever.
                    except (TypeError, ValueError) as error:
                        aside[row.id] = f"it cannot be written: {type(error).__name__}"
        if gone:
            log.warning("sink_items_gone", sink=self._outlet.name, items=len(gone))
            await self._surely(lambda: rows.drop(self._ledger, gone))
        if aside:
            await self._park(aside)
        return items

    async def _run(self, plan: Plan) -> End:
        """Make the requests that *plan* asks for, settle what is accepted, and return how it ends."""
        try:
            step = next(plan)
            while True:
                step = plan.send(await self._ask(step))
        except StopIteration as stop:
            ending: End = stop.value
            return ending

    async def _hold_lease(self) -> None:
        # For longer than a request may take: nobody else calls meanwhile.
        seconds = self._outlet.timeout + _LEASE_MARGIN
        if self._stopping.is_set() or not await take_lease(self._ledger, self._lease, self._process, seconds):
            raise _NotOursError

    async def _ask(self, step: Step) -> Answer:
        await self._hold_lease()
        name, ids = self._outlet.name, [item.id for item in step]
        if self._outlet.once and not await rows.mark_tried(self._ledger, ids):
            raise _NotOursError
        body, headers = self._outlet.request(step)
        answer = await self._post.send(body, headers)
        self._asked_for = answer.seconds or 0.0 if isinstance(answer, Later) else 0.0
        if isinstance(answer, Accepted):
            CALLS.labels(name, "accepted").inc()
            await self._surely(lambda: rows.drop(self._ledger, ids))
            TOLD.labels(name).inc(len(ids))
            log.info("sink_items_told", sink=name, items=len(ids))
            return answer
        CALLS.labels(name, "refused" if isinstance(answer, Refused) else "unanswered").inc()
        if isinstance(answer, TooLarge):
            self._room = max(1, min(self._room, len(body)) // 2) if len(step) > 1 else self._room
        if self._outlet.once and not isinstance(answer, Doubtful):
            await self._surely(lambda: rows.unmark_tried(self._ledger, ids))
        return answer

    async def _conclude(self, standing: Standing, ending: End) -> None:
        name = self._outlet.name
        if ending.parked:
            await self._park({item.id: reason for item, reason in ending.parked})
        if ending.error is None:
            if standing != Standing():
                await self._surely(lambda: rows.clear(self._ledger, name))
            return
        error, held = ending.error, ending.held
        failures = failures_after(standing, error)
        seconds = max(self._asked_for, backoff(failures, self._jitter()))
        log.warning(
            "sink_postponed",
            sink=name,
            failures=failures,
            seconds=round(seconds, 1),
            error=error,
            held=held is not None,
        )
        await self._surely(
            lambda: rows.postpone(self._ledger, name, failures=failures, seconds=seconds, error=error, held=held)
        )

    async def _park(self, reasons: dict[int, str]) -> None:
        await self._surely(lambda: rows.park(self._ledger, reasons))
        SET_ASIDE.labels(self._outlet.name).inc(len(reasons))
        log.warning("sink_items_parked", sink=self._outlet.name, items=len(reasons))

    async def _surely(self, write: Callable[[], Awaitable[None]]) -> None:
        """Repeat *write* until PostgreSQL is back: what was taken must not be sent again if it can be helped."""
        failures = 0
        while True:
            try:
                return await write()
            except UNAVAILABLE as error:
                if self._stopping.is_set():
                    raise
                failures += 1
                log.warning(LEDGER_AWAY, error=type(error).__name__)
                await pause(self._stopping, min(5.0, backoff(failures, self._jitter())))

    async def _measure(self) -> None:
        try:
            (standing,) = await rows.standings(self._ledger, self._outlet.name) or (None,)
        except UNAVAILABLE:
            return
        PENDING.labels(self._outlet.name).set(0 if standing is None else standing.pending)
        PARKED.labels(self._outlet.name).set(0 if standing is None else standing.parked)
        OLDEST.labels(self._outlet.name).set(0 if standing is None else standing.oldest_seconds)
