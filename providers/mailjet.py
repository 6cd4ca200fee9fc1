"""Mailjet: an array of events, or one bare event where grouping is off, believed by the secret in its address.

Our key travels in `X-MJ-CustomID`, or, where the mailer has one of its own, in the JSON of `X-MJ-EventPayload`; both
come back in every event. A MessageID is beyond 2^53: it is an exact whole number here, never a float.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from providers.credentials import by_secret, has_secret
from providers.fields import TOKEN_FIELD, codes, decoded, encoded, named, strings, text, texts, time_ms
from providers.generic import reply_id
from providers.identity import fingerprint, keyed, unread
from providers.notice import Bounce, Notice, Step, What
from providers.webhook import MalformedError, Parsed, Provider, Request

NAME = "mailjet"

_ID_HEADER = "X-MJ-CustomID"
_PAYLOAD_HEADER = "X-MJ-EventPayload"

#: `event` to what happened.
_EVENTS: Mapping[str, What] = MappingProxyType(
    {
        # The receiving server took it.
        "sent": What.DELIVERED,
        "open": What.OPENED,
        "click": What.CLICKED,
        "bounce": What.BOUNCED,
        # Mailjet did not try.
        "blocked": What.REJECTED,
        "spam": What.COMPLAINED,
        "unsub": What.UNSUBSCRIBED,
    }
)
#: `error` of a bounce or refusal to its class.
_ERRORS: Mapping[str, Bounce] = MappingProxyType(
    {
        "user unknown": Bounce.HARD,
        "mailbox inactive": Bounce.HARD,
        "quota exceeded": Bounce.SOFT,
        "invalid domain": Bounce.HARD,
        "no mail host": Bounce.HARD,
        "typofix": Bounce.HARD,
        "relay/access denied": Bounce.BLOCK,
        "greylisted": Bounce.SOFT,
        "connection issue": Bounce.SOFT,
        "protocol issue": Bounce.SOFT,
        "system issue": Bounce.SOFT,
        "sender blocked": Bounce.BLOCK,
        "content blocked": Bounce.BLOCK,
        "policy issue": Bounce.BLOCK,
        "blacklisted": Bounce.SUPPRESSED,
        "spam reporter": Bounce.SUPPRESSED,
        "preblocked": Bounce.SUPPRESSED,
    }
)
#: Refusals that say nothing of the address.
_NO_CLASS = frozenset({"duplicate in campaign"})
_TEMPLATE = frozenset({"bad or empty template", "error in template language"})
#: These will be tried again, unless the bounce is called hard.
_TRIED_AGAIN = frozenset({"greylisted"})


def parse(request: Request) -> Parsed:
    """Read an array of events, or one."""
    body = decoded(request.body)
    events = [body] if isinstance(body, dict) else body
    if not isinstance(events, list):
        raise MalformedError("the body is neither an event nor a list of events")
    return Parsed(notices=tuple(_notice(one) if isinstance(one, dict) else unread(NAME, one) for one in events))


def _notice(event: dict[str, Any]) -> Notice:
    word, error = text(event, "event"), text(event, "error")
    what, bounce = _verdict(event, word, error)
    said = text(event, "smtp_reply") or ": ".join(part for part in (error, text(event, "comment")) if part)
    smtp_code, enhanced_code = codes(text(event, "smtp_reply"), text(event, "comment"))
    guid, custom, payload = text(event, "Message_GUID"), text(event, "CustomID"), _payload(event)
    return Notice(
        provider=NAME,
        what=what,
        dedupe=_dedupe(event, word),
        at_ms=time_ms(event, "time") or None,
        recipient=text(event, "email"),
        names=named(
            (Step.TOKEN, custom),
            (Step.TOKEN, payload.get(TOKEN_FIELD, "")),
            (Step.REPLY_ID, guid),
            (Step.PROVIDER_ID, guid),
            (Step.PROVIDER_ID, _message(event)),
        ),
        bounce=bounce,
        smtp_code=smtp_code,
        enhanced_code=enhanced_code,
        description=said or text(event, "source"),
        url=text(event, "url") if what is What.CLICKED else "",
        user_agent=text(event, "agent"),
        ip=text(event, "ip"),
        tags=texts(event, "customcampaign"),
        metadata=payload | ({"CustomID": custom} if custom else {}),
        raw=encoded(event),
    )


def _verdict(event: Mapping[str, Any], word: str, error: str) -> tuple[What, Bounce | None]:
    what, known = _EVENTS.get(word, What.UNKNOWN), _ERRORS.get(error)
    hard = event.get("hard_bounce")
    match what:
        case What.BOUNCED | What.REJECTED if error in _TEMPLATE:
            return What.FAILED, None
        case What.BOUNCED | What.REJECTED if error in _TRIED_AGAIN and hard is not True:
            return What.DEFERRED, None
        case What.BOUNCED:
            return what, _class(known, hard)
        case What.REJECTED if error in _NO_CLASS:
            return what, None
        case What.REJECTED if known is Bounce.SUPPRESSED or text(event, "error_related_to") == "recipient":
            # It was not sent because of what Mailjet remembers of the address.
            return What.BOUNCED, Bounce.SUPPRESSED
        case What.REJECTED:
            return what, known
        case _:
            return what, None


def _class(known: Bounce | None, hard: object) -> Bounce:
    """Return the class: a refusal by list or policy is one, however hard; else the flag stands above the error."""
    if known in {Bounce.BLOCK, Bounce.SUPPRESSED}:
        return Bounce(known)
    if isinstance(hard, bool):
        return Bounce.HARD if hard else Bounce.SOFT
    return known or Bounce.UNKNOWN


def _message(event: Mapping[str, Any]) -> str:
    """Return the message's number; the text, where there is one, because a number may have lost its last digits."""
    spelt = (text(event, name) for name in ("mj_message_id", "MessageID"))
    # A trial event of the web interface has 0; a float is no id.
    return next((one for one in spelt if one.isascii() and one.isdigit() and one.strip("0")), "")


def _dedupe(event: Mapping[str, Any], word: str) -> str:
    told = (word, _message(event) or text(event, "Message_GUID"), text(event, "email"), text(event, "time"))
    return fingerprint(event, told, (text(event, "url"),))


def _payload(event: Mapping[str, Any]) -> dict[str, str]:
    """Return the mailer's payload: the fields of a JSON object; any other text whole."""
    spelt = text(event, "Payload")
    try:
        value = msgspec.json.decode(spelt)
    except (msgspec.DecodeError, RecursionError):
        value = None
    if isinstance(value, dict):
        return strings(value)
    return {"Payload": spelt} if spelt else {}


def stamp(key: str, present: Mapping[str, str]) -> dict[str, str]:
    """Name our key as the custom id; where the mailer has one, in the payload beside the mailer's own fields."""
    if not present.get(_ID_HEADER, "").strip():
        return {_ID_HEADER: key}
    return keyed(key, present, _PAYLOAD_HEADER)


PROVIDER = Provider(
    name=NAME,
    configured=has_secret,
    authenticate=by_secret,
    parse=parse,
    # `250 OK queued as` and the Message_GUID.
    reply_id=reply_id,
    stamp=stamp,
    stamped=(_ID_HEADER, _PAYLOAD_HEADER),
    hosts=("mailjet.com",),
)
