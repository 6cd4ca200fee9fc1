"""What waits for AMS reaches it, whatever AMS, PostgreSQL or another courier does meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
import structlog

from courier.ams import open_ams
from courier.deliver import Deliverer, run_deliverer
from courier.replay import replay_parked
from courier.settings import AmsSettings
from ledger.processes import register, take_lease
from ledger.store import Ledger
from sidecar.standin_ams import Fault, StandinAms
from tests.conftest import Eventually
from tests.mailings import (
    Connection,
    Seeded,
    ams_settings,
    counts,
    make_campaign,
    queue,
    seed,
)


@pytest_asyncio.fixture
async def standin() -> AsyncIterator[StandinAms]:
    """Return a stand-in AMS that listens."""
    async with StandinAms(api_key="K-1") as running:
        yield running


@asynccontextmanager
async def deliverer(
    ledger: Ledger, settings: AmsSettings, *, process: int = 1, stopping: asyncio.Event | None = None
) -> AsyncIterator[Deliverer]:
    """Return a deliverer whose backoff chance makes 0, so that each cycle tries everything."""
    async with open_ams(settings) as ams:
        yield Deliverer(
            ledger, settings, ams, process=process, stopping=stopping or asyncio.Event(), jitter=lambda: 0.0
        )


async def mailing(look: Connection, number: int, recipients: int, url: str = "open_trace") -> list[Seeded]:
    """Make a campaign of AMS with one item waiting per recipient."""
    campaign = await make_campaign(look, str(number), mailing=number)
    messages = await seed(look, campaign, *(f"r{n}@m{number}.example.net" for n in range(recipients)))
    await queue(look, number, messages, url)
    return messages


async def waiting(look: Connection) -> int:
    """Return how many items wait."""
    return int(await look.fetchval("SELECT count(*) FROM outbox WHERE parked_at IS NULL"))


async def standing(look: Connection, number: int) -> tuple[int, str | None, str | None] | None:
    """Return failures, last error and hold of a mailing; none when all is well."""
    row = await look.fetchrow("SELECT failures, last_error, held FROM ams_mailing WHERE mailing = $1", number)
    return None if row is None else (row["failures"], row["last_error"], row["held"])


def emails(standin: StandinAms) -> list[str]:
    """Return the addresses that AMS has taken, sorted."""
    return sorted(item.email for item in standin.received)


def addresses(messages: Sequence[Seeded]) -> list[str]:
    """Return the addresses of messages, sorted."""
    return sorted(message.recipient for message in messages)


async def test_one_mailing_per_call_oldest_first_within_the_limits(
    ledger: Ledger, look: Connection, standin: StandinAms
) -> None:
    """Every mailing has its calls, no more than MAX_BATCH items each, in the order in which they were queued."""
    first = await mailing(look, 42, 5)
    await mailing(look, 7, 2)
    async with deliverer(ledger, ams_settings(url=standin.url, max_batch=2)) as courier:
        await courier.cycle()
    assert [(call.mailing, call.items) for call in standin.calls] == [(42, 2), (7, 2), (42, 2), (42, 1)]
    assert [item.email for item in standin.received if item.mailing == 42] == [message.recipient for message in first]
    assert await waiting(look) == 0
    assert await counts(look, first[0].campaign or 0) == {"ams_delivered": 5}
    assert standin.progress(42) == {"opened": 5, "clicked": 0}


async def test_a_call_stays_within_its_octets(ledger: Ledger, look: Connection, standin: StandinAms) -> None:
    """Long links make smaller calls; a single one that is longer than the cap still goes."""
    await mailing(look, 42, 9, "https://shop.example.com/" + "x" * 400)
    await queue(look, 42, await seed(look, 1, "long@example.net"), "https://shop.example.com/" + "y" * 3000)
    async with deliverer(ledger, ams_settings(url=standin.url, max_bytes=1500)) as courier:
        await courier.cycle()
    assert [call.items for call in standin.calls] == [3, 3, 3, 1]
    assert await waiting(look) == 0


async def test_20001_items_are_two_calls(ledger: Ledger, look: Connection, standin: StandinAms) -> None:
    """The limit of AMS is kept exactly, and none waiting makes no call."""
    async with deliverer(ledger, ams_settings(url=standin.url)) as courier:
        await courier.cycle()
        assert standin.calls == []
        (ann,) = await mailing(look, 42, 1)
        await look.execute(
            "INSERT INTO outbox (mailing, campaign, message, url) SELECT 42, $1, $2, 'https://x.example/' || n"
            " FROM generate_series(1, 20000) AS t (n)",
            ann.campaign,
            ann.id,
        )
        await courier.cycle()
    assert [call.items for call in standin.calls] == [20_000, 1]
    assert await waiting(look) == 0


async def test_addresses_are_the_real_ones(ledger: Ledger, look: Connection, standin: StandinAms) -> None:
    """As submitted; `no_email` for a message that was erased; one that JSON cannot carry is parked and stops nobody."""
    messages = await seed(
        look, await make_campaign(look), "Ann+x@EXAMPLE.net", "ё@example.net", b"\xe4@example.net", "gone@example.net"
    )
    await queue(look, 42, messages)
    await look.execute("DELETE FROM message WHERE id = $1", messages[3].id)
    async with deliverer(ledger, ams_settings(url=standin.url)) as courier:
        await courier.cycle()
    assert emails(standin) == ["Ann+x@EXAMPLE.net", "no_email", "ё@example.net"]
    assert "UTF-8" in await look.fetchval("SELECT reason FROM outbox WHERE parked_at IS NOT NULL")


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.NONE])
async def test_a_fault_delivers_nothing_and_loses_nothing(
    ledger: Ledger, look: Connection, standin: StandinAms, fault: Fault
) -> None:
    """Every row stays, the mailing backs off with the reason, and the first cycle after the fault delivers all."""
    messages = await mailing(look, 42, 3)
    standin.fault = fault
    async with deliverer(ledger, ams_settings(url=standin.url, timeout=1)) as courier:
        for failures in (1, 2):
            await courier.cycle()
            state = await standing(look, 42)
            assert state is not None
            assert state[0] == failures
            assert state[1]
            assert await waiting(look) == 3
        standin.fault = Fault.NONE
        standin.received.clear()
        await courier.cycle()
    assert emails(standin) == addresses(messages)
    assert await waiting(look) == 0
    assert await standing(look, 42) is None


async def test_backoff_is_kept_in_the_ledger(ledger: Ledger, look: Connection, standin: StandinAms) -> None:
    """A mailing that failed is left alone until its time, by whichever courier, and the loop wakes for it."""
    await mailing(look, 42, 1)
    standin.fault = Fault.HTML
    settings = ams_settings(url=standin.url, interval=30)
    async with open_ams(settings) as ams:
        patient = Deliverer(ledger, settings, ams, process=1, stopping=asyncio.Event(), jitter=lambda: 0.9)
        assert 0 < await patient.cycle() <= 0.9
        await patient.cycle()
    assert len(standin.calls) == 1
    assert await standing(look, 42) == (1, "no answer: not JSON-RPC", None)


async def test_mailings_do_not_block_each_other(ledger: Ledger, look: Connection, standin: StandinAms) -> None:
    """One mailing on which AMS hangs, one that it does not know, one with a bad item: the fourth is delivered."""
    standin.mailings = {1, 3, 4}
    standin.silent_mailings = {1}
    for number in (1, 2, 3, 4):
        await mailing(look, number, 2)
    standin.refused_addresses = {"r0@m3.example.net"}
    async with deliverer(ledger, ams_settings(url=standin.url, timeout=1)) as courier:
        await courier.cycle()
    assert emails(standin) == ["r0@m4.example.net", "r1@m4.example.net"]
    assert await waiting(look) == 6


async def test_one_bad_item_is_parked_and_the_rest_delivered(
    ledger: Ledger, look: Connection, standin: StandinAms
) -> None:
    """The same error twice and a healthy probe: then the batch is split until the bad one stands alone."""
    messages = await mailing(look, 42, 100)
    standin.refused_addresses = {"r63@m42.example.net"}
    async with deliverer(ledger, ams_settings(url=standin.url)) as courier:
        await courier.cycle()
        assert len(standin.calls) == 1
        await courier.cycle()
    assert len(standin.received) == 99
    parked = await look.fetch("SELECT message, reason FROM outbox")
    assert [tuple(row) for row in parked] == [(messages[63].id, "-32603: Invalid email <address>")]
    assert await counts(look, messages[0].campaign or 0) == {"ams_delivered": 99}
    assert await standing(look, 42) is None
    assert standin.calls[2].method == "isSchedulerRunning"
    # Parked items go again when somebody says so.
    standin.refused_addresses = set()
    assert await replay_parked(ledger) == 1
    async with deliverer(ledger, ams_settings(url=standin.url)) as courier:
        await courier.cycle()
    assert emails(standin) == addresses(messages)
    assert await waiting(look) == 0


async def test_a_mailing_that_ams_does_not_know_is_held(ledger: Ledger, look: Connection, standin: StandinAms) -> None:
    """Nobody is parked for it; it is tried with one item at a time, and when it appears everything goes."""
    messages = await mailing(look, 42, 8)
    standin.mailings = {7}
    reason = "-32603: Mailing with id=42 not exists"
    async with deliverer(ledger, ams_settings(url=standin.url)) as courier:
        for _ in range(4):
            await courier.cycle()
        assert await standing(look, 42) == (4, reason, reason)
        assert [call.items for call in standin.calls] == [8, 8, 0, 4, 4, 1, 1]
        assert await waiting(look) == 8
        standin.mailings = {42}
        await courier.cycle()
    assert emails(standin) == addresses(messages)
    assert await standing(look, 42) is None


async def test_a_wrong_key_splits_and_holds_nothing(ledger: Ledger, look: Connection, standin: StandinAms) -> None:
    """The probe fails with it, so no mailing is blamed; with the right key all goes."""
    messages = await mailing(look, 42, 4)
    async with deliverer(ledger, ams_settings(url=standin.url, api_key="wrong")) as courier:
        for _ in range(3):
            await courier.cycle()
    assert {call.items for call in standin.calls} == {4, 0}
    assert await standing(look, 42) == (3, "-32603: Access denied", None)
    async with deliverer(ledger, ams_settings(url=standin.url)) as courier:
        await courier.cycle()
    assert emails(standin) == addresses(messages)


async def test_an_outage_of_ams_ends_without_a_hand(
    ledger: Ledger, look: Connection, standin: StandinAms, eventually: Eventually
) -> None:
    """Ten mailings wait out a server that is down; the first success brings all of them back at once."""
    expected = [address for number in range(1, 11) for address in addresses(await mailing(look, number, 3))]
    await look.execute(
        "INSERT INTO ams_mailing (mailing, failures, next_at, last_error)"
        " SELECT n, 12, now() + interval '10 minutes', 'no answer: no connection' FROM generate_series(2, 10) AS t (n)"
    )
    await standin.stop()
    stopping = asyncio.Event()
    task = asyncio.create_task(
        run_deliverer(
            ledger, ams_settings(url=standin.url), process=await register(ledger, "courier"), stopping=stopping
        )
    )

    async def failed() -> bool:
        return await standing(look, 1) is not None

    await eventually(failed)
    await standin.start()

    async def drained() -> bool:
        return await waiting(look) == 0

    await eventually(drained, timeout=20)
    stopping.set()
    await asyncio.wait_for(task, 10)
    assert emails(standin) == sorted(expected)
    assert await look.fetchval("SELECT count(*) FROM lease") == 0


async def test_one_call_is_in_flight_across_couriers(
    ledger: Ledger, look: Connection, standin: StandinAms, eventually: Eventually
) -> None:
    """Three couriers share an endpoint: AMS never sees two calls at once, and nothing is sent twice."""
    messages = await mailing(look, 42, 60)
    stopping = asyncio.Event()
    settings = ams_settings(url=standin.url, max_batch=5)
    tasks = [
        asyncio.create_task(
            run_deliverer(ledger, settings, process=await register(ledger, "courier"), stopping=stopping)
        )
        for _ in range(3)
    ]

    async def drained() -> bool:
        return await waiting(look) == 0

    await eventually(drained)
    stopping.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 10)
    assert standin.most_in_flight == 1
    assert emails(standin) == addresses(messages)


async def test_a_lease_held_elsewhere_is_respected_until_it_runs_out(
    ledger: Ledger, look: Connection, standin: StandinAms
) -> None:
    """A courier that hangs in its call keeps the endpoint; one that died loses it with its lease."""
    await mailing(look, 42, 1)
    settings = ams_settings(url=standin.url)
    async with deliverer(ledger, settings, process=1) as first, deliverer(ledger, settings, process=2) as second:
        await first.cycle()
        name = await look.fetchval("SELECT name FROM lease")
        assert standin.url not in name
        await queue(look, 42, await seed(look, 1, "more@example.net"))
        assert not await take_lease(ledger, name, 2, 1)
        assert await second.cycle() == settings.interval
        assert len(standin.calls) == 1
        await look.execute("UPDATE lease SET lease_until = now() - interval '1 second'")
        await second.cycle()
    assert len(standin.calls) == 2


async def test_a_crash_after_the_call_sends_again_and_loses_nothing(
    ledger: Ledger, look: Connection, standin: StandinAms
) -> None:
    """AMS took the batch and the courier died before it could note it: the rows are still there."""
    messages = await mailing(look, 42, 3)
    await look.execute("ALTER TABLE campaign_delta RENAME TO elsewhere")
    async with deliverer(ledger, ams_settings(url=standin.url)) as courier:
        with pytest.raises(Exception, match="campaign_delta"):
            await courier.cycle()
    assert len(standin.received) == 3
    assert await waiting(look) == 3
    await look.execute("ALTER TABLE elsewhere RENAME TO campaign_delta")
    async with deliverer(ledger, ams_settings(url=standin.url)) as courier:
        await courier.cycle()
    assert set(emails(standin)) == set(addresses(messages))
    assert await waiting(look) == 0
    assert await counts(look, messages[0].campaign or 0) == {"ams_delivered": 3}


async def test_a_stop_ends_after_the_call_in_flight(
    ledger: Ledger, look: Connection, standin: StandinAms, eventually: Eventually
) -> None:
    """What AMS takes meanwhile is settled; the rest waits for the next start, and the lease is given back."""
    await mailing(look, 42, 4)
    stopping = asyncio.Event()
    settings = ams_settings(url=standin.url, max_batch=1)
    async with standin._one_at_a_time:
        task = asyncio.create_task(run_deliverer(ledger, settings, process=1, stopping=stopping))
        await eventually(lambda: standin.most_in_flight)
        stopping.set()
    await asyncio.wait_for(task, 10)
    assert len(standin.received) == 1
    assert await waiting(look) == 3
    assert await look.fetchval("SELECT count(*) FROM lease") == 0


async def test_nothing_runs_without_an_endpoint(ledger: Ledger) -> None:
    """AMS is off until its URL is set."""
    await asyncio.wait_for(run_deliverer(ledger, ams_settings(url=""), process=1, stopping=asyncio.Event()), 5)


async def test_neither_key_nor_address_is_logged_or_kept(ledger: Ledger, look: Connection, standin: StandinAms) -> None:
    """Refusals that quote them are masked before they are logged, kept or shown."""
    await mailing(look, 42, 4)
    standin.refused_addresses = {"r2@m42.example.net"}
    with structlog.testing.capture_logs() as logs:
        async with deliverer(ledger, ams_settings(url=standin.url)) as courier:
            await courier.cycle()
            kept = await standing(look, 42)
            await courier.cycle()
    reasons = await look.fetch("SELECT reason FROM outbox")
    told = f"{logs} {kept} {reasons}"
    assert "ams_items_parked" in told
    assert "example.net" not in told
    assert "K-1" not in told
