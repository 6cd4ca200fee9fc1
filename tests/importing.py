"""Import history in the test's own process, and look at what that wrote."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from ledger import campaigns, imports
from ledger.imports import Target
from ledger.store import Ledger
from sidecar.cli_parser import parser
from sidecar.import_cli import import_history
from sidecar.imports.emailoctopus import EmailOctopus, Version
from sidecar.imports.record import Historian
from sidecar.imports.web import Pace, Web
from sidecar.settings import KeysSettings, Settings
from tests.octopus import CAMPAIGN, KEY, REPORTS
from tests.rows import IDENTITY, Pool

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
TARGET = Target(source="import:emailoctopus", campaign_id=CAMPAIGN, origin="emailoctopus")
#: Takes back whatever an import wrote.
EMPTY = "TRUNCATE message, delivery, engagement, event, event_seen, alias, campaign, campaign_delta, import_progress"


def importing_settings(database_url: str, data_dir: Path) -> Settings:
    """Name a ledger and the keys, and no Redis."""
    signing = "a signing key made up for tests and long enough"
    return Settings(
        data_dir=data_dir,
        database_url=database_url,
        redis_url="redis://127.0.0.1:1/0",
        keys=KeysSettings(signing=(signing,), identity=IDENTITY.decode()),
    )


async def imported(settings: Settings, *words: str) -> int:
    """Run `outrider import WORDS`; return its exit code."""
    return await import_history(settings, parser().parse_args(["import", *words]))


async def flags(pool: Pool) -> dict[str, dict[str, bool]]:
    """Return the flags of every recipient in the ledger."""
    rows = await pool.fetch(
        "SELECT convert_from(m.recipient, 'UTF8') AS recipient, e.first_opened_at IS NOT NULL AS opened,"
        " e.first_clicked_at IS NOT NULL AS clicked, e.bounced_at IS NOT NULL AS bounced,"
        " e.complained_at IS NOT NULL AS complained, e.unsubscribed_at IS NOT NULL AS unsubscribed"
        " FROM message m LEFT JOIN engagement e ON e.message = m.id"
    )
    return {row["recipient"]: {name: value for name, value in row.items() if name != "recipient"} for row in rows}


async def no_drift(ledger: Ledger) -> bool:
    """Tell whether the counts of all campaigns are those of the rows."""
    rows = await campaigns.campaigns(ledger, limit=10)
    assert rows
    recounts = [recount for row in rows for recount in await campaigns.sync_counts(ledger, row.id)]
    return not any(recount.drift for recount in recounts)


def base(url: str, version: Version) -> str:
    """Return where a version answers."""
    return f"{url}/api/1.6" if version is Version.OLD else url


@asynccontextmanager
async def asking(
    url: str, version: Version, *, key: str = KEY, campaign: str = CAMPAIGN
) -> AsyncIterator[EmailOctopus]:
    """Yield the origin, as quick as the player is."""
    async with aiohttp.ClientSession() as session:
        asker = Web(session, "EmailOctopus", Pace(100_000), first_wait=0.001)
        yield EmailOctopus(asker, version, base=base(url, version), campaign=campaign, key=key)


async def bring_in(
    ledger: Ledger, origin: EmailOctopus, *, order: tuple[str, ...] = REPORTS, suppress_for: str | None = None
) -> Historian:
    """Import as the command does, the reports in *order*."""
    historian = Historian(ledger, TARGET, identity=IDENTITY, suppress_for=suppress_for, now=NOW)
    unfinished = (await imports.before(ledger, TARGET)).places
    places = {report: unfinished[report] for report in order if report in unfinished}
    await historian.bring_in(
        origin, places or dict.fromkeys(order, ""), afresh=not places, tell=lambda _report, _rows: None
    )
    return historian


async def everything(pool: Pool) -> tuple[Any, ...]:
    """Return all that an import writes, without what a sequence gave."""
    messages = await pool.fetch(
        "SELECT m.key, m.accepted_at, m.recipient, m.message_id, m.reason, d.status::text, d.settled_at, e.opens,"
        " e.clicks, e.first_opened_at, e.last_opened_at, e.first_clicked_at, e.bounced_at, e.complained_at,"
        " e.unsubscribed_at FROM message m JOIN delivery d ON d.message = m.id"
        " LEFT JOIN engagement e ON e.message = m.id ORDER BY m.key"
    )
    events = await pool.fetch("SELECT dedupe, type, source, occurred_at, bounce FROM event ORDER BY dedupe")
    counts = await pool.fetch(
        "SELECT counter, sum(amount) FROM campaign_delta GROUP BY counter HAVING sum(amount) <> 0 ORDER BY counter"
    )
    return [tuple(row) for row in messages], [tuple(row) for row in events], [tuple(row) for row in counts]
