"""What waits for a webhook reaches it, whatever it, PostgreSQL or another courier does meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from courier.replay import replay_sink_parked, replay_sink_since
from courier.settings import ListmonkSettings
from courier.sinks import rules
from courier.tellers import gather, run_tellers
from ledger import sinks
from ledger.events import EventType
from ledger.ids import key_bytes
from ledger.processes import register
from ledger.store import Ledger
from providers.notice import Bounce, What
from tests.conftest import Eventually
from tests.mailings import APPLE, entries, hit
from tests.receiver import OLD_SECRET, SECRET, TAKEN, Listmonk, Receiver, Reply
from tests.rows import Pool, Rows
from tests.telling import (
    crm,
    held,
    mailer,
    notice,
    opened,
    record,
    recorder,
    subscribed,
    telling,
    waiting,
)


@pytest.fixture
def rows(pool: Pool) -> Rows:
    """Insert into it."""
    return Rows(pool)


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Return a receiver that listens."""
    async with Receiver() as running:
        yield running


@pytest_asyncio.fixture
async def listmonk() -> AsyncIterator[Listmonk]:
    """Return a listmonk that listens."""
    async with Listmonk() as running:
        yield running


class TestWebhook:
    """Batches, signed, each event at least once."""

    async def test_events_arrive_signed_in_order_within_the_limits(
        self, ledger: Ledger, rows: Rows, pool: Pool, receiver: Receiver
    ) -> None:
        """No more than MAX_BATCH and MAX_BYTES in one request, oldest first, the fields as the ledger has them."""
        webhooks = crm(receiver, max_batch=4)
        messages = await opened(ledger, rows, 9, rules(webhooks, ListmonkSettings()))
        async with telling(ledger, webhooks) as teller:
            await teller.cycle()
        assert [len(ids) for _, ids in receiver.batches] == [4, 4, 1]
        told = list(receiver.events.values())
        assert [event["key"] for event in told] == [message.key for message in messages]
        assert {(event["type"], event["source"], event["campaign_id"], event["submitted_by"]) for event in told} == {
            ("opened", "tracker", "spring", "default")
        }
        assert told[3]["recipient"] == "r3@example.net"
        assert (told[3]["machine"], told[3]["reason"], told[3]["message_id"]) == (
            False,
            "browser/2",
            messages[3].message_id,
        )
        assert await waiting(pool) == (0, 0)
        async with telling(ledger, crm(receiver, max_bytes=1024)) as teller:
            await record(ledger, rules(webhooks, ListmonkSettings()), *(notice(What.BOUNCED, one) for one in messages))
            await teller.cycle()
        assert [len(ids) for _, ids in receiver.batches[3:]] == [2, 2, 2, 2, 1]

    async def test_nothing_is_queued_without_a_sink_or_past_a_filter(
        self, ledger: Ledger, rows: Rows, pool: Pool, receiver: Receiver
    ) -> None:
        """Types, campaigns, users and machines; and no row at all where none is configured."""
        webhooks = crm(receiver, events=("clicked",), campaigns=("Spring*",), machines="exclude")
        spring, other = await rows.campaign("spring"), await rows.campaign("other")
        wanted, elsewhere = await rows.message(campaign=spring), await rows.message(campaign=other)
        key, none, foreign = key_bytes(wanted.key), await rows.message(), key_bytes(elsewhere.key)
        hits = [
            hit(key, EventType.CLICKED),
            hit(key, EventType.CLICKED, user_agent=APPLE),
            hit(key),
            hit(foreign, EventType.CLICKED),
            hit(key_bytes(none.key), EventType.CLICKED),
        ]
        await recorder(ledger, ()).record(entries(hits[:1]))
        assert await waiting(pool) == (0, 0)
        asked = rules(webhooks, ListmonkSettings())
        await recorder(ledger, asked).record(
            entries([*hits[1:], hit(key, EventType.CLICKED, url="https://a.example/")])
        )
        # Recorded twice is queued once.
        await recorder(ledger, asked).record(entries(hits))
        async with telling(ledger, webhooks) as teller:
            await teller.cycle()
        assert [event["url"] for event in receiver.events.values()] == ["https://a.example/"]

    @pytest.mark.parametrize(
        ("reply", "trouble"),
        [
            (Reply(status=503), ("no answer: HTTP 503", None)),
            (Reply(silent=True), ("no answer: timeout", None)),
            (Reply(lost=True), ("no answer: ServerDisconnectedError", None)),
            (Reply(status=302, headers={"Location": "/"}), ("302: Found", "302: Found")),
            (Reply(status=401, text="no ann@example.net"), ("401: no <address>", "401: no <address>")),
            (Reply(status=410, text="gone"), ("410: gone", "410: gone")),
            (Reply(status=400, text="bad"), ("400: bad", None)),
        ],
    )
    async def test_whatever_it_answers_nothing_is_lost(
        self,
        ledger: Ledger,
        rows: Rows,
        pool: Pool,
        receiver: Receiver,
        reply: Reply,
        trouble: tuple[str, str | None],
    ) -> None:
        """A row leaves on a 2xx alone; the reason stands in the ledger; then all goes on by itself."""
        webhooks = crm(receiver, timeout=0.3)
        await opened(ledger, rows, 3, rules(webhooks, ListmonkSettings()))
        receiver.judge = lambda _: reply
        async with telling(ledger, webhooks) as teller:
            await teller.cycle()
            state = await sinks.state(ledger, "crm")
            assert (state.last_error, state.held) == trouble
            assert await waiting(pool) == (3, 0)
            receiver.judge = lambda _: TAKEN
            for _ in range(2):
                await teller.cycle()
            assert await sinks.state(ledger, "crm") == sinks.SinkState()
        assert await waiting(pool) == (0, 0)
        assert len(receiver.taken) == 3

    async def test_a_receiver_that_is_away_and_one_that_is_somebody_else(
        self, ledger: Ledger, rows: Rows, pool: Pool, receiver: Receiver
    ) -> None:
        """No connection waits; a signature that does not hold is a 401; a second key signs beside the first."""
        webhooks = crm(receiver)
        await opened(ledger, rows, 2, rules(webhooks, ListmonkSettings()))
        await receiver.stop()
        async with telling(ledger, webhooks) as teller:
            await teller.cycle()
            assert (await sinks.state(ledger, "crm")).last_error == "no answer: no connection"
            await receiver.start()
            receiver.secret = OLD_SECRET
            await teller.cycle()
            assert await held(ledger) == "401: no such signature"
            assert receiver.taken == {}
        async with telling(ledger, crm(receiver, secret=(SECRET, OLD_SECRET))) as teller:
            await teller.cycle()
        assert await waiting(pool) == (0, 0)

    async def test_a_retry_of_the_same_events_has_the_same_id_and_another_batch_another(
        self, ledger: Ledger, rows: Rows, receiver: Receiver
    ) -> None:
        """The webhook-id says that the contents are the same; each event's id is the same in whatever batch."""
        webhooks = crm(receiver)
        asked = rules(webhooks, ListmonkSettings())
        first = await opened(ledger, rows, 2, asked)
        receiver.judge = lambda _: Reply(lost=True)
        async with telling(ledger, webhooks) as teller:
            await teller.cycle()
            await teller.cycle()
            receiver.judge = lambda _: TAKEN
            await recorder(ledger, asked).record(entries([hit(key_bytes(first[0].key))]))
            await teller.cycle()
        (one, ids), (two, again), (three, more) = receiver.batches
        assert (one, ids) == (two, again)
        assert three != one
        assert more[:2] == ids
        assert [receiver.taken[event] for event in more] == [3, 3, 1]

    async def test_a_bad_event_is_parked_alone_listed_and_replayed(
        self, ledger: Ledger, rows: Rows, pool: Pool, receiver: Receiver
    ) -> None:
        """The others arrive once each; it waits with the receiver's words until somebody says so."""
        webhooks = crm(receiver)
        messages = await opened(ledger, rows, 20, rules(webhooks, ListmonkSettings()))
        bad = messages[13].key
        receiver.judge = lambda items: Reply(status=422, text="no") if bad in [one["key"] for one in items] else TAKEN
        async with telling(ledger, webhooks) as teller:
            for _ in range(3):
                await teller.cycle()
            assert await waiting(pool) == (0, 1)
            assert receiver.taken.total() == len(receiver.taken) == 19
            (parked,) = await sinks.parked(ledger, "crm", 10)
            assert (parked.key, parked.type, parked.reason) == (bad, "opened", "422: no")
            receiver.judge = lambda _: TAKEN
            assert await replay_sink_parked(ledger, "crm") == 1
            await teller.cycle()
        assert await waiting(pool) == (0, 0)
        assert receiver.taken.total() == 20

    async def test_a_receiver_that_takes_small_bodies_gets_small_ones(
        self, ledger: Ledger, rows: Rows, pool: Pool, receiver: Receiver
    ) -> None:
        """413 halves what a request holds, in one cycle; what is too large alone is parked, and stops nobody."""
        webhooks = crm(receiver)
        asked = rules(webhooks, ListmonkSettings())
        messages = await opened(ledger, rows, 20, asked)
        huge = hit(key_bytes(messages[0].key), EventType.CLICKED, url="https://shop.example.com/" + "x" * 4000)
        await recorder(ledger, asked).record(entries([huge]))

        def small(items: list[dict[str, Any]]) -> Reply:
            return Reply(status=413) if len(msgspec.json.encode(items)) > 3000 else TAKEN

        receiver.judge = small
        async with telling(ledger, webhooks) as teller:
            await teller.cycle()
        assert await waiting(pool) == (0, 1)
        assert receiver.taken.total() == len(receiver.taken) == 20
        assert max(len(ids) for _, ids in receiver.batches[-5:]) > 1

    async def test_one_event_a_request_where_that_is_asked(
        self, ledger: Ledger, rows: Rows, pool: Pool, receiver: Receiver
    ) -> None:
        """The first of them being refused does not keep the others."""
        webhooks = crm(receiver, max_batch=1)
        messages = await opened(ledger, rows, 4, rules(webhooks, ListmonkSettings()))
        bad = messages[0].key
        receiver.judge = lambda items: Reply(status=400, text="no") if items[0]["key"] == bad else TAKEN
        async with telling(ledger, webhooks) as teller:
            await teller.cycle()
        assert [len(ids) for _, ids in receiver.batches] == [1, 1, 1, 1]
        assert await waiting(pool) == (0, 1)
        assert len(receiver.taken) == 3

    async def test_retry_after_is_honoured(self, ledger: Ledger, rows: Rows, pool: Pool, receiver: Receiver) -> None:
        """It is not asked again before, whatever the backoff says."""
        webhooks = crm(receiver)
        await opened(ledger, rows, 1, rules(webhooks, ListmonkSettings()))
        receiver.judge = lambda _: Reply(status=429, headers={"Retry-After": "3600"})
        async with telling(ledger, webhooks) as teller:
            await teller.cycle()
            assert 3500 < (await sinks.state(ledger, "crm")).wait <= 3600
            receiver.judge = lambda _: TAKEN
            await teller.cycle()
            assert receiver.calls == 1
            await pool.execute("UPDATE sink SET next_at = now()")
            await teller.cycle()
        assert len(receiver.taken) == 1

    async def test_what_was_taken_while_postgresql_went_is_not_sent_again(
        self, ledger: Ledger, rows: Rows, pool: Pool, receiver: Receiver
    ) -> None:
        """The row is let go as soon as PostgreSQL is back."""
        webhooks = crm(receiver)
        await opened(ledger, rows, 3, rules(webhooks, ListmonkSettings()))

        async def cut() -> None:
            await pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

        receiver.meanwhile = cut
        async with telling(ledger, webhooks) as teller:
            await teller.cycle()
        assert receiver.calls == 1
        assert receiver.taken.total() == 3
        assert await waiting(pool) == (0, 0)

    async def test_one_request_is_in_flight_across_couriers(
        self, ledger: Ledger, rows: Rows, pool: Pool, receiver: Receiver
    ) -> None:
        """The lease is of the endpoint; who does not hold it waits, and takes over when it is given back."""
        webhooks = crm(receiver, max_batch=1)
        await opened(ledger, rows, 6, rules(webhooks, ListmonkSettings()))
        one, two = await register(ledger, "courier"), await register(ledger, "courier")
        async with telling(ledger, webhooks, process=one) as first, telling(ledger, webhooks, process=two) as second:
            await asyncio.gather(first.cycle(), second.cycle())
            assert receiver.most_in_flight == 1
            assert receiver.taken.total() == 6
            owner = await pool.fetchval("SELECT owner FROM lease")
            assert owner in {one, two}
            await (first if owner == one else second).close()
            assert await pool.fetchval("SELECT count(*) FROM lease") == 0

    async def test_what_became_a_machines_meanwhile_is_not_told_to_who_hears_of_people(
        self, ledger: Ledger, rows: Rows, pool: Pool, receiver: Receiver
    ) -> None:
        """A burst that completes takes back what still waits; the others are told of it as it is judged now."""
        every, people = crm(receiver)["crm"], crm(receiver, machines="exclude")["crm"]
        asked = rules({"every": every, "people": people}, ListmonkSettings())
        message = await rows.message(campaign=await rows.campaign("spring"))
        clicks = [
            hit(key_bytes(message.key), EventType.CLICKED, link=number, url=f"https://example.com/{number}")
            for number in range(4)
        ]
        for click in clicks[:3]:
            await recorder(ledger, asked).record(entries([click]))
        assert (await waiting(pool, "every"), await waiting(pool, "people")) == ((3, 0), (3, 0))
        await recorder(ledger, asked).record(entries(clicks[3:]))
        assert (await waiting(pool, "every"), await waiting(pool, "people")) == ((4, 0), (0, 0))
        async with telling(ledger, {"every": every}) as teller:
            await teller.cycle()
        assert {event["machine"] for event in receiver.events.values()} == {True}

    async def test_what_the_relay_and_an_operator_record_is_told_too(
        self, ledger: Ledger, rows: Rows, pool: Pool, receiver: Receiver
    ) -> None:
        """Whoever writes it; of imported history nobody hears, and nothing is kept where there is no sink."""
        webhooks = crm(receiver)
        asked = rules(webhooks, ListmonkSettings())
        message = await rows.message(campaign=await rows.campaign("spring"))
        await rows.event(message, "failed", source="relay", reason="550 5.1.1 before there was a sink")
        async with telling(ledger, webhooks) as teller:
            await rows.event(message, "failed", source="relay", reason="550 5.1.1 no such user")
            await rows.event(message, "failed", source="operator", reason="554 cancelled")
            await rows.event(message, "opened", source="import:csv")
            await gather(ledger, asked)
            await gather(ledger, asked)
            await teller.cycle()
        told = [(event["source"], event["reason"]) for event in receiver.events.values()]
        assert told == [("relay", "550 5.1.1 no such user"), ("operator", "554 cancelled")]
        assert await pool.fetchval("SELECT count(*) FROM sink_fresh") == 0
        await sinks.keep(ledger, [])
        await rows.event(message, "failed", source="relay", reason="550 5.1.1 after the last")
        assert await pool.fetchval("SELECT count(*) FROM sink_fresh") == 0

    async def test_a_time_when_it_was_off_is_built_from_the_ledger(
        self, ledger: Ledger, rows: Rows, receiver: Receiver
    ) -> None:
        """By the sink's own filters; twice in a row queues nothing twice."""
        webhooks = crm(receiver, events=("opened",))
        (rule,) = rules(webhooks, ListmonkSettings())
        messages = await opened(ledger, rows, 3, ())
        await recorder(ledger, ()).record(entries([hit(key_bytes(messages[0].key), EventType.CLICKED)]))
        since = datetime(2026, 1, 1, tzinfo=UTC)
        assert await replay_sink_since(ledger, since, rule) == 3
        assert await replay_sink_since(ledger, since, rule) == 0
        assert await replay_sink_since(ledger, datetime.now(UTC), rule) == 0
        async with telling(ledger, webhooks) as teller:
            await teller.cycle()
        assert receiver.taken.total() == 3

    async def test_the_loops_of_a_process_go_on_until_they_are_stopped(
        self, ledger: Ledger, rows: Rows, pool: Pool, receiver: Receiver, listmonk: Listmonk, eventually: Eventually
    ) -> None:
        """Each sink is served by itself: one that is away keeps nobody from the others."""
        webhooks, own = crm(receiver), mailer(listmonk)
        await receiver.stop()
        stopping = asyncio.Event()
        process = await register(ledger, "courier")
        running = asyncio.create_task(run_tellers(ledger, webhooks, own, process=process, stopping=stopping))
        message = await subscribed(rows, pool)
        await record(ledger, rules(webhooks, own), notice(What.BOUNCED, message, bounce=Bounce.HARD))
        await eventually(lambda: len(listmonk.bounces) == 1)
        assert await waiting(pool) == (1, 0)
        await receiver.start()
        await pool.execute("UPDATE sink SET next_at = now()")
        await eventually(lambda: len(receiver.taken) == 1)
        stopping.set()
        await asyncio.wait_for(running, 5)
        assert await pool.fetchval("SELECT count(*) FROM lease") == 0
