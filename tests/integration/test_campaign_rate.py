"""A campaign leaves at its rate, shared by all relays; what is over it is stored, and keeps nobody else back."""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest

from ledger import campaigns
from ledger.queue import waiting
from ledger.stream import connect
from relay import upstream_rates
from relay.rate import parse_domain_rate
from relay.routes import parse_routing
from relay.settings import RelaySettings
from relay.throttle import parse_campaign_rate
from relay.upstream_pool import SmtpUpstream
from relay.upstream_rates import SharedRates
from relay.upstreams import Upstreams
from sidecar.settings import Settings
from sidecar.wiring.upstreams import upstream_of
from tests.commands import Ended, command
from tests.conftest import Eventually
from tests.console import BEARER, console
from tests.relaying import Relay, relaying, submission
from tests.sink import Sink

# The first retry comes in an hour: what leaves earlier leaves because the rate says so.
QUIET = RelaySettings(verdict_wait=20.0, ledger_wait=1.0, retry_first=3600.0)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy machine be no Redis that is away: each relay would go by itself then."""
    monkeypatch.setattr(upstream_rates, "_ANSWER_SECONDS", 30.0)


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """Play an upstream."""
    async with Sink().listening() as sink:
        yield sink


def throttled(sink: Sink, redis_url: str, *rates: str, domains: Sequence[str] = ()) -> Upstreams:
    """Return a relay's upstreams as they are by default, with these rates of campaigns, and of domains."""
    return Upstreams(
        parse_routing([f"smtp://127.0.0.1:{sink.port}"], []),
        functools.partial(SmtpUpstream, hostname="relay.example.com"),
        rates=SharedRates(connect(redis_url)),
        domain_rates=dict(map(parse_domain_rate, domains)),
        campaign_rates=[parse_campaign_rate(rate) for rate in rates],
        patience=QUIET.verdict_wait / 2,
    )


@asynccontextmanager
async def queues(*relays: Relay) -> AsyncIterator[None]:
    """Work on the queue as it stands: nothing is made due by hand."""
    stopping = asyncio.Event()
    work = [asyncio.create_task(relay.queue.run(stopping)) for relay in relays]
    try:
        yield
    finally:
        stopping.set()
        await asyncio.gather(*work)


def people(count: int, prefix: str = "p") -> list[str]:
    """Return recipients."""
    return [f"{prefix}{number}@example.net" for number in range(count)]


async def row_of(relay: Relay, name: str) -> int:
    """Return a campaign's row."""
    (row,) = await campaigns.campaigns(relay.ledger, limit=2, campaign_id=name)
    return row.id


def sent_to(sink: Sink, recipients: Sequence[str]) -> int:
    """Return how many of *recipients* have got theirs."""
    return sum(kept.recipient in recipients for kept in sink.kept)


async def test_what_is_over_the_rate_is_stored_and_leaves_at_it(
    database_url: str, redis_url: str, sink: Sink, eventually: Eventually
) -> None:
    """Nobody's mailer waits, no try and no trouble is counted, and others' mail goes on."""
    upstream = throttled(sink, redis_url, "spring*=10/s")
    async with relaying(database_url, upstream, QUIET) as relay:
        spring = people(35)
        began = time.monotonic()
        assert (await relay.pipeline.accept(submission(*spring, campaign="spring-1"))).code == 250
        assert (await relay.pipeline.accept(submission(*people(40, "a"), campaign="autumn"))).code == 250
        assert (await relay.pipeline.accept(submission("reset@example.net", campaign=None))).code == 250
        # What passes in a second has passed at once, and what the time it took gave.
        at_once = sent_to(sink, spring)
        assert 10 <= at_once <= 11 + 10 * (time.monotonic() - began)
        assert len(sink.kept) - at_once == 41
        page = await waiting(relay.ledger, limit=100)
        assert {(one.attempts, one.upstream_reply) for one in page.messages} == {(0, None)}
        assert len(page.messages) == 35 - at_once
        assert [state.left_since for state in upstream.states()] == [None]

        async def all_recorded() -> bool:
            return set(await relay.statuses()) == {"sent"}

        async with queues(relay):
            await eventually(lambda: sent_to(sink, spring) == 35, timeout=30)
            assert time.monotonic() - began >= (35 - 11) / 10
            # The sink has a message before its verdict is in the ledger.
            await eventually(all_recorded)


