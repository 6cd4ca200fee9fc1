"""What happened while AMS was switched off can be told to it afterwards."""

from datetime import UTC, datetime, timedelta

from courier.record import Recorder
from courier.replay import replay_since
from ledger.events import EventType
from ledger.store import open_ledger
from tests.mailings import APPLE, READER, ams_settings, connected, entries, hit, make_campaign, seed


async def test_items_are_built_for_a_time_when_ams_was_off(database_url: str) -> None:
    """From the events since then: people's, machines' by the setting, never a HEAD; twice in a row is once."""
    async with open_ledger(database_url) as ledger, connected(database_url) as look:
        ann, bob = await seed(look, await make_campaign(look), "ann@example.net", "bob@example.net")
        (cid,) = await seed(look, await make_campaign(look, "news", mailing=None), "cid@example.net")
        off = ams_settings(url="")
        start = datetime.now(UTC) - timedelta(minutes=1)
        await Recorder(ledger, READER, ams=off).record(
            entries(
                [
                    hit(ann),
                    hit(ann),
                    hit(bob, EventType.CLICKED, url="https://x.example/?a=1&b=2"),
                    hit(bob, EventType.UNSUBSCRIBED),
                    hit(bob, user_agent=APPLE),
                    hit(bob, method="HEAD"),
                    hit(cid),
                ]
            )
        )
        assert await look.fetchval("SELECT count(*) FROM outbox") == 0
        settings = ams_settings(machines="exclude")
        assert await replay_since(ledger, datetime.now(UTC) + timedelta(minutes=1), settings) == 0
        assert await replay_since(ledger, start, settings) == 4
        assert await replay_since(ledger, start, settings) == 0
        rows = await look.fetch("SELECT mailing, message, url FROM outbox ORDER BY id")
        assert sorted(tuple(row) for row in rows) == sorted(
            [
                (42, ann.id, "open_trace"),
                (42, ann.id, "open_trace"),
                (42, bob.id, "https://x.example/?a=1&b=2"),
                (42, bob.id, "Unsubscribe_Click:DC,AE{|;"),
            ]
        )
        assert await replay_since(ledger, start, ams_settings()) == 1
