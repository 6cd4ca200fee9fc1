"""What the operator's commands print: tables for people, and JSON in the console API's fields for machines."""

import csv
import io
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from courier.settings import AmsSettings
from ledger import ids, outbox, processes
from ledger.campaigns import fold_counts
from ledger.store import open_ledger
from ledger.upstreams import UpstreamState, note_upstreams
from sidecar import reports_cli
from sidecar.cli_parser import parser
from sidecar.failures import CommandError
from sidecar.settings import KeysSettings, Settings
from tests.rows import IDENTITY, NOON, Pool, Rows

Capture = pytest.CaptureFixture[str]

AMS = AmsSettings(url="https://ams.example.com/api", api_key="a made-up key")


@pytest.fixture
def rows(pool: Pool) -> Rows:
    """Return builders into the ledger that the commands read."""
    return Rows(pool)


class Operator:
    """Types commands."""

    def __init__(self, settings: Settings, capture: Capture) -> None:
        self._settings = settings
        self._capture = capture

    async def types(self, *arguments: str) -> str:
        """Run a command that ends well and return what it printed."""
        given = parser().parse_args(arguments)
        report = getattr(reports_cli, given.command.replace("-", "_"))
        assert await report(self._settings, given) == 0
        return self._capture.readouterr().out

    async def reads(self, *arguments: str) -> Any:
        """Run a command for machines and return its JSON."""
        return json.loads(await self.types(*arguments, "--json"))


@pytest.fixture
def operator(database_url: str, tmp_path: Path, capsys: Capture) -> Operator:
    """Return an operator of this ledger."""
    keys = KeysSettings(identity=IDENTITY.decode(), signing=("a signing key made up for tests",))
    return Operator(Settings(data_dir=tmp_path, database_url=database_url, keys=keys, ams=AMS), capsys)


def without_space(text: str) -> list[list[str]]:
    """Return a table's cells, where none holds a space."""
    return [line.split() for line in text.splitlines()]


class TestStatus:
    """Status shows the whole, or one campaign."""

    async def test_an_empty_ledger(self, operator: Operator) -> None:
        assert await operator.types("status") == (
            "running: nothing\nqueue: 0 waiting\nstream: 0 waiting\nhits: 0 recorded, 0 missing\n"
            "AMS: 0 pending, 0 parked\nunmatched events: 0\ntracking: no messages yet\ntrouble: none\n"
        )
        assert (await operator.reads("status"))["campaigns"] == []

    async def test_the_whole(self, operator: Operator, rows: Rows, database_url: str) -> None:
        campaign = await rows.campaign("42", counts={"accepted": 4, "sent": 1})
        message = await rows.message(campaign=campaign)
        await rows.message("bob@example.net", campaign=campaign, reason="dkim_signed")
        await rows.message("cid@example.net", status="queued")
        await rows.message("dan@example.net", status="sending")
        await rows.outbox(message, campaign)
        await rows.parked()
        async with open_ledger(database_url) as ledger:
            await processes.register(ledger, "relay")
            await processes.leave(ledger, await processes.register(ledger, "courier"))
        text = await operator.types("status")
        assert "running: relay 1\nqueue: 2 waiting, the oldest for " in text
        assert re.search(r"\nAMS: 1 pending, the oldest for \d+ s, 0 parked\nunmatched events: 1\n", text)
        assert "trouble: no courier runs: hits are not recorded, and AMS hears nothing\n" in text
        assert "tracking: 75.0 % injected, 25.0 % untouched (dkim_signed) of the newest 4\n" in text
        table = without_space(text)[-2:]
        head = "campaign source state accepted queued sent failed opened clicked bounced unsub done"
        assert [" ".join(line) for line in table] == [head, "42 default active 4 0 1 0 0 0 0 0 25.0 %"]
        whole = await operator.reads("status")
        assert whole["processes"] == {"relay": 1}
        assert whole["queued"] == 2
        assert whole["unmatched"] == [{"source": "tracker", "reason": "unknown_key", "events": 1}]
        assert {"injected": False, "reason": "dkim_signed", "messages": 1} in whole["tracking"]
        assert whole["hits"] == {"recorded": 0, "lost": 0, "missing": 0}
        assert whole["stream"] == {"hits": 0, "oldest_seconds": 0.0}
        assert whole["troubles"][-1] == "no courier runs: hits are not recorded, and AMS hears nothing"

    async def test_upstreams(self, operator: Operator, database_url: str) -> None:
        one, two = "one.example.com:587", "two.example.com:587"
        async with open_ledger(database_url) as ledger:
            for left in (NOON, None):
                process = await processes.register(ledger, "relay")
                states = [
                    UpstreamState(upstream=one, left_since=left, reason="auth 535" if left else None),
                    UpstreamState(upstream=two),
                ]
                await note_upstreams(ledger, process, states)
        assert (await operator.types("status")).splitlines()[1:3] == [
            f"upstream {one}: left alone since {NOON:%Y-%m-%d %H:%M:%S} UTC, by 1 of 2 processes (auth 535)",
            f"upstream {two}: mail is offered",
        ]
        found = (await operator.reads("status"))["upstreams"]
        assert [(it["upstream"], it["processes"], it["left_by"], it["reason"]) for it in found] == [
            (one, 2, 1, "auth 535"),
            (two, 2, 0, None),
        ]

    async def test_one_campaign(self, operator: Operator, rows: Rows) -> None:
        await rows.campaign("42", source="shop")
        await rows.campaign("42", source="news", counts={"accepted": 3, "unique_opens": 2})
        with pytest.raises(CommandError, match="several sources have a campaign 42"):
            await operator.types("status", "42")
        with pytest.raises(CommandError, match="no campaign 43"):
            await operator.types("status", "43")
        shown = await operator.reads("status", "42", "--source", "news")
        assert (shown["campaign_id"], shown["source"], shown["accepted"], shown["unique_opens"]) == ("42", "news", 3, 2)
        cells = {line[0]: line[1:] for line in without_space(await operator.types("status", "42", "--source", "news"))}
        assert cells["accepted"] == ["3"]
        assert cells["ams"] == ["parked", "0"]
        assert shown["ams_shown"] is None

    async def test_what_ams_shows_of_a_campaign(self, operator: Operator, rows: Rows, database_url: str) -> None:
        await rows.campaign("42")
        async with open_ledger(database_url) as ledger, ledger.session() as session:
            await session._connection.execute("UPDATE campaign SET ams_mailing = 42")
            await outbox.note_shown(ledger, {42: (118, 12), 7: (1, 1)})
        assert (
            (await operator.types("status", "42"))
            .splitlines()[-1]
            .startswith("AMS shows: 118 opened, 12 clicked, as of ")
        )
        told = (await operator.reads("status", "42"))["ams_shown"]
        assert (told["opened"], told["clicks"]) == (118, 12)


