"""The benches of the tracker, the courier and the webhooks, with next to no load: every row is there, and right."""

import pytest

from bench import courier, tracker, webhooks
from bench.clients import drive, request
from bench.paired import PairedRow
from bench.report import Found
from bench.stage import Stage
from sidecar.embedded import Servers
from tests.tracker_support import Kept, tracking


@pytest.fixture
def stage(servers: Servers, redis_url: str) -> Stage:
    """Return the test's own servers, one round, and a hundredth of the load."""
    given = Servers(database_url=servers.database_url, redis_url=redis_url)
    return Stage(rounds=1, scale=0.005, servers=given, against=frozenset())


def rows(found: Found) -> list[PairedRow]:
    """Return the rows of loads."""
    return [row for row in found.rows if isinstance(row, PairedRow)]


def flaws(found: Found) -> dict[str, str]:
    """Return what is wrong, by row."""
    return {row.name: row.flaw for row in found.rows if row.flaw is not None}


@pytest.mark.timeout(180)
async def test_the_courier_records_and_delivers_everything(stage: Stage) -> None:
    """Every event becomes an event, engagement and an item; AMS has every item once."""
    found = await courier.bench(stage)
    assert [(row.name, row.units) for row in rows(found)] == [
        ("record: stream to ledger", 500),
        ("deliver: a fifth of the items", 500),
        ("deliver: outbox to AMS", 2_500),
    ]
    assert flaws(found) == {}


@pytest.mark.soak
@pytest.mark.timeout(300)
async def test_the_tracker_keeps_what_it_answers(stage: Stage) -> None:
    """One process and two, beside a handler that keeps nothing."""
    found = await tracker.bench(stage)
    assert [(row.units, row.baseline) for row in rows(found)] == [
        (150, None),
        *[(150, "bare aiohttp handler")] * 3,
    ]
    assert flaws(found) == {}


@pytest.mark.soak
@pytest.mark.timeout(300)
async def test_the_ledger_has_what_providers_posted(stage: Stage) -> None:
    """Arrays and single events, each proved, each on its own message."""
    found = await webhooks.bench(stage)
    assert [row.units for row in rows(found)] == [200, 200, 50, 50]
    assert flaws(found) == {}


class TestClients:
    """The clients say what they saw, and an answer that is not the expected one is a flaw."""

    async def test_every_request_is_answered(self) -> None:
        kept = Kept()
        async with tracking(kept) as door:
            requests = [request(door.pixel), request(door.click)]
            driven = await drive(door.port, requests[:1], total=30, connections=4, expected="HTTP/1.1 200")
            refused = await drive(door.port, requests, total=2, connections=1, expected="HTTP/1.1 200")
        assert (driven.answered, driven.flaw, len(driven.latencies_us)) == (30, None, 30)
        assert 0 < max(driven.latencies_us) / 1_000_000 <= driven.seconds
        assert refused.flaw == "HTTP/1.1 302 Found"
        assert len(kept.hits) == 32

    async def test_nobody_listens(self) -> None:
        async with tracking(Kept()) as door:
            port = door.port
        with pytest.raises(Exception, match="the HTTP clients ended"):
            await drive(port, [request("/")], connections=1, expected="HTTP/1.1 200")
