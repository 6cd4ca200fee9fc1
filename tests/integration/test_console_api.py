"""The console API answers in the contract's fields, to whoever holds the token and to nobody else."""

import csv
import io
from collections.abc import AsyncIterator
from datetime import timedelta

import aiohttp
import pytest
import pytest_asyncio

from ledger import ids, processes
from ledger.store import open_ledger
from ledger.upstreams import UpstreamState, note_upstreams
from tests.console import BEARER, Client, console, get
from tests.rows import IDENTITY, NOON, Pool, Row, Rows

MESSAGE_FIELDS = {
    "message_id", "key", "campaign_id", "recipient", "original_message_id", "status", "accepted_at", "sent_at",
    "upstream_reply", "tracking", "engagement", "events",
}  # fmt: skip
ENGAGEMENT_FIELDS = {
    "delivered", "opened", "clicked", "bounced", "complained", "unsubscribed", "opens", "clicks", "machine_opens",
    "machine_clicks", "first_opened_at", "last_opened_at", "first_clicked_at",
}  # fmt: skip
CAMPAIGN_FIELDS = {
    "campaign_id", "source", "accepted", "queued", "sent", "failed", "suppressed", "delivered", "opens",
    "unique_opens", "clicks", "unique_clicks", "bounces", "complaints", "unsubscribes", "machine_opens",
    "machine_clicks", "correlated_ratio", "progress_pct", "state", "to_send", "send_window", "rate", "ams",
}  # fmt: skip


@pytest_asyncio.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    """Return a client of a console on an empty ledger."""
    async with console(database_url) as made:
        yield made


@pytest.fixture
def rows(pool: Pool) -> Rows:
    """Return builders into that ledger."""
    return Rows(pool)


async def test_upstreams(client: Client, database_url: str) -> None:
    """Which of them get mail, and why the others do not."""
    assert await get(client, "/api/upstreams") == {"upstreams": [], "next": None}
    async with open_ledger(database_url) as ledger:
        process = await processes.register(ledger, "relay")
        state = UpstreamState(upstream="mail.example.com:587", left_since=NOON, reason="connect")
        await note_upstreams(ledger, process, [state])
    (found,) = (await get(client, "/api/upstreams"))["upstreams"]
    assert found == {
        "upstream": "mail.example.com:587",
        "processes": 1,
        "left_by": 1,
        "left_since": NOON.isoformat().replace("+00:00", "Z"),
        "reason": "connect",
    }


