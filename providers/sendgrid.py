"""SendGrid: the Event Webhook, batches of events under an ECDSA signature.

Our key travels in `unique_args`, whose fields stand at the top level of every event; the id of the 250 is what
`sg_message_id` begins with. `smtp-id` is our Message-ID only where SendGrid kept it, and opens and clicks lack it.
"""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from providers import generic
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
from providers.notice import Bounce, Name, Notice, Step, What
from providers.replies import bounce_of
from providers.signatures import ecdsa_signed, from_base64, p256_key
from providers.webhook import DeniedError, MalformedError, Parsed, Proven, Provider, Request, Trust

_NAME = "sendgrid"

#: SendGrid tries for 24 hours and does not say whether it signs each try anew: a shorter limit could lose what
#: happened while we were down. The signature covers the body and `sg_event_id` makes copies one: a replay adds nothing.
OLDEST = 25 * 3600
#: How far the clocks may differ, in seconds.
SKEW = 300

_STAMP_LIMIT = 10_000

_EVENTS: Mapping[str, What] = MappingProxyType(
    {
        "processed": What.ACCEPTED,
        "dropped": What.REJECTED,
        "deferred": What.DEFERRED,
        "delivered": What.DELIVERED,
        "bounce": What.BOUNCED,
        "open": What.OPENED,
        "click": What.CLICKED,
        "spamreport": What.COMPLAINED,
        "unsubscribe": What.UNSUBSCRIBED,
        "group_unsubscribe": What.UNSUBSCRIBED,
        "group_resubscribe": What.SUBSCRIBED,
    }
)
#: Of the account, not of a message.
_ELSEWHERE = frozenset({"account_status_change"})

#: `type` of a bounce, where the codes say nothing.
_BOUNCES: Mapping[str, Bounce] = MappingProxyType(
    {"bounce": Bounce.HARD, "blocked": Bounce.BLOCK, "expired": Bounce.SOFT}
)
#: `reason` of a drop that one of SendGrid's own lists made.
_LISTED = frozenset({"bounced address", "unsubscribed address", "spam reporting address", "invalid"})

#: Fields of SendGrid's own; what else stands in an event is the mailer's metadata. All of `sg_*` is SendGrid's too.
_OWN = frozenset(
    {
        *(
            "asm_group_id",
            "attempt",
            "bounce_classification",
            "category",
            "cert_err",
            "domain",
            "email",
            "event",
            "from",
        ),
        *("ip", "marketing_campaign_id", "marketing_campaign_name", "marketing_campaign_split_id"),
        *("marketing_campaign_version", "mc_auto_id", "mc_auto_name", "mc_auto_step_id", "mc_pod_id", "mc_stats"),
        *("newsletter", "nlvx_campaign_id", "nlvx_campaign_split_id", "nlvx_user_id", "phase_id", "pool", "post_type"),
        *("reason", "response", "send_at", "singlesend_id", "singlesend_name", "smtp-id", "status", "template"),
        *("template_hash", "template_id", "template_name", "template_version_id", "timestamp", "tls", "type", "url"),
        *("url_offset", "useragent"),
    }
)


def configured(trust: Trust) -> bool:
    """Say whether a P-256 key can be read among the secrets."""
    return any(p256_key(secret) is not None for secret in trust.secrets)


def authenticate(
    request: Request,
    trust: Trust,
    now: float,
    documents: Mapping[str, bytes],  # noqa: ARG001 - the shape of `Provider.authenticate`
) -> Proven:
    """Believe what one of the keys has signed in the last day; raise `DeniedError`."""
    at = request.headers.get("x-twilio-email-event-webhook-timestamp", "").strip()
    if not (at.isascii() and at.isdigit() and len(at) <= 12):
        raise DeniedError("no timestamp")
    if not -SKEW <= now - int(at) <= OLDEST:
        raise DeniedError("a stale timestamp")
    signature = from_base64(request.headers.get("x-twilio-email-event-webhook-signature", ""))
    keys = [key for secret in trust.secrets if (key := p256_key(secret)) is not None]
    if not any(ecdsa_signed(key, signature, at.encode() + request.body) for key in keys):
        raise DeniedError("no signature, or a wrong one")
    return Proven()


