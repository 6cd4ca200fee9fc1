"""Azure Communication Services: e-mail events that Event Grid posts, in its own schema or as CloudEvents 1.0.

A request is believed by a secret: `?key=` in the webhook's address, a Basic password, a bearer token, or the static
delivery property `Outrider-Key`; or by a token of Entra ID (`providers/entra.py`). The handshake of a new subscription
needs it too, and of the secrets it is surely given only the address: put it there.

Azure offers no place for our key, so that the Message-ID is all that names a message, and it replaces one that it has
seen before: what is sent again in doubt leaves as `key.2@…`. A report of a suppressed address comes without it. A
delivery report and an engagement report of one message have different `messageId`s.
"""

import hashlib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from providers.credentials import any_equal, by_secret, has_secret
from providers.entra import by_token, is_token
from providers.fields import codes, decoded, encoded, first, mapping, named, text, time_ms
from providers.generic import reply_id
from providers.notice import Bounce, Notice, Step, What
from providers.webhook import Answer, DeniedError, Fetch, MalformedError, Parsed, Proven, Provider, Request, Trust

NAME = "azure"

#: The delivery property whose value is the secret; Event Grid sends its name as the operator spells it.
SECRET_HEADER = "outrider-key"  # noqa: S105 - a header's name

_DELIVERY = "microsoft.communication.emaildeliveryreportreceived"
_ENGAGEMENT = "microsoft.communication.emailengagementtrackingreportreceived"
_VALIDATION = "microsoft.eventgrid.subscriptionvalidationevent"
_DELETED = "microsoft.eventgrid.subscriptiondeletedevent"

#: `status` of a delivery report. It is the last word on the recipient: Azure has stopped trying.
_STATUSES: Mapping[str, tuple[What, Bounce | None]] = MappingProxyType(
    {
        "delivered": (What.DELIVERED, None),
        # The address was a list and has taken the message; how its members fare is never told.
        "expanded": (What.DELIVERED, None),
        "bounced": (What.BOUNCED, Bounce.HARD),
        "failed": (What.FAILED, Bounce.UNKNOWN),
        "suppressed": (What.BOUNCED, Bounce.SUPPRESSED),
        "quarantined": (What.BOUNCED, Bounce.BLOCK),
        "filteredspam": (What.BOUNCED, Bounce.BLOCK),
    }
)
_ENGAGEMENTS: Mapping[str, What] = MappingProxyType({"view": What.OPENED, "click": What.CLICKED})

# A whole address, so that neither a user name nor another port nor a look-alike host can hide in it.
_VALIDATION_URL = re.compile(r"https://(?:[a-z0-9-]{1,63}\.){1,8}eventgrid\.azure\.net(?::443|:553)?/[!-\[\]-~]*")
_EVENT_GRID = "eventgrid.azure.net"
_ORIGIN = re.compile(r"[A-Za-z0-9.-]{1,253}")


def configured(trust: Trust) -> bool:
    """Say whether the operator named a secret, or whose tokens to believe."""
    return has_secret(trust) or trust.entra is not None


def authenticate(request: Request, trust: Trust, now: float, documents: Mapping[str, bytes]) -> Proven | Fetch:
    """Believe a request that brings one of the secrets, or a token; raise `DeniedError`."""
    if any_equal(request.headers.get(SECRET_HEADER, "").strip(), trust.secrets):
        return Proven()
    authorization = request.headers.get("authorization", "")
    if trust.entra is not None and is_token(authorization):
        return by_token(authorization, trust.entra, now, documents)
    return by_secret(request, trust, now, documents)


def probe(request: Request, trust: Trust) -> Answer | None:
    """Answer the OPTIONS of a CloudEvents handshake, if it brings a secret or comes from Event Grid's own name."""
    origin = request.headers.get("webhook-request-origin", "").strip()
    if request.method != "OPTIONS" or _ORIGIN.fullmatch(origin) is None:
        return None
    # It promises nothing but that events may come: each of them has to bring its token then.
    if trust.entra is None or origin.lower() != _EVENT_GRID:
        try:
            authenticate(request, msgspec.structs.replace(trust, entra=None), 0.0, {})
        except DeniedError:
            return Answer(status=401)
    allowed = {"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*", "Allow": "OPTIONS, POST"}
    return Answer(headers=allowed)


