"""Who may say what about a message: a late word of an earlier turn changes nothing, and nobody's row is stuck."""

import asyncio
import secrets
from typing import Any

import pytest

from ledger import processes
from ledger.campaigns import sync_counts
from ledger.mail import MailLedger
from ledger.mail_rows import NotOursError, Settlement
from relay.settings import RelaySettings
from relay.upstream import Letter, Trouble, Verdict
from tests.conftest import Eventually
from tests.relaying import Relay, relaying, submission
from tests.sink import Sink

QUICK = RelaySettings(verdict_wait=1.0, ledger_wait=1.0, retry_first=0.01)


async def rows(relay: Relay, statement: str = "SELECT * FROM delivery ORDER BY message") -> list[dict[str, Any]]:
    """Return rows of the ledger as they are."""
    async with relay.ledger.session() as session:
        return [dict(row) for row in await session._connection.fetch(statement)]


async def lapse(relay: Relay) -> None:
    """Let every lease run out."""
    await rows(relay, "UPDATE process SET lease_until = now() - interval '1 second'")


async def another(relay: Relay) -> MailLedger:
    """Return the ledger as another process has it."""
    return MailLedger(relay.ledger, await processes.register(relay.ledger, "relay"))


def word(message: int, turn: int, status: str, *, doubtful: bool = False) -> Settlement:
    """Return a result as a task brings it."""
    return Settlement(
        id=message,
        turn=turn,
        status=status,
        upstream="somewhere",
        reply=None,
        alias=None,
        dedupe=secrets.token_bytes(16),
        doubtful=doubtful,
    )


async def no_drift(relay: Relay) -> bool:
    """Tell whether every campaign's counters equal its rows."""
    return not [
        recount.counter
        for campaign in await rows(relay, "SELECT id FROM campaign")
        for recount in await sync_counts(relay.ledger, campaign["id"])
        if recount.drift
    ]


@pytest.mark.parametrize("late", ["refused", "failed"])
async def test_a_late_word_does_not_end_a_queued_message(database_url: str, late: str) -> None:
    """What was said of an earlier try arrives after the mailer came again and was answered 250."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}", QUICK) as relay:
        sink.mail = lambda _: "451 4.7.1 Later"
        own = RelaySettings(verdict_wait=1.0, ledger_wait=1.0, on_trouble="defer")
        async with relaying(database_url, relay.forwarder._upstream, own) as first:
            assert (await first.pipeline.accept(submission())).code == 451
        (row,) = await rows(relay)
        assert (await relay.pipeline.accept(submission())).code == 250
        assert not await relay.mail.settle(word(row["message"], row["turn"], late))
        assert await relay.statuses() == ["queued"]
        await relay.mail.free_bodies()
        assert len(await rows(relay, "SELECT id FROM body")) == 1
        assert await no_drift(relay)


async def test_sent_is_sent_whoever_holds_the_row(database_url: str) -> None:
    """A 250 that could be recorded only later counts, also over a failure of the next try."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}", QUICK) as relay:
        sink.rcpt = lambda _: "550 5.1.1 No"
        await relay.pipeline.accept(submission())
        await relay.pipeline.accept(submission())
        (row,) = await rows(relay)
        assert (row["status"], row["turn"]) == ("failed", 2)
        assert await relay.mail.settle(word(row["message"], 1, "sent"))
        assert await relay.statuses() == ["sent"]
        assert await no_drift(relay)


