"""Who is suppressed is not sent campaign mail, now or from the queue; an operator enters, lifts, lists and moves."""

import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiosmtplib
import pytest

from courier.record import Recorder
from ledger import campaigns, engagements, suppressions
from ledger.engagements import Suppressed
from ledger.events import EventType
from ledger.ids import recipient_index
from ledger.mail import MailLedger
from ledger.suppressions import EVERY_SOURCE, Entry
from relay.settings import RelaySettings
from tests.commands import command
from tests.mailings import READER, ams_settings, connected, counts, entries, hit, make_campaign, seed
from tests.relaying import IDENTITY, Relay, relaying, submission
from tests.running import outrider, short_directory
from tests.sink import Sink

PATIENT = RelaySettings(verdict_wait=1.0, ledger_wait=1.0, retry_first=3600.0)


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """Play an upstream."""
    async with Sink().listening() as sink:
        yield sink


@pytest.fixture
async def relay(database_url: str, sink: Sink) -> AsyncIterator[Relay]:
    """Run a relay."""
    async with relaying(database_url, f"smtp://127.0.0.1:{sink.port}", PATIENT) as relay:
        yield relay


def entry(recipient: str = "ann@example.net", *, source: str = EVERY_SOURCE) -> Entry:
    """Return what an operator enters."""
    return Entry(
        source=source, recipient_index=recipient_index(IDENTITY, recipient), recipient=recipient, reason="operator"
    )


async def drift(relay: Relay) -> dict[str, int]:
    """Return what a recount finds wrong."""
    (row,) = await campaigns.campaigns(relay.ledger, limit=2)
    return {one.counter: one.drift for one in await campaigns.sync_counts(relay.ledger, row.id) if one.drift}


async def events(relay: Relay) -> list[tuple[str, str, str]]:
    """Return type, source and reason of every event."""
    async with relay.ledger.session() as session:
        return [tuple(row) for row in await session._connection.fetch("SELECT type, source, reason FROM event")]