async def test_all_relays_share_it(database_url: str, redis_url: str, sink: Sink, eventually: Eventually) -> None:
    """Two processes together send no faster than one may; each campaign has the rate for itself."""
    async with (
        relaying(database_url, throttled(sink, redis_url, "*=20/s"), QUIET) as one,
        relaying(database_url, throttled(sink, redis_url, "*=20/s"), QUIET) as other,
    ):
        began = time.monotonic()
        for number, relay in enumerate((one, other)):
            await relay.pipeline.accept(submission(*people(25, f"{number}x"), campaign="x"))
            await relay.pipeline.accept(submission(*people(15, f"{number}y"), campaign="y"))
        async with queues(one, other):
            await eventually(lambda: len(sink.kept) == 80, timeout=30)
        assert time.monotonic() - began >= (50 - 21) / 20


@pytest.mark.parametrize(
    ("rates", "domains"), [(["slow=10/s"], []), ([], ["slow.example.net=10/s"])], ids=["campaign", "domain"]
)
async def test_a_slow_queue_starves_nobody(
    database_url: str, redis_url: str, sink: Sink, eventually: Eventually, rates: list[str], domains: list[str]
) -> None:
    """More of it is due than a queue has hands, all of it before the other's message."""
    slow = [f"{number}@slow.example.net" for number in range(150)]
    async with relaying(database_url, throttled(sink, redis_url, *rates, domains=domains), QUIET) as relay:
        await relay.pipeline.accept(submission("first@example.net", campaign="slow"))
        await relay.pipeline.accept(submission("first@example.net", campaign="other"))
        rows = [await row_of(relay, name) for name in ("slow", "other")]
        for row in rows:
            await campaigns.hold(relay.ledger, row, paused=True)
        await relay.pipeline.accept(submission(*slow, campaign="slow"))
        await relay.pipeline.accept(submission("other@example.net", campaign="other"))
        for row in rows:
            await campaigns.hold(relay.ledger, row, paused=False)
        async with queues(relay):
            await eventually(lambda: sent_to(sink, ["other@example.net"]) == 1, timeout=30)
            # In a line it would stand behind a hundred of them.
            assert sent_to(sink, slow) < 60


async def test_an_operator_gives_a_rate_and_takes_it_away(
    database_url: str, redis_url: str, sink: Sink, eventually: Eventually
) -> None:
    """It holds for the next message, and what waits lines up anew under it."""
    async with relaying(database_url, throttled(sink, redis_url, "*=1/d"), QUIET) as relay:
        await relay.pipeline.accept(submission(*people(30)))
        assert len(sink.kept) == 1
        row = await row_of(relay, "65")
        await campaigns.set_rate(relay.ledger, row, "1/h")
        await relay.pipeline.accept(submission(*people(3, "more")))
        assert len(sink.kept) == 1, "a turn that was taken stays taken"
        await campaigns.set_rate(relay.ledger, row, "none")
        async with queues(relay):
            await eventually(lambda: len(sink.kept) == 33, timeout=30)
        await relay.pipeline.accept(submission(*people(3, "free")))
        assert len(sink.kept) == 36
        await campaigns.set_rate(relay.ledger, row, None)
        await relay.pipeline.accept(submission(*people(3, "slow")))
        assert len(sink.kept) == 36


async def test_a_relay_without_rates_learns_of_one(database_url: str, redis_url: str, sink: Sink) -> None:
    """It was started without any, as most are; then an operator gives a campaign one."""
    own = msgspec.structs.replace(QUIET, upstream=(f"smtp://127.0.0.1:{sink.port}",))
    upstream = upstream_of(Settings(redis_url=redis_url, relay=own), "relay.example.com")
    async with relaying(database_url, upstream, own) as relay:
        await relay.pipeline.accept(submission(*people(5)))
        assert len(sink.kept) == 5
        await campaigns.set_rate(relay.ledger, await row_of(relay, "65"), "1/h")
        await relay.pipeline.accept(submission(*people(3, "more")))
        assert len(sink.kept) == 6
        client = connect(redis_url)
        assert len(await client.keys("*rate*")) == 1
        await client.aclose()


