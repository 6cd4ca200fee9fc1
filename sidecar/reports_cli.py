"""What the operator's commands answer: read the ledger, print a table, or JSON in the console API's fields.

Each command takes the settings, which name a ledger that answers, and its arguments, and returns the exit code.
"""

import argparse
import sys
from collections.abc import Sequence

import msgspec

from courier import stream
from courier.replay import replay_parked, replay_since
from courier.stream import Backlog, StreamUnavailableError
from ledger import campaigns, outbox, reports
from ledger import standing as whole
from ledger.campaigns import Campaign, CampaignRow
from ledger.ids import MessageKey, key_bytes, recipient_index
from ledger.numbers import Account
from ledger.reports import DeliveryStatus, ExportFilter, Message, MessageFilter
from ledger.standing import Share, Standing
from ledger.store import Ledger
from ledger.upstreams import UpstreamStanding
from sidecar import ams_cli, sinks_cli
from sidecar.answers import one_campaign, row_position, say, say_json
from sidecar.cursors import cursor_text
from sidecar.export import export_csv
from sidecar.failures import CommandError
from sidecar.keys import load_keys
from sidecar.reach import opened
from sidecar.settings import Settings
from sidecar.tables import table
from sidecar.troubles import troubles

#: Campaigns that a status without a name shows; each can be named.
SHOWN_CAMPAIGNS = 100

_PAGE = 500


async def status(settings: Settings, given: argparse.Namespace) -> int:
    """Show one campaign, or the whole: who runs, what waits, the newest campaigns."""
    async with opened(settings) as ledger:
        if given.campaign is not None:
            row = await one_campaign(ledger, given.campaign, given.source)
            tracking, shown = await whole.tracking(ledger, row.id), await outbox.shown(ledger, row.id)
            if given.json:
                say_json({**msgspec.structs.asdict(row.campaign), "tracking": tracking, "ams_shown": shown})
            else:
                say([*_campaign_lines(row.campaign, tracking), *map(ams_cli.shown_line, [shown] if shown else [])])
            return 0
        standing = await whole.standing(ledger)
        rows = await campaigns.campaigns(ledger, limit=SHOWN_CAMPAIGNS, source=given.source)
    backlog = await _backlog(settings.redis_url)
    if given.json:
        rest = {"stream": backlog, "troubles": troubles(standing, backlog)}
        say_json({"campaigns": [row.campaign for row in rows], **msgspec.structs.asdict(standing), **rest})
        return 0
    say(_standing_lines(standing, backlog))
    if rows:
        say(["", *table(_CAMPAIGN_COLUMNS, [_campaign_cells(row.campaign) for row in rows])])
    if len(rows) == SHOWN_CAMPAIGNS:
        say([f"the newest {SHOWN_CAMPAIGNS} campaigns; name one for any other"])
    return 0


async def messages(settings: Settings, given: argparse.Namespace) -> int:
    """List messages, newest first."""
    identity_key = load_keys(settings).identity
    async with opened(settings) as ledger:
        wanted = MessageFilter(
            campaign=None if given.campaign is None else (await one_campaign(ledger, given.campaign, given.source)).id,
            source=given.source,
            status=None if given.status is None else DeliveryStatus(given.status),
            recipient_index=None if given.recipient is None else recipient_index(identity_key, given.recipient),
            submission=_key(given.submission),
        )
        page = await reports.messages(ledger, wanted, limit=given.limit, before=row_position(given.cursor))
    following = cursor_text(page.next)
    if given.json:
        say_json({"messages": page.messages, "next": following})
        return 0
    say(table(_MESSAGE_COLUMNS, [_message_cells(message) for message in page.messages]) or ["no messages"])
    if following is not None:
        say([f"more: --cursor {following}"])
    return 0


