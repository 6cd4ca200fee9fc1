"""What AMS itself shows of a mailing is seen beside what it was told."""

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from courier.ams import open_ams
from courier.deliver import Deliverer, run_deliverer
from ledger.outbox import shown
from ledger.store import Ledger
from sidecar.standin_ams import Fault, StandinAms
from tests.conftest import Eventually
from tests.mailings import Connection, ams_settings, make_campaign, queue, seed


@pytest_asyncio.fixture
async def standin() -> AsyncIterator[StandinAms]:
    """Return a stand-in AMS that listens."""
    async with StandinAms(api_key="K-1") as running:
        yield running


async def test_what_ams_shows_is_noted_of_our_mailings(
    ledger: Ledger, look: Connection, standin: StandinAms, eventually: Eventually
) -> None:
    """Now and then, by whoever has the lease; of mailings that are not ours nothing, and nothing while AMS is away."""
    messages = await seed(look, await make_campaign(look), *(f"r{n}@example.net" for n in range(3)))
    await queue(look, 42, messages)
    await queue(look, 42, messages[:1], "https://shop.example.com/")
    standin.mailings = {42, 7}
    campaign = messages[0].campaign or 0
    settings = ams_settings(url=standin.url)
    async with open_ams(settings) as ams:
        courier = Deliverer(ledger, settings, ams, process=1, stopping=asyncio.Event(), jitter=lambda: 0.0)
        await courier.cycle()
        assert await shown(ledger, campaign) is None
        await courier.look()
        found = await shown(ledger, campaign)
        assert found is not None
        assert (found.opened, found.clicks) == (3, 1)
        assert await look.fetchval("SELECT array_agg(mailing) FROM ams_shown") == [42]
        standin.fault = Fault.HTML
        await courier.look()
        assert await shown(ledger, campaign) == found
        standin.fault = Fault.NONE
        # Somebody else is calling.
        await look.execute("UPDATE lease SET owner = 99, lease_until = now() + interval '1 minute'")
        calls = len(standin.calls)
        await courier.look()
        assert len(standin.calls) == calls
        await look.execute("DELETE FROM lease")
    stopping = asyncio.Event()
    often = ams_settings(url=standin.url, progress=0.1)
    task = asyncio.create_task(run_deliverer(ledger, often, process=1, stopping=stopping))
    await eventually(lambda: [call.method for call in standin.calls].count("getMailings") >= 4)
    stopping.set()
    await asyncio.wait_for(task, 10)
