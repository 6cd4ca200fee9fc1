"""SparkPost: a batch of events, each within `msys` and its class, believed by a shared secret.

Our key travels in the metadata of `X-MSYS-API`, which SparkPost takes out and repeats as `rcpt_meta`; the Message-ID is
in no event. A class of mail to us (relay) and the empty entry of a trial are no events.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from providers.credentials import by_secret, has_secret
from providers.fields import (
    TOKEN_FIELD,
    ascii_json,
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
from providers.identity import fingerprint, unread
from providers.notice import Bounce, Notice, Step, What
from providers.webhook import MalformedError, Parsed, Provider, Request

NAME = "sparkpost"

_HEADER = "X-MSYS-API"

Verdict = tuple[What, Bounce | None]

#: `type` to what happened.
_EVENTS: Mapping[str, What] = MappingProxyType(
    {
        "injection": What.ACCEPTED,
        "delivery": What.DELIVERED,
        "delay": What.DEFERRED,
        "bounce": What.BOUNCED,
        "out_of_band": What.BOUNCED,
        "policy_rejection": What.REJECTED,
        "spam_complaint": What.COMPLAINED,
        "open": What.OPENED,
        "initial_open": What.OPENED,
        "amp_open": What.OPENED,
        "amp_initial_open": What.OPENED,
        "click": What.CLICKED,
        "amp_click": What.CLICKED,
        "list_unsubscribe": What.UNSUBSCRIBED,
        "link_unsubscribe": What.UNSUBSCRIBED,
        "generation_failure": What.FAILED,
        "generation_rejection": What.REJECTED,
    }
)
#: `bounce_class` to the class, and to what happened where that is no bounce at all.
_BOUNCES: Mapping[str, Verdict] = MappingProxyType(
    {
        "1": (What.BOUNCED, Bounce.UNKNOWN),
        "10": (What.BOUNCED, Bounce.HARD),
        "20": (What.BOUNCED, Bounce.SOFT),
        "21": (What.BOUNCED, Bounce.SOFT),
        "22": (What.BOUNCED, Bounce.SOFT),
        "23": (What.BOUNCED, Bounce.SOFT),
        "24": (What.BOUNCED, Bounce.SOFT),
        "25": (What.BOUNCED, Bounce.BLOCK),
        "30": (What.BOUNCED, Bounce.HARD),
        "40": (What.BOUNCED, Bounce.SOFT),
        "50": (What.BOUNCED, Bounce.BLOCK),
        "51": (What.BOUNCED, Bounce.BLOCK),
        "52": (What.BOUNCED, Bounce.BLOCK),
        "53": (What.BOUNCED, Bounce.BLOCK),
        "54": (What.BOUNCED, Bounce.BLOCK),
        # Somebody's machine answered: a holiday, a challenge.
        "60": (What.UNKNOWN, None),
        "70": (What.BOUNCED, Bounce.SOFT),
        "80": (What.SUBSCRIBED, None),
        "90": (What.UNSUBSCRIBED, None),
        "100": (What.UNKNOWN, None),
    }
)
_NO_EVENTS = frozenset({"relay_message", "relay_event"})
#: The pixel at the top of a message, which one reading fetches beside the one at its end.
_TOP_PIXEL = frozenset({"initial_open", "amp_initial_open"})
#: What a person's browser asked for; elsewhere `ip_address` is the receiving server's.
_ENGAGEMENTS = frozenset({What.OPENED, What.CLICKED, What.UNSUBSCRIBED})
# "recipient address suppressed due to customer policy"
_ON_THE_LIST = "address suppressed"


def parse(request: Request) -> Parsed:
    """Read a batch."""
    body = decoded(request.body)
    batch = [body] if isinstance(body, dict) else body
    if not isinstance(batch, list):
        raise MalformedError("the body is no batch of events")
    return Parsed(notices=tuple(notice for entry in batch for notice in _notices(entry)))


def _notices(entry: Any) -> Iterator[Notice]:
    classes = entry.get("msys") if isinstance(entry, dict) else None
    if not isinstance(classes, dict):
        yield unread(NAME, entry)
        return
    for name, event in classes.items():
        if name not in _NO_EVENTS:
            yield _notice(event) if isinstance(event, dict) else unread(NAME, entry)


def _notice(event: dict[str, Any]) -> Notice:
    kind = text(event, "type")
    said = first(event, "raw_reason", "reason")
    what, bounce = _verdict(kind, text(event, "bounce_class"), said)
    smtp_code, enhanced_code = codes(text(event, "error_code"), said)
    engaged = what in _ENGAGEMENTS
    machine = "is_prefetched" if mapping(event, "user_agent_parsed").get("is_prefetched") is True else ""
    metadata = strings(event, "rcpt_meta")
    return Notice(
        provider=NAME,
        what=what,
        dedupe=_dedupe(event, kind, machine),
        at_ms=time_ms(event, "timestamp"),
        # As the mailer wrote it; `rcpt_to` is in lower case.
        recipient=first(event, "raw_rcpt_to", "rcpt_to"),
        names=named(
            (Step.TOKEN, metadata.get(TOKEN_FIELD, "")),
            (Step.PROVIDER_ID, text(event, "message_id")),
            # Archive and cc copies share it, each with a message_id of its own.
            (Step.BATCH, text(event, "transmission_id")),
        ),
        bounce=bounce,
        smtp_code=smtp_code,
        enhanced_code=enhanced_code,
        description=said or first(event, "fbtype", "report_by") or ("" if what is not What.UNKNOWN else kind),
        url=text(event, "target_link_url") if what in {What.CLICKED, What.UNSUBSCRIBED} else "",
        user_agent=text(event, "user_agent") if engaged else "",
        ip=text(event, "ip_address") if engaged else "",
        machine=machine,
        tags=tuple(dict.fromkeys(texts(event, "campaign_id") + texts(event, "rcpt_tags"))),
        metadata=metadata,
        raw=encoded(event),
    )


def _verdict(kind: str, bounce_class: str, said: str) -> Verdict:
    what = _EVENTS.get(kind, What.UNKNOWN)
    if what not in {What.BOUNCED, What.REJECTED}:
        return what, None
    if _ON_THE_LIST in said:
        return What.BOUNCED, Bounce.SUPPRESSED
    if what is What.BOUNCED:
        return _BOUNCES.get(bounce_class, (what, Bounce.UNKNOWN))
    return what, _BOUNCES.get(bounce_class, (what, None))[1]


def _dedupe(event: Mapping[str, Any], kind: str, machine: str) -> str:
    """Return the event's id; a top pixel counts once for a message, because the end of most is seen too."""
    message = text(event, "message_id")
    if kind in _TOP_PIXEL and message:
        return fingerprint(event, (kind, message), (machine,))
    if known := text(event, "event_id").strip():
        return known
    told = (kind, message, first(event, "raw_rcpt_to", "rcpt_to"), text(event, "timestamp"))
    return fingerprint(event, told, (text(event, "target_link_url"),))


def stamp(key: str, present: Mapping[str, str]) -> dict[str, str]:
    """Name our key in the metadata, first, because track events keep about 1,000 octets of it."""
    try:
        known = msgspec.json.decode(present.get(_HEADER, "").strip() or "{}")
        metadata = known.get("metadata", {}) if isinstance(known, dict) else None
        if not isinstance(metadata, dict | None) or not isinstance(known, dict):
            return {}
        others = {name: value for name, value in (metadata or {}).items() if name != TOKEN_FIELD}
        return {_HEADER: ascii_json(known | {"metadata": {TOKEN_FIELD: key} | others})}
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        # SparkPost answers 550 to it: the mailer will hear so.
        return {}


def reply_id(reply: str) -> None:  # noqa: ARG001 - the shape of `Provider.reply_id`
    """Return nothing: no event repeats what stands in its 250."""
    return


PROVIDER = Provider(
    name=NAME,
    configured=has_secret,
    authenticate=by_secret,
    parse=parse,
    reply_id=reply_id,
    stamp=stamp,
    stamped=(_HEADER,),
    hosts=("sparkpostmail.com",),
)