class TestMessages:
    """Messages are listed by the filters of the API."""

    async def test_filters_and_pages(self, operator: Operator, rows: Rows) -> None:
        campaign = await rows.campaign("42")
        opened = await rows.message(campaign=campaign)
        await rows.engagement(opened, first_opened_at=NOON, opens=1)
        failed = await rows.message("bob@example.net", status="failed")
        submission = ids.submission_key(IDENTITY, [])
        in_one = await rows.message("cid@example.net", submission=await rows.submission(submission))

        async def keys(*arguments: str) -> list[str]:
            return [message["key"] for message in (await operator.reads("messages", *arguments))["messages"]]

        assert await keys() == [in_one.key, failed.key, opened.key]
        assert await keys("--campaign", "42") == [opened.key]
        assert await keys("--recipient", "BOB@example.net") == [failed.key]
        assert await keys("--status", "failed") == [failed.key]
        assert await keys("--submission", submission) == [in_one.key]
        assert await keys("--submission", failed.key) == [failed.key]
        first = await operator.reads("messages", "--limit", "2")
        assert await keys("--limit", "2", "--cursor", first["next"]) == [opened.key]
        table = without_space(await operator.types("messages", "--limit", "1"))
        assert table[1] == [in_one.key, "-", "cid@example.net", "sent", "2026-03-01", "12:00:00", "-"]
        assert table[2] == ["more:", "--cursor", (await operator.reads("messages", "--limit", "1"))["next"]]
        assert "opened" in await operator.types("messages", "--campaign", "42")

    async def test_what_is_not_understood_is_refused(self, operator: Operator) -> None:
        for arguments in (("--cursor", "x"), ("--submission", "abc")):
            with pytest.raises(CommandError, match=arguments[0]) as refused:
                await operator.types("messages", *arguments)
            assert refused.value.code == 2
        assert await operator.types("messages") == "no messages\n"

    async def test_control_characters_do_not_reach_the_terminal(self, operator: Operator, rows: Rows) -> None:
        await rows.message("\x1b[2Jann@example.net")
        assert "\x1b" not in await operator.types("messages")


class TestExport:
    """The export goes to standard output as CSV."""

    async def test_rows(self, operator: Operator, rows: Rows) -> None:
        campaign = await rows.campaign("42")
        bounced = await rows.message(campaign=campaign)
        await rows.engagement(bounced, bounced_at=NOON)
        await rows.message("bob@example.net", campaign=campaign)
        for arguments, count in (
            (["42"], 2),
            (["42", "--filter", "bounced"], 1),
            ([], 2),
            (["--filter", "engaged"], 0),
        ):
            text = await operator.types("export", *arguments)
            assert len(list(csv.DictReader(io.StringIO(text, newline="")))) == count


