"""What providers tell becomes events of the right message, by any id that we know; the rest is parked."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
import pytest_asyncio

from courier.record import Recorder
from ledger import ids, reports
from ledger.erasure import forget, sweep
from ledger.events import EventType, encode_hit
from ledger.ids import key_bytes
from ledger.store import Ledger
from ledger.traces import Traces
from providers.notice import Bounce, Name, Notice, Step, What, encode_notice
from tests.mailings import IDENTITY, NOON_MS, READER, ams_settings, hit
from tests.rows import Pool, Row, Rows


@pytest_asyncio.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """Return a look of the test's own."""
    async with asyncpg.create_pool(database_url, min_size=1, max_size=2) as opened:
        yield opened


@pytest.fixture
def rows(pool: Pool) -> Rows:
    """Insert into it."""
    return Rows(pool)


@pytest.fixture
def recorder(ledger: Ledger) -> Recorder:
    """Return a recorder with AMS switched on."""
    return Recorder(ledger, READER, ams=ams_settings())


_numbers = iter(range(1, 100_000))


def notice(what: What = What.DELIVERED, *names: tuple[Step, str], **fields: object) -> bytes:
    """Return a notice of SES, another with each call unless `dedupe` is given, as it stands in the stream."""
    common = {"provider": "ses", "dedupe": f"e-{next(_numbers)}", "at_ms": NOON_MS, "recipient": "ann@example.net"}
    return encode_notice(
        Notice(what=what, names=tuple(Name(step, value) for step, value in names), **(common | fields))  # type: ignore[arg-type] # a test's own
    )


async def tell(recorder: Recorder, *raws: bytes) -> None:
    """Record what stands in the stream."""
    await recorder.record([(b"0-0", raw) for raw in raws])


async def events(pool: Pool, message: Row) -> list[tuple[str, str, str | None]]:
    """Return type, source and step of a message's events."""
    found = await pool.fetch("SELECT type, source, step FROM event WHERE message = $1 ORDER BY id", message.id)
    return [(row["type"], row["source"], row["step"]) for row in found]


async def parked(pool: Pool) -> list[tuple[str, str]]:
    """Return source and reason of what is parked."""
    return sorted((row["source"], row["reason"]) for row in await pool.fetch("SELECT * FROM parked_event"))


async def alias(pool: Pool, message: Row, kind: str, scope: str, value: str) -> None:
    """Enter a foreign id of a message, as the relay does."""
    await pool.execute(
        "INSERT INTO alias (digest, message) VALUES ($1, $2)", ids.alias_digest(kind, scope, value), message.id
    )


async def test_each_step_finds_its_message(recorder: Recorder, rows: Rows, pool: Pool) -> None:
    """Our Message-ID, the mailer's own, the 250's id, the token, the submission with the recipient."""
    batch = ids.submission_key(IDENTITY, [ids.key_text(bytes(16))])
    submission = await rows.submission(batch)
    one = await rows.message(original="news.1@mailer.example.com", submission=submission)
    other = await rows.message("bob@example.net", original="news.1@mailer.example.com", submission=submission)
    await alias(pool, one, "upstream", "ses", "0100-aaa")
    await tell(
        recorder,
        notice(What.SENT, (Step.MESSAGE_ID, f"<{one.message_id}>")),
        notice(What.SENT, (Step.MESSAGE_ID, f"<{one.key}.2@example.com>")),
        notice(What.SENT, (Step.MESSAGE_ID, "<news.1@Mailer.example.com>")),
        notice(What.SENT, (Step.REPLY_ID, "0100-aaa")),
        notice(What.SENT, (Step.TOKEN, one.key)),
        notice(What.SENT, (Step.BATCH, batch)),
        notice(What.SENT, (Step.BATCH, batch), recipient="Bob@Example.net"),
    )
    assert sorted(await events(pool, one)) == sorted(
        ("sent", "ses", step) for step in ("message_id", "message_id", "message_id", "reply_id", "token", "batch")
    )
    assert await events(pool, other) == [("sent", "ses", "batch")]
    assert await parked(pool) == []


async def test_what_a_matched_event_taught_finds_the_next(recorder: Recorder, rows: Rows, pool: Pool) -> None:
    """A provider's own id counts from the first event that had another; only with its own provider."""
    one = await rows.message()
    await tell(recorder, notice(What.DELIVERED, (Step.TOKEN, one.key), (Step.PROVIDER_ID, "p-1")))
    await tell(
        recorder,
        notice(What.OPENED, (Step.PROVIDER_ID, "p-1")),
        notice(What.OPENED, (Step.PROVIDER_ID, "p-1"), provider="mailgun"),
    )
    assert await events(pool, one) == [("delivered", "ses", "token"), ("opened", "ses", "provider_id")]
    assert await parked(pool) == [("mailgun", "unknown_id")]


