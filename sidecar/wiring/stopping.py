"""Run work until SIGTERM or Ctrl-C: work that is up is told so and ends by itself, work that still starts is cancelled.

To ask again is to ask the same: nothing is ever cut short by it. SIGHUP asks to read files again.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")

#: Given the event of being told to stop, and what to call once it is up.
Work = Callable[[asyncio.Event, Callable[[], None]], Coroutine[Any, Any, _Result]]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run_until_stopped(
    work: Work[_Result], *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> _Result | None:
    """Run *work* on a loop of its own and return its result, or None when it was stopped before it was up.

    It is the last thing that a process does: from its end on the two signals are ignored.
    """
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(_until_stopped(work))
    finally:
        for number in (*_SIGNALS, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)


def _go_on() -> None:
    pass


def on_hangup(reload: Callable[[], None]) -> None:
    """Let SIGHUP call *reload*; at a terminal it says that the person has gone, and stops as ever."""
    if not _at_a_terminal():
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


def _at_a_terminal() -> bool:
    return any(os.isatty(descriptor) for descriptor in (0, 1, 2))


async def _until_stopped(work: Work[_Result]) -> _Result | None:
    stopping, up = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stopping.set)
    # Whoever has nothing to reload goes on.
    loop.add_signal_handler(signal.SIGHUP, stopping.set if _at_a_terminal() else _go_on)
    working = asyncio.create_task(work(stopping, up.set))
    told = asyncio.create_task(stopping.wait())
    await asyncio.wait([working, told], return_when=asyncio.FIRST_COMPLETED)
    if stopping.is_set() and not up.is_set():
        working.cancel()
    await asyncio.wait([working])
    told.cancel()
    # While the loop closes, its pipe for signals is gone before its handlers are: what comes now waits and is ignored.
    signal.pthread_sigmask(signal.SIG_BLOCK, (*_SIGNALS, signal.SIGHUP))
    return None if working.cancelled() and stopping.is_set() else working.result()