def parse(request: Request) -> Parsed:
    """Read a batch; raise `MalformedError` where the body is no list."""
    batch = decoded(request.body)
    if not isinstance(batch, list):
        raise MalformedError("the body is not a list of events")
    return Parsed(notices=tuple(_notice(event) for event in batch if text(event, "event") not in _ELSEWHERE))


def _notice(event: Any) -> Notice:
    kept = encoded(event)
    what = _EVENTS.get(text(event, "event"), What.UNKNOWN)
    what, bounce = _verdict(event, what)
    smtp_code, enhanced_code = _codes(event)
    # The address of an event that is none is that of SendGrid's own server.
    engaged = what in {What.OPENED, What.CLICKED, What.UNSUBSCRIBED, What.SUBSCRIBED}
    return Notice(
        provider=_NAME,
        what=what,
        dedupe=text(event, "sg_event_id").strip() or hashlib.sha256(kept).hexdigest(),
        at_ms=time_ms(event, "timestamp"),
        recipient=text(event, "email").strip(),
        names=_names(event),
        bounce=bounce,
        smtp_code=smtp_code,
        enhanced_code=enhanced_code,
        description=first(event, "reason", "response"),
        url=text(event, "url"),
        user_agent=text(event, "useragent"),
        ip=text(event, "ip") if engaged else "",
        machine="sg_machine_open" if mapping(event).get("sg_machine_open") is True else "",
        tags=texts(event, "category"),
        metadata=_metadata(event),
        raw=kept,
    )


def _names(event: Any) -> tuple[Name, ...]:
    provider_id = text(event, "sg_message_id")
    return named(
        (Step.MESSAGE_ID, text(event, "smtp-id")),
        (Step.REPLY_ID, provider_id.partition(".")[0]),
        (Step.TOKEN, text(event, TOKEN_FIELD)),
        (Step.PROVIDER_ID, provider_id),
    )


def _verdict(event: Any, what: What) -> tuple[What, Bounce | None]:
    if what is What.REJECTED and text(event, "reason").strip().lower() in _LISTED:
        return What.BOUNCED, Bounce.SUPPRESSED
    if what is not What.BOUNCED:
        return what, None
    kind = text(event, "type").strip().lower()
    said = bounce_of(*_codes(event))
    if kind == "blocked":
        return what, Bounce.SOFT if said is Bounce.SOFT else Bounce.BLOCK
    return what, _BOUNCES.get(kind, said) if said is Bounce.UNKNOWN else said


def _codes(event: Any) -> tuple[str, str]:
    """Return the codes in the server's words; `status` comes first, but `type` of a drop is no code."""
    _, status = codes(text(event, "status"))
    code, enhanced = codes(first(event, "reason", "response"))
    return code, status or enhanced


def _metadata(event: Any) -> dict[str, str]:
    return strings({name: one for name, one in mapping(event).items() if name not in _OWN and name[:3] != "sg_"})


def stamp(key: str, present: Mapping[str, str]) -> dict[str, str]:
    """Put our key into `unique_args`, beside the mailer's; leave what is no JSON object, or would be too long."""
    before = present.get("X-SMTPAPI", "")
    try:
        known = msgspec.json.decode(before) if before.strip() else {}
        arguments = known.get("unique_args", {}) if isinstance(known, dict) else None
        if not isinstance(arguments, dict):
            return {}
        merged = ascii_json(known | {"unique_args": arguments | {TOKEN_FIELD: key}})
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
    return {"X-SMTPAPI": merged} if len(merged) <= _STAMP_LIMIT else {}


PROVIDER = Provider(
    name=_NAME,
    configured=configured,
    authenticate=authenticate,
    parse=parse,
    reply_id=generic.reply_id,
    stamp=stamp,
    stamped=("X-SMTPAPI",),
    hosts=("sendgrid.net",),
)
