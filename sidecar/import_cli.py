"""What `import` does: bring in what was sent elsewhere, and say what the campaign looks like now.

Running it again changes nothing that it knows, and goes on where it was interrupted. A key or a password is read from
the environment, a file or the keyboard, never from the command line, which every process can see.
"""

import argparse
import asyncio
import getpass
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import aiohttp
import msgspec

from ledger import campaigns, imports
from ledger.campaigns import Campaign
from ledger.imports import Target
from ledger.processes import check_keys, make_partitions
from ledger.store import Ledger
from ledger.suppressions import EVERY_SOURCE
from providers.notice import What
from sidecar.answers import say, say_json
from sidecar.failures import CommandError
from sidecar.import_arguments import API_KEY, LISTMONK_URL
from sidecar.imports import csv_file, emailoctopus, listmonk
from sidecar.imports.csv_file import CsvFile
from sidecar.imports.emailoctopus import EmailOctopus, Version
from sidecar.imports.origin import Origin, OriginError
from sidecar.imports.record import Historian
from sidecar.imports.web import Pace, Web
from sidecar.keys import load_keys
from sidecar.reach import opened
from sidecar.settings import Settings
from sidecar.wiring.presence import present

_TIMEOUT = aiohttp.ClientTimeout(total=60, connect=10)
# Seconds between two words about how far it is.
_TELL_SECONDS = 10.0
_CHUNK = 1024 * 1024


class _Opened(msgspec.Struct, frozen=True, kw_only=True):
    """An origin that is ready to be read."""

    origin: Origin
    reports: tuple[str, ...]
    #: The campaign's id here.
    campaign_id: str
    #: Returns what there is to say of it afterwards, line by line, and whether nothing could be read.
    ending: Callable[[], tuple[list[str], bool]] = lambda: ([], False)


async def import_history(settings: Settings, given: argparse.Namespace) -> int:
    """Import one campaign; 0 unless nothing at all could be read."""
    keys = load_keys(settings)
    begun = time.monotonic()
    try:
        async with opened(settings, connections=4) as ledger, _origin(given) as ready:
            await check_keys(ledger, identity=keys.identity, signing=keys.signing, addresses=keys.addresses)
            source = given.source or f"import:{ready.origin.name}"
            target = Target(source=source, campaign_id=ready.campaign_id, origin=ready.origin.name)
            historian = Historian(
                ledger,
                target,
                identity=keys.identity,
                suppress_for=(given.source or EVERY_SOURCE) if given.suppress else None,
                now=datetime.now(UTC),
            )
            # Before the first row: one that is under way to the default partition would be refused.
            await make_partitions(ledger, datetime.now(UTC).date())
            async with present(ledger, "import"):
                await _bring_in(ledger, target, historian, ready)
            found = await campaigns.campaigns(ledger, limit=1, campaign_id=target.campaign_id, source=source)
    except OriginError as error:
        raise CommandError(f"import: {error}") from None
    except asyncio.CancelledError:
        _whisper("interrupted: what was read is kept; run the command again to go on")
        raise
    lines, nothing = ready.ending()
    for line in lines:
        _whisper(line)
    campaign = found[0].campaign if found else None
    seconds = time.monotonic() - begun
    if given.json:
        say_json(_document(historian, campaign, target, seconds))
    else:
        say(_lines(historian, campaign, target, seconds, suppress=given.suppress))
    return 1 if nothing else 0