async def test_resumed_mail_goes_to_the_head_of_the_line(
    database_url: str, redis_url: str, sink: Sink, eventually: Eventually
) -> None:
    """The turns that it was given before the pause are not kept for nobody."""
    async with relaying(database_url, throttled(sink, redis_url, "*=1/m"), QUIET) as relay:
        await relay.pipeline.accept(submission(*people(30)))
        row = await row_of(relay, "65")
        await campaigns.hold(relay.ledger, row, paused=True)
        async with relay.ledger.session() as session:
            await session._connection.execute("UPDATE delivery SET next_at = now() WHERE status = 'queued'")
        assert (await relay.mail.claim(10)).due == []
        await campaigns.hold(relay.ledger, row, paused=False)
        async with queues(relay):
            await eventually(lambda: _lined_up(relay), timeout=30)
        assert len(sink.kept) == 1
        times = await _next_tries(relay)
        # One a minute from now on: 29 more minutes, not 58.
        assert times == pytest.approx([60.0 * step for step in range(1, 30)], abs=10.0)


async def _lined_up(relay: Relay) -> bool:
    """Tell whether every message that waits was told its time."""
    return min(await _next_tries(relay)) > 1.0


async def _next_tries(relay: Relay) -> list[float]:
    """Return in how many seconds each waiting message is tried, the next one first; 0 for one in hand."""
    async with relay.ledger.session() as session:
        rows = await session._connection.fetch(
            "SELECT coalesce(extract(epoch FROM next_at - now()), 0)::float8 AS wait FROM delivery"
            " WHERE status IN ('queued', 'sending') ORDER BY wait"
        )
    return [row["wait"] for row in rows]


async def test_a_hold_is_no_trouble(database_url: str, redis_url: str, sink: Sink, eventually: Eventually) -> None:
    """It is stored where trouble is told to the mailer, and never too old."""
    settings = msgspec.structs.replace(QUIET, on_trouble="defer", retry_max_age=0.001)
    async with relaying(database_url, throttled(sink, redis_url, "*=1/h"), settings) as relay:
        assert (await relay.pipeline.accept(submission(*people(3)))).code == 250
        assert sorted(await relay.statuses()) == ["queued", "queued", "sent"]
        async with relay.ledger.session() as session:
            await session._connection.execute("UPDATE delivery SET next_at = now() WHERE status = 'queued'")
        async with queues(relay):
            await eventually(lambda: _lined_up(relay), timeout=30)
        assert sorted(await relay.statuses()) == ["queued", "queued", "sent"]
        assert {one.attempts for one in (await waiting(relay.ledger, limit=10)).messages} == {0}


async def test_the_console_and_the_command_take_it(database_url: str, redis_url: str, sink: Sink) -> None:
    """A rate, none, or the setting's again; anything else is named."""
    async with relaying(database_url, throttled(sink, redis_url), QUIET) as relay:
        await relay.pipeline.accept(submission())
    async with console(database_url) as client:

        async def told(body: object) -> tuple[int, dict[str, object]]:
            answer = await client.post("/api/campaigns/65/rate", json=body, headers=BEARER)
            return answer.status, await answer.json()

        for rate in ("100/m", "none", None):
            status, campaign = await told({"rate": rate})
            assert (status, campaign["rate"]) == (200, rate)
        status, problem = await told({"rate": "fast"})
        assert (status, "expected a rate such as 50/s" in str(problem)) == (400, True)
        for wrong in ({}, {"rate": 5}, {"rate": None, "more": 1}):
            assert (await told(wrong))[0] == 400
        assert (await client.post("/api/campaigns/65/rate", json={"rate": None})).status == 401
    environment = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "OUTRIDER_KEYS__SIGNING": "a signing key made up for tests, long enough",
        "OUTRIDER_KEYS__IDENTITY": "an identity key made up for tests, long enough",
    }
    assert "rate      100/m" in (await _typed(environment, "--rate", "100/m")).out
    assert "rate      none" in (await _typed(environment, "--rate", "none")).out
    assert "rate      as set for all" in (await _typed(environment, "--no-rate")).out
    ended = await _typed(environment, "--rate", "fast")
    assert (ended.code, "--rate: expected a rate such as" in ended.err) == (2, True)
    assert (await _typed(environment, "--rate", "1/s", "--no-rate")).code == 2


async def _typed(environment: Mapping[str, str], *words: str) -> Ended:
    return await command("campaign", "65", *words, environment=environment)
