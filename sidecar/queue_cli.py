"""What `queue`, `pause`, `resume` and `campaign` do: see what waits, send or end it, hold a campaign and let it go.

Each command takes the settings, which name a ledger that answers, and its arguments, and returns the exit code.
"""

import argparse
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import msgspec

from ledger import campaigns, queue
from ledger.ids import MessageKey, key_bytes
from ledger.queue import Waiting
from ledger.store import Ledger
from ledger.windows import parse_windows
from relay.throttle import parse_own_rate
from sidecar.answers import one_campaign, row_position, say, say_json
from sidecar.cursors import cursor_text
from sidecar.failures import CommandError
from sidecar.reach import opened
from sidecar.settings import Settings
from sidecar.tables import table

_COLUMNS = ("key", "campaign", "recipient", "accepted at", "tries", "next try", "last reply")
_REPLY_SHOWN = 60


async def queue_command(settings: Settings, given: argparse.Namespace) -> int:
    """List what waits, show one message, retry or cancel some, or retry everything."""
    _check(given)
    async with opened(settings) as ledger:
        return await _ACTIONS[given.action](ledger, given)


async def hold(settings: Settings, given: argparse.Namespace) -> int:
    """Pause or resume a campaign."""
    paused = given.command == "pause"
    async with opened(settings) as ledger:
        row = await one_campaign(ledger, given.campaign, given.source)
        await campaigns.hold(ledger, row.id, paused=paused)
        row = await one_campaign(ledger, given.campaign, row.campaign.source)
    if given.json:
        say_json(msgspec.structs.asdict(row.campaign))
        return 0
    waiting = f"{row.campaign.queued} {'message waits' if row.campaign.queued == 1 else 'messages wait'}"
    say([f"{row.campaign.campaign_id} ({row.campaign.source}): {row.campaign.state}, {waiting}"])
    return 0


async def campaign(settings: Settings, given: argparse.Namespace) -> int:
    """Say how many messages a campaign expects, when its mail may be sent, and how fast."""
    if given.no_window and given.window is not None:
        raise CommandError("campaign: --window or --no-window, not both", code=2)
    if given.no_rate and given.rate is not None:
        raise CommandError("campaign: --rate or --no-rate, not both", code=2)
    try:
        rate = None if given.rate is None else parse_own_rate(given.rate)
    except ValueError as error:
        raise CommandError(f"--rate: {error}", code=2) from None
    async with opened(settings) as ledger:
        row = await one_campaign(ledger, given.campaign, given.source)
        if given.to_send is not None:
            await campaigns.expect(ledger, row.id, given.to_send or None)
        if given.no_window or given.window is not None:
            windows = parse_windows(settings.relay.send_window)
            try:
                await campaigns.set_window(ledger, row.id, given.window, windows, datetime.now(UTC))
            except ValueError as error:
                raise CommandError(f"--window: {error}", code=2) from None
        if given.no_rate or rate is not None:
            await campaigns.set_rate(ledger, row.id, rate)
        after = (await one_campaign(ledger, given.campaign, row.campaign.source)).campaign
    if given.json:
        say_json(msgspec.structs.asdict(after))
        return 0
    shown = {
        "state": after.state,
        "to send": "-" if after.to_send is None else after.to_send,
        "progress": f"{after.progress_pct} %",
        "window": "as set for all" if after.send_window is None else after.send_window or "always",
        "rate": "as set for all" if after.rate is None else after.rate,
    }
    say(table((), list(shown.items())))
    return 0


