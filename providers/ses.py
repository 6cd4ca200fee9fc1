"""Amazon SES: events of a configuration set, and notifications of an identity, both through Amazon SNS.

SNS's signature is the proof, and only from a topic that the operator named. Raw message delivery has no signature and
is not supported. SES replaces our Message-ID on the way out, but repeats it in its events where they hold the original
headers; otherwise the id in its 250, or our key in a message tag, names the message.
"""

import hashlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from providers import sns
from providers.fields import TOKEN_FIELD, codes, encoded, entries, first, header, mapping, named, text, texts, time_ms
from providers.notice import Bounce, Name, Notice, Step, What
from providers.ses_upstream import HOSTS, TAGS_HEADER, reply_id, stamp
from providers.webhook import DeniedError, Fetch, MalformedError, Parsed, Proven, Provider, Request, Trust

NAME = "ses"

#: `eventType` or `notificationType`, in lower case without spaces, to what happened and the field that tells more.
_EVENTS: Mapping[str, tuple[What, str]] = MappingProxyType(
    {
        # SES has the message and will try: it has not sent it yet, whatever the name says.
        "send": (What.ACCEPTED, "send"),
        "reject": (What.REJECTED, "reject"),
        "renderingfailure": (What.FAILED, "failure"),
        "delivery": (What.DELIVERED, "delivery"),
        "deliverydelay": (What.DEFERRED, "deliveryDelay"),
        "bounce": (What.BOUNCED, "bounce"),
        "complaint": (What.COMPLAINED, "complaint"),
        "open": (What.OPENED, "open"),
        "click": (What.CLICKED, "click"),
        "subscription": (What.UNSUBSCRIBED, "subscription"),
    }
)
# SES publishes a transient bounce only when it has stopped trying.
_BOUNCES: Mapping[str, Bounce] = MappingProxyType(
    {"permanent": Bounce.HARD, "transient": Bounce.SOFT, "undetermined": Bounce.SOFT}
)
#: Subtypes of bounces and complaints that never left SES.
_NEVER_SENT = frozenset({"suppressed", "onaccountsuppressionlist", "ontenantsuppressionlist", "unsubscribedrecipient"})
#: The recipient took it out of the spam folder; a receiver reports on SPF or DKIM. Nobody minded the mail.
_NO_COMPLAINTS = frozenset({"not-spam", "auth-failure"})
#: What SES and SNS say of themselves when a topic is connected.
_GREETINGS = ("Successfully validated SNS topic", "You have successfully subscribed your Amazon SNS topic")
_GREETING_KIND = "amazonsnssubscriptionsucceeded"

_HEADERS_LIMIT = 40


def configured(trust: Trust) -> bool:
    """Say whether the operator named a topic."""
    return bool(trust.topics)


def authenticate(request: Request, trust: Trust, now: float, documents: Mapping[str, bytes]) -> Proven | Fetch:
    """Believe what a named topic signed; ask for its certificate first; raise `DeniedError`."""
    try:
        sent = sns.envelope(request.body)
    except MalformedError:
        raise DeniedError("no SNS message") from None
    # Before anything is fetched: a stranger's topic costs nothing.
    if sent.topic_arn not in trust.topics:
        raise DeniedError("a topic that is not named")
    url = sns.certificate_url(sent)
    if url not in documents:
        return Fetch(url=url)
    sns.verify(sent, documents[url], now)
    return Proven()


def parse(request: Request) -> Parsed:
    """Read one SNS message: an event, or the confirmation of a subscription to a topic that `authenticate` let in."""
    sent = sns.envelope(request.body)
    if sent.type is not sns.Kind.NOTIFICATION:
        # An end of a subscription holds a SubscribeURL too: asking for that one would begin it again.
        return Parsed(visit=sns.confirmation_url(sent))
    if sent.message.startswith(_GREETINGS):
        return Parsed()
    try:
        event = msgspec.json.decode(sent.message)
    except (msgspec.DecodeError, RecursionError):
        event = sent.message
    if _kind(event) == _GREETING_KIND:
        return Parsed()
    return Parsed(notices=tuple(_notices(event, sent)))