def parse(request: Request) -> Parsed:
    """Read one event or a batch of them, in either schema."""
    body = decoded(request.body)
    events = [body] if isinstance(body, dict) else body
    if not isinstance(events, list):
        raise MalformedError("the body is neither an event nor a list of events")
    kinds = [(_kind(event), event) for event in events]
    notices = tuple(_notice(kind, event) for kind, event in kinds if kind not in {_VALIDATION, _DELETED})
    handshake = next((_properties(event) for kind, event in kinds if kind == _VALIDATION), {})
    if code := text(handshake, "validationcode"):
        body = msgspec.json.encode({"validationResponse": code})
        return Parsed(notices=notices, answer=Answer(body=body, content_type="application/json"))
    url = text(handshake, "validationurl")
    return Parsed(notices=notices, visit=url if _VALIDATION_URL.fullmatch(url) else "")


def _kind(event: Any) -> str:
    return first(event, "eventType", "type").casefold()


def _properties(event: Any) -> dict[str, Any]:
    # `deliveryAttemptTimeStamp` is `deliveryAttemptTimestamp` elsewhere: capitals mean nothing.
    return {name.casefold(): value for name, value in mapping(event, "data").items()}


def _notice(kind: str, event: Any) -> Notice:
    properties = _properties(event)
    return msgspec.structs.replace(
        _seen(kind, properties),
        dedupe=_dedupe(kind, event, properties),
        at_ms=_at(event, properties),
        recipient=text(properties, "recipient"),
        names=named(
            (Step.MESSAGE_ID, text(properties, "internetmessageid")),
            (Step.PROVIDER_ID, text(properties, "messageid")),
        ),
        raw=encoded(event),
    )


def _seen(kind: str, properties: Mapping[str, Any]) -> Notice:
    """Return what happened and why; the rest is the same for every kind."""
    if kind == _DELIVERY:
        return _delivery(properties)
    if kind == _ENGAGEMENT:
        word = first(properties, "engagementtype", "engagement")
        what = _ENGAGEMENTS.get(word.casefold(), What.UNKNOWN)
        return Notice(
            provider=NAME,
            what=what,
            dedupe="",
            url=text(properties, "engagementcontext") if what is What.CLICKED else "",
            user_agent=text(properties, "useragent"),
            description=word if what is What.UNKNOWN else "",
        )
    return Notice(provider=NAME, what=What.UNKNOWN, dedupe="", description=kind)


def _delivery(properties: Mapping[str, Any]) -> Notice:
    status = text(properties, "status")
    what, bounce = _STATUSES.get(status.casefold(), (What.UNKNOWN, None))
    said = text(properties, "deliverystatusdetails") or _message(mapping(properties, "deliverystatusdetails"))
    smtp_code, enhanced_code = codes(said)
    return Notice(
        provider=NAME,
        what=what,
        dedupe="",
        bounce=_refined(bounce, smtp_code, enhanced_code),
        smtp_code=smtp_code,
        enhanced_code=enhanced_code,
        description=said or status,
    )


def _message(details: Mapping[str, Any]) -> str:
    return text({name.casefold(): value for name, value in details.items()}, "statusmessage")


def _refined(bounce: Bounce | None, smtp_code: str, enhanced_code: str) -> Bounce | None:
    """Return the class that the receiver's own codes tell, where Azure's word covers several."""
    if bounce not in {Bounce.HARD, Bounce.UNKNOWN}:
        return bounce
    # RFC 3463 3.8: security or policy. The receiver would not have this sender or this mail.
    if enhanced_code.startswith("5.7."):
        return Bounce.BLOCK
    # RFC 3463 3.3: 5.2.2 is a full mailbox.
    if (enhanced_code or smtp_code).startswith("4") or enhanced_code == "5.2.2":
        return Bounce.SOFT
    return bounce


def _at(event: Any, properties: Mapping[str, Any]) -> int | None:
    places = (
        (properties, "deliveryattempttimestamp"),
        (properties, "useractiontimestamp"),
        (event, "eventTime"),
        (event, "time"),
    )
    return next((at for place in places if (at := time_ms(*place)) is not None), None)


def _dedupe(kind: str, event: Any, properties: Mapping[str, Any]) -> str:
    """Return the event's id, the same on every retry; without one, what makes it this event."""
    if known := text(event, "id").strip():
        return known
    told = (
        text(properties, "messageid"),
        text(properties, "recipient"),
        first(properties, "status", "engagementtype", "engagement"),
        first(properties, "deliveryattempttimestamp", "useractiontimestamp"),
        text(properties, "engagementcontext"),
    )
    whole = "\0".join((kind, *told)).encode() if any(told) else encoded(event)
    return hashlib.sha256(whole).hexdigest()


PROVIDER = Provider(
    name=NAME,
    configured=configured,
    authenticate=authenticate,
    parse=parse,
    probe=probe,
    # Its 250 is not documented, and no event repeats it.
    reply_id=reply_id,
    hosts=("smtp.azurecomm.net",),
    keeps_message_id=True,
    wants_fresh_ids=True,
)