class TestMessages:
    """A message is found by every id it has, and shown as the contract says."""

    async def test_every_field(self, client: Client, rows: Rows) -> None:
        campaign = await rows.campaign("42")
        message = await rows.message(campaign=campaign, original="abc@shop.example.com", reply="250 2.0.0 Ok")
        await rows.engagement(message, opens=2, machine_opens=1, first_opened_at=NOON, last_opened_at=NOON)
        await rows.event(message, "opened", machine=True, reason="prefetch")
        await rows.event(message, "clicked", at=NOON + timedelta(seconds=5), url="https://shop.example.com/")
        answer = await get(client, f"/api/messages/{message.message_id}")
        assert set(answer) == MESSAGE_FIELDS
        assert set(answer["engagement"]) == ENGAGEMENT_FIELDS
        assert answer["key"] == message.key
        assert answer["campaign_id"] == "42"
        assert answer["recipient"] == "ann@example.net"
        assert answer["original_message_id"] == "abc@shop.example.com"
        assert answer["status"] == "sent"
        assert answer["accepted_at"] == answer["sent_at"] == "2026-03-01T12:00:00Z"
        assert answer["upstream_reply"] == "250 2.0.0 Ok"
        assert answer["tracking"] == {"injected": True, "reason": None, "links": 3}
        assert answer["engagement"]["opened"] is True
        assert answer["engagement"]["clicked"] is False
        assert (answer["engagement"]["opens"], answer["engagement"]["machine_opens"]) == (2, 1)
        assert answer["events"] == [
            {
                "type": "opened",
                "source": "tracker",
                "occurred_at": "2026-03-01T12:00:00Z",
                "url": None,
                "machine": True,
                "reason": "prefetch",
            },
            {
                "type": "clicked",
                "source": "tracker",
                "occurred_at": "2026-03-01T12:00:05Z",
                "url": "https://shop.example.com/",
                "machine": False,
                "reason": None,
            },
        ]

    async def test_found_by_each_of_its_ids(self, client: Client, rows: Rows) -> None:
        message = await rows.message(original="We/ird+id@shop.example.com")
        await rows.message("bob@example.net")
        for name in (
            message.message_id,
            f"{message.key}@EXAMPLE.com",
            f"%3C{message.message_id}%3E",
            message.key,
            # A repeat in doubt carries its attempt.
            f"{message.key}.2@example.com",
            "We/ird+id@SHOP.example.com",
            "We%2Fird%2Bid@shop.example.com",
        ):
            assert (await get(client, f"/api/messages/{name}"))["key"] == message.key, name

    async def test_what_names_nothing_is_404(self, client: Client, rows: Rows) -> None:
        message = await rows.message(original="abc@shop.example.com")
        for name in (
            f"{message.key}@other.example.com",
            f"{message.key[:-1]}b",
            "ABC@shop.example.com",
            "nobody@example.com",
            "%00",
            "%FF%FE",
            "a" * 3000,
        ):
            answer = await get(client, f"/api/messages/{name}", 404)
            assert answer == {"error": {"code": "not_found", "message": "no such message"}}, name

    async def test_an_original_id_of_several_recipients_lists_them(self, client: Client, rows: Rows) -> None:
        keys = {
            (await rows.message(recipient, original="abc@shop.example.com")).key
            for recipient in ("ann@example.net", "bob@example.net")
        }
        answer = await get(client, "/api/messages/abc@shop.example.com", 409)
        assert answer["error"]["code"] == "ambiguous"
        listed = await get(client, "/api/messages?message_id=abc@shop.example.com")
        assert {message["key"] for message in listed["messages"]} == keys

    async def test_sent_at_is_the_upstreams_and_nobody_elses(self, client: Client, rows: Rows) -> None:
        failed = await rows.message(status="failed", reply="550 5.1.1 no such user")
        answer = await get(client, f"/api/messages/{failed.key}")
        assert (answer["status"], answer["sent_at"]) == ("failed", None)

    async def test_an_address_that_is_not_utf8_is_still_json(self, client: Client, rows: Rows) -> None:
        message = await rows.message("caf\udce9@example.net")
        answer = await get(client, f"/api/messages/{message.key}")
        assert answer["recipient"] == "caf\ufffd@example.net"

    async def test_events_of_a_listed_message_are_its_newest(self, client: Client, rows: Rows) -> None:
        message = await rows.message()
        for number in range(60):
            await rows.event(message, at=NOON + timedelta(seconds=number))
        listed = (await get(client, "/api/messages"))["messages"][0]["events"]
        assert len(listed) == 50
        assert listed[0]["occurred_at"] == "2026-03-01T12:00:10Z"
        assert listed[-1]["occurred_at"] == "2026-03-01T12:00:59Z"
        assert len((await get(client, f"/api/messages/{message.key}"))["events"]) == 60


