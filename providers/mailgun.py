"""Mailgun: webhooks in JSON, and the older ones of `providers.mailgun_forms`, under an HMAC of a timestamp and a token.

The signature does not cover the body: whoever saw one could put it under an event of his own. So a token is believed
once, and a proof without an unused token is none. Mailgun keeps a Message-ID of the shape that we write.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from providers import mailgun_forms
from providers.credentials import has_secret
from providers.fields import (
    TOKEN_FIELD,
    codes,
    decoded,
    encoded,
    first,
    mapping,
    named,
    strings,
    text,
    texts,
    time_ms,
)
from providers.identity import keyed
from providers.mailgun_refusals import refusal
from providers.notice import Bounce, Notice, Step, What
from providers.webhook import DeniedError, MalformedError, Parsed, Proven, Provider, Request, Trust

_VARIABLES = "X-Mailgun-Variables"

#: Mailgun tries for eight hours and does not say whether it signs each try anew, and warns of delays of its own: a
#: shorter limit could lose what happened while we were down. `Proven.once` must be remembered for as long.
OLDEST = 9 * 3600
#: How far the clocks may differ, in seconds.
SKEW = 300

_SEPARATORS = re.compile(r"[\s<>,;:\"()]+")

_EVENTS: Mapping[str, What] = MappingProxyType(
    {
        "accepted": What.ACCEPTED,
        "rejected": What.REJECTED,
        "delivered": What.DELIVERED,
        "failed": What.BOUNCED,
        "opened": What.OPENED,
        "clicked": What.CLICKED,
        "unsubscribed": What.UNSUBSCRIBED,
        "complained": What.COMPLAINED,
    }
)


def authenticate(
    request: Request,
    trust: Trust,
    now: float,
    documents: Mapping[str, bytes],  # noqa: ARG001 - the shape of `Provider.authenticate`
) -> Proven:
    """Believe a timestamp of the last hours and a token under one of the signing keys; raise `DeniedError`."""
    try:
        block = mailgun_forms.signature(request) if mailgun_forms.is_form(request) else _signature(request)
    except MalformedError:
        raise DeniedError("no signature") from None
    at, token = text(block, "timestamp"), text(block, "token")
    if not (at.isascii() and at.isdigit() and len(at) <= 12 and token):
        raise DeniedError("no signature")
    # Nothing separates the two in what is signed: the age also keeps a digit from moving from one to the other.
    if not -SKEW <= now - int(at) <= OLDEST:
        raise DeniedError("a stale timestamp")
    # A subaccount's event is signed by the parent account too.
    given = [text(block, name).encode() for name in ("signature", "parent-signature")]
    right = [hmac.new(secret.encode(), f"{at}{token}".encode(), hashlib.sha256).hexdigest() for secret in trust.secrets]
    equal = [hmac.compare_digest(one, digest.encode()) for digest in right for one in given]
    if not any(equal):
        raise DeniedError("a wrong signature")
    return Proven(once=token)


def _signature(request: Request) -> dict[str, Any]:
    return mapping(decoded(request.body), "signature")


def parse(request: Request) -> Parsed:
    """Read one event; raise `MalformedError` where the body holds none."""
    if mailgun_forms.is_form(request):
        return Parsed(notices=(mailgun_forms.notice(request),))
    event = mapping(decoded(request.body), "event-data")
    if not event:
        raise MalformedError("the body holds no event-data")
    return Parsed(notices=(_notice(event),))


def _notice(event: dict[str, Any]) -> Notice:
    kept = encoded(event)
    status = mapping(event, "delivery-status")
    smtp_code, enhanced_code = _codes(status)
    what, bounce = _verdict(event, status)
    return Notice(
        provider=mailgun_forms.NAME,
        what=what,
        dedupe=_dedupe(event, kept),
        at_ms=time_ms(event, "timestamp"),
        recipient=_recipient(event),
        names=named(
            (Step.MESSAGE_ID, text(event, "message", "headers", "message-id")),
            (Step.TOKEN, text(event, "user-variables", TOKEN_FIELD)),
            (Step.PROVIDER_ID, text(event, "storage", "key")),
        ),
        bounce=bounce,
        smtp_code=smtp_code,
        enhanced_code=enhanced_code,
        description=first(status, "message", "description") or text(event, "reject", "reason") or text(event, "reason"),
        url=text(event, "url"),
        user_agent=text(event, "client-info", "user-agent"),
        ip=text(event, "ip"),
        machine=text(event, "client-info", "bot"),
        tags=texts(event, "tags"),
        metadata=strings(event, "user-variables"),
        raw=kept,
    )


def _dedupe(event: dict[str, Any], kept: bytes) -> str:
    """Return the event's id with its day: Mailgun promises no more than that it is unique within one."""
    event_id, at_ms = text(event, "id").strip(), time_ms(event, "timestamp")
    if not event_id or at_ms is None:
        return hashlib.sha256(kept).hexdigest()
    return f"{event_id}@{at_ms // 86_400_000}"


def _recipient(event: dict[str, Any]) -> str:
    """Return the recipient; a rejected message names none, but its `To` may."""
    if said := text(event, "recipient").strip():
        return said
    addresses = {word for word in _SEPARATORS.split(text(event, "message", "headers", "to")) if "@" in word}
    return addresses.pop() if len(addresses) == 1 else ""


def _codes(status: dict[str, Any]) -> tuple[str, str]:
    in_words = codes(text(status, "message"), text(status, "description"))
    (code, _), (_, enhanced) = codes(text(status, "code")), codes(text(status, "enhanced-code"))
    return code or in_words[0], enhanced or in_words[1]


def _verdict(event: dict[str, Any], status: dict[str, Any]) -> tuple[What, Bounce | None]:
    what = _EVENTS.get(text(event, "event").strip().lower(), What.UNKNOWN)
    if what is not What.BOUNCED:
        return what, None
    if text(event, "severity").strip().lower() == "temporary":
        return What.DEFERRED, None
    return what, refusal(text(status, "code"), text(event, "reason"), *_codes(status))


def reply_id(text: str) -> str | None:  # noqa: ARG001 - the shape of `Provider.reply_id`
    """Return none: Mailgun answers `250 Great success` and no more."""
    return None


def stamp(key: str, present: Mapping[str, str]) -> dict[str, str]:
    """Put our key into the variables, beside the mailer's; leave what is no JSON object."""
    return keyed(key, present, _VARIABLES)


PROVIDER = Provider(
    name=mailgun_forms.NAME,
    configured=has_secret,
    authenticate=authenticate,
    parse=parse,
    reply_id=reply_id,
    stamp=stamp,
    stamped=(_VARIABLES,),
    hosts=("mailgun.org",),
    keeps_message_id=True,
)
