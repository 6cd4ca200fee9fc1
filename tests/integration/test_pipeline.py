"""The relay's decisions, against a real PostgreSQL and a real SMTP upstream."""

import asyncio
from collections.abc import Callable
from email import message_from_bytes
from pathlib import Path

from ledger import campaigns
from relay.capture import CaptureUpstream
from relay.settings import RelaySettings
from tests.conftest import Eventually
from tests.relaying import relaying, submission
from tests.sink import Sink

QUICK = RelaySettings(verdict_wait=1.0, ledger_wait=1.0, retry_first=0.01)


async def test_accepted_mail_is_sent_once_per_recipient(database_url: str) -> None:
    """Three recipients get three messages, each with a Message-ID of its own and alone in its envelope."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}") as relay:
        reply = await relay.pipeline.accept(submission("a@example.net", "b@example.net", "c@example.net"))
        assert reply.code == 250
        assert sorted(kept.recipient for kept in sink.kept) == ["a@example.net", "b@example.net", "c@example.net"]
        assert len({message_from_bytes(kept.content)["Message-ID"] for kept in sink.kept}) == 3
        assert await relay.statuses() == ["sent", "sent", "sent"]


async def test_the_last_word_of_the_250_is_the_key(database_url: str) -> None:
    """One recipient: the key in the reply is the left side of the stamped Message-ID."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}") as relay:
        reply = await relay.pipeline.accept(submission())
        assert str(message_from_bytes(sink.kept[0].content)["Message-ID"]) == (
            f"<{reply.text.rsplit(maxsplit=1)[-1]}@shop.example>"
        )


async def test_a_repeat_is_answered_and_not_sent_again(database_url: str) -> None:
    """The same submission again: 250 with the same key, one copy upstream."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}") as relay:
        first = await relay.pipeline.accept(submission())
        second = await relay.pipeline.accept(submission())
        assert first == second
        assert len(sink.kept) == 1


async def test_simultaneous_repeats_are_one_message(database_url: str) -> None:
    """A mailer that timed out and tried again while the first try was in flight makes no second copy."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}") as relay:
        results = await asyncio.gather(*(relay.pipeline.accept(submission()) for _ in range(8)))
        assert len(set(map(str, results))) == 1
        assert len(sink.kept) == 1


async def test_a_deliberate_resend_is_a_new_message(database_url: str) -> None:
    """The same identity with another body gets a key of its own."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}") as relay:
        first = await relay.pipeline.accept(submission())
        second = await relay.pipeline.accept(submission(body="<p>another</p>"))
        again = await relay.pipeline.accept(submission(body="<p>another</p>"))
        assert first != second
        assert second == again
        assert len(sink.kept) == 2


async def test_a_verdict_is_passed_through(database_url: str) -> None:
    """A 5xx to RCPT reaches the mailer with its code and text, and the ledger says failed."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}") as relay:
        sink.rcpt = lambda _: "550 5.1.1 No such user here"
        reply = await relay.pipeline.accept(submission())
        assert str(reply) == "550 5.1.1 No such user here"
        assert await relay.statuses() == ["failed"]


async def test_what_failed_is_tried_again_under_the_same_key(database_url: str) -> None:
    """A mailer's retry after a refusal goes out, with the Message-ID of the first try."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}") as relay:
        sink.dot = lambda _: "554 5.6.0 Not today"
        assert (await relay.pipeline.accept(submission())).code == 554
        sink.dot = lambda _: "250 2.0.0 Ok: queued as ABCDEF"
        assert (await relay.pipeline.accept(submission())).code == 250
        assert await relay.statuses() == ["sent"]


async def test_one_refused_of_two_is_250_and_told_to_the_sender(database_url: str) -> None:
    """A mixed result is 250: resending to everybody would make copies; the refused one is notified."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}") as relay:
        sink.rcpt = lambda who: "550 5.1.1 Unknown" if who.startswith("bad") else "250 Ok"
        reply = await relay.pipeline.accept(submission("bad@example.net", "good@example.net"))
        assert reply.code == 250
        assert [who for who, _ in relay.refused] == ["bad@example.net"]
        await relay.notifier.close(patience=5.0)
        (notice,) = [kept for kept in sink.kept if kept.sender == ""]
        assert notice.recipient == "bounce@shop.example"
        assert b"Final-Recipient: rfc822; bad@example.net" in notice.content
        assert b"Status: 5.1.1" in notice.content