async def test_nothing_is_guessed(recorder: Recorder, rows: Rows, pool: Pool) -> None:
    """No id, an unknown one, somebody else's, several that fit: parked with the reason, and no campaign moves."""
    await rows.message(original="news.2@mailer.example.com")
    await rows.message("bob@example.net", original="news.2@mailer.example.com")
    await tell(
        recorder,
        notice(What.OPENED),
        notice(What.OPENED, (Step.PROVIDER_ID, "p-9")),
        notice(What.OPENED, (Step.MESSAGE_ID, "news.2@mailer.example.com"), recipient="eve@example.net"),
        notice(What.OPENED, (Step.MESSAGE_ID, "news.2@mailer.example.com"), recipient=""),
    )
    assert await parked(pool) == [
        ("ses", "ambiguous"),
        ("ses", "no_id"),
        ("ses", "other_recipient"),
        ("ses", "unknown_id"),
    ]
    assert await pool.fetchval("SELECT count(*) FROM event") == 0
    assert await recorder.match_parked() == 0


async def test_a_parked_event_finds_its_message_when_it_appears(recorder: Recorder, rows: Rows, pool: Pool) -> None:
    """By its key, by an alias that was entered later, by one that another event taught; once, when parked is kept."""
    await tell(
        recorder,
        notice(What.OPENED, (Step.MESSAGE_ID, "<news.3@mailer.example.com>"), dedupe="early"),
        notice(What.CLICKED, (Step.PROVIDER_ID, "p-3"), url="https://example.com/"),
    )
    before = await pool.fetch("SELECT dedupe, parked_at FROM parked_event ORDER BY id")
    assert await recorder.match_parked() == 0
    one = await rows.message(original="news.3@mailer.example.com")
    assert await recorder.match_parked(since=datetime.now(UTC) + timedelta(minutes=1)) == 0
    assert await recorder.match_parked(since=datetime.now(UTC) - timedelta(minutes=1)) == 1
    assert await events(pool, one) == [("opened", "ses", "message_id")]
    await tell(recorder, notice(What.OPENED, (Step.MESSAGE_ID, "<news.3@mailer.example.com>"), dedupe="early"))
    assert len(await events(pool, one)) == 1
    # What leads to somebody else's message is tried once for each message that appears, and stays parked as long.
    other = await rows.message("bob@example.net")
    await alias(pool, other, "provider", "ses", "p-3")
    assert await recorder.match_parked() == 1
    assert await recorder.match_parked() == 0
    assert await parked(pool) == [("ses", "other_recipient")]
    assert await pool.fetchval("SELECT parked_at FROM parked_event") == before[1]["parked_at"]
    await tell(recorder, notice(What.DELIVERED, (Step.TOKEN, one.key), (Step.PROVIDER_ID, "p-3")))
    assert await recorder.match_parked() == 1
    assert await events(pool, one) == [
        ("opened", "ses", "message_id"),
        ("delivered", "ses", "token"),
        ("clicked", "ses", "provider_id"),
    ]
    assert await parked(pool) == []


async def test_an_event_counts_once_however_often_it_comes(recorder: Recorder, rows: Rows, pool: Pool) -> None:
    """In one batch, in the next, and from two couriers' hands."""
    one = await rows.message()
    again = notice(What.OPENED, (Step.TOKEN, one.key), dedupe="same")
    await tell(recorder, again, again)
    await tell(recorder, again)
    assert len(await events(pool, one)) == 1


async def test_counts_are_our_own_where_we_injected(recorder: Recorder, rows: Rows, pool: Pool) -> None:
    """Flags are raised by both; times are the pixel's, or else the provider's. AMS hears of each once."""
    campaign = await rows.campaign("42", ams_mailing=42)
    ours = await rows.message(campaign=campaign)
    bare = await rows.message("bob@example.net", campaign=campaign, reason="signed")
    opens = [
        notice(What.OPENED, (Step.TOKEN, message.key), recipient="", user_agent="Mozilla/5.0 (X11)")
        for message in (ours, bare)
        for _ in range(3)
    ]
    await tell(recorder, *opens, encode_hit(hit(key_bytes(ours.key), EventType.OPENED)))
    found = {row["message"]: row for row in await pool.fetch("SELECT * FROM engagement")}
    assert (found[ours.id]["opens"], found[bare.id]["opens"]) == (1, 3)
    assert all(row["first_opened_at"] is not None for row in found.values())
    items = await pool.fetch("SELECT message, url FROM outbox ORDER BY id")
    assert sorted((row["message"], row["url"]) for row in items) == [
        (ours.id, "open_trace"),
        *[(bare.id, "open_trace")] * 3,
    ]