async def test_a_taken_over_message_does_not_leave_from_here(database_url: str) -> None:
    """Our lease lapsed before the dot and somebody else has it: the intent is refused, and the dot stays here."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}", QUICK) as relay:
        sink.mail = lambda _: "451 4.7.1 Later"
        await relay.pipeline.accept(submission())
        sink.mail = lambda _: "250 Ok"
        await rows(relay, "UPDATE delivery SET next_at = now()")
        (due,) = (await relay.mail.claim(1)).due
        await lapse(relay)
        other = await another(relay)
        await other.take_over()
        with pytest.raises(NotOursError):
            await relay.mail.mark_dot(due.id, due.turn)
        letter = Letter(
            key=due.key, sender="a@example.com", recipient=due.recipient, smtputf8=False, render=lambda _: b"x\r\n"
        )
        outcome = await relay.forwarder.forward(due.id, due.turn, letter, dotted=lambda: None)
        assert outcome == Trouble(reason="taken_over")
        assert sink.kept == []


async def test_a_late_postponement_does_not_disturb_the_next_holder(database_url: str) -> None:
    """Whoever was taken over cannot put the row back while somebody else sends it."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}", QUICK) as relay:
        sink.mail = lambda _: "451 4.7.1 Later"
        await relay.pipeline.accept(submission())
        await rows(relay, "UPDATE delivery SET next_at = now()")
        (due,) = (await relay.mail.claim(1)).due
        await lapse(relay)
        other = await another(relay)
        await other.take_over()
        (theirs,) = (await other.claim(1)).due
        await relay.mail.postpone(due.id, due.turn, wait=0.0, reply=None, doubtful=True, upstream="x")
        (row,) = await rows(relay)
        assert (row["status"], row["worker"], row["doubts"]) == ("sending", other.process, 0)
        assert theirs.turn == due.turn + 1


async def test_a_lost_answer_to_the_dot_is_counted(database_url: str, eventually: Eventually) -> None:
    """The connection is lost after the dot: the second copy is explained by a doubt."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}", QUICK) as relay:
        answers = iter(["", "250 Ok"])
        sink.dot = lambda _: next(answers)
        assert (await relay.pipeline.accept(submission())).code == 250
        stopping = asyncio.Event()
        worker = asyncio.create_task(relay.run_queue(stopping))
        await eventually(lambda: len(sink.kept) == 1)
        stopping.set()
        await worker
        await relay.queue.close(patience=5.0)
        (row,) = await rows(relay)
        assert (row["status"], row["doubts"]) == ("sent", 1)


async def test_a_4xx_to_the_dot_is_no_doubt(database_url: str) -> None:
    """The upstream said that it does not have it."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}", QUICK) as relay:
        sink.dot = lambda _: "451 4.3.0 Later"
        await relay.pipeline.accept(submission())
        (row,) = await rows(relay)
        assert (row["status"], row["doubts"], row["dot_at"]) == ("queued", 0, None)


async def test_a_repeat_of_what_died_with_its_dot_out_is_a_doubt(database_url: str) -> None:
    """Swept as refused, its dot was out: the mailer's retry may be a second copy, and says so."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}", QUICK) as relay:
        sink.gate = asyncio.Event()
        trying = asyncio.create_task(relay.pipeline.accept(submission()))
        await sink.dots.acquire()
        await lapse(relay)
        other = await another(relay)
        assert await other.take_over() == (0, 0, 1)
        sink.gate.set()
        sink.gate = None
        trying.cancel()
        await asyncio.wait([trying])
        async with relaying(database_url, relay.forwarder._upstream, QUICK) as second:
            assert (await second.pipeline.accept(submission())).code == 250
        (row,) = await rows(relay)
        assert row["status"] == "sent"


async def test_queueing_what_was_swept_keeps_the_counts(database_url: str) -> None:
    """A row that was swept while its task lived is queued all the same, and its worker is known."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}", QUICK) as relay:
        swept = asyncio.Event()

        def answer(_who: str) -> str:
            return "451 4.2.0 Later"

        sink.rcpt = answer
        real = relay.mail.queue

        async def sweep_first(*arguments: Any, **named: Any) -> set[int]:
            await lapse(relay)
            await (await another(relay)).take_over()
            swept.set()
            return await real(*arguments, **named)

        relay.mail.queue = sweep_first  # type: ignore[method-assign]  # the moment cannot be had otherwise
        reply = await relay.pipeline.accept(submission("a@example.net", "b@example.net"))
        assert swept.is_set()
        assert reply.code == 250
        assert await relay.statuses() == ["queued", "queued"]
        assert await no_drift(relay)


