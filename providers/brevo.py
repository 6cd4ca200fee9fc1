"""Brevo: one JSON object per POST, or a list where batches are switched on, believed by a shared secret.

Our key travels in `X-Mailin-custom`, which Brevo repeats in every event (and the recipient can see). The id in its 250
and in its events has been seen to be the Message-ID that it was given, and to be one of its own: it is looked up as
both.
Only `ts_epoch` is surely UTC: `date` is local time of the account.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from providers.credentials import by_secret, has_secret
from providers.fields import TOKEN_FIELD, bare, codes, decoded, encoded, first, named, strings, text, texts, time_ms
from providers.identity import fingerprint, keyed, unread
from providers.notice import Bounce, Notice, Step, What
from providers.webhook import MalformedError, Parsed, Provider, Request

NAME = "brevo"

_HEADER = "X-Mailin-custom"
# An event has it as the mailer spelt it.
_HEADER_FIELDS = (_HEADER, "X-Mailin-Custom", "x-mailin-custom")

#: `event` to what happened and its class. Names that differ from the documented ones are of its other webhooks.
_EVENTS: Mapping[str, tuple[What, Bounce | None]] = MappingProxyType(
    {
        "request": (What.ACCEPTED, None),
        "sent": (What.SENT, None),
        "delivered": (What.DELIVERED, None),
        "deferred": (What.DEFERRED, None),
        "hard_bounce": (What.BOUNCED, Bounce.HARD),
        "soft_bounce": (What.BOUNCED, Bounce.SOFT),
        # The account's own list knows the address.
        "blocked": (What.BOUNCED, Bounce.SUPPRESSED),
        "invalid_email": (What.BOUNCED, Bounce.HARD),
        "error": (What.FAILED, None),
        "spam": (What.COMPLAINED, None),
        "complaint": (What.COMPLAINED, None),
        "unsubscribe": (What.UNSUBSCRIBED, None),
        "unsubscribed": (What.UNSUBSCRIBED, None),
        "click": (What.CLICKED, None),
        "opened": (What.OPENED, None),
        "proxy_open": (What.OPENED, None),
        "list_addition": (What.SUBSCRIBED, None),
    }
)
#: An event that comes beside the plain one, the first time: `unique_opened`, `unique_proxy_open`.
_FIRST_TIME = "unique_"
#: Apple's and other proxies load every picture, read or not.
_PROXY = "proxy_open"

#: The older form of the header's value, `name:value|name:value`; an address of the web is none.
_PAIR = r"[A-Za-z0-9_.-]{1,64}:(?!//)[^|]*"
_PAIRS = re.compile(rf"{_PAIR}(?:\|{_PAIR})*")

_REPLY = re.compile(r"\bqueued as <?([!-;=?-~]{4,250})>?", re.IGNORECASE)


def parse(request: Request) -> Parsed:
    """Read one event, or a batch."""
    body = decoded(request.body)
    events = [body] if isinstance(body, dict) else body
    if not isinstance(events, list):
        raise MalformedError("the body is neither an event nor a list of events")
    return Parsed(notices=tuple(_notice(one) if isinstance(one, dict) else unread(NAME, one) for one in events))


def _notice(event: dict[str, Any]) -> Notice:
    word = text(event, "event").strip().lower()
    plain = word.removeprefix(_FIRST_TIME)
    what, bounce = _EVENTS.get(plain, (What.UNKNOWN, None))
    reason = text(event, "reason")
    smtp_code, enhanced_code = codes(reason)
    what, bounce = _judged(what, bounce, smtp_code, enhanced_code)
    message = bare(first(event, "message-id", "message_id"))
    metadata = _metadata(event)
    return Notice(
        provider=NAME,
        what=what,
        dedupe=_dedupe(event, plain, message),
        at_ms=_at(event),
        recipient=text(event, "email"),
        names=named(
            (Step.TOKEN, metadata.get(TOKEN_FIELD, "")),
            (Step.MESSAGE_ID, message),
            (Step.REPLY_ID, message),
            (Step.PROVIDER_ID, message),
        ),
        bounce=bounce,
        smtp_code=smtp_code,
        enhanced_code=enhanced_code,
        description=reason or ("" if what is not What.UNKNOWN else word),
        url=text(event, "link") if what is What.CLICKED else "",
        user_agent=text(event, "user_agent"),
        # `sending_ip` is Brevo's own.
        ip=text(event, "ip"),
        machine=word if plain == _PROXY else "",
        tags=_tags(event),
        metadata=metadata,
        raw=encoded(event),
    )


def _judged(what: What, bounce: Bounce | None, code: str, enhanced: str) -> tuple[What, Bounce | None]:
    """Return what the receiver's own codes tell, where Brevo's word tells less."""
    if bounce is Bounce.SUPPRESSED and code.startswith("5"):
        # Somebody was asked, and said no.
        return what, Bounce.BLOCK
    if what is not What.DEFERRED or not (code or enhanced).startswith("5"):
        return what, bounce
    # Called deferred, yet refused for good. RFC 3463 3.2, 3.3 and 3.8: address, mailbox, policy.
    if enhanced.startswith("5.1.") or enhanced == "5.2.1":
        return What.BOUNCED, Bounce.HARD
    if enhanced.startswith("5.7."):
        return What.BOUNCED, Bounce.BLOCK
    return What.BOUNCED, (Bounce.SOFT if enhanced.startswith("5.2.") else Bounce.UNKNOWN)


def _at(event: Mapping[str, Any]) -> int | None:
    return next((at for name in ("ts_epoch", "ts_event", "ts") if (at := time_ms(event, name))), None)


def _dedupe(event: Mapping[str, Any], plain: str, message: str) -> str:
    """Return a word for this event: `id` is the webhook's, and a first time is the same event as the plain one."""
    told = (plain, message, text(event, "email"), first(event, "ts_epoch", "ts_event", "ts"))
    return fingerprint(event, told, (text(event, "link"),))


