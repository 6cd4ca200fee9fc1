"""Wait for PostgreSQL to come back: for as long as the operator allows, or for as long as it takes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from ledger.store import REFUSED_VALUE, UNAVAILABLE
from ledger.waiting import within

log = structlog.get_logger()

T = TypeVar("T")

# Seconds between two tries: a mailer waits for most of them.
_LONGEST_WAIT = 1.0


async def patiently(work: Callable[[], Awaitable[T]], *, seconds: float) -> T:
    """Do *work*, again and again while PostgreSQL is away; raise its last error after *seconds*, also when it hangs."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    wait = 0.05
    while True:
        try:
            return await within(deadline - clock(), work)
        except UNAVAILABLE:
            if clock() + wait > deadline:
                raise
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)


async def surely(work: Callable[[], Awaitable[T]]) -> T:
    """Do *work* again and again until it is done: for what must not be forgotten. Only a refused value ends it."""
    wait = 0.05
    while True:
        try:
            return await work()
        except REFUSED_VALUE:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, giving up is worse
            log.warning("tried_again", error=type(error).__name__)
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)
