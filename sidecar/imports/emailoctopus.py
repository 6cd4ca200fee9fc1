"""Read the six reports of a campaign from EmailOctopus, by either version of its API.

A place is what the API gave for going on, without the key: version 1.6 puts the key into the address of the next page.
Of such an address nothing but the query is used, so that no answer sends the key anywhere.
"""

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import msgspec

from providers.fields import mapping, text
from providers.notice import Bounce, Notice, What
from sidecar.imports.origin import NO_ADDRESS, OriginError, Page, address_of, milliseconds
from sidecar.imports.web import Answer

NAME = "emailoctopus"

#: The reports, the one that the others are shares of first.
REPORTS = ("sent", "opened", "clicked", "bounced", "complained", "unsubscribed")

#: A contact who was deleted there: its rows stay, and name nobody.
DELETED = "of contacts that were deleted there"

_LIMIT = "100"
_WHATS: Mapping[str, What] = MappingProxyType({report: What(report) for report in REPORTS})
_BOUNCES: Mapping[str, Bounce] = MappingProxyType({"hard": Bounce.HARD, "soft": Bounce.SOFT})


class Version(StrEnum):
    """Versions of the API: keys from before October 2024 are good for the older one alone."""

    OLD = "1.6"
    NEW = "2"


#: Where each version answers, and how many requests it takes: in a second, and at once.
BASES: Mapping[Version, str] = MappingProxyType(
    {Version.OLD: "https://emailoctopus.com/api/1.6", Version.NEW: "https://api.emailoctopus.com"}
)
PACES: Mapping[Version, tuple[float, int]] = MappingProxyType({Version.OLD: (5.0, 5), Version.NEW: (10.0, 50)})


class Getter(Protocol):
    """Asks, patiently."""

    async def get(self, path: str, *, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        """Return the answer to a GET of *path*; raise `OriginError`."""
        ...


class EmailOctopus:
    """One campaign there, as an origin."""

    name = NAME

    def __init__(self, web: Getter, version: Version, *, base: str, campaign: str, key: str) -> None:
        self._web = web
        self._version = version
        self._campaign = campaign
        self._key = key
        self._path = f"{base.rstrip('/')}/campaigns/{quote(campaign, safe='')}/reports"

    async def pages(self, report: str, place: str) -> AsyncIterator[Page]:
        """Yield a report from *place* on. A place that is not known there any more is the report's beginning."""
        while True:
            answer = await self._ask(report, place)
            if place and answer.status in {400, 422}:
                place = ""
                continue
            if answer.status != 200:
                if _code(answer.body) == "CAMPAIGN_FEATURE_DISABLED":
                    # Opens, or clicks, were not tracked: nobody did it, as far as anybody knows.
                    yield Page(notices=(), rows=0, following=None, left_out=Counter())
                    return
                raise OriginError(_refusal(answer, self._campaign, self._version))
            page = read_page(answer.body, self._version, report)
            if page.following is not None and page.following == place:
                raise OriginError("EmailOctopus gave the same page twice: it would never end")
            yield page
            if page.following is None:
                return
            place = page.following

    async def _ask(self, report: str, place: str) -> Answer:
        going_on = dict(parse_qsl(place))
        if self._version is Version.OLD:
            query = {"limit": _LIMIT, **going_on, "api_key": self._key}
            return await self._web.get(f"{self._path}/{report}", query=query, headers={})
        query = {"limit": _LIMIT, **going_on, "status": report}
        return await self._web.get(self._path, query=query, headers={"Authorization": f"Bearer {self._key}"})


def read_page(body: bytes, version: Version, report: str) -> Page:
    """Return what a page tells; raise `OriginError` for another shape than this version's."""
    try:
        page = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise OriginError("EmailOctopus answered with something else than JSON: is --base-url right?") from None
    rows = page.get("data") if isinstance(page, dict) else None
    if not isinstance(rows, list):
        raise _unknown("no list `data`", version)
    left_out: Counter[str] = Counter()
    notices: list[Notice] = []
    for row in rows:
        spelt, who = _contact(row, version)
        if spelt is None:
            raise _unknown(f"a row without `{who}`", version)
        address = address_of(spelt)
        if address is None:
            left_out[NO_ADDRESS if spelt else DELETED] += 1
            continue
        notices.append(
            Notice(
                provider=NAME,
                what=_WHATS[report],
                dedupe="",
                at_ms=milliseconds(text(row, "occurred_at")),
                recipient=address,
                bounce=_BOUNCES.get(text(row, "type").lower(), Bounce.UNKNOWN) if report == "bounced" else None,
            )
        )
    return Page(notices=notices, rows=len(rows), following=_following(page, version), left_out=left_out)


def _contact(row: Any, version: Version) -> tuple[str | None, str]:
    """Return the address that a row names, empty where there is none any more, and the name of its field."""
    if version is Version.OLD:
        holder, field, shown = mapping(row, "contact"), "email_address", "contact.email_address"
    else:
        holder, field, shown = mapping(row), "contact_email_address", "contact_email_address"
    gone = holder.get("deleted") is True
    return (text(holder, field) if field in holder or gone else None), shown


def _following(page: Mapping[str, Any], version: Version) -> str | None:
    """Return the place where the next page begins; none on the last, where `paging` is absent, null or a list."""
    if version is Version.NEW:
        cursor = text(page, "paging", "next", "starting_after")
        return urlencode({"starting_after": cursor}) if cursor else None
    query = parse_qsl(urlsplit(text(page, "paging", "next")).query)
    kept = [(name, value) for name, value in query if name not in {"api_key", "limit"}]
    return urlencode(kept) if kept else None


def _unknown(what: str, version: Version) -> OriginError:
    other = Version.NEW if version is Version.OLD else Version.OLD
    return OriginError(
        f"EmailOctopus answered in a shape that version {version} of its API does not have ({what}): "
        f"try --api {other}, and see whether --base-url is right"
    )


def _code(body: bytes) -> str:
    """Return the error code of version 1.6, or the last word of version 2's type; empty where there is none."""
    try:
        error = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return text(error, "error", "code") or text(error, "code") or text(error, "type").rpartition("#")[2]


def _refusal(answer: Answer, campaign: str, version: Version) -> str:
    code = _code(answer.body)
    match answer.status, code:
        case (_, "CAMPAIGN_NOT_SENT"):
            return f"campaign {campaign} was not sent yet: there is nothing to import"
        case (_, "CAMPAIGN_NOT_FOUND") | (404, _):
            return f"EmailOctopus knows no campaign {campaign} of this account: take the id from its report's address"
        case (401 | 403, _) | (_, "API_KEY_INVALID" | "UNAUTHORISED"):
            hint = " (a key from before October 2024 needs --api 1.6)" if version is Version.NEW else ""
            return f"EmailOctopus refuses the API key{hint}: make a new one in its settings"
        case (429, _):
            return "EmailOctopus says that it is asked too often, and went on saying so: run the command again later"
        case (status, _) if status >= 500:
            return f"EmailOctopus is in trouble (status {status}): run the command again later to go on"
        case (status, _) if 300 <= status < 400:
            return f"EmailOctopus points elsewhere (status {status}), which is not followed: is --base-url right?"
        case (status, _):
            named = f", {code}" if code.replace("_", "").replace("-", "").isalnum() else ""
            return f"EmailOctopus refuses the request (status {status}{named}): is --campaign right?"