class TestLists:
    """A list is bounded, filtered by what it was asked for, and pages without gap or repeat."""

    @pytest_asyncio.fixture
    async def messages(self, rows: Rows) -> dict[str, Row]:
        """Insert messages that differ in one thing each."""
        first, second = await rows.campaign("1"), await rows.campaign("2")
        submission = await rows.submission(ids.submission_key(IDENTITY, []))
        return {
            "ann": await rows.message("ann@example.net", campaign=first),
            "ann again": await rows.message("Ann@EXAMPLE.net", campaign=second, accepted_at=NOON + timedelta(days=1)),
            "ann alone": await rows.message("ann@example.net"),
            "failed": await rows.message("bob@example.net", campaign=first, status="failed"),
            "queued": await rows.message("cid@example.net", campaign=second, status="queued", submission=submission),
            "shop": await rows.message("dan@example.net", source="shop", submission=submission),
        }

    async def test_filters(self, client: Client, messages: dict[str, Row]) -> None:
        names = {message.key: name for name, message in messages.items()}
        both = ids.submission_key(IDENTITY, [])
        for query, expected in {
            "": {"ann", "ann again", "ann alone", "failed", "queued", "shop"},
            "campaign=&recipient=&status=": {"ann", "ann again", "ann alone", "failed", "queued", "shop"},
            "campaign=1": {"ann", "failed"},
            "campaign=none": set(),
            "campaign=1&status=failed": {"failed"},
            "recipient=ann@example.net": {"ann", "ann again", "ann alone"},
            "recipient=ANN@example.net&campaign=2": {"ann again"},
            "recipient=example.net": set(),
            "status=queued": {"queued"},
            "source=shop": {"shop"},
            f"submission={both}": {"queued", "shop"},
            "submission=" + "a" * 26: set(),
            "since=2026-03-02T00:00:00Z": {"ann again"},
            "since=2026-03-02": {"ann again"},
            "since=2026-03-02T13:00:00%2B02:00": {"ann again"},
            "since=2026-03-02T13:00:00+00:00": set(),
        }.items():
            answer = await get(client, f"/api/messages?{query}")
            assert {names[message["key"]] for message in answer["messages"]} == expected, query
            assert answer["next"] is None

    async def test_one_recipients_message_is_its_submission(self, client: Client, messages: dict[str, Row]) -> None:
        answer = await get(client, f"/api/messages?submission={messages['ann'].key}")
        assert [message["key"] for message in answer["messages"]] == [messages["ann"].key]

    async def test_pages_meet_without_gap_while_rows_arrive(self, client: Client, rows: Rows) -> None:
        made = [(await rows.message(f"r{number}@example.net")).key for number in range(7)]
        seen: list[str] = []
        cursor = ""
        while True:
            answer = await get(client, f"/api/messages?limit=3&cursor={cursor}")
            seen += [message["key"] for message in answer["messages"]]
            await rows.message("late@example.net")
            if answer["next"] is None:
                break
            cursor = answer["next"]
        assert seen == made[::-1]

    async def test_events_page_and_filter(self, client: Client, rows: Rows) -> None:
        campaign = await rows.campaign("1")
        ann, bob = await rows.message(campaign=campaign), await rows.message("bob@example.net")
        for number in range(5):
            await rows.event(ann, at=NOON + timedelta(minutes=number), recorded_at=NOON + timedelta(hours=1))
        await rows.event(bob, "clicked", url="https://shop.example.com/")
        seen: list[str] = []
        cursor = ""
        while True:
            answer = await get(client, f"/api/events?type=opened&limit=2&cursor={cursor}")
            seen += [event["occurred_at"] for event in answer["events"]]
            if answer["next"] is None:
                break
            cursor = answer["next"]
        assert seen == [f"2026-03-01T12:0{minute}:00Z" for minute in (4, 3, 2, 1, 0)]
        clicked = (await get(client, "/api/events?recipient=bob@example.net"))["events"]
        assert [(event["type"], event["key"], event["recipient"], event["campaign_id"]) for event in clicked] == [
            ("clicked", bob.key, "bob@example.net", None)
        ]
        assert len((await get(client, "/api/events?campaign=1"))["events"]) == 5
        assert len((await get(client, f"/api/events?message={bob.key}"))["events"]) == 1
        # By the time of recording: what happened earlier and is told late is not missed by whoever polls.
        assert len((await get(client, "/api/events?since=2026-03-01T12:59:00Z"))["events"]) == 5