async def test_trouble_is_queued_and_sent_with_the_same_bytes(database_url: str, eventually: Eventually) -> None:
    """A 4xx is answered 250; the retry sends what the first try would have sent."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}", QUICK) as relay:
        sink.dot = lambda _: "451 4.7.1 Greylisted"
        reply = await relay.pipeline.accept(submission("a@example.net", "b@example.net"))
        assert reply.code == 250
        assert await relay.statuses() == ["queued", "queued"]
        sink.dot = lambda _: "250 2.0.0 Ok"
        stopping = asyncio.Event()
        worker = asyncio.create_task(relay.run_queue(stopping))
        await eventually(lambda: len(sink.kept) == 2)
        stopping.set()
        await worker
        await relay.queue.close(patience=5.0)
        assert await relay.statuses() == ["sent", "sent"]
        for kept in sink.kept:
            text = message_from_bytes(kept.content)
            assert str(text["Message-ID"]).endswith("@shop.example>")
            assert b"/track/c/" in kept.content
        async with relay.ledger.session() as session:
            # Bodies are kept for a minute, so that none is freed whose messages are just being queued.
            await session._connection.execute("UPDATE body SET stored_at = now() - interval '1 hour'")
            await relay.mail.free_bodies()
            assert await session._connection.fetch("SELECT FROM body") == []


async def test_refused_connections_queue_the_mail(database_url: str, free_port: Callable[[], int]) -> None:
    """No upstream listens: the mailer gets 250, because mailers switch off relays that refuse."""
    async with relaying(database_url, f"smtp://127.0.0.1:{free_port()}", QUICK) as relay:
        assert (await relay.pipeline.accept(submission())).code == 250
        assert await relay.statuses() == ["queued"]
        assert (await relay.pipeline.accept(submission())).code == 250
        assert await relay.statuses() == ["queued"]


async def test_defer_answers_451_and_the_next_try_goes_out(database_url: str) -> None:
    """ON_TROUBLE=defer stores nothing; the mailer's own retry is sent under the same key."""
    own = RelaySettings(verdict_wait=1.0, ledger_wait=1.0, on_trouble="defer")
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}", own) as relay:
        sink.mail = lambda _: "421 4.3.2 Busy"
        assert (await relay.pipeline.accept(submission())).code == 451
        assert await relay.statuses() == ["refused"]
        sink.mail = lambda _: "250 Ok"
        assert (await relay.pipeline.accept(submission())).code == 250
        assert await relay.statuses() == ["sent"]
        assert len(sink.kept) == 1


async def test_no_room_is_452(database_url: str) -> None:
    """Trouble with a full store is a temporary error, and nothing is lost: the mailer still has it."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}", QUICK) as relay:
        relay.has_room = False
        sink.mail = lambda _: "421 4.3.2 Busy"
        assert (await relay.pipeline.accept(submission())).code == 452


async def test_a_slow_verdict_stays_with_its_task(database_url: str, eventually: Eventually) -> None:
    """A final dot without an answer is stored and answered 250; the late verdict settles it, with no second copy."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}", QUICK) as relay:
        sink.gate = asyncio.Event()
        reply = await relay.pipeline.accept(submission())
        assert reply.code == 250
        assert await relay.statuses() == ["sending"]
        sink.gate.set()

        async def is_sent() -> bool:
            return await relay.statuses() == ["sent"]

        await eventually(is_sent)
        assert len(sink.kept) == 1


