"""Read a campaign's history from the database of a listmonk that kept what Azure told: `azure_message_tracking`.

An event counts for the campaign to which its ids lead, whatever campaign listmonk wrote beside it: where no id led
anywhere, it took the campaign that was touched last. The database is only read.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import asyncpg
import msgspec

from ledger.statements import parse
from providers import azure
from providers.notice import Name, Notice, Step, What
from providers.webhook import Request
from sidecar.imports.origin import NO_ADDRESS, OriginError, Page, address_of, milliseconds

NAME = "listmonk"
REPORTS = ("tracking", "deliveries", "engagements")

#: Events of which listmonk says that they are this campaign's, and no id does.
UNLED = "that no id proves to be this campaign's"

_ROWS = 2000

_NEEDED: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "azure_message_tracking": ("id", "campaign_id", "subscriber_id", "azure_message_id"),
        "subscribers": ("id", "email"),
        "campaigns": ("id", "uuid"),
    }
)
#: What only some have: a report without its table is empty.
_TABLES: Mapping[str, str] = MappingProxyType(
    {"deliveries": "azure_delivery_events", "engagements": "azure_engagement_events"}
)

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Listmonk:
    """One campaign there, as an origin."""

    name = NAME

    def __init__(self, connection: Connection, campaign: int, tables: set[str]) -> None:
        self._connection = connection
        self._campaign = campaign
        self._tables = tables

    async def pages(self, report: str, place: str) -> AsyncIterator[Page]:
        """Yield a report from *place* on, which is the number of the last row that was read."""
        left_out: Counter[str] = Counter()
        rows: list[asyncpg.Record] = []
        if _TABLES.get(report) in {None, *self._tables}:
            behind = int(place) if place.isdecimal() else 0
            query = _statements()[report]
            try:
                async for row in self._connection.cursor(query, self._campaign, behind, prefetch=_ROWS):
                    rows.append(row)
                    if len(rows) == _ROWS:
                        yield _page(report, rows, str(rows[-1]["id"]), left_out)
                        rows, left_out = [], Counter()
                if report in _TABLES:
                    unled = await self._connection.fetchval(_statements()[f"unled_{report}"], self._campaign)
                    left_out += Counter({UNLED: unled})
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                raise OriginError(f"listmonk's database: {type(error).__name__} while {report} was read") from None
        yield _page(report, rows, None, left_out)


@asynccontextmanager
async def opened(url: str, campaign: str) -> AsyncIterator[tuple[Listmonk, str]]:
    """Yield a campaign, named by its number or UUID, and the UUID; raise `OriginError` where there is none."""
    try:
        connection = await asyncpg.connect(url, timeout=10, server_settings={"timezone": "UTC"})
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        # Its text may hold the address, and that the password.
        raise OriginError(f"listmonk's database cannot be reached: {type(error).__name__}") from None
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            tables = await _shape(connection)
            row = await connection.fetchrow(_statements()["campaign"], campaign)
            if row is None:
                raise OriginError(f"listmonk has no campaign {campaign}: name it by its number or its UUID")
            yield Listmonk(connection, row["id"], tables), row["uuid"]
    finally:
        await connection.close()


async def _shape(connection: Connection) -> set[str]:
    """Return which of the tables are there; raise `OriginError` for one that cannot be done without."""
    found: dict[str, set[str]] = {}
    for row in await connection.fetch(_statements()["columns"], [*_NEEDED, *_TABLES.values()]):
        found.setdefault(row["table_name"], set()).add(row["column_name"])
    for table, columns in _NEEDED.items():
        if lacking := [column for column in columns if column not in found.get(table, ())]:
            raise OriginError(f"listmonk's database has no {table} with the columns {', '.join(lacking)}")
    return set(found)


def _page(report: str, rows: Sequence[asyncpg.Record], following: str | None, left_out: Counter[str]) -> Page:
    named = [(row, address) for row in rows if (address := address_of(row["email"] or "")) is not None]
    left = left_out + Counter({NO_ADDRESS: len(rows) - len(named)})
    return Page(notices=_READERS[report](named), rows=len(rows), following=following, left_out=left)


def _sent(named: Sequence[tuple[asyncpg.Record, str]]) -> list[Notice]:
    return [
        Notice(
            provider=azure.NAME,
            what=What.SENT,
            dedupe="",
            at_ms=milliseconds(row["at"] or ""),
            recipient=address,
            names=tuple(
                Name(step, value)
                for step, value in ((Step.MESSAGE_ID, row["message_id"]), (Step.PROVIDER_ID, row["azure_id"]))
                if value
            ),
        )
        for row, address in named
    ]


def _delivered(named: Sequence[tuple[asyncpg.Record, str]]) -> list[Notice]:
    return _azure(
        named,
        "Microsoft.Communication.EmailDeliveryReportReceived",
        lambda row: {"status": row["status"], "deliveryStatusDetails": {"statusMessage": row["reason"]}},
    )


def _engaged(named: Sequence[tuple[asyncpg.Record, str]]) -> list[Notice]:
    return _azure(
        named,
        "Microsoft.Communication.EmailEngagementTrackingReportReceived",
        lambda row: {
            "engagementType": row["kind"],
            "engagementContext": row["url"],
            "userAgent": row["user_agent"],
        },
    )


def _azure(
    named: Sequence[tuple[asyncpg.Record, str]], kind: str, said: Callable[[asyncpg.Record], dict[str, Any]]
) -> list[Notice]:
    """Return what Azure told, read by the file that reads Azure's events: there is one table of its words."""
    events = [{"eventType": kind, "data": said(row)} for row, _ in named]
    request = Request(method="POST", headers={}, query={}, body=msgspec.json.encode(events))
    return [
        msgspec.structs.replace(
            notice, at_ms=milliseconds(row["at"] or ""), recipient=address, names=(), dedupe="", raw=b""
        )
        for notice, (row, address) in zip(azure.parse(request).notices, named, strict=True)
    ]


_READERS: Mapping[str, Callable[[Sequence[tuple[asyncpg.Record, str]]], list[Notice]]] = MappingProxyType(
    {"tracking": _sent, "deliveries": _delivered, "engagements": _engaged}
)


@cache
def _statements() -> Mapping[str, str]:
    return parse(Path(__file__).with_name("listmonk.sql").read_text(encoding="utf-8"))