class TestCampaigns:
    """A campaign's numbers are its counters, folded or not, and never divide by nothing."""

    async def test_every_field(self, client: Client, rows: Rows, pool: Pool) -> None:
        campaign = await rows.campaign(
            "42", ams_mailing=42, to_send=8, counts={"accepted": 3, "sent": 1, "opens": 5, "ams_delivered": 7}
        )
        message = await rows.message(campaign=campaign)
        await rows.outbox(message, campaign)
        await rows.outbox(message, campaign, reason="-32602 invalid")
        await pool.execute("INSERT INTO campaign_delta VALUES ($1, 'sent', 1), ($1, 'sent', 1)", campaign)
        await pool.execute("INSERT INTO ams_mailing (mailing, last_error) VALUES (42, '-32602 invalid')")
        answer = await get(client, "/api/campaigns/42")
        assert set(answer) == CAMPAIGN_FIELDS
        assert (answer["accepted"], answer["sent"], answer["opens"], answer["failed"]) == (3, 3, 5, 0)
        assert answer["progress_pct"] == 37.5
        assert answer["correlated_ratio"] == 1.0
        assert answer["state"] == "active"
        assert answer["ams"] == {"pending": 1, "delivered": 7, "parked": 1, "last_error": "-32602 invalid"}
        assert (await get(client, "/api/campaigns"))["campaigns"] == [answer]

    async def test_a_campaign_without_messages_divides_by_nothing(self, client: Client, rows: Rows) -> None:
        await rows.campaign("empty")
        answer = await get(client, "/api/campaigns/empty")
        assert (answer["progress_pct"], answer["correlated_ratio"]) == (0.0, 1.0)

    async def test_progress_is_of_the_accepted_when_no_total_is_known(self, client: Client, rows: Rows) -> None:
        await rows.campaign("42", counts={"accepted": 3, "sent": 1})
        assert (await get(client, "/api/campaigns/42"))["progress_pct"] == 33.3

    async def test_what_no_id_could_name_is_not_correlated(self, client: Client, rows: Rows) -> None:
        campaign = await rows.campaign("42")
        await rows.message(campaign=campaign)
        await rows.message("bob@example.net", campaign=campaign, reason="dkim_signed", original="x@shop.example.com")
        await rows.message("cid@example.net", campaign=campaign, reason="dkim_signed")
        await rows.message("dan@example.net", campaign=campaign, reason="dkim_signed", status="failed")
        assert (await get(client, "/api/campaigns/42"))["correlated_ratio"] == 0.6667

    async def test_a_shared_id_needs_its_source(self, client: Client, rows: Rows) -> None:
        await rows.campaign("42", source="shop")
        await rows.campaign("42", source="news", counts={"accepted": 1})
        for path in ("/api/campaigns/42", "/api/messages?campaign=42", "/api/export.csv?campaign=42"):
            assert (await get(client, path, 409))["error"]["code"] == "ambiguous"
        assert (await get(client, "/api/campaigns/42?source=news"))["accepted"] == 1
        assert (await get(client, "/api/campaigns/42?source=other", 404))["error"]["code"] == "not_found"
        answer = await client.post("/api/campaigns/42/pause?source=shop", headers=BEARER)
        assert (await answer.json())["state"] == "paused"
        states = {row["source"]: row["state"] for row in (await get(client, "/api/campaigns"))["campaigns"]}
        assert states == {"shop": "paused", "news": "active"}

    async def test_lists_page(self, client: Client, rows: Rows) -> None:
        for number in range(5):
            await rows.campaign(str(number))
        first = await get(client, "/api/campaigns?limit=3")
        rest = await get(client, f"/api/campaigns?limit=3&cursor={first['next']}")
        assert [row["campaign_id"] for row in first["campaigns"] + rest["campaigns"]] == ["4", "3", "2", "1", "0"]
        assert rest["next"] is None

    async def test_pause_and_resume_are_idempotent(self, client: Client, rows: Rows) -> None:
        await rows.campaign("42")
        for action, state in (("pause", "paused"), ("pause", "paused"), ("resume", "active"), ("resume", "active")):
            answer = await client.post(f"/api/campaigns/42/{action}", headers=BEARER)
            assert answer.status == 200
            assert (await answer.json())["state"] == state
            assert (await get(client, "/api/campaigns/42"))["state"] == state

    async def test_actions_on_nothing_are_404_and_by_get_405(self, client: Client, rows: Rows) -> None:
        await rows.campaign("42")
        for path, status in (("/api/campaigns/43/pause", 404), ("/api/campaigns/42/stop", 404)):
            assert (await client.post(path, headers=BEARER)).status == status
        answer = await client.get("/api/campaigns/42/pause", headers=BEARER)
        assert answer.status == 405
        assert answer.headers["Allow"] == "POST"
        assert (await answer.json())["error"]["code"] == "method_not_allowed"