async def export(settings: Settings, given: argparse.Namespace) -> int:
    """Write messages as CSV to standard output."""
    async with opened(settings) as ledger:
        wanted = MessageFilter(
            campaign=None if given.campaign is None else (await one_campaign(ledger, given.campaign, given.source)).id,
            source=given.source,
            export=ExportFilter(given.filter),
        )
        async for piece in export_csv(ledger, wanted):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    return 0


async def sync_counts(settings: Settings, given: argparse.Namespace) -> int:
    """Recount one campaign or all, and say what was wrong."""
    corrected: list[tuple[Campaign, dict[str, int]]] = []
    async with opened(settings) as ledger:
        for row in await _campaigns(ledger, given.campaign, given.source):
            recounts = await campaigns.sync_counts(ledger, row.id)
            corrected.append((row.campaign, {recount.counter: recount.drift for recount in recounts}))
    if given.json:
        say_json(
            {
                "campaigns": [
                    {"campaign_id": campaign.campaign_id, "source": campaign.source, "drift": drift}
                    for campaign, drift in corrected
                ]
            }
        )
        return 0
    for campaign, drift in corrected:
        wrong = [f"{counter} was off by {amount:+d}" for counter, amount in drift.items() if amount]
        say([f"{campaign.campaign_id} ({campaign.source}): {', '.join(wrong) or 'no drift'}"])
    if not corrected:
        say(["no campaigns"])
    return 0


async def unmatched(settings: Settings, given: argparse.Namespace) -> int:
    """List parked events, newest first, with their reason; or what a sink refused."""
    if given.ams:
        return await ams_cli.refused(settings, given)
    if given.sink is not None:
        return await sinks_cli.refused(settings, given)
    async with opened(settings) as ledger:
        counts = await whole.unmatched_counts(ledger)
        parked = await whole.unmatched(ledger, limit=given.limit)
    if given.json:
        say_json({"unmatched": parked, "counts": counts})
        return 0
    if not parked:
        say(["every event has its message"])
        return 0
    say(table(("events", "source", "reason"), [(count.events, count.source, count.reason) for count in counts]))
    rows = [(event.id, event.parked_at, event.source, event.reason, event.named) for event in parked]
    say(["", *table(("id", "parked at", "source", "reason", "named"), rows)])
    return 0


async def replay(settings: Settings, given: argparse.Namespace) -> int:
    """Let parked items go to AMS again, or build the items of a time when AMS was off; or do so for a sink."""
    if given.sink is not None:
        return await sinks_cli.replay(settings, given)
    async with opened(settings) as ledger:
        if given.since is not None:
            queued = await replay_since(ledger, given.since, settings.ams)
        else:
            queued = await replay_parked(ledger)
    if given.json:
        say_json({"queued": queued})
        return 0
    say([f"{queued} {'item' if queued == 1 else 'items'} queued for AMS"])
    if not settings.ams.url:
        say(["AMS is off: they wait until ams.url is set"])
    return 0


async def _campaigns(ledger: Ledger, name: str | None, source: str | None) -> list[CampaignRow]:
    if name is not None:
        return [await one_campaign(ledger, name, source)]
    found: list[CampaignRow] = []
    before: int | None = None
    while rows := await campaigns.campaigns(ledger, limit=_PAGE, before=before, source=source):
        found += rows
        before = rows[-1].id
    return found


def _key(text: str | None) -> MessageKey | None:
    if text is None:
        return None
    try:
        key_bytes(text)
    except ValueError as error:
        raise CommandError(f"--submission: {error}", code=2) from None
    return MessageKey(text)


_CAMPAIGN_COLUMNS = (
    "campaign",
    "source",
    "state",
    "accepted",
    "queued",
    "sent",
    "failed",
    "opened",
    "clicked",
    "bounced",
    "unsub",
    "done",
)
_MESSAGE_COLUMNS = ("key", "campaign", "recipient", "status", "accepted at", "engagement")


