"""The JSON API: read a request, ask the ledger, answer in the contract's fields."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import structlog
from aiohttp import hdrs, web

from ledger import campaigns, ids, reports
from ledger.campaigns import CampaignRow
from ledger.events import EventType
from ledger.ids import MessageKey
from ledger.reports import DeliveryStatus, EventFilter, ExportFilter, MessageFilter
from ledger.sinks import standings
from ledger.store import Ledger
from ledger.upstreams import upstreams
from ledger.windows import Window
from relay.throttle import parse_own_rate
from sidecar.console.asked import Asked, ProblemError, json_body, not_found
from sidecar.cursors import EVENT_CURSOR, ROW_CURSOR, cursor_text
from sidecar.drift import note_drift
from sidecar.export import export_csv

log = structlog.get_logger()

_LISTED = ("campaign", "source", "recipient", "since", "limit", "cursor")
# Rows count from 1: nothing belongs to a campaign that does not exist.
_NO_CAMPAIGN = 0

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


class _ToSend(msgspec.Struct, forbid_unknown_fields=True):
    to_send: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None


class _SendWindow(msgspec.Struct, forbid_unknown_fields=True):
    window: Annotated[str, msgspec.Meta(max_length=500)] | None


class _Rate(msgspec.Struct, forbid_unknown_fields=True):
    rate: Annotated[str, msgspec.Meta(max_length=100)] | None


class Api:
    """The handlers, with what they ask."""

    def __init__(self, ledger: Ledger, identity_key: bytes, windows: Sequence[Window]) -> None:
        self._ledger = ledger
        self._identity_key = identity_key
        # When campaigns without a window of their own may be sent.
        self._windows = windows

    def routes(self) -> list[web.RouteDef]:
        """Return the contract's paths."""
        return [
            web.get("/api/campaigns", self.list_campaigns),
            web.get("/api/campaigns/{campaign}", self.show_campaign),
            web.post("/api/campaigns/{campaign}/{action:pause|resume|sync-counts}", self.act_on_campaign),
            web.post("/api/campaigns/{campaign}/to-send", self.expect),
            web.post("/api/campaigns/{campaign}/window", self.set_window),
            web.post("/api/campaigns/{campaign}/rate", self.set_rate),
            web.get("/api/messages", self.list_messages),
            # A Message-ID may hold a slash.
            web.get("/api/messages/{message:.+}", self.show_message),
            web.get("/api/events", self.list_events),
            web.get("/api/export.csv", self.export),
            web.get("/api/upstreams", self.list_upstreams),
            web.get("/api/sinks", self.list_sinks),
        ]

    async def list_campaigns(self, request: web.Request) -> web.Response:
        """Answer `{"campaigns": […], "next"}`, newest first."""
        asked = Asked(request, ("campaign", "source", "limit", "cursor"))
        limit = asked.limit()
        rows = await campaigns.campaigns(
            self._ledger,
            limit=limit + 1,
            before=asked.cursor(ROW_CURSOR),
            campaign_id=asked.text("campaign"),
            source=asked.text("source"),
        )
        shown = rows[:limit]
        position = shown[-1].id if len(rows) > limit else None
        return answer({"campaigns": [row.campaign for row in shown], "next": cursor_text(position)})

    async def show_campaign(self, request: web.Request) -> web.Response:
        """Answer one campaign."""
        return answer((await self._named_campaign(request)).campaign)

    async def act_on_campaign(self, request: web.Request) -> web.Response:
        """Pause, resume or recount a campaign; answer it as it stands after, and the drift that was corrected."""
        row = await self._named_campaign(request)
        match request.match_info["action"]:
            case "sync-counts":
                recounts = await campaigns.sync_counts(self._ledger, row.id)
            case action:
                recounts = await campaigns.hold(self._ledger, row.id, paused=action == "pause")
        log.info("campaign_acted_on", action=request.match_info["action"], drift=note_drift(recounts))
        after = await self._find_campaign(row.campaign.campaign_id, row.campaign.source)
        if after is None:
            raise not_found("campaign")
        drift = {recount.counter: recount.drift for recount in recounts}
        return answer({**msgspec.structs.asdict(after.campaign), "drift": drift})

    async def expect(self, request: web.Request) -> web.Response:
        """Take `{"to_send": number or null}`, how many messages the campaign will have; answer the campaign."""
        row = await self._named_campaign(request)
        given = await json_body(request, _ToSend)
        await campaigns.expect(self._ledger, row.id, given.to_send)
        return answer((await self._named_campaign(request)).campaign)

    async def set_window(self, request: web.Request) -> web.Response:
        """Take `{"window": text or null}`, when the campaign's mail may be sent; answer the campaign."""
        row = await self._named_campaign(request)
        given = await json_body(request, _SendWindow)
        try:
            await campaigns.set_window(self._ledger, row.id, given.window, self._windows, datetime.now(UTC))
        except ValueError as error:
            raise ProblemError(400, "bad_request", str(error)) from None
        return answer((await self._named_campaign(request)).campaign)

    async def set_rate(self, request: web.Request) -> web.Response:
        """Take `{"rate": text or null}`, how fast the campaign's mail may leave; answer the campaign."""
        row = await self._named_campaign(request)
        given = await json_body(request, _Rate)
        try:
            rate = None if given.rate is None else parse_own_rate(given.rate)
        except ValueError as error:
            raise ProblemError(400, "bad_request", str(error)) from None
        await campaigns.set_rate(self._ledger, row.id, rate)
        return answer((await self._named_campaign(request)).campaign)

    async def list_messages(self, request: web.Request) -> web.Response:
        """Answer `{"messages": […], "next"}`, newest first."""
        asked = Asked(request, (*_LISTED, "status", "submission", "message_id"))
        limit, before = asked.limit(), asked.cursor(ROW_CURSOR)
        named = asked.text("message_id")
        wanted = MessageFilter(
            campaign=await self._campaign(asked),
            source=asked.text("source"),
            status=asked.choice("status", DeliveryStatus),
            recipient_index=self._recipient(asked),
            submission=asked.key("submission"),
            since=asked.time("since"),
            ids=None if named is None else await self._find_messages(named),
        )
        page = await reports.messages(self._ledger, wanted, limit=limit, before=before)
        return answer({"messages": page.messages, "next": cursor_text(page.next)})

    async def show_message(self, request: web.Request) -> web.Response:
        """Answer one message by our Message-ID, its key, or the Message-ID that it came with."""
        found = await self._find_messages(request.match_info["message"])
        if not found:
            raise not_found("message")
        if len(found) > 1:
            raise ProblemError(
                409, "ambiguous", f"{len(found)} messages came with this id: /api/messages?message_id= lists them"
            )
        page = await reports.messages(self._ledger, MessageFilter(ids=found), limit=1, events=reports.EVENTS_IN_MESSAGE)
        if not page.messages:
            raise not_found("message")
        return answer(page.messages[0])

    async def list_events(self, request: web.Request) -> web.Response:
        """Answer `{"events": […], "next"}`, newest recorded first."""
        asked = Asked(request, (*_LISTED, "type", "message"))
        limit, before = asked.limit(), asked.cursor(EVENT_CURSOR)
        kind, named = asked.choice("type", EventType), asked.text("message")
        recipient, since = self._recipient(asked), asked.time("since")
        wanted = EventFilter(
            campaign=await self._campaign(asked),
            source=asked.text("source"),
            type=kind,
            recipient_index=recipient,
            ids=None if named is None else await self._find_messages(named),
            since=since,
        )
        page = await reports.events(self._ledger, wanted, limit=limit, before=before)
        return answer({"events": page.events, "next": cursor_text(page.next)})

    async def list_upstreams(self, request: web.Request) -> web.Response:
        """Answer `{"upstreams": […], "next": null}`: to which of them mail is offered, and why not."""
        Asked(request, ())
        return answer({"upstreams": await upstreams(self._ledger), "next": None})

    async def list_sinks(self, request: web.Request) -> web.Response:
        """Answer `{"sinks": […], "next": null}`: what each has yet to hear, and why it is held."""
        Asked(request, ())
        return answer({"sinks": await standings(self._ledger), "next": None})

    async def export(self, request: web.Request) -> web.StreamResponse:
        """Answer messages as CSV, streamed."""
        asked = Asked(request, ("campaign", "source", "filter"))
        wanted = asked.choice("filter", ExportFilter) or ExportFilter.ALL
        campaign = await self._campaign(asked)
        if campaign == _NO_CAMPAIGN:
            raise not_found("campaign")
        pieces = export_csv(
            self._ledger,
            MessageFilter(campaign=campaign, source=asked.text("source"), export=wanted),
        )
        # The first piece before the status line: a ledger that is away is still a plain 503.
        first = await anext(pieces)
        name = re.sub(r"[^A-Za-z0-9._-]", "_", asked.text("campaign") or "messages")
        response = web.StreamResponse(
            headers={
                hdrs.CONTENT_TYPE: "text/csv; charset=utf-8; header=present",
                hdrs.CONTENT_DISPOSITION: f'attachment; filename="{name}-{wanted}.csv"',
                hdrs.CACHE_CONTROL: "no-store",
                "X-Content-Type-Options": "nosniff",
            }
        )
        await response.prepare(request)
        await response.write(first)
        try:
            async for piece in pieces:
                await response.write(piece)
        # The status is out: only a connection that ends without its last chunk says that the file is not whole.
        except Exception as error:  # noqa: BLE001 - see above
            log.warning("export_broken_off", error=type(error).__name__)
            if request.transport is not None:
                request.transport.abort()
        return response

    def _recipient(self, asked: Asked) -> bytes | None:
        address = asked.text("recipient")
        return None if address is None else ids.recipient_index(self._identity_key, address)

    async def _campaign(self, asked: Asked) -> int | None:
        name = asked.text("campaign")
        if name is None:
            return None
        row = await self._find_campaign(name, asked.text("source"))
        return _NO_CAMPAIGN if row is None else row.id

    async def _named_campaign(self, request: web.Request) -> CampaignRow:
        asked = Asked(request, ("source",))
        row = await self._find_campaign(request.match_info["campaign"], asked.text("source"))
        if row is None:
            raise not_found("campaign")
        return row

    async def _find_campaign(self, name: str, source: str | None) -> CampaignRow | None:
        if _UNPRINTABLE.search(name):
            return None
        rows = await campaigns.campaigns(self._ledger, limit=2, campaign_id=name, source=source)
        if len(rows) > 1:
            raise ProblemError(409, "ambiguous", "several sources have a campaign of this id: name one with ?source=")
        return rows[0] if rows else None

    async def _find_messages(self, text: str) -> tuple[int, ...]:
        return await find_messages(self._ledger, text)


async def find_messages(ledger: Ledger, text: str) -> tuple[int, ...]:
    """Return the rows that *text* names: our Message-ID, a key alone, or an original Message-ID."""
    message_id = ids.normalise_message_id(text)
    local, at, domain = message_id.rpartition("@") if "@" in message_id else (message_id, "", "")
    # A repeat that must not carry the same id appends its attempt to the key: `key.2`.
    key: MessageKey | None = MessageKey(local.partition(".")[0])
    try:
        ids.key_bytes(key or "")
    except ValueError:
        key = None
    alias = ids.alias_digest("message-id", "", message_id)
    return await reports.find_messages(ledger, key, domain if at else None, alias)


def answer(body: Mapping[str, Any] | msgspec.Struct) -> web.Response:
    """Return *body* as JSON."""
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
