"""Try the upstream while the mailer waits: one flight for each recipient's message.

A flight that has not reached its final dot when the time is over is called back and becomes trouble; one that has stays
with its task, because the upstream may have the message.
"""

import asyncio
from collections.abc import Callable, Sequence

import msgspec
import structlog

from relay.correlate import Ready
from relay.forward import Forwarder
from relay.upstream import Letter, Outcome, Trouble

log = structlog.get_logger()


class Flight(msgspec.Struct, kw_only=True):
    """One message on its way to the upstream."""

    ready: Ready
    task: "asyncio.Task[Outcome]"
    #: The final dot may be out.
    dotted: bool = False

    @property
    def outcome(self) -> Outcome | None:
        """What came of it; none while its final dot waits for an answer."""
        if not self.task.done():
            return None
        if self.task.cancelled():
            return Trouble(reason="slow")
        error = self.task.exception()
        if error is not None:
            log.error("forward_failed", error=type(error).__name__)
            return Trouble(reason="error", doubtful=self.dotted)
        return self.task.result()


async def fly(
    ready: Sequence[Ready], *, forwarder: Forwarder, letter: Callable[[Ready], Letter], seconds: float
) -> list[Flight]:
    """Forward all of *ready* for at most *seconds*, and return the flights."""
    flights = [_launch(one, forwarder, letter) for one in ready]
    if flights:
        await asyncio.wait([flight.task for flight in flights], timeout=seconds)
        called_back = [flight.task for flight in flights if not flight.dotted and not flight.task.done()]
        for task in called_back:
            task.cancel()
        if called_back:
            await asyncio.wait(called_back)
    return flights


def _launch(ready: Ready, forwarder: Forwarder, letter: Callable[[Ready], Letter]) -> Flight:
    def mark() -> None:
        flight.dotted = True

    flight = Flight(
        ready=ready, task=asyncio.create_task(forwarder.forward(ready.id, ready.turn, letter(ready), dotted=mark))
    )
    return flight
