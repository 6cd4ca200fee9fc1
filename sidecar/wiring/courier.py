"""The courier's process: events into the ledger, and out to AMS and the sinks beside it."""

import asyncio
import contextlib
from contextlib import AsyncExitStack

import structlog

from courier.consume import run_recorder
from courier.deliver import run_deliverer
from courier.sighting import Reader
from courier.sinks import rules
from courier.tellers import run_tellers
from injector.tokens import Keyring
from ledger.campaigns import fold_counts, reconcile
from ledger.numbers import account, fold_numbers
from ledger.processes import forget_the_past, my_turn
from ledger.store import UNAVAILABLE, Ledger, open_ledger
from sidecar.drift import note_drift
from sidecar.gaps import note_gaps
from sidecar.settings import CAPTURE_DIRECTORY
from sidecar.wiring.presence import Context, alone, background, present
from sidecar.wiring.retention import Retention

log = structlog.get_logger()

_FOLD_SECONDS = 5.0
_NUMBERS_SECONDS = 60.0
_FORGET_SECONDS = 3600.0
# Campaigns recounted in one turn.
_RECONCILE_CAMPAIGNS = 1000

_NEEDS = ("postgresql", "redis")


async def courier(context: Context) -> None:
    """Record and deliver until told to stop."""
    settings = context.settings
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(open_ledger(settings.database_url, sealer=context.keys.sealer))
        process = await stack.enter_async_context(present(ledger, "courier"))
        readiness = await stack.enter_async_context(alone(context, settings.courier.admin_listen, *_NEEDS))

        def missing(names: tuple[str, ...]) -> None:
            for need in _NEEDS:
                if need in names:
                    readiness.miss(need, "does not answer")
                else:
                    readiness.have(need)

        reader = Reader(identity=context.keys.identity, keyring=Keyring(context.keys.signing))
        retention = Retention(ledger, settings.retention, settings.data_dir / CAPTURE_DIRECTORY)
        async with (
            background(
                lambda: _fold(ledger, process),
                lambda: _account(ledger, process),
                lambda: _forget(ledger, process),
                lambda: _reconcile(ledger, process, settings.courier.reconcile),
                *([lambda: retention.run(process)] if retention.on else []),
            ),
            asyncio.TaskGroup() as group,
        ):
            group.create_task(
                run_recorder(
                    settings.redis_url,
                    ledger,
                    reader,
                    settings.courier,
                    settings.ams,
                    process=process,
                    stopping=context.stopping,
                    ready=missing,
                    rules=rules(settings.sinks, settings.listmonk),
                )
            )
            group.create_task(run_deliverer(ledger, settings.ams, process=process, stopping=context.stopping))
            group.create_task(
                run_tellers(ledger, settings.sinks, settings.listmonk, process=process, stopping=context.stopping)
            )
            log.info("courier_running", ams=bool(settings.ams.url), sinks=len(rules(settings.sinks, settings.listmonk)))
            context.ready()
            await context.stopping.wait()
            readiness.drain()


async def _fold(ledger: Ledger, process: int) -> None:
    """Fold the appended counts, for ever."""
    while True:
        with contextlib.suppress(*UNAVAILABLE):
            if await my_turn(ledger, "fold", process, 3 * _FOLD_SECONDS):
                await fold_counts(ledger)
        await asyncio.sleep(_FOLD_SECONDS)


async def _reconcile(ledger: Ledger, process: int, seconds: float) -> None:
    """Recount the campaigns whose counts changed, for ever."""
    while True:
        await asyncio.sleep(seconds)
        with contextlib.suppress(*UNAVAILABLE):
            if await my_turn(ledger, "reconcile", process, 3 * seconds):
                for campaign, recounts in (await reconcile(ledger, limit=_RECONCILE_CAMPAIGNS)).items():
                    if drift := note_drift(recounts):
                        log.error("counts_drifted", campaign=campaign, drift=drift)


async def _account(ledger: Ledger, process: int) -> None:
    """Account for the hits' numbers, for ever."""
    missing = 0
    while True:
        with contextlib.suppress(*UNAVAILABLE):
            if await my_turn(ledger, "numbers", process, 3 * _NUMBERS_SECONDS):
                await fold_numbers(ledger)
                missing = note_gaps(await account(ledger), missing)
        await asyncio.sleep(_NUMBERS_SECONDS)


async def _forget(ledger: Ledger, process: int) -> None:
    """Drop what only the past needed, for ever."""
    while True:
        with contextlib.suppress(*UNAVAILABLE):
            if await my_turn(ledger, "forget", process, _FORGET_SECONDS):
                await forget_the_past(ledger)
        await asyncio.sleep(_FORGET_SECONDS)
