"""The benches that need servers, with next to no load: every row is there, and what was measured is right."""

import pytest

from bench import relay, start, store
from bench.paired import PairedRow
from bench.servers import outrider, stores
from bench.stage import Stage
from ledger.store import open_ledger
from sidecar.embedded import Servers


@pytest.fixture
def given(servers: Servers, redis_url: str) -> Servers:
    """Return the test's own servers."""
    return Servers(database_url=servers.database_url, redis_url=redis_url)


async def test_every_outrider_has_a_ledger_of_its_own(given: Servers) -> None:
    """It is there, whole and empty, and gone afterwards."""
    async with stores(given) as place, outrider(place) as first, outrider(place) as second:
        assert first.database_url != second.database_url
        async with open_ledger(first.database_url) as ledger:
            assert await ledger.fetch("find_messages", []) == []
            database = first.database_url
    with pytest.raises(Exception, match="does not exist"):
        async with open_ledger(database) as ledger:
            await ledger.fetch("find_messages", [])


async def test_the_store_is_measured(given: Servers) -> None:
    """Each way of committing stores every message once."""
    found = await store.bench(Stage(rounds=1, scale=0.005, servers=given))
    assert [row.flaw for row in found.rows] == [None] * len(found.rows)
    grouped = next(row for row in found.rows if row.name == "20 waiting, in groups")
    assert isinstance(grouped, PairedRow)
    assert grouped.units == 30
    assert [ratio.baseline for ratio in grouped.also] == [row.name for row in found.rows[:2]]


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_the_relay_is_measured_beside_all_that_is_here(given: Servers) -> None:
    """The whole job loses, doubles and forgets nothing; who is not here is named."""
    found = await relay.bench(Stage(rounds=1, scale=0.02, servers=given))
    assert {row.name: row.flaw for row in found.rows if row.flaw is not None} == {}
    names = [row.name for row in found.rows]
    assert "whole job, one worker" in names
    assert any("Postfix" in name for name in names) or any("postfix" in each for each in found.left_out)
    assert any("Haraka" in name for name in names) or any("haraka" in each for each in found.left_out)


@pytest.mark.soak
async def test_the_start_is_measured() -> None:
    """It is up, and it ends when it is told to."""
    found = await start.bench(Stage(rounds=1))
    [row] = found.rows
    assert isinstance(row, PairedRow)
    assert (row.flaw, row.units) == (None, 1)
