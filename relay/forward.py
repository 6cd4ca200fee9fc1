"""Hand one message to the upstream and record its verdict before anybody is told.

The intent is committed before the final dot, the verdict after it. A message whose final dot is out stays with its
task; when PostgreSQL is away at that moment, the verdict is kept and recorded when it is back.
"""

import asyncio
import secrets
from collections.abc import Callable
from typing import Protocol

import structlog
from prometheus_client import Counter

from ledger.ids import alias_digest
from ledger.mail_rows import NotOursError, Settlement
from ledger.store import REFUSED_VALUE, UNAVAILABLE
from providers import generic
from relay.patience import surely
from relay.upstream import BeforeDot, Letter, Outcome, Trouble, Verdict

log = structlog.get_logger()

LATE_RESULTS = Counter("outrider_late_results_total", "Verdicts that had to wait for PostgreSQL to be recorded.")


DOUBTS = Counter("outrider_possible_duplicates_total", "Messages tried again although the upstream may have them.")


#: How long a mailer waits for a verdict to be recorded that the upstream has given, where nobody says otherwise: if we
#: die meanwhile, no 250 was said of a message whose row does not know it.
SETTLE_SECONDS = 5.0


class Upstream(Protocol):
    """Where mail goes: `relay.upstreams.Upstreams` or `relay.capture.CaptureUpstream`."""

    @property
    def name(self) -> str:
        """The upstream's name in the ledger."""

    async def send(self, letter: Letter, before_dot: BeforeDot) -> Outcome:
        """Offer a letter; *before_dot* is awaited before its content can be accepted."""

    async def close(self) -> None:
        """Close what is open."""


class Results(Protocol):
    """Where results are recorded: `ledger.mail.MailLedger`."""

    async def mark_dot(self, message: int, turn: int) -> None:
        """Commit the intent to send the final dot; raise `NotOursError` when the message was taken over."""

    async def settle(self, settlement: Settlement) -> bool:
        """Commit a final result."""


class Forwarder:
    """Forwards messages for one process; a mailer waits *settle_wait* seconds at most for its verdict's record."""

    def __init__(self, upstream: Upstream, results: Results, *, settle_wait: float = SETTLE_SECONDS) -> None:
        self._upstream = upstream
        self._results = results
        self._settle_wait = settle_wait
        # The first try to record a verdict, and those after it.
        self._recording: set[asyncio.Future[None]] = set()
        self._late: set[asyncio.Task[bool]] = set()

    @property
    def upstream_name(self) -> str:
        """The upstream's name in the ledger."""
        return self._upstream.name

    async def close(self, *, patience: float) -> None:
        """Wait up to *patience* seconds for verdicts that are being recorded, then close the upstream."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + patience
        # One that fails at first is recorded by a task that is not there yet.
        while (waiting := self._recording | self._late) and clock() < deadline:
            await asyncio.wait(waiting, timeout=deadline - clock(), return_when=asyncio.FIRST_COMPLETED)
        for task in self._late:
            task.cancel()
        await self._upstream.close()

    async def forward(self, message: int, turn: int, letter: Letter, *, dotted: Callable[[], None]) -> Outcome:
        """Offer *letter* and record a verdict; *dotted* is called just before the final dot may leave."""

        async def before_dot() -> None:
            await self._results.mark_dot(message, turn)
            dotted()

        try:
            outcome = await self._upstream.send(letter, before_dot)
        except NotOursError:
            return Trouble(reason="taken_over")
        except UNAVAILABLE as error:
            log.warning("intent_not_recorded", error=type(error).__name__)
            return Trouble(reason="ledger")
        if isinstance(outcome, Verdict):
            await self.settle(message, turn, outcome)
        return outcome

    async def settle(self, message: int, turn: int, verdict: Verdict) -> None:
        """Record a final verdict; where PostgreSQL does not take it now it is recorded later, and this returns."""
        upstream = verdict.upstream or self._upstream.name
        await self._record(
            Settlement(
                id=message,
                turn=turn,
                status="sent" if verdict.accepted else "failed",
                upstream=upstream,
                reply=str(verdict),
                alias=_alias(verdict, upstream),
                dedupe=secrets.token_bytes(16),
            )
        )

    async def refuse(self, message: int, turn: int, *, doubtful: bool, upstream: str = "") -> None:
        """Record that the mailer was told to come again: no verdict, and nothing stored."""
        await self._record(
            Settlement(
                id=message,
                turn=turn,
                status="refused",
                upstream=upstream or self._upstream.name,
                reply=None,
                alias=None,
                dedupe=secrets.token_bytes(16),
                doubtful=doubtful,
            )
        )

    async def _record(self, settlement: Settlement) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._settle_wait
        recording: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._recording.add(recording)
        try:
            async with asyncio.timeout(self._settle_wait):
                await self._results.settle(settlement)
            return
        except REFUSED_VALUE:
            raise
        except asyncio.CancelledError:
            self._record_later(settlement)
            raise
        except Exception as error:  # noqa: BLE001 - whatever goes wrong: the upstream has decided
            log.warning("result_not_recorded_at_once", error=type(error).__name__)
            task = self._record_later(settlement)
        finally:
            self._recording.discard(recording)
            recording.set_result(None)
        await asyncio.wait([task], timeout=max(0.0, deadline - clock()))
        if task.done():
            task.result()
            return
        # The mailer must hear the verdict. The intent mark stands until the result does.
        LATE_RESULTS.inc()
        log.warning("result_not_recorded_yet")

    def _record_later(self, settlement: Settlement) -> "asyncio.Task[bool]":
        """Record a verdict however long it takes: it is never forgotten, and recorded twice is recorded once."""
        task = asyncio.create_task(surely(lambda: self._results.settle(settlement)))
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        return task


def _alias(verdict: Verdict, upstream: str) -> bytes | None:
    """Return the digest of the id that an upstream gave the message, in its provider's namespace where it has one."""
    if not verdict.accepted:
        return None
    provider = verdict.provider
    scope, reply_id = (upstream, generic.reply_id) if provider is None else (provider.name, provider.reply_id)
    try:
        named = reply_id(verdict.text)
    except Exception as error:  # noqa: BLE001 - the upstream has decided: an id that is not read loses no verdict
        log.error("reply_not_read", upstream=upstream, error=type(error).__name__)  # noqa: TRY400 - may hold an id
        return None
    return None if named is None else alias_digest("upstream", scope, named)
