"""Resend: one JSON object per POST, signed with Svix's scheme.

Resend sends through SES and replaces our Message-ID; its events name the headers that it was given where they have
them, so that our key travels in a header of its own, `X-Outrider-Key`, beside that Message-ID. No header for tags is
documented. Who of several recipients it was is never told.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from providers.fields import (
    TOKEN_FIELD,
    bare,
    codes,
    decoded,
    encoded,
    entries,
    first,
    header,
    mapping,
    named,
    strings,
    text,
    texts,
    time_ms,
)
from providers.identity import fingerprint, uuid_in
from providers.notice import Bounce, Notice, Step, What
from providers.svix import by_signature, has_key
from providers.webhook import MalformedError, Parsed, Provider, Request

NAME = "resend"

_HEADER = "X-Outrider-Key"

#: `type` to what happened.
_EVENTS: Mapping[str, What] = MappingProxyType(
    {
        "email.scheduled": What.ACCEPTED,
        "email.sent": What.SENT,
        "email.delivered": What.DELIVERED,
        "email.delivery_delayed": What.DEFERRED,
        "email.bounced": What.BOUNCED,
        "email.suppressed": What.BOUNCED,
        "email.complained": What.COMPLAINED,
        "email.opened": What.OPENED,
        "email.clicked": What.CLICKED,
        "email.failed": What.FAILED,
    }
)
#: The subtype of a bounce, where it tells more than its type, and the type: they are SES's.
_BOUNCES: Mapping[str, Bounce] = MappingProxyType(
    {
        "suppressed": Bounce.SUPPRESSED,
        "onaccountsuppressionlist": Bounce.SUPPRESSED,
        "contentrejected": Bounce.BLOCK,
        "attachmentrejected": Bounce.BLOCK,
        "permanent": Bounce.HARD,
        "transient": Bounce.SOFT,
        "temporary": Bounce.SOFT,
        "undetermined": Bounce.UNKNOWN,
    }
)
# "Resend has suppressed sending to this address": all that older events say of it.
_ON_THE_LIST = "suppressed sending"
#: Mail to us.
_INBOUND = "email.received"
# `Ann <ann@example.net>`
_BRACKETED = re.compile(r"<([^<>]*)>\s*\Z")
#: Where an event says more than its type, by its kind.
_DETAILS = ("bounce", "failed", "suppressed", "click", "open")


def parse(request: Request) -> Parsed:
    """Read one event; what is about domains, contacts and mail to us is passed over."""
    event = decoded(request.body)
    if not isinstance(event, dict):
        raise MalformedError("the body is no event")
    kind = text(event, "type")
    if kind == _INBOUND or (kind and not kind.startswith("email.")):
        return Parsed()
    return Parsed(notices=(_notice(event, kind, request.headers.get("svix-id", "").replace("\0", "").strip()),))


def _notice(event: dict[str, Any], kind: str, identity: str) -> Notice:
    message = mapping(event, "data")
    what = _EVENTS.get(kind, What.UNKNOWN)
    detail = next((found for name in _DETAILS if (found := mapping(message, name))), {})
    said = first(detail, "message", "reason")
    smtp_code, enhanced_code = codes(*texts(detail, "diagnosticCode"), said)
    tags, email_id = _tags(message), text(message, "email_id")
    at = text(event, "created_at")
    link = first(detail, "link") if what is What.CLICKED else ""
    return Notice(
        provider=NAME,
        what=what,
        dedupe=identity or fingerprint(event, (kind, email_id, at), (link, *texts(message, "to"))),
        # The outer one is the event's; the inner one the message's.
        at_ms=time_ms(event, "created_at"),
        recipient=_recipient(message),
        names=named(
            (Step.TOKEN, tags.get(TOKEN_FIELD, "")),
            (Step.TOKEN, header(message.get("headers"), _HEADER)),
            (Step.MESSAGE_ID, header(message.get("headers"), "Message-ID")),
            (Step.REPLY_ID, email_id.lower()),
            (Step.PROVIDER_ID, email_id),
            (Step.PROVIDER_ID, bare(text(message, "message_id"))),
        ),
        bounce=_bounce(kind, detail, said) if what is What.BOUNCED else None,
        smtp_code=smtp_code,
        enhanced_code=enhanced_code,
        description=said or ("" if what is not What.UNKNOWN else kind),
        url=link,
        user_agent=text(detail, "userAgent"),
        ip=text(detail, "ipAddress"),
        metadata=tags,
        raw=encoded(event),
    )


def _bounce(kind: str, detail: Mapping[str, Any], said: str) -> Bounce:
    if kind == "email.suppressed" or _ON_THE_LIST in said:
        return Bounce.SUPPRESSED
    words = (text(detail, name).lower() for name in ("subType", "type"))
    return next((_BOUNCES[word] for word in words if word in _BOUNCES), Bounce.UNKNOWN)


def _recipient(message: Mapping[str, Any]) -> str:
    """Return the recipient's address where there is but one."""
    everybody = texts(message, "to") + texts(message, "cc") + texts(message, "bcc")
    if len(everybody) != 1:
        return ""
    return (match[1] if (match := _BRACKETED.search(everybody[0])) is not None else everybody[0]).strip()


def _tags(message: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags, each a name and a value: an object, or a list of `{"name", "value"}`."""
    listed = {text(one, "name"): text(one, "value") for one in entries(message, "tags")}
    return strings(message, "tags") | {name: value for name, value in listed.items() if name and value}


def stamp(key: str, present: Mapping[str, str]) -> dict[str, str]:  # noqa: ARG001 - the shape of `Provider.stamp`
    """Name our key in our own header."""
    return {_HEADER: key}


PROVIDER = Provider(
    name=NAME,
    configured=has_key,
    authenticate=by_signature,
    parse=parse,
    # Its 250 is not documented; a UUID in it can only be the email_id, and otherwise matches nothing.
    reply_id=uuid_in,
    stamp=stamp,
    stamped=(_HEADER,),
    hosts=("resend.com",),
)
