"""Wait for PostgreSQL no longer than one is willing to.

A server that hangs answers nothing, the driver's own request to cancel included: to cancel a call and wait for the
cancellation is to hang as well. So the call is left behind; it ends when its connection does.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def within(seconds: float, work: Callable[[], Awaitable[T]]) -> T:
    """Return what *work* does, or raise `TimeoutError` after *seconds* and leave it behind."""
    task = asyncio.ensure_future(work())
    try:
        done, _ = await asyncio.wait([task], timeout=max(0.0, seconds))
    except asyncio.CancelledError:
        _leave(task)
        raise
    if not done:
        _leave(task)
        raise TimeoutError
    return task.result()


def _leave(task: "asyncio.Future[Any]") -> None:
    task.cancel()
    # Nobody is left to hear how it ended.
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