class TestBinding:
    """What an entry keeps from whom."""

    async def test_campaign_mail_is_accepted_and_not_sent(self, relay: Relay, sink: Sink) -> None:
        """Answered 250, marked with an event that says why, and counted."""
        await suppressions.enter(relay.ledger, [entry()])
        assert (await relay.pipeline.accept(submission())).code == 250
        assert (sink.kept, await relay.statuses()) == ([], ["suppressed"])
        assert await events(relay) == [("suppressed", "relay", "operator")]
        assert await drift(relay) == {}

    async def test_mail_without_a_campaign_is_sent(self, relay: Relay, sink: Sink) -> None:
        """A password reset reaches whoever asked for it."""
        await suppressions.enter(relay.ledger, [entry()])
        await relay.pipeline.accept(submission(campaign=None))
        assert [kept.recipient for kept in sink.kept] == ["ann@example.net"]

    async def test_an_entry_of_one_source_binds_that_source(self, relay: Relay, sink: Sink) -> None:
        """Unless the operator's setting says that one source's word is everybody's."""
        await suppressions.enter(relay.ledger, [entry(source="shop")])
        index = recipient_index(IDENTITY, "ann@example.net")
        assert await relay.mail.is_suppressed("shop", index)
        assert not await relay.mail.is_suppressed("default", index)
        await relay.pipeline.accept(submission())
        assert len(sink.kept) == 1
        everybody = MailLedger(relay.ledger, relay.mail.process, all_sources=True)
        assert await everybody.is_suppressed("default", index)

    async def test_who_unsubscribes_while_mail_waits_is_not_sent_it(self, relay: Relay, sink: Sink) -> None:
        """The queue looks again before it sends; the body is freed and the counts follow."""
        sink.mail = lambda _: "421 4.3.2 Busy"
        await relay.pipeline.accept(submission("ann@example.net", "ben@example.net"))
        await suppressions.enter(relay.ledger, [entry()])
        async with relay.ledger.session() as session:
            await session._connection.execute("UPDATE delivery SET next_at = now()")
        claimed = await relay.mail.claim(10)
        assert ([due.recipient for due in claimed.due], claimed.passed) == (["ben@example.net"], 1)
        assert await relay.statuses() == ["suppressed", "sending"]
        assert await events(relay) == [("suppressed", "relay", "operator")]
        assert await drift(relay) == {}
        async with relay.ledger.session() as session:
            bodies = await session._connection.fetch("SELECT body IS NULL AS freed FROM delivery ORDER BY message")
        assert [row["freed"] for row in bodies] == [True, False]

    async def test_a_lifted_entry_stays_lifted_for_older_wishes(self, relay: Relay) -> None:
        """An unsubscribe from before, recorded late, is not taken for a new one; a later one is."""
        index = recipient_index(IDENTITY, "ann@example.net")

        async def unsubscribed(at: datetime) -> None:
            wish = Suppressed(source="default", recipient_index=index, reason="unsubscribed", message=1, at=at)
            async with relay.ledger.transaction() as session:
                await engagements.suppress(session, [wish])

        long_ago = datetime.now(UTC) - timedelta(days=2)
        await unsubscribed(long_ago)
        assert await relay.mail.is_suppressed("default", index)
        assert await suppressions.lift(relay.ledger, [index]) == 1
        await unsubscribed(long_ago + timedelta(days=1))
        assert not await relay.mail.is_suppressed("default", index)
        await unsubscribed(datetime.now(UTC) + timedelta(minutes=1))
        assert await relay.mail.is_suppressed("default", index)

    async def test_a_resubscribe_is_recorded_and_erases_nothing(self, relay: Relay, database_url: str) -> None:
        """Who left and was let back in: both stand among the message's events, however often."""
        async with connected(database_url) as look:
            campaign = await make_campaign(look)
            (ann,) = await seed(look, campaign, "ann@example.net")
            index = await look.fetchval("SELECT recipient_index FROM message")
            recorder = Recorder(relay.ledger, READER, ams=ams_settings(url=""))
            for times in (1, 2):
                leaving = int(datetime.now(UTC).timestamp() * 1000) + times
                await recorder.record(entries([hit(ann, EventType.UNSUBSCRIBED, at_ms=leaving)]))
                assert await relay.mail.is_suppressed("default", index)
                assert await suppressions.lift(relay.ledger, [index]) == 1
                assert await suppressions.lift(relay.ledger, [index]) == 0
            rows = await look.fetch(
                "SELECT type, source FROM event WHERE message = $1 ORDER BY recorded_at, id", ann.id
            )
            assert [tuple(row) for row in rows] == [("unsubscribed", "tracker"), ("subscribed", "operator")] * 2
            row = await look.fetchrow("SELECT unsubscribed_at, opens FROM engagement WHERE message = $1", ann.id)
            assert row is not None
            assert row["unsubscribed_at"] is not None
            assert await counts(look, campaign) == {"unsubscribes": 1}


