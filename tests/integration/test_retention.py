"""What is too old goes, in bites and for good; what it counted for stays true."""

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from courier.record import Recorder
from courier.settings import RetentionSettings
from ledger import campaigns, erasure, reports, retention, suppressions
from ledger.events import EventType
from ledger.ids import key_bytes, recipient_index
from ledger.processes import make_partitions
from ledger.reports import MessageFilter
from ledger.retention import BusyError
from ledger.store import Ledger
from ledger.traces import Traces
from sidecar.wiring.retention import Retention
from tests.mailings import READER, ams_settings, entries, hit
from tests.rows import IDENTITY, Pool, Row, Rows

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def days_ago(days: int) -> datetime:
    """Return a time so long before NOW."""
    return NOW - timedelta(days=days)


@pytest.fixture
def rows(pool: Pool) -> Rows:
    """Insert into it."""
    return Rows(pool)


async def recipients(pool: Pool) -> list[str]:
    """Return who messages went to, oldest first."""
    return [row[0].decode() for row in await pool.fetch("SELECT recipient FROM message ORDER BY id")]


async def turn(ledger: Ledger, directory: Path = Path("/nowhere"), **days: int) -> bool:
    """Take one turn at NOW; captured mail is in *directory*."""
    return await Retention(ledger, RetentionSettings(**days), directory).turn(NOW)


def names(directory: Path) -> list[str]:
    """Return what is in a directory."""
    return sorted(path.name for path in directory.iterdir())


async def drift(ledger: Ledger, campaign: int) -> dict[str, int]:
    """Return what a recount finds wrong."""
    return {one.counter: one.drift for one in await campaigns.sync_counts(ledger, campaign) if one.drift}


async def record(ledger: Ledger, *messages: Row, kind: EventType = EventType.OPENED) -> None:
    """Record a hit on each message."""
    await Recorder(ledger, READER, ams=ams_settings()).record(
        entries([hit(key_bytes(one.key), kind) for one in messages])
    )


async def age_events(pool: Pool, to: datetime) -> None:
    """Make every event there is as old as that, recorded then too."""
    await pool.execute("UPDATE event SET recorded_at = $1, occurred_at = $1", to)


async def test_by_default_only_what_matched_nothing_goes(
    ledger: Ledger, rows: Rows, pool: Pool, tmp_path: Path
) -> None:
    """However old it is; parked events after thirty days."""
    old = await rows.message(accepted_at=days_ago(4000))
    await rows.event(old, at=days_ago(4000))
    await rows.parked()
    await pool.execute("UPDATE parked_event SET parked_at = $1", days_ago(4000))
    (tmp_path / "a.eml").touch()
    os.utime(tmp_path / "a.eml", (0, 0))
    assert not Retention(ledger, RetentionSettings(parked=0, parked_most=0), tmp_path).on
    assert not await turn(ledger, tmp_path, parked=0)
    assert await pool.fetchval("SELECT count(*) FROM parked_event") == 1
    assert not await turn(ledger, tmp_path)
    assert await pool.fetchval("SELECT count(*) FROM parked_event") == 0
    assert await recipients(pool) == ["ann@example.net"]
    assert await pool.fetchval("SELECT count(*) FROM event") == 1
    assert names(tmp_path) == ["a.eml"]


async def test_captured_mail(ledger: Ledger, tmp_path: Path) -> None:
    """Both files of a message, and what was never finished; the young stay."""
    for name, age in (("old.eml", 40), ("old.json", 40), (".torn.eml.7", 31), ("young.eml", 29), ("young.json", 29)):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (days_ago(age).timestamp(),) * 2)
    assert not await turn(ledger, tmp_path, captured=30)
    assert names(tmp_path) == ["young.eml", "young.json"]


async def test_of_each_source_the_newest_parked_events_stay(ledger: Ledger, rows: Rows, pool: Pool) -> None:
    """One provider that sends what nobody knows costs the others nothing."""
    for _ in range(5):
        await rows.parked(source="ses")
    await rows.parked(source="azure")
    assert not await turn(ledger, parked=0, parked_most=3)
    left = [(row["id"], row["source"]) for row in await pool.fetch("SELECT id, source FROM parked_event ORDER BY id")]
    assert left == [(3, "ses"), (4, "ses"), (5, "ses"), (6, "azure")]


