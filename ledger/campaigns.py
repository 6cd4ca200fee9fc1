"""A campaign's counts: read, folded, recounted; and the operator's hold on it.

Counts are derived: every change of a row appends its delta in the same transaction, so a recount finds nothing to
correct. What it does find is drift, which is a defect, and is put right by appending the difference.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from ledger.mail import release_held
from ledger.store import Ledger, Session
from ledger.windows import Window, may_send, parse_windows

#: Of so many of its newest messages a campaign's `correlated_ratio` is taken: exact below, a sample above.
CORRELATED_SAMPLE = 1000

_FOLD_LIMIT = 50_000


class Ams(msgspec.Struct, frozen=True, kw_only=True):
    """What AMS heard of a campaign, and has yet to hear."""

    pending: int
    delivered: int
    parked: int
    #: Why its mailing is held, or its last error.
    last_error: str | None


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign, which is a source and an id, as the console API words it."""

    campaign_id: str
    source: str
    accepted: int
    queued: int
    sent: int
    failed: int
    suppressed: int
    delivered: int
    opens: int
    unique_opens: int
    clicks: int
    unique_clicks: int
    bounces: int
    complaints: int
    unsubscribes: int
    machine_opens: int
    machine_clicks: int
    correlated_ratio: float
    progress_pct: float
    #: `active`, `paused` by an operator, or `closed`: outside its send window.
    state: str
    #: How many messages it will have, where somebody said so.
    to_send: int | None
    #: Its own send window; None: the setting's.
    send_window: str | None
    #: Its own rate, `none` for no limit; None: the setting's.
    rate: str | None
    ams: Ams