def _tags(event: Mapping[str, Any]) -> tuple[str, ...]:
    """Return `tags`; else `tag`, which is one tag or the JSON of several, depending on how they were set."""
    if tags := texts(event, "tags"):
        return tags
    try:
        spelt = msgspec.json.decode(text(event, "tag"))
    except (msgspec.DecodeError, RecursionError):
        return texts(event, "tag")
    return texts({"tag": spelt}, "tag") if isinstance(spelt, list) else texts(event, "tag")


def _metadata(event: Mapping[str, Any]) -> dict[str, str]:
    """Return what stands in `X-Mailin-custom`: JSON, or the older form; any other text under the header's name."""
    name = next((name for name in _HEADER_FIELDS if name in event), _HEADER)
    if isinstance(event.get(name), dict):
        return strings(event, name)
    spelt = text(event, name)
    try:
        value = msgspec.json.decode(spelt)
    except (msgspec.DecodeError, RecursionError):
        value = dict(pair.split(":", 1) for pair in spelt.split("|")) if _PAIRS.fullmatch(spelt) else None
    if isinstance(value, dict):
        return strings(value)
    return {_HEADER: spelt} if spelt else {}


def reply_id(reply: str) -> str | None:
    """Return the id in `250 2.0.0 OK: queued as <id>`."""
    return match[1] if (match := _REPLY.search(reply)) is not None else None


def stamp(key: str, present: Mapping[str, str]) -> dict[str, str]:
    """Name our key beside what the mailer wrote, in the form in which the mailer wrote it."""
    before = present.get(_HEADER, "").strip()
    if _PAIRS.fullmatch(before) is None:
        return keyed(key, present, _HEADER)
    if not before.isascii():
        return {}
    kept = (pair for pair in before.split("|") if not pair.startswith(f"{TOKEN_FIELD}:"))
    return {_HEADER: "|".join((*kept, f"{TOKEN_FIELD}:{key}"))}


PROVIDER = Provider(
    name=NAME,
    configured=has_secret,
    authenticate=by_secret,
    parse=parse,
    reply_id=reply_id,
    stamp=stamp,
    stamped=(_HEADER,),
    hosts=("brevo.com", "sendinblue.com"),
)
