"""Providers that nobody has: what the relay does with a profile, whatever the real ones become."""

import re
from collections.abc import Mapping

import pytest

from providers import registry
from providers.fields import TOKEN_FIELD, folded_in
from providers.webhook import MalformedError, Parsed, Proven, Provider, Request, Trust

_ID = re.compile(r"\ATaken as ([A-Z0-9]+)\Z")


def _proven(request: Request, trust: Trust, now: float, documents: Mapping[str, bytes]) -> Proven:
    del request, trust, now, documents
    return Proven()


def _parsed(request: Request) -> Parsed:
    raise MalformedError(request.method)


def _tags(key: str, present: Mapping[str, str]) -> dict[str, str]:
    mine = f"{TOKEN_FIELD}={key}"
    return {"X-Tags": ", ".join([*filter(None, [present.get("X-Tags")]), mine]), "X-Keep": "true"}


def _taken(text: str) -> str | None:
    match = _ID.match(text)
    return None if match is None else match[1]


#: Tags in a list, and a switch.
TAGS = Provider(
    name="tags",
    configured=lambda _: False,
    authenticate=_proven,
    parse=_parsed,
    reply_id=_taken,
    stamp=_tags,
    stamped=("X-Tags", "X-Keep"),
    hosts=("tags.example.com", "localhost"),
)

#: A field in a JSON object.
JSON = Provider(
    name="json",
    configured=lambda _: False,
    authenticate=_proven,
    parse=_parsed,
    reply_id=lambda _: None,
    stamp=lambda key, present: {"X-Json": folded_in(present, "X-Json", {TOKEN_FIELD: key})},
    stamped=("X-Json",),
    hosts=("json.example.com",),
)

#: One that replaces a Message-ID which it has seen before.
FRESH = Provider(
    name="fresh",
    configured=lambda _: False,
    authenticate=_proven,
    parse=_parsed,
    reply_id=lambda _: None,
    hosts=("fresh.example.com",),
    wants_fresh_ids=True,
)


def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make these all that there are."""
    monkeypatch.setattr(registry, "PROVIDERS", {one.name: one for one in (TAGS, JSON, FRESH)})
