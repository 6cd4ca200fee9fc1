"""Rates hold for all relay processes together; what is over them waits its turn or is queued until then."""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from structlog.testing import capture_logs

from ledger.stream import connect
from relay.rate import Limit, Rate, parse_rate
from relay.routes import parse_routing
from relay.settings import RelaySettings
from relay.upstream_pool import SmtpUpstream
from relay.upstream_rates import SharedRates
from relay.upstreams import Upstreams
from tests.conftest import Eventually
from tests.relaying import Relay, relaying, submission
from tests.sink import Sink

QUICK = RelaySettings(verdict_wait=1.0, ledger_wait=1.0, retry_first=3600.0)


@asynccontextmanager
async def clients(redis_url: str, count: int) -> AsyncIterator[list[SharedRates]]:
    """Yield what as many relay processes have."""
    async with AsyncExitStack() as stack:
        made = [SharedRates(connect(redis_url)) for _ in range(count)]
        for one in made:
            stack.push_async_callback(one.close)
        yield made


def limit(text: str, key: str = "x") -> Limit:
    """Return a limit."""
    return Limit(key=key, rate=parse_rate(text))


async def test_processes_share_a_rate(redis_url: str) -> None:
    """Four clients want more than there is: together they get what passes in a second at once, and then the rate."""
    async with clients(redis_url, 4) as rates:
        began = time.monotonic()
        with capture_logs() as logs:
            turns = await asyncio.gather(*(rates[i % 4].take([limit("100/s")], patience=1.0) for i in range(400)))
        took = time.monotonic() - began
        taken = [turn.seconds for turn in turns if turn.taken]
        # The slack (100), what one has patience for (100), and what the time it took gave.
        assert 199 <= len(taken) <= 201 + 100 * took
        assert max(taken) <= 1.0
        assert logs == []


async def test_who_is_sent_away_comes_back_in_order(redis_url: str) -> None:
    """Each is told a time of his own, one interval apart, by whichever process."""
    async with clients(redis_url, 3) as rates:
        turns = [await rates[i % 3].take([limit("10/m")], patience=0.0) for i in range(10)]
        assert [turn.taken for turn in turns] == [True] + [False] * 9
        assert [turn.seconds for turn in turns[1:]] == pytest.approx([6.0 * step for step in range(1, 10)], abs=1.5)


async def test_limits_are_taken_together(redis_url: str) -> None:
    """What one limit refuses takes nothing from another."""
    async with clients(redis_url, 1) as (rates,):
        slow, fast = limit("1/h", "slow"), limit("1/h", "fast")
        assert (await rates.take([slow], patience=0.0)).taken
        assert not (await rates.take([fast, slow], patience=0.0)).taken
        assert (await rates.take([fast], patience=0.0)).taken


async def test_a_rate_leaves_nothing_behind(redis_url: str) -> None:
    """Keys go when they say nothing any more, and hold no address."""
    client = connect(redis_url)
    async with clients(redis_url, 1) as (rates,):
        for _ in range(2):
            await rates.take([limit("1/s", "domain:example.net")], patience=0.0)
        (key,) = await client.keys("*")
        assert key == b"{outrider:rate}:domain:example.net"
        assert 60_000 < await client.pttl(key) < 65_000
    await client.aclose()


async def test_without_redis_each_keeps_the_rate_by_itself(redis_url: str) -> None:
    """Nobody waits for Redis, it is said once, and when it is back all share again."""
    client = connect(redis_url)
    async with clients(redis_url, 2) as rates:
        assert (await rates[0].take([limit("1/h")], patience=0.0)).taken
        with capture_logs() as logs:
            await client.client_pause(60_000, all=False)
            # Shared knowledge is out of reach: each has a bucket of its own, and keeps to it.
            for one in rates:
                assert [(await one.take([limit("1/h")], patience=0.0)).taken for _ in range(3)] == [True, False, False]
            await client.client_unpause()
            for one in rates:
                one._ask_at = 0.0
            assert not (await rates[1].take([limit("1/h")], patience=0.0)).taken
            assert (await rates[1].take([limit("1/h", "y")], patience=0.0)).taken
        events = [entry["event"] for entry in logs]
        assert events == ["rates_not_shared", "rates_not_shared", "rates_shared_again"]
    await client.aclose()


