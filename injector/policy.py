"""Decide which mails and which of their parts may be touched, from headers and structure alone.

Doubt is a reason: what mail programs could read in two ways, or what somebody signed, is left as it came.
"""

from collections.abc import Collection
from typing import Final

from injector.fields import Headers
from injector.message import Mail, Part
from injector.skip import Reason

INLINE_PGP: Final = b"-----BEGIN PGP "

#: Whoever changes a byte below them breaks these.
DKIM_SIGNATURE: Final = "dkim-signature"
SEALS: Final = (DKIM_SIGNATURE, "arc-seal")
#: What goes when a dead signature is stripped: half an ARC set would be a broken chain.
SEAL_FIELDS: Final = (DKIM_SIGNATURE, "arc-seal", "arc-message-signature", "arc-authentication-results")

_SIGNED: Final = frozenset({"multipart/signed"})
_ENCRYPTED: Final = frozenset({"multipart/encrypted", "application/pgp-encrypted"})
_REPORT: Final = frozenset({"multipart/report", "message/delivery-status", "message/disposition-notification"})
_PKCS7: Final = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime"})
_AMP: Final = frozenset({"text/x-amp-html", "text/watch-html"})


def sealed(headers: Headers) -> bool:
    """Tell whether somebody signed this message with DKIM or sealed it with ARC."""
    return any(headers.count(name) for name in SEALS)


def resigned_for(mail: Mail, held: Collection[str]) -> tuple[str, ...]:
    """Return the domains whose dead signatures give way to new ones, in the order of the message.

    None when a signature names a domain that is not among *held*, cannot be read, or stands in a header that mail
    programs could read in two ways; and none below an ARC seal, which nobody but its maker could renew.
    """
    headers = mail.headers
    if mail.headers_start or not mail.separated or headers.over_limit or headers.count("arc-seal"):
        return ()
    named: dict[str, None] = {}
    for value in headers.all(DKIM_SIGNATURE):
        domain = _signing_domain(value)
        if domain is None or domain not in held:
            return ()
        named[domain] = None
    return tuple(named)


def _signing_domain(value: str) -> str | None:
    """Return the `d=` of a signature in lower case; None when there is not exactly one (RFC 6376 3.2)."""
    tags = [tag.partition("=") for tag in value.split(";")]
    named = [text.strip().lower() for name, _, text in tags if name.strip() == "d"]
    return named[0] if len(named) == 1 else None


def mail_reason(mail: Mail, *, keep_seals: bool) -> Reason | None:
    """Return why the whole body must stay as it is, or None."""
    if keep_seals and sealed(mail.headers):
        return Reason.DKIM_SIGNED
    if mail.reason:
        return mail.reason
    if mail.kind in _REPORT:
        return Reason.REPORT
    if is_automatic(mail.headers):
        return Reason.AUTO_SUBMITTED
    if mail.kind in _PKCS7:
        clear = mail.leaves[0].parameters.get("smime-type", "").lower() == "signed-data"
        return Reason.SIGNED if clear else Reason.ENCRYPTED
    return _container_reason((mail.kind,))


def is_automatic(headers: Headers) -> bool:
    """Tell whether a program sent this on its own account (RFC 3834 5)."""
    return any(
        value.partition(";")[0].partition("(")[0].strip().lower() not in {"", "no"}
        for value in headers.all("auto-submitted")
    )


def part_reason(part: Part, *, text_links: bool) -> Reason | None:
    """Return why *part* is not one whose links may be wrapped, or None."""
    if part.reason:
        return part.reason
    if reason := _container_reason(part.enclosing):
        return reason
    if part.kind.startswith("message/"):
        return Reason.EMBEDDED_MESSAGE
    if part.disposition not in {"", "inline"} or part.named:
        return Reason.ATTACHMENT
    match part.kind:
        case "text/html":
            return None
        case "text/plain":
            return None if text_links else Reason.TEXT_LINKS_OFF
        case "text/calendar":
            return Reason.CALENDAR
        case kind:
            return Reason.AMP if kind in _AMP else Reason.OTHER_TYPE


def _container_reason(kinds: tuple[str, ...]) -> Reason | None:
    for kind in kinds:
        if kind in _SIGNED:
            return Reason.SIGNED
        if kind in _ENCRYPTED:
            return Reason.ENCRYPTED
        if kind in _REPORT:
            return Reason.REPORT
    return None
