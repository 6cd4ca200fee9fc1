"""Sinks in an operator's hands, and what becomes of people in their queues."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import structlog

from courier.replay import replay_sink_parked
from courier.settings import ListmonkSettings
from courier.sinks import rules
from ledger import erasure, sinks
from ledger.ids import recipient_index
from ledger.sealing import Column, Sealer
from ledger.store import Ledger, open_ledger
from ledger.traces import Traces
from providers.notice import Bounce, What
from sidecar import reports_cli
from sidecar.cli_parser import parser
from sidecar.failures import CommandError
from sidecar.settings import KeysSettings, Settings
from tests.console import console, get
from tests.mailings import IDENTITY
from tests.receiver import TAKEN, Listmonk, Receiver, Reply
from tests.rows import Pool, Rows
from tests.telling import (
    SUBSCRIBER_TEXT,
    crm,
    mailer,
    notice,
    opened,
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
async def receiver() -> AsyncIterator[Receiver]:
    """Return a receiver that listens."""
    async with Receiver() as running:
        yield running


@pytest_asyncio.fixture
async def listmonk() -> AsyncIterator[Listmonk]:
    """Return a listmonk that listens."""
    async with Listmonk() as running:
        yield running


class TestCommands:
    """What an operator types."""

    async def test_status_unmatched_and_replay(
        self,
        database_url: str,
        ledger: Ledger,
        rows: Rows,
        receiver: Receiver,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """What waits, what was refused and why; back it goes; a name that is none is told so."""
        webhooks = crm(receiver)
        keys = KeysSettings(identity=IDENTITY.decode(), signing=("a signing key made up for tests",))
        settings = Settings(data_dir=tmp_path, database_url=database_url, keys=keys, sinks=webhooks)

        async def types(*words: str) -> str:
            given = parser().parse_args(words)
            assert await getattr(reports_cli, given.command)(settings, given) == 0
            return capsys.readouterr().out

        messages = await opened(ledger, rows, 3, rules(webhooks, ListmonkSettings()))
        bad = messages[1].key
        receiver.judge = lambda items: Reply(status=422, text="no") if bad in [one["key"] for one in items] else TAKEN
        async with telling(ledger, webhooks) as teller:
            assert "sink crm: 3 pending, the oldest for " in await types("status")
            await teller.cycle()
            assert " s, 0 parked; last error: 422: no\n" in await types("status")
            for _ in range(2):
                await teller.cycle()
            assert "sink crm: 0 pending, 1 parked\n" in await types("status")
            listed = (await types("unmatched", "--sink", "crm")).splitlines()[-1].split()
            assert (listed[-4:]) == ["opened", bad, "422:", "no"]
            assert await types("replay", "--sink", "crm") == "1 item queued for crm\n"
            assert json.loads(await types("replay", "--sink", "crm", "--since", "2026-01-01", "--json")) == {
                "sink": "crm",
                "queued": 2,
            }
            receiver.judge = lambda _: TAKEN
            await teller.cycle()
            assert (await types("unmatched", "--sink", "crm")).endswith("crm refused nothing\n")
        assert receiver.taken.total() == 5
        (shown,) = json.loads(await types("status", "--json"))["sinks"]
        assert (shown["name"], shown["configured"], shown["pending"], shown["held"]) == ("crm", True, 0, None)
        with pytest.raises(CommandError, match="no such sink; expected one of crm"):
            await types("replay", "--sink", "other")
        with pytest.raises(CommandError, match="no such sink; expected one of crm"):
            await types("unmatched", "--sink", "listmonk")


async def test_the_console_shows_them(database_url: str, ledger: Ledger, receiver: Receiver) -> None:
    """Each sink that is configured, and why it is held."""
    async with telling(ledger, crm(receiver)), console(database_url) as client:
        await sinks.postpone(ledger, "crm", failures=3, seconds=60, error="401: no", held="401: no")
        assert await get(client, "/api/sinks") == {
            "sinks": [
                {
                    "name": "crm",
                    "configured": True,
                    "pending": 0,
                    "parked": 0,
                    "oldest_seconds": 0.0,
                    "failures": 3,
                    "last_error": "401: no",
                    "held": "401: no",
                }
            ],
            "next": None,
        }


class TestPeople:
    """What names somebody is erased and sealed here too."""

    async def test_of_who_is_forgotten_nobody_hears(
        self, ledger: Ledger, rows: Rows, pool: Pool, receiver: Receiver, listmonk: Listmonk
    ) -> None:
        """What waits goes, also what is queued in that instant; the subscriber goes; words are reworded."""
        webhooks, own = crm(receiver), mailer(listmonk)
        asked = rules(webhooks, own)
        message = await subscribed(rows, pool)
        bob = await rows.message("bob@example.net", campaign=await rows.campaign("spring"))
        await sinks.keep(ledger, [rule.name for rule in asked])
        await record(ledger, asked, notice(What.BOUNCED, message, bounce=Bounce.HARD), notice(What.SENT, bob))
        words = "422: ann%40example.net is unknown"
        await pool.execute("UPDATE sink_item SET parked_at = now(), reason = $1 WHERE message = $2", words, bob.id)
        await pool.execute("UPDATE sink SET last_error = $1, held = $1", words)
        traces = Traces("ann@example.net")
        erased = await erasure.forget(ledger, recipient_index(IDENTITY, "ann@example.net"), traces)
        assert erased.counts["sink_items"] == 2
        swept = await erasure.sweep(ledger, traces)
        assert swept["replies"] == 3
        assert await pool.fetchval("SELECT subscriber FROM message WHERE id = $1", message.id) is None
        assert await pool.fetchval("SELECT reason FROM sink_item") == "422: erased is unknown"
        assert await pool.fetchval("SELECT count(*) FROM sink_item WHERE message = $1", message.id) == 0
        # Queued in the same instant.
        await pool.execute(
            "INSERT INTO sink_item (sink, message, event, recorded_at)"
            " SELECT 'crm', message, dedupe, recorded_at FROM event WHERE message = $1",
            message.id,
        )
        await record(ledger, asked, notice(What.COMPLAINED, message))
        async with telling(ledger, webhooks) as teller:
            await pool.execute("UPDATE sink SET next_at = now(), held = NULL, last_error = NULL")
            await teller.cycle()
        assert receiver.taken.total() == 0
        assert await waiting(pool) == (0, 1)

    async def test_who_is_sealed_is_told_with_the_key_and_waits_without_it(
        self, database_url: str, rows: Rows, pool: Pool, receiver: Receiver
    ) -> None:
        """Parked, not told wrongly; a replay with the key tells it."""
        sealer = Sealer([b"a key of addresses made up for tests"])
        webhooks = crm(receiver)
        async with open_ledger(database_url, sealer=sealer) as ledger:
            (message,) = await opened(ledger, rows, 1, rules(webhooks, ListmonkSettings()))
        stored = sealer.seal(Column.RECIPIENT, b"ann@example.net")
        await pool.execute("UPDATE message SET recipient = $1 WHERE id = $2", stored, message.id)
        async with open_ledger(database_url) as ledger, telling(ledger, webhooks) as teller:
            await teller.cycle()
            (parked,) = await sinks.parked(ledger, "crm", 10)
            assert "sealed under a key" in parked.reason
            await replay_sink_parked(ledger, "crm")
        async with open_ledger(database_url, sealer=sealer) as ledger, telling(ledger, webhooks) as teller:
            await teller.cycle()
        assert [event["recipient"] for event in receiver.events.values()] == ["ann@example.net"]

    async def test_no_address_token_or_key_is_logged(
        self, ledger: Ledger, rows: Rows, pool: Pool, listmonk: Listmonk
    ) -> None:
        """Whatever listmonk answers."""
        own = mailer(listmonk)
        await record(ledger, rules({}, own), notice(What.BOUNCED, await subscribed(rows, pool), bounce=Bounce.HARD))
        listmonk.judge = lambda _: Reply(status=400, text=f"T-1 ann@example.net {SUBSCRIBER_TEXT}")
        with structlog.testing.capture_logs() as logs:
            async with telling(ledger, None, own) as teller:
                await teller.cycle()
                listmonk.judge = lambda _: TAKEN
                await teller.cycle()
        assert [line["event"] for line in logs] == ["sink_postponed", "sink_items_told"]
        assert not any(word in str(logs) for word in ("T-1", "ann@"))
