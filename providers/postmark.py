"""Postmark: one JSON object per POST, believed by a secret in the address, as Basic password or as bearer token.

No event repeats the Message-ID: our key travels in the metadata, which the header `X-PM-Metadata-outrider` sets and
Postmark takes out again. `X-PM-KeepID` keeps our Message-ID in the mail itself, so that replies and bounces name it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from providers.credentials import by_secret, has_secret
from providers.fields import TOKEN_FIELD, codes, decoded, encoded, first, named, strings, text, texts, time_ms
from providers.identity import fingerprint, uuid_in
from providers.notice import Bounce, Notice, Step, What
from providers.webhook import MalformedError, Parsed, Provider, Request

NAME = "postmark"

_METADATA_HEADER = f"X-PM-Metadata-{TOKEN_FIELD}"
_KEEP_HEADER = "X-PM-KeepID"

Verdict = tuple[What, Bounce | None]

#: `RecordType` to what happened. A bounce and a change of subscription say more in another field.
_RECORDS: Mapping[str, What] = MappingProxyType(
    {
        "Bounce": What.BOUNCED,
        "Click": What.CLICKED,
        "Delivery": What.DELIVERED,
        "Open": What.OPENED,
        "SpamComplaint": What.COMPLAINED,
        "SubscriptionChange": What.UNSUBSCRIBED,
    }
)
#: Webhooks of the older kind have no `RecordType`; each has a field that no other has.
_OLDER: Mapping[str, str] = MappingProxyType(
    {
        "BouncedAt": "Bounce",
        "OriginalLink": "Click",
        "DeliveredAt": "Delivery",
        "FirstOpen": "Open",
        "SuppressSending": "SubscriptionChange",
    }
)
#: `Type` of a bounce or complaint.
_BOUNCES: Mapping[str, Verdict] = MappingProxyType(
    {
        "HardBounce": (What.BOUNCED, Bounce.HARD),
        # Postmark did not try: it is no address.
        "BadEmailAddress": (What.REJECTED, Bounce.HARD),
        "SoftBounce": (What.BOUNCED, Bounce.SOFT),
        # These three are tried again.
        "Transient": (What.DEFERRED, None),
        "DnsError": (What.DEFERRED, None),
        "OpenRelayTest": (What.DEFERRED, None),
        "Blocked": (What.BOUNCED, Bounce.BLOCK),
        "DMARCPolicy": (What.BOUNCED, Bounce.BLOCK),
        "VirusNotification": (What.BOUNCED, Bounce.BLOCK),
        "ManuallyDeactivated": (What.BOUNCED, Bounce.SUPPRESSED),
        "Unconfirmed": (What.REJECTED, None),
        "Unknown": (What.BOUNCED, Bounce.UNKNOWN),
        "SpamNotification": (What.COMPLAINED, None),
        "SpamComplaint": (What.COMPLAINED, None),
        "Unsubscribe": (What.UNSUBSCRIBED, None),
        "Subscribe": (What.SUBSCRIBED, None),
        # Somebody's machine answered: the mail arrived, and nobody has read it.
        "AutoResponder": (What.UNKNOWN, None),
        "AddressChange": (What.UNKNOWN, None),
        "ChallengeVerification": (What.UNKNOWN, None),
        "SMTPApiError": (What.FAILED, None),
        "TemplateRenderingFailed": (What.FAILED, None),
        # About mail to us.
        "InboundError": (What.UNKNOWN, None),
    }
)
#: `SuppressionReason`: only a person's own wish is an unsubscribe.
_SUPPRESSIONS: Mapping[str, Verdict] = MappingProxyType(
    {
        "HardBounce": (What.BOUNCED, Bounce.HARD),
        "SpamComplaint": (What.COMPLAINED, None),
        "ManualSuppression": (What.UNSUBSCRIBED, None),
    }
)
# How its SMTP door reports an address on its own list, which only then comes to light: API error 406.
_ON_THE_LIST = "marked as inactive"
#: What stands for a message where a change of subscription has none.
_NO_MESSAGE = "00000000-0000-0000-0000-000000000000"


def parse(request: Request) -> Parsed:
    """Read one event."""
    event = decoded(request.body)
    if not isinstance(event, dict):
        raise MalformedError("the body is no event")
    return Parsed(notices=(_notice(event),))


def _notice(event: dict[str, Any]) -> Notice:
    record = _record(event)
    what, bounce = _verdict(event, record)
    details = text(event, "Details")
    smtp_code, enhanced_code = codes(details) if details else codes(text(event, "Description"))
    clicked = what is What.CLICKED
    message = text(event, "MessageID").lower().replace(_NO_MESSAGE, "")
    metadata = strings(event, "Metadata")
    return Notice(
        provider=NAME,
        what=what,
        dedupe=_dedupe(event, record),
        at_ms=_at(event),
        recipient=first(event, "Recipient", "Email"),
        names=named(
            (Step.TOKEN, metadata.get(TOKEN_FIELD, "")),
            (Step.REPLY_ID, message),
            (Step.PROVIDER_ID, message),
        ),
        bounce=bounce,
        smtp_code=smtp_code,
        enhanced_code=enhanced_code,
        description=details or first(event, "Description", "SuppressionReason", "Type"),
        url=text(event, "OriginalLink") if clicked else "",
        user_agent=text(event, "UserAgent"),
        ip=text(event, "Geo", "IP"),
        tags=texts(event, "Tag"),
        metadata=metadata,
        raw=encoded(event),
    )


def _record(event: Mapping[str, Any]) -> str:
    if record := text(event, "RecordType"):
        return record
    return next((record for field, record in _OLDER.items() if field in event), "")


def _verdict(event: Mapping[str, Any], record: str) -> Verdict:
    what = _RECORDS.get(record, What.UNKNOWN)
    match what:
        case What.BOUNCED:
            if _ON_THE_LIST in text(event, "Details") + text(event, "Description"):
                return What.BOUNCED, Bounce.SUPPRESSED
            return _BOUNCES.get(text(event, "Type"), (What.BOUNCED, Bounce.UNKNOWN))
        case What.UNSUBSCRIBED if event.get("SuppressSending") is True:
            return _SUPPRESSIONS.get(text(event, "SuppressionReason"), (What.UNKNOWN, None))
        case What.UNSUBSCRIBED:
            return (What.SUBSCRIBED if event.get("SuppressSending") is False else What.UNKNOWN), None
        case _:
            return what, None


def _at(event: Mapping[str, Any]) -> int | None:
    moments = (time_ms(event, name) for name in ("DeliveredAt", "BouncedAt", "ReceivedAt", "ChangedAt"))
    return next((at for at in moments if at is not None), None)


def _dedupe(event: Mapping[str, Any], record: str) -> str:
    """Return the bounce's id; other events have none."""
    known = text(event, "ID").strip() if record in {"Bounce", "SpamComplaint"} else ""
    # The same id comes again when a bounce is told anew as a complaint: that is news.
    if known not in {"", "0"}:
        return f"{record}:{known}"
    moment = first(event, "DeliveredAt", "BouncedAt", "ReceivedAt", "ChangedAt")
    told = (record, text(event, "MessageID"), first(event, "Recipient", "Email"), moment)
    return fingerprint(event, told, (text(event, "OriginalLink"), text(event, "SuppressionReason")))


def stamp(key: str, present: Mapping[str, str]) -> dict[str, str]:
    """Name our key in the metadata, beside the at most nine fields of the mailer, and have our Message-ID kept."""
    stamped = {_METADATA_HEADER: key}
    return stamped if present.get(_KEEP_HEADER) else stamped | {_KEEP_HEADER: "true"}


PROVIDER = Provider(
    name=NAME,
    configured=has_secret,
    authenticate=by_secret,
    parse=parse,
    # Its 250 is not documented; a UUID in it can only be the MessageID, and otherwise matches nothing.
    reply_id=uuid_in,
    stamp=stamp,
    stamped=(_METADATA_HEADER, _KEEP_HEADER),
    hosts=("postmarkapp.com",),
    # It reaches the recipient, and no event.
    keeps_message_id=False,
)
