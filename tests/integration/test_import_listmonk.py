"""History from a listmonk that kept what Azure told: an event counts where its ids lead, not where it was billed."""

from pathlib import Path

import pytest

from ledger import campaigns
from ledger.ids import alias_digest
from ledger.reports import MessageFilter, messages
from ledger.store import Ledger
from sidecar.failures import CommandError
from sidecar.settings import Settings
from tests.importing import imported, importing_settings, no_drift
from tests.rows import Pool

OURS, OLD = "65656565-6565-4565-8565-656565656565", "64646464-6464-4464-8464-646464646464"
SOURCE = "import:listmonk"

#: The tables as listmonk and its Azure branch have them, in a schema of their own beside the ledger's.
TABLES = """
CREATE SCHEMA listmonk;
SET search_path TO listmonk;
CREATE TABLE campaigns (id serial PRIMARY KEY, uuid uuid NOT NULL UNIQUE);
CREATE TABLE subscribers (id serial PRIMARY KEY, email text NOT NULL);
CREATE TABLE azure_message_tracking (
    id bigserial PRIMARY KEY, azure_message_id uuid NOT NULL UNIQUE, campaign_id integer NOT NULL,
    subscriber_id integer NOT NULL, smtp_server_uuid uuid, sent_at timestamptz DEFAULT now(),
    created_at timestamptz DEFAULT now(), internet_message_id text
);
CREATE TABLE azure_delivery_events (
    id bigserial PRIMARY KEY, azure_message_id uuid NOT NULL, campaign_id integer, subscriber_id integer,
    status varchar(50) NOT NULL, status_reason text, event_timestamp timestamptz NOT NULL
);
CREATE TABLE azure_engagement_events (
    id bigserial PRIMARY KEY, azure_message_id uuid NOT NULL, campaign_id integer, subscriber_id integer,
    engagement_type varchar(20) NOT NULL, engagement_context text, user_agent text,
    event_timestamp timestamptz NOT NULL, internet_message_id text
);
INSERT INTO campaigns (id, uuid) VALUES (64, '64646464-6464-4464-8464-646464646464'),
    (65, '65656565-6565-4565-8565-656565656565');
INSERT INTO subscribers (id, email) SELECT n, 's' || n || '@example.net' FROM generate_series(1, 6) n;
INSERT INTO subscribers (id, email) VALUES (7, 'no address');
INSERT INTO azure_message_tracking (azure_message_id, campaign_id, subscriber_id, sent_at, internet_message_id)
SELECT lpad(n::text, 32, 'a')::uuid, 65, n, '2025-11-10 08:00+00', '<m' || n || '@listmonk>'
FROM generate_series(1, 7) n;
INSERT INTO azure_message_tracking (azure_message_id, campaign_id, subscriber_id, sent_at, internet_message_id)
SELECT lpad(n::text, 32, 'b')::uuid, 64, n, '2025-10-01 08:00+00', NULL FROM generate_series(1, 2) n;
"""

BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.fixture
def settings(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Say where the ledger is, and listmonk's tables."""
    mark = "&" if "?" in database_url else "?"
    monkeypatch.setenv("LISTMONK_DATABASE_URL", f"{database_url}{mark}options=-csearch_path%3Dlistmonk")
    return importing_settings(database_url, tmp_path)


async def events(pool: Pool, *rows: tuple[int, str, str | None, str, str]) -> None:
    """Insert engagement events: under which campaign, the letter of its Azure id, its Message-ID, kind and agent."""
    async with pool.acquire() as connection:
        for number, (campaign, letter, message_id, kind, agent) in enumerate(rows):
            await connection.execute(
                "INSERT INTO listmonk.azure_engagement_events (azure_message_id, campaign_id, subscriber_id,"
                " engagement_type, engagement_context, user_agent, event_timestamp, internet_message_id)"
                " VALUES ($1::text::uuid, $2, 1, $3, 'https://example.com/', $4,"
                " '2025-11-10 09:00+00'::timestamptz + make_interval(mins => $5), $6)",
                letter,
                campaign,
                kind,
                agent,
                number,
                message_id,
            )


async def tables(pool: Pool) -> None:
    """Make listmonk's tables."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(TABLES)
        await connection.execute("SET LOCAL search_path TO public")


def azure_id(number: int, letter: str) -> str:
    """Return an Azure id as the tables above have it."""
    return str(number).rjust(32, letter)


async def test_events_count_where_their_ids_lead(
    settings: Settings, ledger: Ledger, pool: Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Opens of 65 that were billed to 64 are 65's; what no id proves is left out, and counted."""
    await tables(pool)
    foreign = azure_id(9, "c")
    await events(
        pool,
        # Azure's engagement events have ids of their own; the Message-ID is the same.
        (64, foreign, "<m1@listmonk>", "view", BROWSER),
        (65, azure_id(9, "d"), "<m2@listmonk>", "click", BROWSER),
        (65, azure_id(9, "e"), "<m2@listmonk>", "view", "curl/8.5.0"),
        (64, azure_id(1, "b"), None, "view", BROWSER),
        (65, azure_id(8, "c"), None, "view", BROWSER),
        (65, azure_id(7, "c"), "<unknown@listmonk>", "view", BROWSER),
    )
    for number, status, reason in (
        (1, "Delivered", ""),
        (3, "Bounced", "550 5.1.1 No such user"),
        (4, "FilteredSpam", ""),
        (5, "Suppressed", ""),
    ):
        await pool.execute(
            "INSERT INTO listmonk.azure_delivery_events (azure_message_id, campaign_id, status, status_reason,"
            " event_timestamp) VALUES ($1::text::uuid, 64, $2, $3, '2025-11-10 08:01+00')",
            azure_id(number, "a"),
            status,
            reason,
        )
    assert await imported(settings, "postgres-listmonk", "--campaign", "65", "--suppress") == 0
    told = capsys.readouterr().out
    assert (
        f"campaign {OURS} of {SOURCE}\nsent: 6\nopened: 2 (33.3%)\nclicked: 1 (16.7%)\ndelivered: 1 (16.7%)\n" in told
    )
    assert "left out 2 that no id proves to be this campaign's\n" in told
    assert "left out 1 without an address that mail can go to\n" in told
    (row,) = await campaigns.campaigns(ledger, limit=2)
    assert (row.campaign.bounces, row.campaign.machine_opens, row.campaign.correlated_ratio) == (3, 1, 1.0)
    suppressed = await pool.fetch("SELECT m.recipient, s.reason FROM suppression s JOIN message m ON m.id = s.message")
    assert [tuple(one) for one in suppressed] == [(b"s3@example.net", "bounced")]
    before = row.campaign
    # The old campaign has its own, and nothing moves.
    assert await imported(settings, "postgres-listmonk", "--campaign", OLD.upper()) == 0
    assert f"campaign {OLD} of {SOURCE}\nsent: 2\nopened: 1 (50.0%)\n" in capsys.readouterr().out
    assert await imported(settings, "postgres-listmonk", "--campaign", OURS) == 0
    assert " 0 new recipients, 0 new events, 13 known before\n" in capsys.readouterr().out
    assert [row.campaign for row in await campaigns.campaigns(ledger, limit=3, campaign_id=OURS)] == [before]
    assert await no_drift(ledger)


async def test_later_events_find_what_was_imported(settings: Settings, ledger: Ledger, pool: Pool) -> None:
    """Azure goes on to tell of this mail, by its Message-ID or by its own id: both lead to the message."""
    await tables(pool)
    assert await imported(settings, "postgres-listmonk", "--campaign", "65") == 0
    page = await messages(ledger, MessageFilter(), limit=10)
    first = next(message for message in page.messages if message.recipient == "s1@example.net")
    assert first.original_message_id == "m1@listmonk"
    named = {
        await pool.fetchval("SELECT message FROM alias WHERE digest = $1", digest)
        for digest in (
            alias_digest("message-id", "", "m1@listmonk"),
            alias_digest("provider", "azure", "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaa1"),
        )
    }
    assert named == {await pool.fetchval("SELECT id FROM message WHERE recipient = 's1@example.net'")}


async def test_what_it_lacks_is_named(
    settings: Settings, pool: Pool, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    """No such table, no such campaign, nobody there: a line that says so, without the password."""
    with pytest.raises(CommandError, match="has no azure_message_tracking with the columns id, campaign_id"):
        await imported(settings, "postgres-listmonk", "--campaign", "65")
    await tables(pool)
    with pytest.raises(CommandError, match="listmonk has no campaign 66"):
        await imported(settings, "postgres-listmonk", "--campaign", "66")
    # An older shape: no events are kept, and no Message-IDs.
    await pool.execute(
        "DROP TABLE listmonk.azure_delivery_events, listmonk.azure_engagement_events;"
        " ALTER TABLE listmonk.azure_message_tracking DROP COLUMN internet_message_id"
    )
    assert await imported(settings, "postgres-listmonk", "--campaign", "64") == 0
    assert await pool.fetchval("SELECT count(*) FROM message") == 2
    monkeypatch.setenv("LISTMONK_DATABASE_URL", "postgresql://listmonk:hunter2@127.0.0.1:1/listmonk")
    with pytest.raises(CommandError, match="cannot be reached: ConnectionRefusedError") as raised:
        await imported(settings, "postgres-listmonk", "--campaign", "65")
    assert "hunter2" not in str(raised.value)
    assert "hunter2" not in database_url
