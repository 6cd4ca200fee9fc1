"""Postal: webhooks signed with the installation's own RSA key.

The key comes from the settings (also as the `p=` of its DKIM record) or from its key set. Every event names the
Message-ID that we wrote, because Postal keeps it and stores one message for each recipient. The signature has no time
in it: what is sent again has the same `uuid` and is counted once.
"""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from providers.fields import codes, decoded, encoded, mapping, named, text, time_ms
from providers.notice import Bounce, Notice, Step, What
from providers.replies import bounce_of
from providers.signatures import from_base64, key_set, rsa_key, rsa_signed
from providers.webhook import DeniedError, Fetch, MalformedError, Parsed, Proven, Provider, Request, Trust

_NAME = "postal"
_TAG = "X-Postal-Tag"

_EVENTS: Mapping[str, What] = MappingProxyType(
    {
        # The recipient's server has taken it: Postal has no later word.
        "MessageSent": What.DELIVERED,
        "MessageDelayed": What.DEFERRED,
        # Until somebody releases it in Postal, or it expires there.
        "MessageHeld": What.DEFERRED,
        "MessageDeliveryFailed": What.BOUNCED,
        "MessageBounced": What.BOUNCED,
        "MessageLoaded": What.OPENED,
        "MessageLinkClicked": What.CLICKED,
    }
)
#: Of a domain or of the mail server, not of a message.
_ELSEWHERE = frozenset({"DomainDNSError", "SendLimitApproaching", "SendLimitExceeded"})

#: What Postal writes into `details` when it made the decision itself, not the recipient's server.
_OWN_WORDS: Mapping[str, Bounce] = MappingProxyType(
    {
        "is on the suppression list": Bounce.SUPPRESSED,
        "maximum number of delivery attempts": Bounce.SOFT,
        "message is likely spam": Bounce.BLOCK,
    }
)


def configured(trust: Trust) -> bool:
    """Say whether an RSA key can be read among the secrets, or the operator named a key set over https."""
    return _over_https(trust.key_set) or any(rsa_key(secret) is not None for secret in trust.secrets)


def authenticate(
    request: Request,
    trust: Trust,
    now: float,  # noqa: ARG001 - the shape of `Provider.authenticate`: the signature names no time
    documents: Mapping[str, bytes],
) -> Proven | Fetch:
    """Believe what one of the keys has signed; raise `DeniedError`."""
    sha256 = from_base64(request.headers.get("x-postal-signature-256", ""))
    sha1 = from_base64(request.headers.get("x-postal-signature", "")) if trust.sha1 else b""
    if not sha256 and not sha1:
        raise DeniedError("no signature")

    def signed(key: RSAPublicKey) -> bool:
        if sha256:
            return rsa_signed(key, sha256, request.body)
        return rsa_signed(key, sha1, request.body, sha1=True)

    if any(signed(key) for secret in trust.secrets if (key := rsa_key(secret)) is not None):
        return Proven()
    if _over_https(trust.key_set):
        if trust.key_set not in documents:
            return Fetch(url=trust.key_set)
        kid = request.headers.get("x-postal-signature-kid", "").strip()
        if any(signed(key) for name, key in key_set(documents[trust.key_set]) if not kid or name == kid):
            return Proven()
    raise DeniedError("a signature of no known key")


def _over_https(url: str) -> bool:
    return url.lower().startswith("https://")


def parse(request: Request) -> Parsed:
    """Read one event; raise `MalformedError` where the body is no object. Incoming mail is nobody's send."""
    event = decoded(request.body)
    if not isinstance(event, dict):
        raise MalformedError("the body is not an event")
    if text(event, "event") in _ELSEWHERE or text(_message(event), "direction") == "incoming":
        return Parsed()
    return Parsed(notices=(_notice(event),))


def _message(event: dict[str, Any]) -> dict[str, Any]:
    """Return the message that the event is of; a bounce is itself a message, and names the one that came back."""
    return mapping(event, "payload", "original_message") or mapping(event, "payload", "message")


def _notice(event: dict[str, Any]) -> Notice:
    kept = encoded(event)
    payload, message = mapping(event, "payload"), _message(event)
    tag = text(message, "tag").strip()
    details, output = text(payload, "details"), text(payload, "output")
    what, bounce = _verdict(_EVENTS.get(text(event, "event"), What.UNKNOWN), text(event, "event"), details, output)
    smtp_code, enhanced_code = codes(output, details) if "status" in payload else ("", "")
    return Notice(
        provider=_NAME,
        what=what,
        dedupe=text(event, "uuid").strip() or hashlib.sha256(kept).hexdigest(),
        at_ms=_at_ms(payload, event),
        recipient=text(message, "to").strip(),
        # Not `id`: each mail server of an installation counts its own messages from 1.
        names=named(
            (Step.MESSAGE_ID, text(message, "message_id")),
            (Step.TOKEN, tag),
            (Step.PROVIDER_ID, text(message, "token")),
        ),
        bounce=bounce,
        smtp_code=smtp_code,
        enhanced_code=enhanced_code,
        description=" ".join(part for part in (details, output) if part),
        url=text(payload, "url"),
        user_agent=text(payload, "user_agent"),
        ip=text(payload, "ip_address"),
        tags=(tag,) if tag else (),
        raw=kept,
    )


def _at_ms(payload: dict[str, Any], event: dict[str, Any]) -> int | None:
    at = time_ms(payload, "timestamp")
    return time_ms(event, "timestamp") if at is None else at


def _verdict(what: What, word: str, details: str, output: str) -> tuple[What, Bounce | None]:
    own = next((one for words, one in _OWN_WORDS.items() if words in details.lower()), None)
    if word == "MessageHeld" and own is Bounce.SUPPRESSED:
        return What.BOUNCED, own
    if what is not What.BOUNCED:
        return what, None
    # The mail that came back is not shown, only that it is one.
    if word == "MessageBounced":
        return what, Bounce.UNKNOWN
    return what, own or bounce_of(*codes(output, details))


def reply_id(text: str) -> str | None:  # noqa: ARG001 - the shape of `Provider.reply_id`
    """Return none: Postal answers `250 OK` and no more."""
    return None


def stamp(key: str, present: Mapping[str, str]) -> dict[str, str]:
    """Put our key into the tag, of which a message has one; the mailer's own stays."""
    return {} if present.get(_TAG, "").strip() else {_TAG: key}


PROVIDER = Provider(
    name=_NAME,
    configured=configured,
    authenticate=authenticate,
    parse=parse,
    reply_id=reply_id,
    stamp=stamp,
    stamped=(_TAG,),
    keeps_message_id=True,
    # It offers no 8BITMIME (RFC 6152), so nobody promises that such octets arrive.
    eight_bit=False,
)
