"""Bounces and complaints come back to listmonk, each in a request of its own, and none twice."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from courier.replay import replay_sink_parked, replay_sink_since
from courier.sinks import rules
from ledger import sinks
from ledger.ids import key_text
from ledger.resealing import reseal
from ledger.sealing import Sealer
from ledger.store import Ledger, open_ledger
from providers.notice import Bounce, What
from tests.receiver import TAKEN, Listmonk, Reply
from tests.relaying import relaying, submission
from tests.rows import Pool, Row, Rows
from tests.sink import Sink
from tests.telling import (
    CAMPAIGN,
    SUBSCRIBER,
    SUBSCRIBER_TEXT,
    held,
    mailer,
    notice,
    of_listmonk,
    record,
    subscribed,
    telling,
    waiting,
)


@pytest.fixture
def rows(pool: Pool) -> Rows:
    """Insert into it."""
    return Rows(pool)


@pytest_asyncio.fixture
async def listmonk() -> AsyncIterator[Listmonk]:
    """Return a listmonk that listens."""
    async with Listmonk() as running:
        yield running


class TestListmonk:
    """Each bounce and complaint is one request, and none is posted twice."""

    async def test_each_is_posted_once_by_campaign_and_subscriber(
        self, ledger: Ledger, rows: Rows, pool: Pool, listmonk: Listmonk
    ) -> None:
        """What a provider repeats under another id is told once; a soft one that becomes hard is both."""
        asked = rules({}, mailer(listmonk))
        one, other = await subscribed(rows, pool), await subscribed(rows, pool, bytes(16))
        foreign = await rows.message(campaign=await rows.campaign("42"))
        await record(
            ledger,
            asked,
            notice(What.BOUNCED, one, bounce=Bounce.SOFT, smtp_code="452"),
            notice(What.BOUNCED, one, bounce=Bounce.SOFT),
            notice(What.DELIVERED, one),
            notice(What.COMPLAINED, other),
            notice(What.BOUNCED, foreign, bounce=Bounce.HARD),
        )
        await record(ledger, asked, notice(What.BOUNCED, one, bounce=Bounce.SOFT))
        async with telling(ledger, None, mailer(listmonk)) as teller:
            await teller.cycle()
            await record(ledger, asked, notice(What.BOUNCED, one, bounce=Bounce.SOFT))
            await record(ledger, asked, notice(What.BOUNCED, one, bounce=Bounce.HARD, enhanced_code="5.1.1"))
            await teller.cycle()
        unknown = "00000000-0000-0000-0000-000000000000"
        assert listmonk.kinds == [(SUBSCRIBER_TEXT, "soft"), (unknown, "complaint"), (SUBSCRIBER_TEXT, "hard")]
        assert {bounce["campaign_uuid"] for bounce in listmonk.bounces} == {CAMPAIGN}
        assert listmonk.bounces[0]["source"] == "outrider/ses"
        assert listmonk.bounces[2]["meta"]["enhanced_code"] == "5.1.1"
        assert "ann@" not in str(listmonk.bounces)
        assert await waiting(pool, "listmonk") == (0, 0)

    @pytest.mark.parametrize("reply", [Reply(lost=True), Reply(silent=True), Reply(status=504)])
    async def test_what_may_have_arrived_stands_in_doubt_until_somebody_says_so(
        self, ledger: Ledger, rows: Rows, pool: Pool, listmonk: Listmonk, reply: Reply
    ) -> None:
        """A copy would be counted. The next one is posted meanwhile."""
        own = mailer(listmonk, timeout=0.3)
        asked = rules({}, own)
        await record(ledger, asked, notice(What.BOUNCED, await subscribed(rows, pool), bounce=Bounce.HARD))
        listmonk.judge = lambda _: reply
        async with telling(ledger, None, own) as teller:
            await teller.cycle()
            assert await waiting(pool, "listmonk") == (0, 1)
            (parked,) = await sinks.parked(ledger, "listmonk", 10)
            assert parked.reason.startswith("in doubt: ")
            listmonk.judge = lambda _: TAKEN
            before = len(listmonk.bounces)
            await record(ledger, asked, notice(What.COMPLAINED, await subscribed(rows, pool)))
            await teller.cycle()
            assert listmonk.kinds[before:] == [(SUBSCRIBER_TEXT, "complaint")]
            await replay_sink_parked(ledger, "listmonk")
            await teller.cycle()
        assert listmonk.kinds[before + 1 :] == [(SUBSCRIBER_TEXT, "hard")]

    @pytest.mark.parametrize("status", [400, 403, 502])
    async def test_what_was_surely_not_taken_is_posted_again(
        self, ledger: Ledger, rows: Rows, pool: Pool, listmonk: Listmonk, status: int
    ) -> None:
        """A refusal that nothing contradicts holds the sink, and parks nobody."""
        await record(
            ledger, rules({}, mailer(listmonk)), notice(What.BOUNCED, await subscribed(rows, pool), bounce=Bounce.HARD)
        )
        listmonk.judge = lambda _: Reply(status=status, text="not now")
        async with telling(ledger, None, mailer(listmonk)) as teller:
            for _ in range(3):
                await teller.cycle()
            assert await waiting(pool, "listmonk") == (1, 0)
            assert (await held(ledger, "listmonk") is not None) == (status in {400, 403})
            listmonk.judge = lambda _: TAKEN
            await teller.cycle()
        assert listmonk.kinds == [(SUBSCRIBER_TEXT, "hard")]

    async def test_a_courier_that_died_with_a_request_out_leaves_it_in_doubt(
        self, ledger: Ledger, rows: Rows, pool: Pool, listmonk: Listmonk
    ) -> None:
        """The mark is committed before the request leaves: whoever finds it does not post again."""
        own = mailer(listmonk)
        await record(ledger, rules({}, own), notice(What.BOUNCED, await subscribed(rows, pool), bounce=Bounce.HARD))

        def dying(_: list[dict[str, Any]]) -> Reply:
            task.cancel()
            return TAKEN

        listmonk.judge = dying
        async with telling(ledger, None, own) as teller:
            task = asyncio.create_task(teller.cycle())
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await pool.fetchval("SELECT count(tried_at) FROM sink_item") == 1
        listmonk.judge = lambda _: TAKEN
        async with telling(ledger, None, own) as teller:
            await teller.cycle()
        assert listmonk.kinds == [(SUBSCRIBER_TEXT, "hard")]
        (parked,) = await sinks.parked(ledger, "listmonk", 10)
        assert parked.reason == "in doubt: we stopped before the answer came"

    async def test_what_another_courier_told_meanwhile_is_not_posted(
        self, ledger: Ledger, rows: Rows, pool: Pool, listmonk: Listmonk
    ) -> None:
        """A courier that was held up, and whose list is old by now, leaves off; the next look tells what is left."""
        asked = rules({}, mailer(listmonk))
        for number in range(3):
            message = await subscribed(rows, pool, bytes([number]) * 16)
            await record(ledger, asked, notice(What.BOUNCED, message, bounce=Bounce.HARD))

        async def another() -> None:
            listmonk.meanwhile = None
            await pool.execute("DELETE FROM sink_item WHERE id = (SELECT min(id) + 1 FROM sink_item)")

        listmonk.meanwhile = another
        async with telling(ledger, None, mailer(listmonk)) as teller:
            await teller.cycle()
            assert len(listmonk.bounces) == 1
            await teller.cycle()
        assert [bounce["subscriber_uuid"][:2] for bounce in listmonk.bounces] == ["00", "02"]

    async def test_what_cannot_be_written_stands_aside(
        self, ledger: Ledger, rows: Rows, pool: Pool, listmonk: Listmonk
    ) -> None:
        """The others do not wait for it."""
        asked = rules({}, mailer(listmonk))
        for subscriber in (b"short", SUBSCRIBER):
            message = await subscribed(rows, pool, subscriber)
            await record(ledger, asked, notice(What.BOUNCED, message, bounce=Bounce.HARD))
        async with telling(ledger, None, mailer(listmonk)) as teller:
            await teller.cycle()
        assert listmonk.kinds == [(SUBSCRIBER_TEXT, "hard")]
        (parked,) = await sinks.parked(ledger, "listmonk", 10)
        assert parked.reason == "it cannot be written: ValueError"

    async def test_a_time_when_it_was_off_posts_nothing_twice(
        self, ledger: Ledger, rows: Rows, pool: Pool, listmonk: Listmonk
    ) -> None:
        """What was posted once is known for ever."""
        (rule,) = rules({}, mailer(listmonk))
        one, other = await subscribed(rows, pool), await subscribed(rows, pool, bytes(16))
        await record(ledger, [rule], notice(What.BOUNCED, one, bounce=Bounce.HARD))
        await record(ledger, [], notice(What.BOUNCED, other, bounce=Bounce.HARD))
        async with telling(ledger, None, mailer(listmonk)) as teller:
            await teller.cycle()
            assert await replay_sink_since(ledger, datetime(2026, 1, 1, tzinfo=UTC), rule) == 1
            await teller.cycle()
        assert len(listmonk.bounces) == 2


class TestSubscriber:
    """From the mail's header to what listmonk is told."""

    async def test_it_comes_back_by_the_uuids_that_its_mail_carried(
        self, database_url: str, pool: Pool, listmonk: Listmonk
    ) -> None:
        """Sealed in between where there is a key; nothing of other mail, or of several recipients."""
        old, new = (Sealer([secret]) for secret in (b"an older key of addresses", b"a newer key of addresses"))
        asked = rules({}, mailer(listmonk))
        async with (
            Sink().listening() as sink,
            relaying(database_url, f"smtp://127.0.0.1:{sink.port}", sealer=old) as relay,
        ):
            for one in (
                of_listmonk("ann@example.net"),
                submission(),
                of_listmonk("bob@example.net", "eve@example.net"),
            ):
                assert (await relay.pipeline.accept(one)).code == 250
        stored = await pool.fetch("SELECT key, subscriber FROM message ORDER BY id")
        assert [row["subscriber"] is None for row in stored] == [False, True, True, True]
        assert SUBSCRIBER not in stored[0]["subscriber"]
        both = Sealer([b"a newer key of addresses", b"an older key of addresses"])
        async with open_ledger(database_url, sealer=both) as ledger:
            await reseal(ledger)
            row = Row(id=1, key=key_text(stored[0]["key"]), message_id="")
            await record(ledger, asked, notice(What.BOUNCED, row, bounce=Bounce.HARD))
        async with open_ledger(database_url, sealer=new) as ledger, telling(ledger, None, mailer(listmonk)) as teller:
            await teller.cycle()
        assert listmonk.kinds == [(SUBSCRIBER_TEXT, "hard")]
        assert listmonk.bounces[0]["campaign_uuid"] == CAMPAIGN