class TestCommands:
    """`outrider suppress`, as typed."""

    @pytest.fixture
    def environment(self, database_url: str, redis_url: str) -> Mapping[str, str]:
        """Name the ledger, and the keys."""
        return {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "OUTRIDER_KEYS__SIGNING": "a signing key made up for tests, long enough",
            "OUTRIDER_KEYS__IDENTITY": "an identity key made up for tests, long enough",
        }

    async def test_add_list_remove(self, environment: Mapping[str, str]) -> None:
        """Spelt in any case; twice is once."""
        added = await command("suppress", "add", "Ann@Example.net", "ben@example.net", environment=environment)
        assert (added.code, added.out) == (0, "2 recipients added\n")
        again = await command("suppress", "add", "ann@example.net", environment=environment)
        assert again.out == "0 recipients added\n"
        page = json.loads((await command("suppress", "list", "--json", "--limit", "1", environment=environment)).out)
        rest = json.loads(
            (await command("suppress", "list", "--json", "--cursor", page["next"], environment=environment)).out
        )
        found = {
            one["recipient"]: (one["source"], one["reason"]) for one in page["suppressions"] + rest["suppressions"]
        }
        assert found == {"Ann@Example.net": ("", "operator"), "ben@example.net": ("", "operator")}
        removed = await command("suppress", "remove", "ann@example.net", environment=environment)
        assert (removed.code, removed.out) == (0, "1 recipient removed\n")
        assert (await command("suppress", "remove", "ann@example.net", environment=environment)).code == 1
        assert "ann" not in (await command("suppress", "list", environment=environment)).out.lower()

    async def test_the_list_travels_as_csv(self, environment: Mapping[str, str], tmp_path: Path) -> None:
        """What is exported can be imported; what looks like a formula comes back as it was."""
        rows = [
            ["recipient", "source", "reason", "at"],
            ["ann@example.net", "shop", "complained", "2026-11-20T08:00:00Z"],
            ["=cmd@example.net", "", "", ""],
        ]
        file = tmp_path / "list.csv"
        with file.open("w", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows(rows)
        assert (await command("suppress", "import", str(file), environment=environment)).out == "2 recipients added\n"
        exported = (await command("suppress", "export", environment=environment)).out
        found = sorted(list(csv.reader(io.StringIO(exported, newline="")))[1:])
        assert [row[:3] for row in found] == [
            ["'=cmd@example.net", "", "import"],
            ["ann@example.net", "shop", "complained"],
        ]
        assert found[1][3].startswith("2026-11-20T08:00:00")
        file.write_bytes(exported.encode())
        assert (await command("suppress", "import", str(file), environment=environment)).out == "0 recipients added\n"

    async def test_a_file_with_wrong_lines_changes_nothing(
        self, environment: Mapping[str, str], tmp_path: Path
    ) -> None:
        """Every wrong line is named with what is wrong."""
        file = tmp_path / "list.csv"
        file.write_text("recipient,at\nann@example.net,\nnobody,\nben@example.net,yesterday\n")
        ended = await command("suppress", "import", str(file), environment=environment)
        assert ended.code == 2
        assert "line 3: 'nobody' is no address" in ended.err
        assert "line 4: expected a time" in ended.err
        assert (await command("suppress", "list", environment=environment)).out == "nobody is suppressed\n"

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["add"], "name at least one recipient"),
            (["add", "nobody"], "'nobody' is no address"),
            (["add", "ann@example.net", "--reason", "x" * 65], "a reason is"),
            (["list", "ann@example.net"], "takes no recipients"),
            (["import"], "name one file"),
            (["import", "/nowhere/list.csv"], "No such file"),
            (["import", "/dev/null"], "the first row names the columns"),
            (["list", "--cursor", "!"], "--cursor: "),
        ],
        ids=lambda given: " ".join(given)[:40] if isinstance(given, list) else "",
    )
    async def test_what_is_not_meant_is_named(
        self, environment: Mapping[str, str], words: list[str], says: str
    ) -> None:
        """With exit code 2 and what to do."""
        ended = await command("suppress", *words, environment=environment)
        assert ended.code == 2
        assert says in ended.err


@pytest.mark.timeout(120)
async def test_rcpt_is_refused_by_setting(free_port: Callable[[], int]) -> None:
    """With `refuse` a suppressed recipient gets 550 at RCPT, and the others of the transaction are served."""
    with short_directory() as data_dir:
        async with outrider(data_dir, free_port, relay__suppressed="refuse") as target:
            added = await command("suppress", "add", "ann@example.net", "--data-dir", str(data_dir))
            assert added.code == 0, added.err
            client = aiosmtplib.SMTP(hostname="127.0.0.1", port=target.smtp, start_tls=False)
            async with client:
                refused, _ = await client.sendmail(
                    "shop@example.com", ["ann@example.net", "ben@example.net"], submission().content
                )
            assert list(refused) == ["ann@example.net"]
            assert refused["ann@example.net"][0] == 550
        assert len(list((data_dir / "capture").glob("*.eml"))) == 1
