"""The courier's chore that lets go of what is old: bodies first, then what events, addresses and answers say.

One process does it for all, in bites, so that nobody waits for it.
"""

import asyncio
import contextlib
from collections import Counter as Multiset
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import structlog
from prometheus_client import Counter

from courier.settings import RetentionSettings
from ledger import parked, retention
from ledger.erasure import BATCH
from ledger.processes import my_turn
from ledger.retention import BusyError, Recipients
from ledger.store import UNAVAILABLE, Ledger
from sidecar.capture_files import drop_captured

log = structlog.get_logger()

DROPPED = Counter("outrider_retention_dropped_total", "What was let go of because it was old, by its kind.", ["kind"])

_REST_SECONDS = 600.0
_BREATH_SECONDS = 1.0
# Bites of one kind in one turn.
_BITES = 20


class Retention:
    """One process's turns; the captured mail of its own machine is in *captured*."""

    def __init__(self, ledger: Ledger, settings: RetentionSettings, captured: Path) -> None:
        self._ledger = ledger
        self._settings = settings
        self._captured = captured
        self._recipients: Recipients | None = None

    @property
    def on(self) -> bool:
        """Whether anything is ever let go of."""
        return any(msgspec.structs.astuple(self._settings))

    async def run(self, process: int) -> None:
        """Take turns for ever."""
        while True:
            more = False
            with contextlib.suppress(*UNAVAILABLE):
                if await my_turn(self._ledger, "retention", process, 3 * _REST_SECONDS):
                    more = await self.turn(datetime.now(UTC))
            await asyncio.sleep(_BREATH_SECONDS if more else _REST_SECONDS)

    async def turn(self, now: datetime) -> bool:
        """Let go of some of what is too old at *now*, every kind in its turn; return whether more is left."""
        more = False
        for kind, bite in (
            ("captured", self._drop_captured),
            ("parked", self._drop_parked),
            ("addresses", self._erase_addresses),
            ("events", self._drop_events),
        ):
            days: int = getattr(self._settings, kind)
            if days:
                more |= await self._bites(kind, bite, now - timedelta(days=days))
        if self._settings.parked_most:
            more |= await self._bites("parked_most", self._drop_beyond, now)
        return more

    async def _bites(
        self, kind: str, bite: Callable[[datetime], Awaitable[tuple[int, bool]]], before: datetime
    ) -> bool:
        gone, more = 0, True
        for _ in range(_BITES):
            amount, more = await bite(before)
            gone += amount
            if not more:
                break
        if gone:
            DROPPED.labels(kind).inc(gone)
            log.info("old_rows_dropped", kind=kind, amount=gone)
        return more

    async def _drop_captured(self, before: datetime) -> tuple[int, bool]:
        return await asyncio.to_thread(drop_captured, self._captured, before.timestamp()), False

    async def _drop_parked(self, before: datetime) -> tuple[int, bool]:
        return await retention.drop_parked(self._ledger, before)

    async def _drop_beyond(self, _: datetime) -> tuple[int, bool]:
        gone = await parked.drop_beyond(self._ledger, self._settings.parked_most, BATCH)
        for source, amount in Multiset(gone).items():
            log.error("parked_events_dropped", source=source, events=amount, most=self._settings.parked_most)
        return len(gone), len(gone) == BATCH

    async def _erase_addresses(self, before: datetime) -> tuple[int, bool]:
        # One pass goes over several turns: begun anew it would stay behind the first message that has to be left.
        if self._recipients is None:
            self._recipients = Recipients(self._ledger, before)
        erased, more = await self._recipients.bite()
        if erased["ams_items"]:
            log.warning("ams_items_dropped", items=erased["ams_items"])
        if erased["sink_items"]:
            log.warning("sink_items_dropped", items=erased["sink_items"])
        if not more:
            self._recipients = None
        return erased["messages"], more

    async def _drop_events(self, before: datetime) -> tuple[int, bool]:
        month = before.date().replace(day=1)
        gone, more = await retention.drop_strays(self._ledger, month)
        if more:
            return gone, True
        try:
            dropped, more = await retention.drop_month(self._ledger, month)
        except BusyError:
            log.warning("events_in_use")
            return gone, False
        if dropped is not None:
            log.info("month_of_events_dropped", month=dropped)
        return gone + (dropped is not None), more