def _kind(event: Any) -> str:
    return first(event, "eventType", "notificationType").casefold().replace(" ", "")


def _notices(event: Any, sent: sns.Envelope) -> Iterator[Notice]:
    kind = _kind(event)
    what, place = _EVENTS.get(kind, (What.UNKNOWN, ""))
    detail = mapping(event, place)
    common = Notice(
        provider=NAME,
        what=what,
        dedupe=_dedupe(event, kind, detail, sent),
        at_ms=_at(event, detail, sent),
        names=_names(event),
        metadata=_metadata(event, detail),
        raw=encoded(event),
    )
    told = {address: one for one in _recipients(kind, detail) if (address := text(one, "emailAddress"))}
    for address in told or _destinations(event, kind):
        fields = _reasons(kind, what, detail, told.get(address, {}))
        yield msgspec.structs.replace(common, recipient=address, dedupe=f"{common.dedupe}:{address}", **fields)


def _recipients(kind: str, detail: Mapping[str, Any]) -> list[dict[str, Any]]:
    match kind:
        case "bounce":
            return entries(detail, "bouncedRecipients")
        case "deliverydelay":
            return entries(detail, "delayedRecipients")
        case "delivery":
            return [{"emailAddress": address} for address in texts(detail, "recipients")]
        case "complaint":
            # Most receivers hide who complained, and SES then lists everybody at that receiver: several are a guess.
            suspects = entries(detail, "complainedRecipients")
            return suspects if len(suspects) == 1 else []
        case _:
            return []


def _destinations(event: Any, kind: str) -> tuple[str, ...]:
    """Return whom the event is about, where its own part names nobody."""
    everyone = tuple(dict.fromkeys(texts(event, "mail", "destination")))
    # These befall the whole message; of any other kind it is not said which of several recipients it was.
    if everyone and (len(everyone) == 1 or kind in {"send", "reject", "renderingfailure"}):
        return everyone
    return ("",)