async def test_a_late_refusal_is_told_to_the_sender(database_url: str, eventually: Eventually) -> None:
    """The 5xx came after the 250 was given: the sender gets a notification."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}", QUICK) as relay:
        sink.gate = asyncio.Event()
        sink.dot = lambda who: "554 5.6.0 No" if who.startswith("ann") else "250 Ok"
        assert (await relay.pipeline.accept(submission())).code == 250
        gate, sink.gate = sink.gate, None
        gate.set()
        await eventually(lambda: [kept.recipient for kept in sink.kept] == ["bounce@shop.example"])
        assert (await relay.statuses())[0] == "failed"


async def test_orphans_of_our_own_go_back(database_url: str) -> None:
    """A claim whose answer was lost is nobody's task: it is queued again."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}", QUICK) as relay:
        sink.mail = lambda _: "451 4.7.1 Later"
        await relay.pipeline.accept(submission())
        await rows(relay, "UPDATE delivery SET next_at = now()")
        await relay.mail.claim(1)
        held = await relay.mail.held()
        assert [one.status for one in held] == ["sending"]
        assert await relay.mail.put_back(held) == 1
        assert await relay.statuses() == ["queued"]
        assert relay.pipeline.in_hand == set()


async def test_more_than_a_thousand_resends_of_one_identity(database_url: str) -> None:
    """A script with a fixed Message-ID sends other words each time: each is a new message, without end."""
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}", QUICK) as relay:
        await relay.pipeline.accept(submission(body="<p>0</p>"))
        # As if it had been sent many times before.
        from relay import stamp
        from tests.relaying import IDENTITY

        draft = relay.pipeline._draft(submission(body="<p>0</p>"))
        keys = [
            stamp.address(draft, "ann@example.net", identity_key=IDENTITY, generation=number).key
            for number in range(1, 1200)
        ]
        from ledger.ids import key_bytes

        async with relay.ledger.session() as session:
            await session._connection.execute(
                "INSERT INTO message (key, accepted_at, generation, size, links, injected, source, sender, recipient,"
                " recipient_index, message_id, body_digest)"
                " SELECT k, now(), 1, 1, 0, false, 'default', '', '', '', '', ''"
                " FROM unnest($1::bytea[]) AS k",
                [key_bytes(key) for key in keys],
            )
            await session._connection.execute(
                "INSERT INTO delivery (message, status) SELECT id, 'sent' FROM message m"
                " WHERE NOT EXISTS (SELECT FROM delivery d WHERE d.message = m.id)"
            )
        assert (await relay.pipeline.accept(submission(body="<p>new</p>"))).code == 250
        assert (await relay.pipeline.accept(submission(body="<p>new</p>"))).code == 250
        assert len(sink.kept) == 2


async def test_doubtful_mail_ends_too(database_url: str, eventually: Eventually) -> None:
    """An upstream that always drops the connection after the dot does not get a copy for ever."""
    own = RelaySettings(verdict_wait=1.0, ledger_wait=1.0, retry_first=0.01, retry_max_age=0.5)
    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}", own) as relay:
        sink.dot = lambda who: "" if who.startswith("ann") else "250 Ok"
        await relay.pipeline.accept(submission())
        await rows(relay, "UPDATE message SET accepted_at = now() - interval '1 hour'")
        stopping = asyncio.Event()
        worker = asyncio.create_task(relay.run_queue(stopping))

        async def failed() -> bool:
            return (await relay.statuses())[0] == "failed"

        await eventually(failed)
        stopping.set()
        await worker
        await relay.queue.close(patience=5.0)
        (told,) = relay.refused
        assert isinstance(told[1], Verdict)
        assert told[1].text.startswith("5.4.7")


async def test_a_deadlocks_victim_is_settled_all_the_same(database_url: str, eventually: Eventually) -> None:
    """The upstream accepted: whatever PostgreSQL says to the result, it is recorded, and no copy is sent."""
    import asyncpg

    async with Sink().listening() as sink, relaying(database_url, f"smtp://127.0.0.1:{sink.port}", QUICK) as relay:
        real = relay.mail.settle
        failures = [asyncpg.DeadlockDetectedError("made"), RuntimeError("made")]

        async def settle(settlement: Settlement) -> bool:
            if failures:
                raise failures.pop()
            return await real(settlement)

        relay.mail.settle = settle  # type: ignore[method-assign]  # a deadlock cannot be had on request
        assert (await relay.pipeline.accept(submission())).code == 250

        async def sent() -> bool:
            return await relay.statuses() == ["sent"]

        await eventually(sent)
        assert len(sink.kept) == 1