async def test_who_is_gone_is_not_mailed_again(recorder: Recorder, rows: Rows, pool: Pool) -> None:
    """A hard bounce, a complaint and an unsubscribe end campaign mail; a soft bounce does not."""
    campaign = await rows.campaign("42", ams_mailing=42)
    people = {
        "hard": (What.BOUNCED, {"bounce": Bounce.HARD}),
        "soft": (What.BOUNCED, {"bounce": Bounce.SOFT}),
        "complaint": (What.COMPLAINED, {}),
        "leaves": (What.UNSUBSCRIBED, {}),
    }
    for name, (what, fields) in people.items():
        one = await rows.message(f"{name}@example.net", campaign=campaign)
        await tell(recorder, notice(what, (Step.TOKEN, one.key), recipient=f"{name}@example.net", **fields))
    indexes = {ids.recipient_index(IDENTITY, f"{name}@example.net"): name for name in people}
    suppressed = await pool.fetch("SELECT recipient_index, reason FROM suppression")
    assert {indexes[row["recipient_index"]]: row["reason"] for row in suppressed} == {
        "hard": "bounced",
        "complaint": "complained",
        "leaves": "unsubscribed",
    }
    assert [row["url"] for row in await pool.fetch("SELECT url FROM outbox")] == [ams_settings().unsubscribe_action]


async def test_a_copy_that_bounces_costs_the_recipient_nothing(recorder: Recorder, rows: Rows, pool: Pool) -> None:
    """The upstream sent a copy under our key to somebody else, whose address is dead."""
    one = await rows.message(campaign=await rows.campaign("42"))
    await tell(
        recorder, notice(What.BOUNCED, (Step.TOKEN, one.key), bounce=Bounce.HARD, recipient="archive@example.org")
    )
    assert len(await events(pool, one)) == 1
    assert await pool.fetchval("SELECT count(*) FROM suppression") == 0


async def test_the_provider_s_words_are_kept(recorder: Recorder, rows: Rows, ledger: Ledger, pool: Pool) -> None:
    """Codes, class, description and the event itself; they are gone with the person."""
    one = await rows.message()
    await tell(
        recorder,
        notice(
            What.BOUNCED,
            (Step.TOKEN, one.key),
            bounce=Bounce.HARD,
            smtp_code="550",
            enhanced_code="5.1.1",
            description="no mailbox ann@example.net here",
            raw=b'{"to":"ann@example.net"}',
        ),
    )
    row = await pool.fetchrow("SELECT * FROM event")
    assert row is not None
    assert (row["bounce"], row["smtp_code"], row["enhanced_code"]) == ("hard", "550", "5.1.1")
    assert row["raw"] == b'{"to":"ann@example.net"}'
    await forget(ledger, ids.recipient_index(IDENTITY, "ann@example.net"), Traces("ann@example.net"))
    row = await pool.fetchrow("SELECT * FROM event")
    assert row is not None
    assert (row["description"], row["raw"], row["bounce"]) == ("no mailbox erased here", None, "hard")


async def test_what_is_parked_goes_with_the_person(recorder: Recorder, ledger: Ledger, pool: Pool) -> None:
    """A parked notice holds the address; so does nothing afterwards, wherever in it that stands."""
    # Its length is an octet before it, here the letter A.
    long = f"{'ann' * 18}@example.net".rjust(ord("A"), "a")
    for address in ("ann@example.net", long):
        await tell(recorder, notice(What.OPENED, (Step.PROVIDER_ID, "p-7"), recipient=address))
    await sweep(ledger, Traces("ann@example.net"))
    assert len(await parked(pool)) == 1
    await forget(ledger, ids.recipient_index(IDENTITY, long), Traces(long))
    assert await parked(pool) == []
    assert await pool.fetchval("SELECT count(*) FROM parked_name") == 0


async def test_a_poisoned_notice_costs_nobody_else(recorder: Recorder, rows: Rows, pool: Pool) -> None:
    """A value that PostgreSQL refuses is parked alone."""
    one = await rows.message()
    bad = notice(What.CLICKED, (Step.TOKEN, one.key), url="https://example.com/\x00", recipient="")
    await tell(recorder, notice(What.DELIVERED, (Step.TOKEN, one.key)), bad, notice(What.SENT, (Step.TOKEN, one.key)))
    assert [kind for kind, _, _ in await events(pool, one)] == ["delivered", "sent"]
    assert await parked(pool) == [("ses", "refused_value")]


async def test_the_operator_sees_by_what_it_was_found(recorder: Recorder, rows: Rows, ledger: Ledger) -> None:
    """The event's step, class and words stand in the message's events."""
    one = await rows.message()
    await tell(recorder, notice(What.BOUNCED, (Step.TOKEN, one.key), bounce=Bounce.SOFT, description="full"))
    (message,) = (await reports.messages(ledger, reports.MessageFilter(), limit=5, before=None)).messages
    (event,) = message.events
    assert (event.type, event.source, event.step, event.bounce, event.description) == (
        "bounced",
        "ses",
        "token",
        "soft",
        "full",
    )
