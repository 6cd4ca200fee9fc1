"""Run a loop for each sink, and queue what no courier recorded: a process's share of telling."""

import asyncio
import random
from collections.abc import Mapping, Sequence

import structlog

from courier.outbox import backoff
from courier.outlets import Outlet, outlets
from courier.pause import pause
from courier.settings import ListmonkSettings, SinkSettings
from courier.sinks import Rule, rules, tellings
from courier.tell import LEDGER_AWAY, Teller
from ledger import sinks
from ledger.store import UNAVAILABLE, Ledger

log = structlog.get_logger()

#: Events looked at in one transaction.
_GATHERED = 1000


async def run_tellers(
    ledger: Ledger,
    webhooks: Mapping[str, SinkSettings],
    listmonk: ListmonkSettings,
    *,
    process: int,
    stopping: asyncio.Event,
) -> None:
    """Tell every sink until *stopping* is set; return at once when there is none.

    A stop ends each loop after the request in flight. PostgreSQL's and the sinks' absence are waited out.
    """
    wanted, served = rules(webhooks, listmonk), outlets(webhooks, listmonk)
    await _keep(ledger, [rule.name for rule in wanted], stopping)
    if not served:
        return
    # An HTTP client takes a third of a second to load, which nobody waits for without a sink.
    from courier.post import open_post

    async def serve(outlet: Outlet) -> None:
        async with open_post(outlet.url, ca_file=outlet.ca_file, timeout=outlet.timeout) as post:
            await _rounds(
                ledger, Teller(ledger, outlet, post, process=process, stopping=stopping), outlet, wanted, stopping
            )

    async with asyncio.TaskGroup() as group:
        for outlet in served:
            group.create_task(serve(outlet))


async def _rounds(
    ledger: Ledger, teller: Teller, outlet: Outlet, wanted: Sequence[Rule], stopping: asyncio.Event
) -> None:
    failures = 0
    while not stopping.is_set():
        try:
            await gather(ledger, wanted)
            seconds = await teller.cycle()
            failures = 0
        except UNAVAILABLE as error:
            failures += 1
            seconds = min(outlet.interval, backoff(failures, random.random()))  # noqa: S311 - spreads retries, guards nothing
            log.warning(LEDGER_AWAY, error=type(error).__name__)
        # A loop must outlive what nobody foresaw: the rows are still there, and the next cycle tries them again.
        except Exception as error:  # noqa: BLE001
            failures += 1
            seconds = max(outlet.interval, backoff(failures, 1.0))
            log.error("sink_cycle_failed", sink=outlet.name, error=type(error).__name__)  # noqa: TRY400 - a traceback may hold values
        await pause(stopping, seconds)
    try:
        await teller.close()
    except UNAVAILABLE as error:
        log.warning(LEDGER_AWAY, error=type(error).__name__)


async def _keep(ledger: Ledger, names: Sequence[str], stopping: asyncio.Event) -> None:
    failures = 0
    while not stopping.is_set():
        try:
            await sinks.keep(ledger, names)
            return
        except UNAVAILABLE as error:
            failures += 1
            log.warning(LEDGER_AWAY, error=type(error).__name__)
            await pause(stopping, min(5.0, backoff(failures, 1.0)))


async def gather(ledger: Ledger, wanted: Sequence[Rule]) -> None:
    """Queue the events that no courier recorded for the sinks that want them."""
    while True:
        async with ledger.transaction() as session:
            fresh = await sinks.take_fresh(session, _GATHERED)
            if asked := tellings(wanted, fresh):
                await sinks.queue(session, asked)
        if len(fresh) < _GATHERED:
            return