class TestExport:
    """The export is a whole file or a broken connection, never a quiet half."""

    async def read(self, client: Client, path: str) -> list[dict[str, str]]:
        answer = await client.get(path, headers=BEARER)
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
        assert answer.headers["Content-Disposition"].startswith("attachment; filename=")
        text = (await answer.read()).decode("utf-8")
        assert text.endswith("\r\n")
        return list(csv.DictReader(io.StringIO(text, newline="")))

    async def test_filters_choose_rows(self, client: Client, rows: Rows) -> None:
        campaign = await rows.campaign("42")
        by_flag = {}
        for flag in ("first_opened_at", "first_clicked_at", "bounced_at", "unsubscribed_at", "delivered_at"):
            by_flag[flag] = await rows.message(f"{flag}@example.net", campaign=campaign)
            await rows.engagement(by_flag[flag], **{flag: NOON})
        await rows.message("else@example.net")
        for chosen, flags in {
            "all": set(by_flag),
            "engaged": {"first_opened_at", "first_clicked_at"},
            "bounced": {"bounced_at"},
            "unsubscribed": {"unsubscribed_at"},
        }.items():
            found = await self.read(client, f"/api/export.csv?campaign=42&filter={chosen}")
            assert {row["key"] for row in found} == {by_flag[flag].key for flag in flags}

    async def test_a_strangers_formula_is_text(self, client: Client, rows: Rows) -> None:
        await rows.message("=cmd|calc@example.net", reply='=HYPERLINK("https://evil.example.com")')
        (row,) = await self.read(client, "/api/export.csv")
        assert row["recipient"] == "'=cmd|calc@example.net"
        assert row["upstream_reply"] == '\'=HYPERLINK("https://evil.example.com")'

    async def test_an_empty_export_has_its_header(self, client: Client, rows: Rows) -> None:
        await rows.campaign("42")
        answer = await client.get("/api/export.csv?campaign=42", headers=BEARER)
        assert (await answer.text()).startswith("message_id,key,campaign_id,recipient,")
        assert (await get(client, "/api/export.csv?campaign=43", 404))["error"]["code"] == "not_found"

    async def test_many_rows_come_page_by_page(self, client: Client, rows: Rows, pool: Pool) -> None:
        await rows.message()
        await pool.execute(
            "INSERT INTO message (key, accepted_at, generation, size, links, injected, source, sender, recipient,"
            " recipient_index, message_id, body_digest)"
            " SELECT sha256(n::text::bytea), now(), 0, 1, 0, true, 'default', '', 'x@example.net', '', n::text, ''"
            " FROM generate_series(1, 1200) n"
        )
        # Keys of the made-up rows must be 16 bytes.
        await pool.execute("UPDATE message SET key = substr(key, 1, 16)")
        found = await self.read(client, "/api/export.csv")
        assert len(found) == 1201
        assert len({row["key"] for row in found}) == 1201

    async def test_a_lost_ledger_breaks_the_download_off(self, client: Client, pool: Pool) -> None:
        await pool.execute(
            "INSERT INTO message (key, accepted_at, generation, size, links, injected, source, sender, recipient,"
            " recipient_index, message_id, body_digest)"
            " SELECT substr(sha256(n::text::bytea), 1, 16), now(), 0, 1, 0, true, 'default', '',"
            " repeat('x', 2000)::bytea, '', n::text, '' FROM generate_series(1, 12000) n"
        )
        answer = await client.get("/api/export.csv", headers=BEARER)
        assert answer.status == 200
        # The console's connections end between two pages; it waits there, because nobody reads on.
        await pool.execute("ALTER TABLE message RENAME TO away")
        await pool.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'outrider'")
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