async def _bring_in(ledger: Ledger, target: Target, historian: Historian, ready: _Opened) -> None:
    before = await imports.before(ledger, target)
    if before.ours:
        raise CommandError(
            f"import: the mail of campaign {target.campaign_id} of {target.source} went through Outrider: its "
            "recipients would count twice; import under another --source, or under none",
            code=2,
        )
    unfinished = {report: before.places[report] for report in ready.reports if report in before.places}
    if any(unfinished.values()) or 0 < len(unfinished) < len(ready.reports):
        _whisper(f"going on where an earlier import stopped: {', '.join(unfinished)}")
    told_at = time.monotonic()

    def tell(report: str, rows: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _TELL_SECONDS:
            told_at = time.monotonic()
            _whisper(f"{report}: {rows:,} rows")

    places = unfinished or dict.fromkeys(ready.reports, "")
    await historian.bring_in(ready.origin, places, afresh=not unfinished, tell=tell)


@asynccontextmanager
async def _origin(given: argparse.Namespace) -> AsyncIterator[_Opened]:
    match given.origin:
        case "emailoctopus":
            version = Version(given.api)
            key = _secret(given, API_KEY, "EmailOctopus API key: ")
            per_second, burst = emailoctopus.PACES[version]
            async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
                origin = EmailOctopus(
                    Web(session, "EmailOctopus", Pace(per_second, burst=burst)),
                    version,
                    base=given.base_url or emailoctopus.BASES[version],
                    campaign=given.campaign,
                    key=key,
                )
                yield _Opened(origin=origin, reports=given.reports, campaign_id=given.campaign)
        case "csv":
            with _file(given.file) as file:
                every = None if given.every is None else What(given.every)
                table = CsvFile(file, name=given.file, columns=dict(given.map), every=every)
                yield _Opened(
                    origin=table,
                    reports=(csv_file.REPORT,),
                    campaign_id=given.campaign,
                    ending=lambda: _csv_ending(table),
                )
        case _:
            url = _secret(given, LISTMONK_URL, "URL of listmonk's database: ")
            async with listmonk.opened(url, given.campaign) as (kept, uuid):
                yield _Opened(origin=kept, reports=listmonk.REPORTS, campaign_id=uuid)


def _file(name: str) -> BinaryIO:
    """Open the file; what comes through a pipe is kept aside, because it is read twice."""
    if name != "-":
        try:
            return Path(name).open("rb")
        except OSError as error:
            raise CommandError(f"{name}: {error.strerror}", code=2) from error
    kept = tempfile.TemporaryFile()  # noqa: SIM115 - its user closes it
    while octets := sys.stdin.buffer.read(_CHUNK):
        kept.write(octets)
    kept.seek(0)
    return kept


def _secret(given: argparse.Namespace, variable: str, question: str) -> str:
    """Return the origin's secret: from the file, the environment, or the keyboard."""
    if given.secret_file:
        try:
            secret = Path(given.secret_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{given.secret_file}: {type(error).__name__}", code=2) from error
    elif variable in os.environ:
        secret = os.environ[variable].strip()
    elif sys.stdin.isatty():
        secret = getpass.getpass(question).strip()
    else:
        raise CommandError(f"import {given.origin}: set {variable}, or name a file with --secret-file", code=2)
    if not secret or not secret.isprintable() or not secret.isascii():
        raise CommandError(f"import {given.origin}: what was given as {variable} is no key, or no URL", code=2)
    return secret


def _whisper(line: str) -> None:
    """Say something that is no part of the answer."""
    sys.stderr.write(f"{line}\n")


def _csv_ending(table: CsvFile) -> tuple[list[str], bool]:
    lines = [f"{problem}: left out" for problem in table.problems]
    if table.ignored:
        lines.append(f"columns that nothing was taken from: {', '.join(table.ignored)}")
    return lines, bool(table.problems) and not table.good


#: What a summary shows: its words, and the campaign's counters.
_SHOWN = {
    "opened": "unique_opens",
    "clicked": "unique_clicks",
    "delivered": "delivered",
    "bounced": "bounces",
    "complained": "complaints",
    "unsubscribed": "unsubscribes",
}


def _lines(
    historian: Historian, campaign: Campaign | None, target: Target, seconds: float, *, suppress: bool
) -> list[str]:
    done = historian.done
    new = f"{done['messages']:,} new recipients, {done['events']:,} new events, {done['known']:,} known before"
    lines = [
        f"read {done['rows']:,} rows in {seconds:.1f} s: {new}",
        *(f"left out {amount:,} {reason}" for reason, amount in sorted(historian.left_out.items()) if amount),
    ]
    if campaign is None:
        return [*lines, "nothing to import"]
    lines += [f"campaign {target.campaign_id} of {target.source}", f"sent: {campaign.accepted:,}"]
    for word, counter in _SHOWN.items():
        amount: int = getattr(campaign, counter)
        lines.append(f"{word}: {amount:,} ({_share(amount, campaign.accepted)})")
    if not suppress and campaign.unsubscribes + campaign.complaints + campaign.bounces:
        lines.append("nobody is suppressed by this: --suppress keeps campaign mail from who wanted no more")
    return lines


def _share(amount: int, of: int) -> str:
    return f"{100 * amount / of:.1f}%" if of else "0.0%"


def _document(historian: Historian, campaign: Campaign | None, target: Target, seconds: float) -> dict[str, object]:
    return {
        "campaign_id": target.campaign_id,
        "source": target.source,
        "rows": historian.done["rows"],
        "new_recipients": historian.done["messages"],
        "new_events": historian.done["events"],
        "known": historian.done["known"],
        "left_out": {reason: amount for reason, amount in historian.left_out.items() if amount},
        "seconds": round(seconds, 1),
        "sent": 0 if campaign is None else campaign.accepted,
        **{word: 0 if campaign is None else getattr(campaign, counter) for word, counter in _SHOWN.items()},
    }
