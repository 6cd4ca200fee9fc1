"""A person is erased: nothing names them, the rest stands, and nothing that comes later brings them back."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec
import pytest

from courier.ams import open_ams
from courier.deliver import Deliverer
from courier.record import Recorder
from courier.replay import replay_since
from ledger import campaigns, erasure, outbox, reports, suppressions
from ledger.erasure import ENDED, Erased
from ledger.events import EventType
from ledger.ids import key_bytes, recipient_index
from ledger.processes import register
from ledger.reports import MessageFilter
from ledger.store import Ledger
from ledger.suppressions import EVERY_SOURCE, Entry
from ledger.traces import Traces
from sidecar.standin_ams import StandinAms
from tests.conftest import Eventually
from tests.mailings import READER, ams_settings, entries, hit
from tests.relaying import IDENTITY as RELAY_IDENTITY
from tests.relaying import Relay, relaying, submission
from tests.rows import IDENTITY, Pool, Rows
from tests.sink import Sink

ANN = "Ann@Example.net"
INDEX = recipient_index(IDENTITY, ANN)
TRACES = Traces(ANN)


@pytest.fixture
def rows(pool: Pool) -> Rows:
    """Insert into it."""
    return Rows(pool)


async def everything(pool: Pool) -> bytes:
    """Return all texts and octets of all tables, in small letters."""
    columns = await pool.fetch(
        "SELECT c.table_name, c.column_name FROM information_schema.columns c"
        " JOIN information_schema.tables t USING (table_schema, table_name)"
        " WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE'"
        " AND c.data_type IN ('text', 'bytea', 'jsonb')"
    )
    assert len(columns) > 40
    found: list[bytes] = []
    for table, column in columns:
        rows = await pool.fetch(f'SELECT "{column}" FROM "{table}"')  # noqa: S608 - names from the catalogue
        found += [row[0].encode() if isinstance(row[0], str) else row[0] or b"" for row in rows]
    return b"\n".join(found).lower()


async def forget(ledger: Ledger) -> Erased:
    """Erase Ann, from her messages and from those of others."""
    erased = await erasure.forget(ledger, INDEX, TRACES)
    return msgspec.structs.replace(erased, counts=erased.counts + await erasure.sweep(ledger, TRACES))


async def drift(ledger: Ledger, campaign: int) -> dict[str, int]:
    """Return what a recount finds wrong."""
    return {one.counter: one.drift for one in await campaigns.sync_counts(ledger, campaign) if one.drift}


class TestWhatGoes:
    """Every place in which an address may stand."""

    async def test_nothing_names_the_person(self, ledger: Ledger, rows: Rows, pool: Pool) -> None:
        """Of hers, and of others' that speak of her; Ben's and Joann's stay as they are."""
        campaign = await rows.campaign(ams_mailing=42)
        hers = await rows.message(
            "ann@example.net", campaign=campaign, reply="250 Ok <ann@example.net> as 7", original="7.ann@mailer.example"
        )
        ben = await rows.message("ben@example.net", campaign=campaign, reply="450 <ANN@example.net> was first")
        joann = await rows.message("joann@example.net", reply="250 <joann@example.net> Ok")
        await pool.execute(
            "UPDATE message SET sender = 'bounce+ann=example.net@shop.example.com' WHERE id = $1", hers.id
        )
        await pool.execute("UPDATE message SET sender = 'ann@EXAMPLE.net' WHERE id = $1", ben.id)
        await rows.event(hers, "clicked", url="https://shop.example.com/?e=ann%40example.net")
        await rows.event(hers, "bounced", reason="user ann is unknown")
        await rows.event(ben, "clicked", url="https://shop.example.com/from/ann@example.net")
        await rows.event(ben, "clicked", url="https://shop.example.com/from/joann@example.net")
        await pool.execute("UPDATE event SET network = '192.0.2.0/24', user_agent = 'Agent/1'")
        await rows.outbox(hers, campaign)
        await rows.outbox(ben, campaign, reason="AMS: ann@example.net is not known")
        await pool.execute("INSERT INTO ams_mailing (mailing, last_error) VALUES (42, 'no <Ann@example.net> here')")
        for named, payload in (
            (key_bytes(hers.key), b"her key"),
            (b"?", b"\xff/ann%40example.net"),
            (b"!", b"joann@example.net"),
        ):
            digest = hashlib.sha256(payload).digest()[:16]
            await pool.execute(
                "INSERT INTO parked_event (dedupe, source, reason, named, payload) VALUES ($1, 't', 'r', $2, $3)",
                digest,
                named,
                payload,
            )
        entry = Entry(source="shop", recipient_index=INDEX, recipient=ANN, reason="operator")
        await suppressions.enter(ledger, [entry])

        erased = await forget(ledger)

        left = await everything(pool)
        assert left.replace(b"joann@example.net", b"").count(b"ann@example.net") == 0
        assert b"ann%40example.net" not in left
        assert b"ann=example.net" not in left
        assert b"user ann" not in left
        assert b"7.ann@" not in left
        # Her recipient, reply, link and payload; the link stands in a partition, and so in its parent too.
        assert left.count(b"joann@example.net") == 5
        assert left.count(b"ben@example.net") == 1
        assert dict(erased.counts) == {
            "messages": 1,
            "mentions": 1,
            "replies": 4,
            "events": 3,
            "parked_events": 2,
            "ams_items": 1,
            "suppressions": 1,
        }
        assert erased.keys == (key_bytes(hers.key),)
        shown = {
            message.key: message.recipient
            for message in (await reports.messages(ledger, MessageFilter(), limit=9)).messages
        }
        assert shown == {hers.key: "erased", ben.key: "ben@example.net", joann.key: "joann@example.net"}
        visitors = await pool.fetch("SELECT message, network, user_agent FROM event ORDER BY id")
        assert {row["message"] for row in visitors if row["network"] or row["user_agent"]} == {ben.id}
        assert dict((await forget(ledger)).counts) == {}

    @pytest.mark.parametrize(
        "address",
        [
            "o'neil{x}|a*b?c^d$e#f&g~h!i/j+k%l`m-n_o@example.net",
            '"a b.(c)[d];,:<e>"@example.net',
            "Jörg.Ünal@bücher.example",
            "x@example.net",
        ],
    )
    async def test_whatever_it_is_spelt_with(self, ledger: Ledger, rows: Rows, pool: Pool, address: str) -> None:
        """PostgreSQL finds in others' messages what Python does, in texts and in octets."""
        ben = await rows.message("ben@example.net", reply=f"550 <{address}> no", original=f"1.{address}")
        other = await rows.message("zoe@example.net", reply=f"550 <zz{address}> no")
        await rows.event(ben, "clicked", url=f"https://shop.example.com/?e={quote(address, safe='')}")
        await pool.execute("UPDATE message SET sender = $1 WHERE id = $2", address.encode(), ben.id)
        await pool.execute(
            "INSERT INTO parked_event (dedupe, source, reason, named, payload) VALUES ('d', 't', 'r', '', $1)",
            b"\xff\x00{" + address.encode() + b"}",
        )
        counts = await erasure.sweep(ledger, Traces(address))
        assert +counts == {"mentions": 1, "replies": 1, "events": 1, "parked_events": 1}
        shown = (await reports.messages(ledger, MessageFilter(), limit=9)).messages
        replies = {message.key: message.upstream_reply for message in shown}
        assert replies == {ben.key: "550 <erased> no", other.key: f"550 <zz{address}> no"}

    async def test_campaign_mail_does_not_reach_her_again(self, ledger: Ledger, rows: Rows) -> None:
        """The list keeps an index and no address, also where an entry was lifted; others are not on it."""
        await rows.message(ANN)
        await suppressions.enter(ledger, [Entry(source="", recipient_index=INDEX, recipient=ANN, reason="operator")])
        await suppressions.lift(ledger, [INDEX])
        await forget(ledger)
        page = await suppressions.listing(ledger, limit=9)
        assert [(one.source, one.recipient, one.reason) for one in page.suppressions] == [
            (EVERY_SOURCE, None, "erased")
        ]

    async def test_who_was_never_written_to(self, ledger: Ledger, rows: Rows) -> None:
        """Nothing is found, and nothing is noted of them."""
        await rows.message("ben@example.net")
        assert dict((await forget(ledger)).counts) == {}
        assert (await suppressions.listing(ledger, limit=9)).suppressions == ()

    async def test_thousands(self, ledger: Ledger, rows: Rows, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        """In bites of a batch each, over several campaigns, and in spans."""
        monkeypatch.setattr(erasure, "BATCH", 3)
        monkeypatch.setattr(erasure, "_SPAN", 2)
        found = [await rows.campaign(name) for name in "abc"]
        for number in range(10):
            await rows.message(ANN, campaign=found[number % 3])
            await rows.message("ben@example.net", reply="for ann@example.net")
        assert dict((await forget(ledger)).counts) == {"messages": 10, "replies": 10}
        assert b"ann@example.net" not in await everything(pool)

    async def test_stored_submissions_that_others_need(self, ledger: Ledger, pool: Pool) -> None:
        """They are told of: they name her until they are sent."""
        for content in (b"To: Ann <ann@example.net>, Ben <ben@example.net>\r\n\r\n", b"To: ben@example.net\r\n\r\n"):
            await pool.execute(
                "INSERT INTO body (day, envelope, profile, content) VALUES (current_date, '', '', $1)", content
            )
        assert await erasure.bodies_naming(ledger, TRACES) == 1


class TestWhatStays:
    """The counts, and what comes later."""

    async def test_counts_and_engagement(self, ledger: Ledger, rows: Rows) -> None:
        """An anonymous message was opened all the same."""
        campaign = await rows.campaign(counts={"accepted": 1, "sent": 1, "opens": 2, "unique_opens": 1})
        hers = await rows.message(ANN, campaign=campaign)
        at = datetime(2026, 3, 2, tzinfo=UTC)
        await rows.engagement(hers, opens=2, first_opened_at=at, last_opened_at=at)
        await rows.event(hers)
        await rows.event(hers)
        before = (await campaigns.campaigns(ledger, limit=1))[0].campaign
        await forget(ledger)
        assert (await campaigns.campaigns(ledger, limit=1))[0].campaign == before
        assert await drift(ledger, campaign) == {}

    async def test_later_hits_bring_nothing_back(self, ledger: Ledger, rows: Rows, pool: Pool) -> None:
        """They are counted; where from, to which personal link and for AMS is not kept, and nobody is suppressed."""
        campaign = await rows.campaign(ams_mailing=42)
        hers = await rows.message(ANN, campaign=campaign)
        await forget(ledger)
        recorder = Recorder(ledger, READER, ams=ams_settings())
        url = "https://shop.example.com/?e=ann@example.net"
        key = key_bytes(hers.key)
        await recorder.record(
            entries([hit(key, EventType.CLICKED, url=url), hit(key), hit(key, EventType.UNSUBSCRIBED)])
        )
        (row,) = (await reports.messages(ledger, MessageFilter(), limit=9)).messages
        assert (row.engagement.clicks, row.engagement.opens, row.engagement.unsubscribed) == (1, 1, True)
        assert {(event.type, event.url) for event in row.events} == {
            ("clicked", None),
            ("opened", None),
            ("unsubscribed", None),
        }
        assert await pool.fetchval("SELECT count(*) FROM outbox") == 0
        assert await pool.fetchval("SELECT count(*) FROM suppression") == 1
        assert await replay_since(ledger, datetime(2020, 1, 1, tzinfo=UTC), ams_settings()) == 0
        assert b"ann@example.net" not in await everything(pool)

    async def test_an_item_of_that_very_instant_is_not_told(self, ledger: Ledger, rows: Rows, pool: Pool) -> None:
        """The deliverer drops it, and does not count it as delivered."""
        campaign = await rows.campaign(ams_mailing=42)
        hers, ben = await rows.message(ANN, campaign=campaign), await rows.message("ben@example.net", campaign=campaign)
        await forget(ledger)
        for message in (hers, ben):
            await rows.outbox(message, campaign)
        async with StandinAms(api_key="K-1") as standin:
            settings = ams_settings(url=standin.url)
            async with open_ams(settings) as ams:
                await Deliverer(ledger, settings, ams, process=1, stopping=asyncio.Event()).cycle()
        assert [item.email for item in standin.received] == ["ben@example.net"]
        assert (await outbox.depth(ledger)).pending == 0
        assert await pool.fetchval("SELECT sum(amount) FROM campaign_delta WHERE counter = 'ams_delivered'") == 1


class TestUnderWay:
    """Erasing beside sending."""

    @pytest.fixture
    async def sink(self) -> AsyncIterator[Sink]:
        """Play an upstream."""
        async with Sink().listening() as sink:
            yield sink

    @pytest.fixture
    async def relay(self, database_url: str, sink: Sink) -> AsyncIterator[Relay]:
        """Run a relay that soon puts mail into the queue."""
        async with relaying(database_url, f"smtp://127.0.0.1:{sink.port}") as relay:
            yield relay

    async def test_what_waits_is_ended(self, relay: Relay, sink: Sink, pool: Pool) -> None:
        """Hers is cancelled with an event; Ben's is sent, with the body that they shared, which goes then."""
        sink.mail = lambda _: "421 4.3.2 Busy"
        await relay.pipeline.accept(submission("ann@example.net", "ben@example.net"))
        await relay.pipeline.accept(submission("ann@example.net", message_id="<2@mailer.example>"))
        index = recipient_index(RELAY_IDENTITY, ANN)
        erased = await erasure.forget(relay.ledger, index, TRACES)
        assert (erased.counts["messages"], erased.counts["cancelled"], erased.counts["bodies"]) == (2, 2, 1)
        assert await relay.statuses() == ["failed", "queued", "failed"]
        events = await pool.fetch("SELECT type, source, reason FROM event")
        assert [tuple(event) for event in events] == [("failed", "operator", ENDED)] * 2
        for row in await campaigns.campaigns(relay.ledger, limit=2):
            assert await drift(relay.ledger, row.id) == {}
        assert await pool.fetchval("SELECT count(*) FROM body") == 1
        claimed = await relay.mail.claim(10)
        assert claimed.due == []
        await pool.execute("UPDATE delivery SET next_at = now() WHERE status = 'queued'")
        assert [due.recipient for due in (await relay.mail.claim(10)).due] == ["ben@example.net"]

    async def test_what_is_in_hand_is_left(self, ledger: Ledger, rows: Rows, pool: Pool) -> None:
        """Somebody who is alive has it: told of, and erased another time. Nobody who is alive: ended now."""
        alive = await register(ledger, "relay")
        campaign = await rows.campaign(counts={"accepted": 3, "queued": 1})
        sending = await rows.message(ANN, campaign=campaign, status="sending")
        sent = await rows.message(ANN, campaign=campaign, status="sent")
        answering = await rows.message(ANN, campaign=campaign, status="accepted")
        await campaigns.sync_counts(ledger, campaign)
        await pool.execute("UPDATE delivery SET worker = $1 WHERE status <> 'sent'", alive)
        erased = await forget(ledger)
        assert (erased.engaged, erased.keys) == (2, (key_bytes(sent.key),))
        assert await statuses(pool) == {sending.id: "sending", sent.id: "sent", answering.id: "accepted"}
        await pool.execute("UPDATE process SET lease_until = now() - interval '1 second'")
        assert dict((await forget(ledger)).counts) == {"messages": 2, "cancelled": 1}
        assert await statuses(pool) == {sending.id: "failed", sent.id: "sent", answering.id: "refused"}
        assert await drift(ledger, campaign) == {}
        assert b"ann@example.net" not in await everything(pool)

    async def test_what_is_taken_in_that_very_instant_is_left(
        self, ledger: Ledger, rows: Rows, pool: Pool, eventually: Eventually
    ) -> None:
        """Erasing waits for whoever claims it, and then sees that it is in hand."""
        alive = await register(ledger, "relay")
        await rows.message(ANN, campaign=await rows.campaign(), status="queued")
        async with pool.acquire() as claiming, claiming.transaction():
            await claiming.execute("UPDATE delivery SET status = 'sending', worker = $1", alive)
            erasing = asyncio.create_task(forget(ledger))
            await eventually(lambda: pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        erased = await erasing
        assert (erased.engaged, dict(erased.counts)) == (1, {})

    async def test_beside_a_queue_that_is_worked_on(self, relay: Relay, sink: Sink, pool: Pool) -> None:
        """Hers are sent, cancelled or suppressed, Ben's are sent, nobody called `erased` is; the counts are true."""
        sink.mail = lambda _: "421 4.3.2 Busy"
        await asyncio.gather(
            *(
                relay.pipeline.accept(submission("ann@example.net", "ben@example.net", message_id=f"<{one}@m.example>"))
                for one in range(40)
            )
        )
        assert await relay.statuses() == ["queued"] * 80
        sink.mail = lambda _: "250 2.1.0 Ok"
        index, stopping = recipient_index(RELAY_IDENTITY, ANN), asyncio.Event()
        working = asyncio.create_task(relay.run_queue(stopping))
        ended = 0
        async with asyncio.timeout(30):
            while not {"queued", "sending"}.isdisjoint(await relay.statuses()):
                ended += (await erasure.forget(relay.ledger, index, TRACES)).counts["cancelled"]
        ended += (await erasure.forget(relay.ledger, index, TRACES)).counts["cancelled"]
        stopping.set()
        await working
        sent = [kept.recipient for kept in sink.kept]
        found = await relay.statuses()
        hers = 40 - ended - found.count("suppressed")
        assert [sent.count(name) for name in ("ben@example.net", "ann@example.net")] == [40, hers]
        assert [found.count(status) for status in ("sent", "failed")] == [len(sent), ended]
        assert len(sent) == 40 + hers
        (row,) = await campaigns.campaigns(relay.ledger, limit=2)
        assert await drift(relay.ledger, row.id) == {}
        assert await pool.fetchval("SELECT count(*) FROM message WHERE recipient_index = $1", index) == 0

    async def test_a_repeat_of_what_was_sent_is_recognised(self, relay: Relay, sink: Sink) -> None:
        """By its key: she gets it once."""
        await relay.pipeline.accept(submission("ann@example.net", campaign=None))
        await erasure.forget(relay.ledger, recipient_index(RELAY_IDENTITY, ANN), TRACES)
        assert (await relay.pipeline.accept(submission("ann@example.net", campaign=None))).code == 250
        assert len(sink.kept) == 1

    async def test_a_repeat_of_what_failed_is_a_new_message(self, relay: Relay, sink: Sink) -> None:
        """The old row knows nobody to send to; the mailer does."""
        sink.rcpt = lambda _: "550 5.1.1 Unknown"
        assert (await relay.pipeline.accept(submission("ann@example.net", campaign=None))).code == 550
        await erasure.forget(relay.ledger, recipient_index(RELAY_IDENTITY, ANN), TRACES)
        sink.rcpt = lambda _: "250 2.1.5 Ok"
        assert (await relay.pipeline.accept(submission("ann@example.net", campaign=None))).code == 250
        assert [kept.recipient for kept in sink.kept] == ["ann@example.net"]
        assert await relay.statuses() == ["failed", "sent"]


async def statuses(pool: Pool) -> dict[int, str]:
    """Return where each message stands."""
    return {row["message"]: row["status"] for row in await pool.fetch("SELECT message, status::text FROM delivery")}