def _check(given: argparse.Namespace) -> None:
    """Refuse what an action does not take: a word too many may be a mistake that ends mail."""
    match given.action:
        case "show" if len(given.keys) != 1 or given.campaign is not None:
            raise CommandError("queue show: name one message", code=2)
        case "retry" | "cancel" if bool(given.keys) == (given.campaign is not None):
            raise CommandError(f"queue {given.action}: name messages, or a campaign with --campaign", code=2)
        case "list" | "flush" if given.keys:
            raise CommandError(f"queue {given.action}: takes no messages", code=2)
        case "flush" if given.campaign is not None:
            raise CommandError("queue flush: is for everything; queue retry takes --campaign", code=2)
    if given.source is not None and given.campaign is None:
        raise CommandError("--source: says whose campaign, so it needs --campaign", code=2)
    for key in given.keys:
        try:
            key_bytes(key)
        except ValueError as error:
            raise CommandError(f"{key}: {error}", code=2) from None


async def _list(ledger: Ledger, given: argparse.Namespace) -> int:
    page = await queue.waiting(
        ledger, limit=given.limit, after=row_position(given.cursor), campaign=await _campaign(ledger, given)
    )
    following = cursor_text(page.next)
    if given.json:
        say_json({"messages": page.messages, "next": following})
        return 0
    say(table(_COLUMNS, [_cells(message) for message in page.messages]) or ["nothing waits"])
    if following is not None:
        say([f"more: --cursor {following}"])
    return 0


async def _show(ledger: Ledger, given: argparse.Namespace) -> int:
    rows = await _rows(ledger, given.keys)
    page = await queue.waiting(ledger, limit=1, rows=rows)
    if not page.messages:
        raise CommandError(f"{given.keys[0]}: does not wait; outrider messages says what became of it")
    if given.raw:
        raw = await queue.content(ledger, rows[0])
        if raw is None:
            raise CommandError(f"{given.keys[0]}: waits no more")
        sys.stdout.buffer.write(raw)
        return 0
    fields = msgspec.structs.asdict(page.messages[0])
    if given.json:
        say_json(fields)
        return 0
    say(table((), [(name.replace("_", " "), "-" if value is None else value) for name, value in fields.items()]))
    return 0


async def _retry(ledger: Ledger, given: argparse.Namespace) -> int:
    hurried = await queue.hurry(
        ledger, campaign=await _campaign(ledger, given), rows=await _rows(ledger, given.keys) if given.keys else None
    )
    return _tell(given, "retried", hurried, "due now")


async def _flush(ledger: Ledger, given: argparse.Namespace) -> int:
    return _tell(given, "retried", await queue.hurry(ledger), "due now")


async def _cancel(ledger: Ledger, given: argparse.Namespace) -> int:
    cancelled = await queue.cancel(
        ledger, campaign=await _campaign(ledger, given), rows=await _rows(ledger, given.keys) if given.keys else None
    )
    return _tell(given, "cancelled", cancelled, "cancelled")


_ACTIONS: dict[str, Callable[[Ledger, argparse.Namespace], Awaitable[int]]] = {
    "list": _list,
    "show": _show,
    "retry": _retry,
    "cancel": _cancel,
    "flush": _flush,
}


def _tell(given: argparse.Namespace, field: str, count: int, done: str) -> int:
    if given.json:
        say_json({field: count})
    else:
        say([f"{count} {'message' if count == 1 else 'messages'} {done}"])
    # Whoever named messages wants to hear that one of them was not waiting.
    return 0 if count >= len(given.keys) else 1


async def _campaign(ledger: Ledger, given: argparse.Namespace) -> int | None:
    return None if given.campaign is None else (await one_campaign(ledger, given.campaign, given.source)).id


async def _rows(ledger: Ledger, keys: Sequence[str]) -> list[int]:
    return await queue.rows_of(ledger, [MessageKey(key) for key in keys])


def _cells(message: Waiting) -> tuple[object, ...]:
    if message.held:
        next_try: object = "held"
    else:
        next_try = message.next_attempt_at or "being sent"
    return (
        message.key,
        message.campaign_id or "-",
        message.recipient,
        message.accepted_at,
        message.attempts,
        next_try,
        (message.upstream_reply or "-")[:_REPLY_SHOWN],
    )
