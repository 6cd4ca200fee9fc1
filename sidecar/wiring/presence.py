"""What every role needs around it: its context, its presence in the ledger, its work in the background."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import msgspec
import structlog

from ledger import processes
from ledger.store import UNAVAILABLE, Ledger
from sidecar.addresses import parse_listen
from sidecar.keys import Keys
from sidecar.readiness import Readiness
from sidecar.settings import Settings

log = structlog.get_logger()

#: Seconds in which a role finishes what it has in hand.
DRAIN_SECONDS = 25.0

_REGISTER_AGAIN_SECONDS = 0.5

# Between two renewals, and how long one may take.
_RENEW_SECONDS = 10.0
_RENEW_PATIENCE = 10.0

# Between two looks at the partitions: when all were there, and when somebody stood in the way.
_PARTITION_SECONDS = 600.0
_PARTITION_AGAIN_SECONDS = 60.0


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What every role is given."""

    settings: Settings
    keys: Keys
    stopping: asyncio.Event
    #: Called once the role can do its duty.
    ready: Callable[[], None]
    #: It runs by itself, not as a member of a fleet: it serves its own health and metrics.
    alone: bool


def hostname(settings: Settings) -> str:
    """Return our name in the banner, EHLO and Received."""
    name = settings.relay.hostname or socket.getfqdn()
    return name if name.isascii() and " " not in name else "localhost"


@asynccontextmanager
async def present(ledger: Ledger, role: str) -> AsyncIterator[int]:
    """Be a process in the ledger for the time of the block, and yield its id."""
    process = await _registered(ledger, role)
    try:
        async with background(lambda: _renew(ledger, process, role), lambda: _make_partitions(ledger)):
            yield process
    finally:
        # Nobody renews any more. Where this fails the lease runs out by itself.
        with contextlib.suppress(*UNAVAILABLE):
            async with asyncio.timeout(_RENEW_PATIENCE):
                await processes.leave(ledger, process)


async def _registered(ledger: Ledger, role: str) -> int:
    """Enter this process; while PostgreSQL is away, wait for it: to end and be started again takes longer."""
    while True:
        try:
            return await processes.register(ledger, role)
        except UNAVAILABLE as error:
            log.warning("ledger_unavailable", error=type(error).__name__)
            await asyncio.sleep(_REGISTER_AGAIN_SECONDS)


async def _renew(ledger: Ledger, process: int, role: str) -> None:
    """Renew the lease, for ever, on a connection kept for it: nothing else that waits may make it run out."""
    while True:
        try:
            async with ledger.session() as session:
                while True:
                    async with asyncio.timeout(_RENEW_PATIENCE):
                        await processes.renew(session, process, role)
                    await asyncio.sleep(_RENEW_SECONDS)
        except UNAVAILABLE as error:
            log.warning("ledger_unavailable", error=type(error).__name__)
            await asyncio.sleep(1.0)


async def _make_partitions(ledger: Ledger) -> None:
    """Make the partitions ahead, for ever."""
    while True:
        done = False
        try:
            done = await processes.make_partitions(ledger, datetime.now(UTC).date())
        except UNAVAILABLE as error:
            log.warning("ledger_unavailable", error=type(error).__name__)
        await asyncio.sleep(_PARTITION_SECONDS if done else _PARTITION_AGAIN_SECONDS)


@asynccontextmanager
async def alone(context: Context, listen: str, *needs: str) -> AsyncIterator[Readiness]:
    """Yield what the role reports into; a role that runs alone serves it on *listen*, where that is set."""
    readiness = Readiness(*needs)
    if not (context.alone and listen):
        yield readiness
        return
    # The relay speaks no HTTP but this: in a fleet it is spared the loading.
    from sidecar.health import serving_health

    async with serving_health(parse_listen(listen), readiness):
        yield readiness


@asynccontextmanager
async def background(*works: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run *works* for the time of the block, then cancel them; one that fails is logged and begun again."""
    tasks = [asyncio.create_task(_again(work)) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _again(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - a loop that ends silently is the worst of all failures
            log.error("background_work_failed", error=type(error).__name__)  # noqa: TRY400 - no values in logs
            await asyncio.sleep(1.0)
        else:
            return