def limited(sink: Sink, redis_url: str, *, query: str = "", domains: Sequence[tuple[str, str]] = ()) -> Upstreams:
    """Return upstreams with rates, and a tenth of a second of patience."""
    return Upstreams(
        parse_routing([f"smtp://127.0.0.1:{sink.port}{query}"], []),
        functools.partial(SmtpUpstream, hostname="relay.example.com"),
        rates=SharedRates(connect(redis_url)),
        domain_rates={domain: parse_rate(rate) for domain, rate in domains},
        patience=0.1,
    )


async def test_over_its_rate_mail_is_queued_until_its_turn(
    database_url: str, redis_url: str, eventually: Eventually
) -> None:
    """250 at once; the queue sends it when the bucket says, not when its backoff would."""
    async with (
        Sink().listening() as sink,
        relaying(database_url, limited(sink, redis_url, query="?rate=60/m"), QUICK) as relay,
    ):
        for number in range(3):
            sent = submission(message_id=f"<{number}@mailer.example>")
            assert (await relay.pipeline.accept(sent)).code == 250
        assert await relay.statuses() == ["sent", "queued", "queued"]
        stopping = asyncio.Event()
        # As it stands: nothing is made due by hand, and the first retry would come in an hour.
        work = asyncio.create_task(relay.queue.run(stopping))
        began = time.monotonic()
        await eventually(lambda: len(sink.kept) == 3)
        stopping.set()
        await work
        assert time.monotonic() - began > 0.8
        await eventually(lambda: _all_sent(relay))


async def _all_sent(relay: Relay) -> bool:
    return set(await relay.statuses()) == {"sent"}


async def test_a_message_waits_for_a_turn_that_is_near(database_url: str, redis_url: str) -> None:
    """20/s: what is over waits some milliseconds, and nothing is queued."""
    async with (
        Sink().listening() as sink,
        relaying(database_url, limited(sink, redis_url, query="?rate=20/s"), QUICK) as relay,
    ):
        recipients = [f"{number}@example.net" for number in range(21)]
        assert (await relay.pipeline.accept(submission(*recipients))).code == 250
        assert set(await relay.statuses()) == {"sent"}


async def test_a_recipient_domain_has_its_own_rate(database_url: str, redis_url: str) -> None:
    """The others' mail goes on."""
    async with Sink().listening() as sink:
        upstream = limited(sink, redis_url, domains=[("slow.example.net", "1/h")])
        async with relaying(database_url, upstream, QUICK) as relay:
            recipients = ["a@slow.example.net", "b@SLOW.example.net", "c@example.net", "d@example.net"]
            assert (await relay.pipeline.accept(submission(*recipients))).code == 250
            assert sorted(await relay.statuses()) == ["queued", "sent", "sent", "sent"]
            assert {kept.recipient for kept in sink.kept} >= {"c@example.net", "d@example.net"}


async def test_failing_over_costs_one_turn_of_the_domain(database_url: str, redis_url: str) -> None:
    """The second upstream takes the message with the turn that it had for the first."""
    async with Sink().listening() as first, Sink().listening() as second:
        first.banner = "421 4.3.2 Going down"
        upstream = Upstreams(
            parse_routing([f"smtp://127.0.0.1:{sink.port}" for sink in (first, second)], []),
            functools.partial(SmtpUpstream, hostname="relay.example.com"),
            rates=SharedRates(connect(redis_url)),
            domain_rates={"example.net": Rate(messages=1, seconds=3600.0)},
        )
        async with relaying(database_url, upstream, QUICK) as relay:
            assert (await relay.pipeline.accept(submission())).code == 250
            assert await relay.statuses() == ["sent"]
            assert (len(first.kept), len(second.kept)) == (0, 1)
