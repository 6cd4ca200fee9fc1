"""The grammar of an envelope address, on the bytes of a MAIL or RCPT argument (RFC 5321 4.1.2).

Nothing is decoded, trimmed or repaired inside an address: it comes out as it went in, or not at all. The stdlib's
header grammar does not stand here, because it takes controls and decodes encoded words into line breaks.
"""

import re
import unicodedata
from enum import StrEnum

import msgspec

MAX_LOCAL_OCTETS = 64  # RFC 5321 4.5.3.1.1
MAX_DOMAIN_OCTETS = 255  # RFC 5321 4.5.3.1.2


class Flaw(StrEnum):
    """Why an address is not taken."""

    SYNTAX = "syntax"
    NEEDS_UTF8 = "needs_utf8"


class Path(msgspec.Struct, frozen=True, kw_only=True):
    """What stands between the brackets, still unjudged, and the parameters after them."""

    #: The left side of the mailbox; empty, as the domain is, for the null path `<>`.
    local: bytes
    domain: bytes
    #: What follows the path, without its leading space.
    parameters: bytes


# Octets from 128 up pass here as UTF-8 to be; `mailbox` judges them. Every alternative below begins with another
# octet than its neighbour, so that a hostile argument cannot make the matching go back and forth.
_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]+"
_QUOTED = rb'"(?:[ !#-\[\]-~\x80-\xff]|\\[ -~])*"'
_DOMAIN = rb"[A-Za-z0-9.\x80-\xff-]+"
_MAILBOX = rb"(?:%b(?:\.%b)*|%b)@%b" % (_ATOM, _ATOM, _QUOTED, _DOMAIN)
_ROUTE = rb"@%b(?:,@%b)*:" % (_DOMAIN, _DOMAIN)
# A display name before the bracket is not in RFC 5321, but mailers send it; it is read over.
_PHRASE = rb"(?:%b|[ -!#-;=?-~\x80-\xff])*" % _QUOTED
_ARGUMENT = re.compile(
    rb"[ ]*(?:%b<(?:%b)?(?P<angled>%b)?>|(?P<bare>%b))(?:[ ]+(?P<parameters>.*))?"
    % (_PHRASE, _ROUTE, _MAILBOX, _MAILBOX)
)
_LABEL = rb"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_LDH = re.compile(rb"%b(?:\.%b)*" % (_LABEL, _LABEL))


def split_path(argument: bytes) -> Path | None:
    """Split what follows `FROM:` or `TO:` into a path and its parameters; None for anything that is no path.

    Taken are `<mailbox>`, `<>`, a source route (dropped, RFC 5321 appendix C), a display name before the bracket
    (dropped), and a mailbox without brackets.
    """
    match = _ARGUMENT.fullmatch(argument)
    if match is None:
        return None
    mailbox = match["angled"] or match["bare"] or b""
    local, _, domain = mailbox.rpartition(b"@")
    return Path(local=local, domain=domain, parameters=match["parameters"] or b"")


def mailbox(path: Path, *, utf8: bool) -> str | Flaw:
    """Return the address of a path as text, or why it is none; *utf8* says whether SMTPUTF8 was declared."""
    local, domain = path.local, path.domain
    if not 0 < len(local) <= MAX_LOCAL_OCTETS or not 0 < len(domain) <= MAX_DOMAIN_OCTETS:
        return Flaw.SYNTAX
    if b"=?" in local:
        # An encoded word (RFC 2047). Some server behind us may decode it into another address.
        return Flaw.SYNTAX
    if local.isascii() and domain.isascii():
        return f"{local.decode('ascii')}@{domain.decode('ascii')}" if _LDH.fullmatch(domain) else Flaw.SYNTAX
    if not utf8:
        return Flaw.NEEDS_UTF8
    return _international(local, domain)


def _international(local: bytes, domain: bytes) -> str | Flaw:
    try:
        address = f"{local.decode('utf-8')}@{domain.decode('utf-8')}"
    except UnicodeDecodeError:
        return Flaw.SYNTAX
    # C: controls, bidi marks and other invisible characters, surrogates, private use. Z: spaces and separators.
    if any(unicodedata.category(c)[0] in "CZ" for c in address if c > "~"):
        return Flaw.SYNTAX
    return address if _is_domain_name(domain.decode("utf-8")) else Flaw.SYNTAX


def _is_domain_name(domain: str) -> bool:
    try:
        ascii_form = domain.encode("idna")
    except UnicodeError:
        return False
    # Full-width and ideographic full stops would make labels that nobody sees.
    return (
        len(ascii_form) <= MAX_DOMAIN_OCTETS
        and _LDH.fullmatch(ascii_form) is not None
        and ascii_form.count(b".") == domain.count(".")
    )
