"""`outrider import emailoctopus`, as an operator types it."""

import asyncio
import io
import json
import signal
import sys
from pathlib import Path

import pytest
from aiohttp import web

from ledger import campaigns
from ledger.reports import ExportFilter, MessageFilter
from ledger.store import Ledger
from sidecar.export import export_csv
from sidecar.failures import CommandError
from sidecar.settings import Settings
from tests.importing import imported, importing_settings
from tests.octopus import CAMPAIGN, KEY, REPORTS, SENT_AT, Octopus, Row, flags_of, later, reports_of
from tests.rows import Pool, Rows
from tests.running import ENVIRONMENT


@pytest.fixture
def settings(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Say where the ledger is, and the key."""
    monkeypatch.setenv("EMAILOCTOPUS_API_KEY", KEY)
    return importing_settings(database_url, tmp_path)


class TestTheCommand:
    """As an operator types it."""

    async def test_the_summary(self, settings: Settings, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
        """Counts with their shares; the other version changes nothing; an export shows who engaged."""
        people = [Row(address=f"p{number}@example.net", at=SENT_AT) for number in range(500)]
        empty: dict[str, list[Row]] = {report: [] for report in REPORTS}
        octopus = Octopus(empty | {"sent": people, "opened": people[:59], "clicked": people[:3]})
        octopus.mood = lambda number: later() if number == 2 else None
        words = ("emailoctopus", "--campaign", CAMPAIGN, "--base-url")
        async with octopus.listening() as url:
            assert await imported(settings, *words, url) == 0
            first = capsys.readouterr()
            assert await imported(settings, *words, f"{url}/api/1.6", "--api", "1.6", "--json") == 0
            second = capsys.readouterr()
        assert "campaign 11112222-3333-4444-5555-666677778888 of import:emailoctopus\nsent: 500\n" in first.out
        assert "\nopened: 59 (11.8%)\nclicked: 3 (0.6%)\n" in first.out
        assert KEY not in first.out + first.err
        told = json.loads(second.out)
        assert (told["new_recipients"], told["new_events"], told["known"]) == (0, 0, 562)
        assert (told["sent"], told["opened"], told["clicked"]) == (500, 59, 3)
        (row,) = await campaigns.campaigns(ledger, limit=2)
        wanted = MessageFilter(campaign=row.id, export=ExportFilter.ENGAGED)
        exported = b"".join([piece async for piece in export_csv(ledger, wanted)]).decode().splitlines()
        assert len(exported) == 1 + 59
        assert "sent,2024-05-01T09:00:00Z,2024-05-01T09:00:00Z,,false,imported,0," in exported[1]

    async def test_an_interruption_from_the_keyboard(
        self, settings: Settings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It says what to do; run again it goes on, and does not read what it has."""
        reports = reports_of(2_100)
        octopus = Octopus(reports)
        reached = asyncio.Event()

        def wait_a_minute(number: int) -> web.Response | None:
            if number <= 20:
                return None
            reached.set()
            return later(60)

        octopus.mood = wait_a_minute
        words = ("emailoctopus", "--campaign", CAMPAIGN, "--base-url")
        environment = {
            "DATABASE_URL": settings.database_url,
            "REDIS_URL": settings.redis_url,
            "OUTRIDER_DATA_DIR": str(settings.data_dir),
            "OUTRIDER_KEYS__SIGNING": settings.keys.signing[0],
            "OUTRIDER_KEYS__IDENTITY": settings.keys.identity,
            "EMAILOCTOPUS_API_KEY": KEY,
        }
        async with octopus.listening() as url:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "sidecar", "import", *words, url),
                env=ENVIRONMENT | environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            await asyncio.wait_for(reached.wait(), 30)
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
            assert (process.returncode, "run the command again to go on" in err.decode()) == (130, True), err.decode()
            octopus.pages.clear()
            octopus.mood = lambda _number: None
            assert await imported(settings, *words, url) == 0
        told = capsys.readouterr()
        assert "going on where an earlier import stopped: sent" in told.err
        assert octopus.pages[0] == ("sent", "Wzc/2000")
        assert f"\nopened: {sum(one['opened'] for one in flags_of(reports).values())} (" in told.out

    async def test_what_is_typed_wrongly(
        self, settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is asked of anybody."""
        campaign = ("emailoctopus", "--campaign", CAMPAIGN)
        for words, told in (
            (("emailoctopus",), "arguments are required: --campaign"),
            (("emailoctopus", "--campaign", "a/../b"), "expected 1 to 64 letters"),
            ((*campaign, "--map", "email=x"), "unrecognized arguments: --map"),
            ((*campaign, "--base-url", "http://octopus.example/"), "a key is sent there"),
            ((*campaign, "--reports", "sent,read"), "expected some of sent, opened"),
        ):
            with pytest.raises(SystemExit, match="2"):
                await imported(settings, *words)
            assert told in capsys.readouterr().err
        secret = settings.data_dir / "key"
        secret.write_text("two\nlines\n")
        monkeypatch.delenv("EMAILOCTOPUS_API_KEY")
        monkeypatch.setattr("sys.stdin", io.StringIO())
        secrets: tuple[tuple[tuple[str, ...], str], ...] = (
            ((), "set EMAILOCTOPUS_API_KEY, or name a file with --secret-file"),
            (("--secret-file", str(secret)), "is no key"),
            (("--secret-file", str(settings.data_dir / "none")), "FileNotFoundError"),
        )
        for more, told in secrets:
            with pytest.raises(CommandError, match=told) as raised:
                await imported(settings, *campaign, *more)
            assert raised.value.code == 2

    async def test_a_campaign_that_went_through_us(self, settings: Settings, pool: Pool) -> None:
        """Its recipients would count twice."""
        rows = Rows(pool)
        await rows.message(campaign=await rows.campaign(CAMPAIGN, source="shop"), source="shop")
        octopus = Octopus(reports_of(3))
        async with octopus.listening() as url:
            with pytest.raises(CommandError, match="went through Outrider"):
                await imported(settings, "emailoctopus", "--campaign", CAMPAIGN, "--base-url", url, "--source", "shop")
        assert octopus.asked == 0