async def test_parked_events(ledger: Ledger, rows: Rows, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest first, in bites, until the young ones."""
    monkeypatch.setattr(retention, "BATCH", 2)
    for _ in range(7):
        await rows.parked()
    await pool.execute("UPDATE parked_event SET parked_at = $1 WHERE id <= 5", days_ago(31))
    await pool.execute("UPDATE parked_event SET parked_at = $1 WHERE id > 5", days_ago(29))
    assert not await turn(ledger, parked=30)
    assert [row["id"] for row in await pool.fetch("SELECT id FROM parked_event ORDER BY id")] == [6, 7]


class TestAddresses:
    """Messages forget who they went to."""

    async def test_the_old_and_settled(self, ledger: Ledger, rows: Rows, pool: Pool) -> None:
        """With sender, reply, original id and links; what stays says what became of them."""
        campaign = await rows.campaign()
        old = await rows.message(
            "ann@example.net",
            campaign=campaign,
            accepted_at=days_ago(91),
            reply="250 <ann@example.net> Ok",
            original="1.ann@mailer.example",
        )
        await rows.message(
            "ben@example.net", campaign=campaign, accepted_at=days_ago(89), reply="250 <ben@example.net> Ok"
        )
        await rows.event(old, "clicked", url="https://shop.example.com/?e=ann%40example.net", at=days_ago(90))
        await campaigns.sync_counts(ledger, campaign)
        before = (await campaigns.campaigns(ledger, limit=1))[0].campaign
        assert not await turn(ledger, addresses=90)
        ben, ann = (await reports.messages(ledger, MessageFilter(), limit=9)).messages
        assert (ben.recipient, ben.upstream_reply) == ("ben@example.net", "250 <ben@example.net> Ok")
        assert (ann.recipient, ann.upstream_reply, ann.original_message_id) == (
            "erased",
            "250 <erased> Ok",
            "1.erased@mailer.example",
        )
        assert [event.url for event in ann.events] == ["erased"]
        senders = [row[0] for row in await pool.fetch("SELECT sender FROM message ORDER BY id")]
        assert senders == [b"erased", b"news@example.com"]
        assert (await campaigns.campaigns(ledger, limit=1))[0].campaign == before
        assert await drift(ledger, campaign) == {}

    async def test_a_late_wish_counts_all_the_same(self, ledger: Ledger, rows: Rows) -> None:
        """The index stays until the person is forgotten."""
        index = recipient_index(IDENTITY, "ann@example.net")
        old = await rows.message("ann@example.net", campaign=await rows.campaign(), accepted_at=days_ago(91))
        await turn(ledger, addresses=90)
        await record(ledger, old, kind=EventType.UNSUBSCRIBED)
        page = await suppressions.listing(ledger, limit=9, recipient_index=index)
        assert [(one.recipient, one.reason) for one in page.suppressions] == [(None, "unsubscribed")]
        async with ledger.transaction() as session:
            assert len(await session.fetch("report_messages_of_recipient", index)) == 1

    async def test_what_waits_is_left_and_found_later(
        self, ledger: Ledger, rows: Rows, pool: Pool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It holds up nobody: those behind it go now, and it goes once it is sent, with nothing looked at for ever."""
        monkeypatch.setattr(retention, "BATCH", 2)
        for number in range(9):
            status = "queued" if number in {2, 5} else "sent"
            await rows.message(f"r{number}@example.net", status=status, accepted_at=days_ago(99 - number))
        await rows.message("young@example.net", accepted_at=days_ago(1))
        assert not await turn(ledger, addresses=90)
        gone = ["erased"]
        left = ["r2@example.net"], ["r5@example.net"]
        assert await recipients(pool) == [*gone * 2, *left[0], *gone * 2, *left[1], *gone * 3, "young@example.net"]
        assert await pool.fetchval("SELECT message FROM retention") == 2
        await pool.execute("UPDATE delivery SET status = 'sent', settled_at = now()")
        assert not await turn(ledger, addresses=90)
        assert await recipients(pool) == [*gone * 9, "young@example.net"]
        assert await pool.fetchval("SELECT message FROM retention") == 9

    async def test_a_turn_is_bounded_and_the_next_goes_on(
        self, ledger: Ledger, rows: Rows, pool: Pool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also behind a message that has to be left at the very beginning."""
        monkeypatch.setattr(retention, "BATCH", 1)
        monkeypatch.setattr("sidecar.wiring.retention._BITES", 3)
        for number in range(7):
            await rows.message(status="queued" if not number else "sent", accepted_at=days_ago(99))
        taking = Retention(ledger, RetentionSettings(addresses=90), Path("/nowhere"))
        assert [await taking.turn(NOW) for _ in range(3)] == [True, True, False]
        assert (await recipients(pool)).count("erased") == 6

    async def test_who_is_forgotten_later_is_found(self, ledger: Ledger, rows: Rows, pool: Pool) -> None:
        """Age took the address, `forget` takes the index."""
        await rows.message("ann@example.net", accepted_at=days_ago(91))
        await turn(ledger, addresses=90)
        erased = await erasure.forget(ledger, recipient_index(IDENTITY, "ann@example.net"), Traces("ann@example.net"))
        assert erased.counts["messages"] == 1
        assert await pool.fetchval("SELECT recipient_index FROM message") == b""


class TestEvents:
    """Months of events go, and what they said is not forgotten."""

    async def test_whole_months(self, ledger: Ledger, rows: Rows, pool: Pool) -> None:
        """The partition is dropped when its last day is too old; the rest of the limit's own month stays."""
        for month in (8, 9, 10):
            await make_partitions(ledger, date(2026, month, 1))
        message = await rows.message()
        for at in (days_ago(110), days_ago(80), days_ago(60), days_ago(3)):
            await rows.event(message, at=at)
        assert await months(pool) >= {"event_202608", "event_202609", "event_202611"}
        assert not await turn(ledger, events=52)
        left = [row[0] for row in await pool.fetch("SELECT occurred_at FROM event ORDER BY 1")]
        assert left == [days_ago(3)]
        assert not await months(pool) & {"event_202608", "event_202609"}
        assert "event_202610" in await months(pool)
        (tally,) = await pool.fetch("SELECT amount, first_at, last_at FROM event_tally")
        assert tuple(tally) == (3, days_ago(110), days_ago(60))

    @pytest.mark.parametrize("place", ["a month of their own", "the default partition"])
    async def test_counts_stay_true(self, ledger: Ledger, rows: Rows, pool: Pool, place: str) -> None:
        """A recount finds no drift, and a late hit is added to what came before, also to a person's flags."""
        if place == "a month of their own":
            await make_partitions(ledger, date(2026, 3, 1))
        campaign = await rows.campaign()
        ann, ben = await rows.message(campaign=campaign), await rows.message("ben@example.net", campaign=campaign)
        await record(ledger, ann, ann, ben)
        await record(ledger, ben, kind=EventType.CLICKED)
        await campaigns.sync_counts(ledger, campaign)
        await age_events(pool, datetime(2026, 3, 5, tzinfo=UTC))
        first = {row["message"]: row for row in await pool.fetch("SELECT * FROM engagement")}
        before = (await campaigns.campaigns(ledger, limit=1))[0].campaign
        assert not await turn(ledger, events=60)
        assert await pool.fetchval("SELECT count(*) FROM event") == 0
        assert ("event_202603" in await months(pool)) is False
        assert await drift(ledger, campaign) == {}
        assert (await campaigns.campaigns(ledger, limit=1))[0].campaign == before
        await record(ledger, ann, ben)
        after = {row["message"]: row for row in await pool.fetch("SELECT * FROM engagement")}
        assert [after[one.id]["opens"] for one in (ann, ben)] == [3, 2]
        assert after[ben.id]["clicks"] == 1
        assert after[ann.id]["first_opened_at"] <= first[ann.id]["first_opened_at"]
        assert await drift(ledger, campaign) == {}
        counts = (await campaigns.campaigns(ledger, limit=1))[0].campaign
        assert (counts.opens, counts.unique_opens, counts.clicks) == (5, 2, 1)

    async def test_a_month_that_is_read_stays_whole(
        self, ledger: Ledger, rows: Rows, pool: Pool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is tallied twice: all of it happens, or nothing."""
        monkeypatch.setattr(retention, "_TRIES", 1)
        await make_partitions(ledger, date(2026, 3, 1))
        await rows.event(await rows.message(), at=datetime(2026, 3, 5, tzinfo=UTC))
        async with pool.acquire() as reader, reader.transaction():
            await reader.fetch("SELECT * FROM event")
            with pytest.raises(BusyError):
                await retention.drop_month(ledger, date(2026, 6, 1))
            assert not await turn(ledger, events=60)
        assert await pool.fetchval("SELECT count(*) FROM event_tally") == 0
        assert await pool.fetchval("SELECT count(*) FROM event") == 1
        assert not await turn(ledger, events=60)
        assert await pool.fetchval("SELECT count(*) FROM event") == 0
        assert await pool.fetchval("SELECT sum(amount) FROM event_tally") == 1

    async def test_one_process_at_a_time(self, ledger: Ledger, rows: Rows) -> None:
        """A second one finds the work taken and does nothing."""
        await make_partitions(ledger, date(2026, 3, 1))
        await rows.event(await rows.message(), at=datetime(2026, 3, 5, tzinfo=UTC))
        async with ledger.transaction() as session:
            row = await session.fetchrow("lock_retention")
            assert row is not None
            assert row["ours"]
            assert await retention.drop_month(ledger, date(2026, 6, 1)) == (None, False)


async def months(pool: Pool) -> set[str]:
    """Return the partitions of events."""
    return {row[0] for row in await pool.fetch("SELECT relname FROM pg_class WHERE relname ~ '^event_[0-9]{6}$'")}
