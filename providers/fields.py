"""Read fields of a provider's JSON that may be absent, null or of another type than its documentation says.

Every function gives the empty value where the field is not what it should be: one strange field must not cost the rest.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from providers.notice import Name, Step
from providers.webhook import MalformedError

#: The name under which our key stands in a vendor's metadata.
TOKEN_FIELD = "outrider"  # noqa: S105 - a name, no password

_TEXT_LIMIT = 4096
_RAW_LIMIT = 65_536
# Until the year 9999, the last that Python counts.
_LATEST_MS = 253_402_300_799_999
#: Seconds, unless that would be later than the year 5000.
_MILLISECONDS_FROM = 100_000_000_000

_KEY = re.compile(r"[a-z2-7]{26}(?:\.[0-9]{1,4})?")
_CODE = re.compile(r"\b([245]\d\d)\b")
_ENHANCED = re.compile(r"\b([245]\.\d{1,3}\.\d{1,3})\b")


def decoded(body: bytes) -> Any:
    """Return the body's JSON; raise `MalformedError`."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedError("the body is not JSON") from None


def encoded(value: Any) -> bytes:
    """Return an event as it is kept, cut where it is enormous; raise `MalformedError` where it is nested too deeply."""
    try:
        return msgspec.json.encode(value)[:_RAW_LIMIT]
    except RecursionError:
        # What was just not too deep to read may be too deep to write, a few calls further down.
        raise MalformedError("the body is nested too deeply") from None


def mapping(value: Any, *path: str) -> dict[str, Any]:
    """Return the object at *path*; empty where there is none."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def entries(value: Any, *path: str) -> list[dict[str, Any]]:
    """Return the objects in the list at *path*; what in it is no object is left out."""
    *way, last = path
    found = mapping(value, *way).get(last)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def text(value: Any, *path: str) -> str:
    """Return the text at *path*, cut at 4,096 characters, without NUL; numbers are spelt out, the rest is empty."""
    *way, last = path
    found = mapping(value, *way).get(last)
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        return ""
    return str(found).replace("\0", "")[:_TEXT_LIMIT]


def first(value: Any, *names: str) -> str:
    """Return the first of these fields that has a text."""
    return next((found for name in names if (found := text(value, name))), "")


def texts(value: Any, *path: str) -> tuple[str, ...]:
    """Return the texts in the list at *path*, or the one text that stands in its place."""
    *way, last = path
    found = mapping(value, *way).get(last)
    if isinstance(found, str):
        found = [found]
    if not isinstance(found, list):
        return ()
    return tuple(one.replace("\0", "")[:_TEXT_LIMIT] for one in found if isinstance(one, str) and one)


def strings(value: Any, *path: str) -> dict[str, str]:
    """Return the object at *path*, its scalar values as texts."""
    found = mapping(value, *path)
    return {name.replace("\0", "")[:_TEXT_LIMIT]: one for name in found if (one := text(found, name))}


def time_ms(value: Any, *path: str) -> int | None:
    """Return the time at *path* in milliseconds since 1970, from ISO 8601 (no zone: UTC), seconds or milliseconds."""
    *way, last = path
    found = mapping(value, *way).get(last)
    if isinstance(found, str):
        found = _number(found) if found.strip().replace(".", "", 1).isdigit() else _instant(found)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    try:
        at = round(found * 1000) if found < _MILLISECONDS_FROM else round(found)
    except (OverflowError, ValueError):
        return None
    return at if 0 <= at <= _LATEST_MS else None


def _number(spelt: str) -> float | None:
    try:
        return float(spelt)
    except ValueError:
        return None


def _instant(spelt: str) -> float | None:
    # Up to seven digits of a second, where Python reads three or six.
    cut = re.sub(r"(\.\d{6})\d+", r"\1", spelt.strip()[:64])
    try:
        at = datetime.fromisoformat(cut)
    except ValueError:
        return None
    try:
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (OverflowError, ValueError):
        return None


def codes(*words: str) -> tuple[str, str]:
    """Return the SMTP code and the enhanced code that stand in the receiving server's words; empty where none does."""
    said = " ".join(words)
    enhanced = _ENHANCED.search(said)
    code = _CODE.search(_ENHANCED.sub(" ", said))
    return (code[1] if code else ""), (enhanced[1] if enhanced else "")


def bare(message_id: str) -> str:
    """Return a Message-ID without angle brackets and white space."""
    return message_id.strip().removeprefix("<").removesuffix(">").strip()


def named(*pairs: tuple[Step, str]) -> tuple[Name, ...]:
    """Return the names that are not empty, each once; a Message-ID without brackets, a token only if it is a key."""
    found: dict[Name, None] = {}
    for step, value in pairs:
        spelt = bare(value) if step is Step.MESSAGE_ID else value.strip()
        if spelt and (step is not Step.TOKEN or _KEY.fullmatch(spelt)):
            found[Name(step, spelt)] = None
    return tuple(found)


def header(headers: Any, name: str) -> str:
    """Return a header's value from a list of `{"name", "value"}`; empty where it has none."""
    if isinstance(headers, list):
        for one in headers:
            if text(one, "name").lower() == name.lower():
                return text(one, "value")
    return ""


def folded_in(present: Mapping[str, str], name: str, fields: Mapping[str, str]) -> str:
    """Return the header's JSON object with *fields* in it, in ASCII; one that cannot be read is left as it is."""
    before = present.get(name, "")
    try:
        known = msgspec.json.decode(before) if before.strip() else {}
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return before
    if not isinstance(known, dict):
        return before
    return ascii_json(known | dict(fields))


def ascii_json(value: Any) -> str:
    """Return JSON in ASCII, with spaces where a header may be folded."""
    return json.dumps(value, ensure_ascii=True)
