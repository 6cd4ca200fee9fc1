"""History is imported in any order, interrupted and again: it ends in the same flags, which only rise."""

import asyncio
import resource
import time
from random import Random
from typing import Any

import pytest
from aiohttp import web

from ledger import imports
from ledger.store import Ledger
from sidecar.imports.emailoctopus import Version
from tests.importing import EMPTY, TARGET, asking, bring_in, everything, flags, no_drift
from tests.octopus import REPORTS, Octopus, broken, flags_of, later, reports_of
from tests.rows import Pool

VERSIONS = tuple(Version)
#: The campaign of the promise, and one that is quickly read.
FULL, SMALL = 129_483, 300


async def rounds(ledger: Ledger, pool: Pool, contacts: int, seed: int) -> tuple[Any, ...]:
    """Import in an order of *seed*, interrupted twice, and again afterwards; return what the ledger holds."""
    random = Random(seed)  # noqa: S311 - a test's order, repeatable
    reports = reports_of(contacts)
    order = tuple(random.sample(REPORTS, len(REPORTS)))
    octopus = Octopus(reports)
    pages = sum(-(-len(rows) // 100) for rows in reports.values())
    stops = sorted(random.sample(range(2, pages), 2))
    version = random.choice(VERSIONS)
    async with octopus.listening() as url, asking(url, version) as origin:
        for stop in stops:
            reached = asyncio.Event()

            def mood(number: int, stop: int = stop, reached: asyncio.Event = reached) -> web.Response | None:
                if number % 7 == 0:
                    return later()
                if number >= stop:
                    reached.set()
                return None

            octopus.mood = mood
            running = asyncio.create_task(bring_in(ledger, origin, order=order))
            stopped = asyncio.create_task(reached.wait())
            await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        # What is there already is never taken back.
        before = await flags(pool)
        octopus.mood = lambda number: broken() if number % 11 == 0 else None
        await bring_in(ledger, origin, order=order)
        assert not (await imports.before(ledger, TARGET)).places
        after = await flags(pool)
        assert all(after[who][flag] for who, theirs in before.items() for flag, raised in theirs.items() if raised)
        assert after == flags_of(reports)
        held = await everything(pool)
        octopus.mood = lambda _number: None
        again = await bring_in(ledger, origin, order=order)
        assert (again.done["messages"], again.done["events"]) == (0, 0)
        assert again.done["known"] == sum(map(len, reports.values()))
        assert await everything(pool) == held
    assert await no_drift(ledger)
    return held


async def test_any_order_and_two_interruptions_end_alike(ledger: Ledger, pool: Pool) -> None:
    """The reports in three orders, interrupted twice each, and once undisturbed: every row is the same."""
    ends = []
    for seed in range(3):
        ends.append(await rounds(ledger, pool, SMALL, seed))
        await pool.execute(EMPTY)
    octopus = Octopus(reports_of(SMALL))
    async with octopus.listening() as url, asking(url, Version.OLD) as origin:
        await bring_in(ledger, origin)
    undisturbed = await everything(pool)

    def kinds_aside(end: tuple[Any, ...]) -> tuple[Any, ...]:
        # Version 2 does not say what kind of bounce it was.
        return (end[0], [event[:4] for event in end[1]], end[2])

    assert [kinds_aside(end) for end in ends] == [kinds_aside(undisturbed)] * 3


@pytest.mark.soak
@pytest.mark.serial
@pytest.mark.timeout(3600)
async def test_a_large_campaign(ledger: Ledger, pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    """129,483 contacts, undisturbed, then in another order and interrupted twice; time and memory are told."""
    reports = reports_of(FULL)
    octopus = Octopus(reports)
    begun = time.monotonic()
    async with octopus.listening() as url, asking(url, Version.NEW) as origin:
        historian = await bring_in(ledger, origin)
    seconds = time.monotonic() - begun
    assert await flags(pool) == flags_of(reports)
    await pool.execute(EMPTY)
    await rounds(ledger, pool, FULL, 7)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    with capsys.disabled():
        print(  # noqa: T201 - the figures are what is asked for
            f"\n{historian.done['rows']:,} rows in {seconds:.1f} s, player included; peak {peak} MiB, the same"
        )