def _reasons(kind: str, what: What, detail: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields in which the kinds differ."""
    match kind:
        case "bounce":
            words = _words(detail, "bounceType", "bounceSubType")
            return {"bounce": _bounce(detail), **_diagnosis(one, words)}
        case "deliverydelay":
            return _diagnosis(one, text(detail, "delayType"))
        case "delivery":
            said = text(detail, "smtpResponse")
            smtp_code, enhanced_code = codes(said)
            return {"smtp_code": smtp_code, "enhanced_code": enhanced_code, "description": said}
        case "open" | "click":
            seen = {"user_agent": text(detail, "userAgent"), "ip": text(detail, "ipAddress")}
            return seen | {"url": text(detail, "link")}
        case "complaint":
            return _complaint(detail)
        case "subscription":
            return {"what": _wish(detail), "description": text(detail, "contactList")}
        case "reject" | "renderingfailure":
            return {"description": first(detail, "reason", "errorMessage")}
        case _:
            return {"description": kind if what is What.UNKNOWN else ""}


def _words(detail: Mapping[str, Any], *names: str) -> str:
    return "/".join(word for name in names if (word := text(detail, name)))


def _diagnosis(one: Mapping[str, Any], otherwise: str) -> dict[str, str]:
    said = text(one, "diagnosticCode")
    smtp_code, enhanced_code = codes(said)
    return {
        "smtp_code": smtp_code,
        "enhanced_code": codes(text(one, "status"))[1] or enhanced_code,
        "description": said or otherwise,
    }


def _bounce(detail: Mapping[str, Any]) -> Bounce:
    if text(detail, "bounceSubType").casefold() in _NEVER_SENT:
        return Bounce.SUPPRESSED
    return _BOUNCES.get(text(detail, "bounceType").casefold(), Bounce.UNKNOWN)


def _complaint(detail: Mapping[str, Any]) -> dict[str, Any]:
    words = _words(detail, "complaintFeedbackType", "complaintSubType")
    if text(detail, "complaintSubType").casefold() in _NEVER_SENT:
        return {"what": What.BOUNCED, "bounce": Bounce.SUPPRESSED, "description": words}
    if text(detail, "complaintFeedbackType").casefold() in _NO_COMPLAINTS:
        return {"what": What.UNKNOWN, "description": words}
    return {"description": words}


def _wish(detail: Mapping[str, Any]) -> What:
    """Return what a contact decided: to be left alone by everything or by a topic, or to be written to."""
    new = mapping(detail, "newTopicPreferences")
    before, after = _topics(mapping(detail, "oldTopicPreferences")), _topics(new)
    left = any(state == "optout" and before.get(topic) != "optout" for topic, state in after.items())
    if new.get("unsubscribeAll") is True or left:
        return What.UNSUBSCRIBED
    return What.SUBSCRIBED if new.get("unsubscribeAll") is False or after else What.UNKNOWN


def _topics(preferences: Mapping[str, Any]) -> dict[str, str]:
    topics = entries(preferences, "topicSubscriptionStatus")
    return {text(one, "topicName"): text(one, "subscriptionStatus").casefold() for one in topics}


def _names(event: Any) -> tuple[Name, ...]:
    mail = mapping(event, "mail")
    own = text(mail, "messageId")
    # Of a message to several this is no name of one recipient's, and must not be learnt as that.
    several = len(set(texts(mail, "destination"))) > 1
    return named(
        (Step.MESSAGE_ID, header(mail.get("headers"), "Message-ID")),
        (Step.MESSAGE_ID, text(mail, "commonHeaders", "messageId")),
        (Step.REPLY_ID, own),
        *((Step.TOKEN, token) for token in texts(mail, "tags", TOKEN_FIELD)),
        (Step.BATCH if several else Step.PROVIDER_ID, own),
    )


def _metadata(event: Any, detail: Mapping[str, Any]) -> dict[str, str]:
    """Return the message tags, the tags of a clicked link, and the headers by which mailers know their mail."""
    mail = mapping(event, "mail")
    written = [(text(one, "name"), text(one, "value")) for one in entries(mail, "headers")]
    kept = [pair for pair in written if pair[0].lower().startswith(("x-", "feedback-id", "list-id"))]
    tagged = [
        (text({"name": name}, "name"), ",".join(values))
        for tags in (mapping(detail, "linkTags"), mapping(mail, "tags"))
        for name in tags
        if (values := texts(tags, name))
    ]
    return dict(kept[:_HEADERS_LIMIT] + tagged)


def _at(event: Any, detail: Mapping[str, Any], sent: sns.Envelope) -> int | None:
    places = ((detail, "timestamp"), (mapping(event, "mail"), "timestamp"), ({"sent": sent.timestamp}, "sent"))
    return next((at for place in places if (at := time_ms(*place)) is not None), None)


def _dedupe(event: Any, kind: str, detail: Mapping[str, Any], sent: sns.Envelope) -> str:
    """Return the feedback's id, the same in an event and in a notification of it; else the SNS message's."""
    if known := text(detail, "feedbackId").strip():
        return f"{kind}:{known}"
    return text({"id": sent.message_id}, "id").strip() or hashlib.sha256(encoded(event)).hexdigest()


PROVIDER = Provider(
    name=NAME,
    configured=configured,
    authenticate=authenticate,
    parse=parse,
    reply_id=reply_id,
    stamp=stamp,
    stamped=(TAGS_HEADER,),
    # It stands in events only while the original headers do, and never in the mail that arrives.
    keeps_message_id=False,
    hosts=HOSTS,
)