class TestSyncCounts:
    """Recounting says what was wrong, campaign by campaign."""

    async def test_drift_is_named(self, operator: Operator, rows: Rows) -> None:
        await rows.campaign("41")
        wrong = await rows.campaign("42", counts={"accepted": 5})
        await rows.message(campaign=wrong)
        assert await operator.types("sync-counts") == (
            "42 (default): accepted was off by +4, sent was off by -1\n41 (default): no drift\n"
        )
        (right,) = (await operator.reads("sync-counts", "42"))["campaigns"]
        assert (right["campaign_id"], right["source"], set(right["drift"].values())) == ("42", "default", {0})
        with pytest.raises(CommandError, match="no campaign 43"):
            await operator.types("sync-counts", "43")

    async def test_folding_moves_deltas_and_changes_no_sum(
        self, operator: Operator, rows: Rows, pool: Pool, database_url: str
    ) -> None:
        campaign = await rows.campaign("42", counts={"opens": 2})
        await pool.execute(
            "INSERT INTO campaign_delta SELECT $1, counter, amount FROM (VALUES ('opens', 3), ('opens', -1),"
            " ('clicks', 4)) AS t (counter, amount)",
            campaign,
        )
        before = await operator.reads("status", "42")
        async with open_ledger(database_url) as ledger:
            assert await fold_counts(ledger) == 3
            assert await fold_counts(ledger) == 0
        assert await operator.reads("status", "42") == before
        assert (before["opens"], before["clicks"]) == (4, 4)
        folded = await pool.fetch("SELECT counter, value FROM campaign_count ORDER BY counter")
        assert [tuple(row) for row in folded] == [("clicks", 4), ("opens", 4)]


class TestUnmatched:
    """Parked events are listed with their reason, and so is what AMS refused."""

    async def test_what_ams_refused(self, operator: Operator, rows: Rows) -> None:
        assert await operator.types("unmatched", "--ams") == "AMS refused nothing\n"
        campaign = await rows.campaign("42")
        ann = await rows.message("ann@example.net", campaign=campaign)
        for reason in ("-32603: Invalid email <address>", None, "-32603: Closed"):
            await rows.outbox(ann, campaign, reason=reason)
        listed = await operator.reads("unmatched", "--ams", "--limit", "1")
        assert [(one["mailing"], one["key"], one["reason"]) for one in listed["parked"]] == [
            (42, ann.key, "-32603: Closed")
        ]
        text = await operator.types("unmatched", "--ams")
        assert "Invalid email <address>" in text
        assert text.count("open_trace") == 2
        assert "ann@example.net" not in text

    async def test_newest_first_with_counts(self, operator: Operator, rows: Rows) -> None:
        assert await operator.types("unmatched") == "every event has its message\n"
        for source in ("tracker", "tracker", "postmark"):
            await rows.parked(source=source, reason="unknown_key" if source == "tracker" else "ambiguous")
        listed = await operator.reads("unmatched", "--limit", "2")
        assert [event["source"] for event in listed["unmatched"]] == ["postmark", "tracker"]
        assert listed["counts"][0] == {"source": "tracker", "reason": "unknown_key", "events": 2}
        assert set(listed["unmatched"][0]) == {"id", "parked_at", "source", "reason", "named"}
        assert ["1", "postmark", "ambiguous"] in without_space(await operator.types("unmatched"))


class TestReplay:
    """Parked items go again; a time without AMS is made up for."""

    async def test_parked_items_wait_again(self, operator: Operator, rows: Rows, pool: Pool) -> None:
        campaign = await rows.campaign("42", ams_mailing=42)
        message = await rows.message(campaign=campaign)
        await rows.outbox(message, campaign, reason="-32602 invalid")
        await rows.outbox(message, campaign)
        assert await operator.types("replay") == "1 item queued for AMS\n"
        assert await pool.fetchval("SELECT count(*) FROM outbox WHERE parked_at IS NULL") == 2
        assert await operator.reads("replay") == {"queued": 0}

    async def test_a_time_gone_by_is_built_from_the_events(self, operator: Operator, rows: Rows, pool: Pool) -> None:
        message = await rows.message(campaign=await rows.campaign("42", ams_mailing=42))
        await rows.event(message, "opened", at=NOON - timedelta(days=1))
        await rows.event(message, "opened", at=NOON)
        await rows.event(message, "clicked", at=NOON, url="https://shop.example.com/")
        await rows.event(await rows.message("bob@example.net"), "opened", at=NOON)
        assert await operator.types("replay", "--since", "2026-03-01T12:00:00Z") == "2 items queued for AMS\n"
        assert {row["url"] for row in await pool.fetch("SELECT url FROM outbox")} == {
            "open_trace",
            "https://shop.example.com/",
        }
        assert await operator.types("replay", "--since", "2026-03-01T12:00:00Z") == "0 items queued for AMS\n"


def test_every_listing_has_json() -> None:
    """Each that prints a table can print JSON."""
    for command in ("status", "messages", "sync-counts", "unmatched", "replay"):
        assert parser().parse_args([command, "--json"]).json