async def test_what_a_dead_process_held_is_sent_again(database_url: str, eventually: Eventually) -> None:
    """A claim whose process is gone goes back to the queue, and is counted when its dot may be out."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}", QUICK) as relay:
        sink.mail = lambda _: "421 4.3.2 Busy"
        await relay.pipeline.accept(submission())
        async with relay.ledger.session() as session:
            await session._connection.execute("UPDATE delivery SET next_at = now()")
        (due,) = (await relay.mail.claim(10)).due
        await relay.mail.mark_dot(due.id, due.turn)
        async with relay.ledger.session() as session:
            await session._connection.execute("UPDATE process SET lease_until = now() - interval '1 second'")
        assert await relay.mail.take_over() == (1, 1, 0)
        sink.mail = lambda _: "250 Ok"
        stopping = asyncio.Event()
        worker = asyncio.create_task(relay.run_queue(stopping))
        await eventually(lambda: len(sink.kept) == 1)
        stopping.set()
        await worker
        await relay.queue.close(patience=5.0)


async def test_a_null_sender_and_its_case_are_kept(database_url: str) -> None:
    """The envelope goes upstream exactly as it came."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}") as relay:
        await relay.pipeline.accept(submission("B.User+Tag@Y.Example.net", sender=""))
        assert (sink.kept[0].sender, sink.kept[0].recipient) == ("", "B.User+Tag@Y.Example.net")


async def test_unexpanded_campaign_is_no_campaign(database_url: str) -> None:
    """[%%MailingID%%] is recorded as the reason, never guessed around."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}") as relay:
        await relay.pipeline.accept(submission(campaign="%%MailingID%%"))
        async with relay.ledger.session() as session:
            row = await session._connection.fetchrow("SELECT campaign, campaign_reason FROM message")
        assert row is not None
        assert (row["campaign"], row["campaign_reason"]) == (None, "unexpanded")
        assert b"List-Unsubscribe" not in sink.kept[0].content


async def test_paused_campaign_is_held_and_released(database_url: str, eventually: Eventually) -> None:
    """An operator's pause stores the mail; resuming lets it go."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}", QUICK) as relay:
        await relay.pipeline.accept(submission("first@example.net"))
        (row,) = await campaigns.campaigns(relay.ledger, limit=2)
        await campaigns.hold(relay.ledger, row.id, paused=True)
        assert (await relay.pipeline.accept(submission("second@example.net"))).code == 250
        assert len(sink.kept) == 1
        assert (await relay.mail.claim(10)).due == []
        await campaigns.hold(relay.ledger, row.id, paused=False)
        stopping = asyncio.Event()
        worker = asyncio.create_task(relay.run_queue(stopping))
        await eventually(lambda: len(sink.kept) == 2)
        stopping.set()
        await worker
        await relay.queue.close(patience=5.0)


async def test_capture_keeps_exactly_what_left(database_url: str, tmp_path: Path) -> None:
    """The capture upstream writes KEY.eml and KEY.json."""
    async with relaying(database_url, CaptureUpstream(tmp_path / "capture")) as relay:
        reply = await relay.pipeline.accept(submission())
        key = reply.text.rsplit(maxsplit=1)[-1]
        assert (tmp_path / "capture" / f"{key}.eml").read_bytes().startswith(b"Received: from mailer.example")
        assert b'"recipient":"ann@example.net"' in (tmp_path / "capture" / f"{key}.json").read_bytes()


async def test_counts_follow_the_states(database_url: str, eventually: Eventually) -> None:
    """Counters appended along the way equal the states of the rows."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}", QUICK) as relay:
        sink.rcpt = lambda who: {"b": "550 5.1.1 No", "t": "450 4.2.0 Later"}.get(who[0], "250 Ok")
        mixed = submission("bad@example.net", "tempo@example.net", "good@example.net", sender="")
        await relay.pipeline.accept(mixed)
        sink.rcpt = lambda _: "250 Ok"
        stopping = asyncio.Event()
        worker = asyncio.create_task(relay.run_queue(stopping))
        await eventually(lambda: len(sink.kept) == 2)
        stopping.set()
        await worker
        await relay.queue.close(patience=5.0)
        async with relay.ledger.session() as session:
            rows = await session._connection.fetch(
                "SELECT counter, sum(amount)::int AS n FROM campaign_delta GROUP BY counter HAVING sum(amount) <> 0"
            )
        assert {row["counter"]: row["n"] for row in rows} == {"accepted": 3, "sent": 2, "failed": 1}
