"""What the operator's commands share: the campaign that is meant, the place to go on from, lines and JSON to print."""

import sys
from collections.abc import Iterable
from typing import Any

import msgspec

from ledger import campaigns
from ledger.campaigns import CampaignRow
from ledger.store import Ledger
from sidecar.cursors import ROW_CURSOR, position_of
from sidecar.failures import CommandError


async def one_campaign(ledger: Ledger, name: str, source: str | None) -> CampaignRow:
    """Return the campaign that an operator means; raise `CommandError` where there is none, or several."""
    rows = await campaigns.campaigns(ledger, limit=2, campaign_id=name, source=source)
    if not rows:
        raise CommandError(f"no campaign {name}" + ("" if source is None else f" of {source}"))
    if len(rows) > 1:
        raise CommandError(f"several sources have a campaign {name}: name one with --source")
    return rows[0]


def row_position(text: str | None) -> int | None:
    """Return the position that `--cursor` spells; raise `CommandError` for what is none."""
    if text is None:
        return None
    try:
        return position_of(text, ROW_CURSOR)
    except ValueError as error:
        raise CommandError(f"--cursor: {error}", code=2) from None


def say(lines: Iterable[str]) -> None:
    """Print *lines*."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def say_json(body: dict[str, Any]) -> None:
    """Print *body* as JSON on one line."""
    sys.stdout.write(msgspec.json.encode(body).decode("utf-8") + "\n")