def _campaign_cells(campaign: Campaign) -> tuple[object, ...]:
    return (
        campaign.campaign_id,
        campaign.source,
        campaign.state,
        campaign.accepted,
        campaign.queued,
        campaign.sent,
        campaign.failed,
        campaign.unique_opens,
        campaign.unique_clicks,
        campaign.bounces,
        campaign.unsubscribes,
        f"{campaign.progress_pct} %",
    )


def _message_cells(message: Message) -> tuple[object, ...]:
    engagement = message.engagement
    flags = ("delivered", "opened", "clicked", "bounced", "complained", "unsubscribed")
    raised = [flag for flag in flags if getattr(engagement, flag)]
    return (
        message.key,
        message.campaign_id or "-",
        message.recipient,
        message.status,
        message.accepted_at,
        ", ".join(raised) or "-",
    )


def _campaign_lines(campaign: Campaign, tracking: Sequence[Share]) -> list[str]:
    plain = {
        name: value for name, value in msgspec.structs.asdict(campaign).items() if isinstance(value, str | int | float)
    }
    ams = msgspec.structs.asdict(campaign.ams).items()
    rows = [*plain.items(), *((f"ams {name}", value) for name, value in ams if value is not None)]
    return [*table((), rows), _tracking_line(tracking)]


async def _backlog(redis_url: str) -> Backlog | None:
    """Return what waits in the stream; none where Redis does not answer. Where none is meant to run nothing waits."""
    if not redis_url:
        return Backlog(hits=0, oldest_seconds=0.0)
    try:
        return await stream.backlog(redis_url)
    except StreamUnavailableError:
        return None


def _standing_lines(standing: Standing, backlog: Backlog | None) -> list[str]:
    running = ", ".join(f"{role} {count}" for role, count in standing.processes.items())
    waiting = f", the oldest for {standing.oldest_seconds:.0f} s" if standing.queued else ""
    parked = sum(count.events for count in standing.unmatched)
    return [
        f"running: {running or 'nothing'}",
        *map(_upstream_line, standing.upstreams),
        f"queue: {standing.queued} waiting{waiting}",
        _stream_line(backlog),
        _hits_line(standing.hits),
        _ams_line(standing),
        *map(sinks_cli.standing_line, standing.sinks),
        f"unmatched events: {parked}",
        _tracking_line(standing.tracking),
        *(f"trouble: {trouble}" for trouble in troubles(standing, backlog) or ["none"]),
    ]


def _stream_line(backlog: Backlog | None) -> str:
    if backlog is None:
        return "stream: Redis does not answer"
    oldest = f", the oldest for {backlog.oldest_seconds:.0f} s" if backlog.hits else ""
    return f"stream: {backlog.hits} waiting{oldest}"


def _ams_line(standing: Standing) -> str:
    oldest = f", the oldest for {standing.ams_oldest_seconds:.0f} s" if standing.ams_pending else ""
    error = "" if standing.ams_error is None else f"; last error: {standing.ams_error}"
    return f"AMS: {standing.ams_pending} pending{oldest}, {standing.ams_parked} parked{error}"


def _hits_line(hits: Account) -> str:
    unkept = f", {hits.lost} answered and kept nowhere" if hits.lost else ""
    return f"hits: {hits.recorded} recorded{unkept}, {hits.missing} missing"


def _upstream_line(one: UpstreamStanding) -> str:
    if one.left_since is None:
        return f"upstream {one.upstream}: mail is offered"
    by = "" if one.left_by == one.processes else f", by {one.left_by} of {one.processes} processes"
    return f"upstream {one.upstream}: left alone since {one.left_since:%Y-%m-%d %H:%M:%S %Z}{by} ({one.reason})"


def _tracking_line(tracking: Sequence[Share]) -> str:
    total = sum(share.messages for share in tracking)
    if not total:
        return "tracking: no messages yet"
    shares = [
        f"{100 * share.messages / total:.1f} % {'injected' if share.injected else 'untouched'}"
        + ("" if share.reason is None else f" ({share.reason})")
        for share in tracking
    ]
    return f"tracking: {', '.join(shares)} of the newest {total}"
