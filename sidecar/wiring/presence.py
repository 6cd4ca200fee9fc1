"""What every role needs around it: its context, its presence in the ledger, its work in the background."""

import asyncio
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

_RENEW_SECONDS = 10.0


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


class Presence:
    """This process in the ledger: its id, renewed while it lives."""

    def __init__(self, ledger: Ledger, role: str) -> None:
        self._ledger = ledger
        self._role = role
        self.process = 0

    async def enter(self) -> None:
        """Take an id."""
        self.process = await processes.register(self._ledger, self._role)

    async def keep(self, moved: Callable[[int], None]) -> None:
        """Renew for ever; after a lease that ran out take a new id and tell *moved*."""
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            try:
                if not await processes.renew(self._ledger, self.process):
                    await self.enter()
                    log.warning("lease_was_lost", role=self._role)
                    moved(self.process)
                await processes.make_partitions(self._ledger, datetime.now(UTC).date())
            except UNAVAILABLE as error:
                log.warning("ledger_unavailable", error=type(error).__name__)

    async def leave(self) -> None:
        """Give everything back at once."""
        try:
            await processes.leave(self._ledger, self.process)
        except UNAVAILABLE:
            # The lease runs out by itself.
            return


@asynccontextmanager
async def present(ledger: Ledger, role: str, moved: Callable[[int], None] = lambda _: None) -> AsyncIterator[Presence]:
    """Be in the ledger for the time of the block; *moved* hears of a new id after a lease that ran out."""
    presence = Presence(ledger, role)
    await presence.enter()
    async with background(lambda: presence.keep(moved)):
        try:
            yield presence
        finally:
            await presence.leave()


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