class CampaignRow(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign and its row's number, by which other rows name it."""

    id: int
    campaign: Campaign


class Recount(msgspec.Struct, frozen=True, kw_only=True):
    """One counter as its rows say, and as it stood."""

    counter: str
    derived: int
    recorded: int

    @property
    def drift(self) -> int:
        """By how much the counter was wrong; 0 unless there is a defect."""
        return self.recorded - self.derived


_COUNTED = tuple(name for name in Campaign.__struct_fields__ if Campaign.__annotations__[name] is int)


async def campaigns(
    ledger: Ledger,
    *,
    limit: int,
    before: int | None = None,
    campaign_id: str | None = None,
    source: str | None = None,
) -> list[CampaignRow]:
    """Return up to *limit* campaigns made before the row *before*, newest first."""
    async with ledger.transaction() as session:
        await session.execute("plan_afresh")
        rows = await session.fetch("report_campaigns", before, campaign_id, source, limit)
        ids = [row["id"] for row in rows]
        counts: dict[int, dict[str, int]] = {campaign: {} for campaign in ids}
        for row in await session.fetch("report_counts", ids):
            counts[row["campaign"]][row["counter"]] = row["value"]
        outbox = {row["campaign"]: row for row in await session.fetch("report_outbox", ids)}
        ratios = {
            row["campaign"]: row["named"] / row["sent"]
            for row in await session.fetch("report_correlated", ids, CORRELATED_SAMPLE)
        }
    found = []
    for row in rows:
        campaign, count = row["id"], counts[row["id"]]
        waiting = outbox.get(campaign)
        ams = Ams(
            pending=0 if waiting is None else waiting["pending"],
            delivered=count.get("ams_delivered", 0),
            parked=0 if waiting is None else waiting["parked"],
            last_error=row["last_error"],
        )
        found.append(
            CampaignRow(
                id=campaign,
                campaign=Campaign(
                    campaign_id=row["campaign_id"],
                    source=row["source"],
                    **{name: count.get(name, 0) for name in _COUNTED},
                    # Nothing sent yet is nothing that could not be named.
                    correlated_ratio=round(ratios.get(campaign, 1.0), 4),
                    progress_pct=progress(count.get("sent", 0), row["to_send"] or count.get("accepted", 0)),
                    state="paused" if row["paused"] else "closed" if row["closed"] else "active",
                    to_send=row["to_send"],
                    send_window=row["send_window"],
                    rate=row["rate"],
                    ams=ams,
                ),
            )
        )
    return found


def progress(sent: int, of: int) -> float:
    """Return the share of *of* messages that are sent, in percent with one decimal; 0 of none."""
    return round(100 * sent / of, 1) if of > 0 else 0.0


async def hold(ledger: Ledger, campaign: int, *, paused: bool) -> list[Recount]:
    """Pause or resume a campaign, and recount it in the same transaction; what was set aside is due again at once."""
    async with ledger.transaction() as session:
        await session.execute("pause_campaign", campaign, paused)
        counted = await _recount(session, campaign)
    if not paused:
        await release_held(ledger, campaign)
    return counted


async def expect(ledger: Ledger, campaign: int, to_send: int | None) -> None:
    """Say how many messages a campaign will have, which its progress is a share of; None when nobody knows."""
    await ledger.execute("expect_campaign", campaign, to_send)


async def set_window(
    ledger: Ledger, campaign: int, text: str | None, everywhere: Sequence[Window], now: datetime
) -> None:
    """Give a campaign a send window of its own, or the one of *everywhere* again; it holds from *now* on.

    Raises `ValueError` for what is no window. An empty text is always.
    """
    windows = everywhere if text is None else parse_windows(text)
    await ledger.execute("window_campaign", campaign, text, not may_send(windows, now))
    await release_held(ledger, campaign)


async def set_rate(ledger: Ledger, campaign: int, text: str | None) -> None:
    """Give a campaign a rate of its own (`100/m`, or `none`), or the setting's again; what waits lines up anew.

    The caller has read it: of what the relays cannot read they take no notice.
    """
    async with ledger.transaction() as session:
        await session.execute("rate_campaign", campaign, text)
        await session.fetch("hurry_queued", campaign, None)


async def apply_windows(ledger: Ledger, everywhere: Sequence[Window], now: datetime) -> int:
    """Close and open campaigns by their windows, or that of *everywhere*; return how many messages were released."""
    rows = await ledger.fetch("windowed_campaigns")
    own = {
        row["id"]: not may_send(parse_windows(row["send_window"]), now)
        for row in rows
        if row["send_window"] is not None
    }
    was = {row["id"]: row["closed"] for row in rows}
    closing = [campaign for campaign, closed in own.items() if closed and not was[campaign]]
    opening = [campaign for campaign, closed in own.items() if was[campaign] and not closed]
    if closing or opening:
        await ledger.execute("close_campaigns", closing, opening)
    shut = not may_send(everywhere, now)
    await ledger.execute("close_others", shut)
    opened = bool(opening) or (not shut and any(was[campaign] for campaign in was if campaign not in own))
    return await release_held(ledger) if opened else 0


async def reconcile(ledger: Ledger, *, limit: int) -> dict[int, list[Recount]]:
    """Recount up to *limit* campaigns whose counts changed since their last recount; return each one's counters."""
    return {row["id"]: await sync_counts(ledger, row["id"]) for row in await ledger.fetch("changed_campaigns", limit)}


async def sync_counts(ledger: Ledger, campaign: int) -> list[Recount]:
    """Recount a campaign from its rows and put its counters right; return every counter that rows can tell."""
    async with ledger.transaction() as session:
        return await _recount(session, campaign)


async def fold_counts(ledger: Ledger) -> int:
    """Move the appended deltas into the counters and return how many; call it every few seconds."""
    folded = 0
    while True:
        row = await ledger.fetchrow("fold_counts", _FOLD_LIMIT)
        moved = 0 if row is None else int(row["moved"])
        folded += moved
        if moved < _FOLD_LIMIT:
            return folded


async def _recount(session: Session, campaign: int) -> list[Recount]:
    await session.fetch("lock_counts")
    rows = await session.fetch("sync_counts", campaign)
    return [Recount(counter=row["counter"], derived=row["derived"], recorded=row["recorded"]) for row in rows]
