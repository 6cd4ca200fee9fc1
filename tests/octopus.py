"""Plays EmailOctopus on loopback: both versions of its API, page by page, with its limits and its moods."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random

import msgspec
from aiohttp import web

KEY = "eo_made-up-for-tests"
CAMPAIGN = "11112222-3333-4444-5555-666677778888"
SENT_AT = datetime(2024, 5, 1, 9, 0, tzinfo=UTC)

REPORTS = ("sent", "opened", "clicked", "bounced", "complained", "unsubscribed")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a report; without an address the contact was deleted."""

    address: str | None
    at: datetime
    kind: str = ""


Reports = Mapping[str, Sequence[Row]]


def reports_of(contacts: int, *, seed: int = 1) -> dict[str, list[Row]]:
    """Return the six reports of a campaign with so many *contacts*, each in an order of its own."""
    random = Random(seed)  # noqa: S311 - a test's rows, repeatable
    found: dict[str, list[Row]] = {report: [] for report in REPORTS}
    shares = {"opened": 0.118, "clicked": 0.03, "bounced": 0.02, "complained": 0.001, "unsubscribed": 0.004}
    for number in range(contacts):
        address = f"contact{number}@example.net"
        at = SENT_AT + timedelta(seconds=number % 3600)
        found["sent"].append(Row(address=address, at=at))
        for report, share in shares.items():
            if random.random() < share:
                later = at + timedelta(seconds=random.randrange(1, 500_000))
                kind = random.choice(("HARD", "SOFT")) if report == "bounced" else ""
                found[report].append(Row(address=address, at=later, kind=kind))
    for rows in found.values():
        random.shuffle(rows)
    return found


def flags_of(reports: Reports) -> dict[str, dict[str, bool]]:
    """Return what the reports say of each contact, in the words of the ledger: a click is an open, too."""
    flags = {
        row.address: dict.fromkeys(("opened", "clicked", "bounced", "complained", "unsubscribed"), False)
        for rows in reports.values()
        for row in rows
        if row.address is not None
    }
    for report, rows in reports.items():
        for row in rows:
            if row.address is not None and report != "sent":
                flags[row.address][report] = True
                if report == "clicked":
                    flags[row.address]["opened"] = True
    return flags


class Octopus:
    """The server. Its moods may be changed while it answers."""

    def __init__(self, reports: Reports) -> None:
        self.reports = reports
        #: How often it was asked.
        self.asked = 0
        #: Called with the number of a request before it is answered; what it returns is the answer instead.
        self.mood: Callable[[int], web.Response | None] = lambda _number: None
        #: The reports that were asked for, in order, each with where it went on.
        self.pages: list[tuple[str, str]] = []
        #: Whether cursors of earlier requests are still known.
        self.forgetful = False

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Answer for the time of the block; yield the base of both versions."""
        app = web.Application()
        app.router.add_get("/api/1.6/campaigns/{campaign}/reports/{report}", self._old)
        app.router.add_get("/campaigns/{campaign}/reports", self._new)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        try:
            yield f"http://{host}:{port}"
        finally:
            await runner.cleanup()

    async def _old(self, request: web.Request) -> web.Response:
        self.asked += 1
        if (answer := self.mood(self.asked)) is not None:
            return answer
        if request.query.get("api_key") != KEY:
            return _error(403, {"error": {"code": "API_KEY_INVALID", "message": "Your API key is invalid."}})
        if request.match_info["campaign"] != CAMPAIGN:
            return _error(404, {"error": {"code": "CAMPAIGN_NOT_FOUND", "message": "Not found."}})
        report, last = request.match_info["report"], request.query.get("last", "")
        self.pages.append((report, last))
        if last and (self.forgetful or not last.startswith("c")):
            return _error(400, {"error": {"code": "INVALID_PARAMETERS", "message": "last"}})
        start = int(last.removeprefix("c") or 0)
        rows, end = self._rows(report, start, int(request.query["limit"]))
        following = f"{request.path}?api_key={KEY}&limit={request.query['limit']}&last=c{end}"
        return web.json_response(
            {
                "data": [
                    {
                        "contact": {
                            "id": f"c{start + offset}",
                            "email_address": row.address,
                            "fields": {},
                            "deleted": row.address is None,
                            "status": "SUBSCRIBED",
                        },
                        "occurred_at": row.at.isoformat(),
                        **({"type": row.kind} if row.kind else {}),
                    }
                    for offset, row in enumerate(rows)
                ],
                "paging": {"next": following} if end < len(self.reports[report]) else [],
            }
        )

    async def _new(self, request: web.Request) -> web.Response:
        self.asked += 1
        if (answer := self.mood(self.asked)) is not None:
            return answer
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return _problem(401, "unauthorized", "Invalid key.")
        if request.match_info["campaign"] != CAMPAIGN:
            return _problem(404, "not-found", "Resource not found.")
        report, cursor = request.query.get("status", ""), request.query.get("starting_after", "")
        self.pages.append((report, cursor))
        if report not in REPORTS:
            return _problem(422, "unprocessable-content", "Unprocessable content.")
        if cursor and (self.forgetful or not cursor.startswith("Wzc/")):
            return _problem(400, "bad-request", "Bad request.")
        start = int(cursor.removeprefix("Wzc/") or 0)
        rows, end = self._rows(report, start, int(request.query["limit"]))
        body: dict[str, object] = {
            "status": report,
            "data": [
                {
                    "contact_id": f"c{start + offset}",
                    "contact_email_address": row.address,
                    "occurred_at": row.at.isoformat(),
                }
                for offset, row in enumerate(rows)
            ],
        }
        if end < len(self.reports[report]):
            # A cursor with what has to be escaped, and an address that nobody may follow.
            body["paging"] = {"next": {"url": "https://evil.example/campaigns", "starting_after": f"Wzc/{end}"}}
        return web.json_response(body)

    def _rows(self, report: str, start: int, limit: int) -> tuple[Sequence[Row], int]:
        assert 1 <= limit <= 100, "EmailOctopus refuses more"
        rows = self.reports[report][start : start + limit]
        return rows, start + len(rows)


def later(seconds: float = 0) -> web.Response:
    """Say that it was asked too often."""
    return web.json_response(
        {"title": "An error occurred.", "status": 429}, status=429, headers={"X-RateLimit-Retry-After": str(seconds)}
    )


def broken(status: int = 503) -> web.Response:
    """Say that something is wrong there."""
    return web.Response(status=status, text="<html>Bad gateway</html>", content_type="text/html")


def _error(status: int, body: dict[str, object]) -> web.Response:
    return web.json_response(body, status=status)


def _problem(status: int, slug: str, detail: str) -> web.Response:
    return web.json_response(
        {
            "type": f"https://emailoctopus.com/api-documentation/v2#{slug}",
            "title": "An error occurred.",
            "detail": detail,
            "status": status,
        },
        status=status,
    )
