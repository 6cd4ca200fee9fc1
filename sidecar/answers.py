"""What the operator's commands share: the campaign or person that is meant, the place to go on from, lines and JSON."""

import sys
from collections.abc import Iterable
from typing import Any

import msgspec

from ledger import campaigns
from ledger.campaigns import CampaignRow
from ledger.store import Ledger
from relay import address
from sidecar.cursors import ROW_CURSOR, Position, position_of
from sidecar.failures import CommandError


async def one_campaign(ledger: Ledger, name: str, source: str | None) -> CampaignRow:
    """Return the campaign that an operator means; raise `CommandError` where there is none, or several."""
    rows = await campaigns.campaigns(ledger, limit=2, campaign_id=name, source=source)
    if not rows:
        raise CommandError(f"no campaign {name}" + ("" if source is None else f" of {source}"))
    if len(rows) > 1:
        raise CommandError(f"several sources have a campaign {name}: name one with --source")
    return rows[0]


def mailbox(text: str) -> str:
    """Return the address that an operator typed or listed; raise `ValueError` for what is none."""
    path = address.split_path(text.encode("utf-8", "surrogateescape"))
    found = address.Flaw.SYNTAX if path is None or path.parameters else address.mailbox(path, utf8=True)
    if isinstance(found, address.Flaw) or found != text:
        raise ValueError(f"{text!r} is no address")
    return found


def row_position(text: str | None) -> int | None:
    """Return the position of a row that `--cursor` spells."""
    return position(text, ROW_CURSOR)


def position(text: str | None, kind: msgspec.msgpack.Decoder[Position]) -> Position | None:
    """Return the position of this *kind* that `--cursor` spells; raise `CommandError` for what is none."""
    if text is None:
        return None
    try:
        return position_of(text, kind)
    except ValueError as error:
        raise CommandError(f"--cursor: {error}", code=2) from None


def say(lines: Iterable[str]) -> None:
    """Print *lines*."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def say_json(body: dict[str, Any]) -> None:
    """Print *body* as JSON on one line."""
    sys.stdout.write(msgspec.json.encode(body).decode("utf-8") + "\n")
