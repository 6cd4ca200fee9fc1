"""Judge a link: is it a web address that a redirect can reach exactly, or is it left alone, and why.

A link that is tracked is tracked as it was written: nothing here normalises, re-encodes or repairs a URL, because
pre-signed addresses break when a single octet changes. Whatever is in doubt is left alone.
"""

import codecs
import functools
import re
from enum import StrEnum
from typing import NamedTuple

import msgspec

from injector import address as addresses
from injector.globs import matches_any
from injector.query import spelled
from injector.references import unescape

#: A longer URL, in octets of UTF-8, stays untracked: its token would outgrow what clients and logs bear.
MAX_URL_OCTETS = 1500


class LinkReason(StrEnum):
    """Why a link is left as the mailer wrote it."""

    EMPTY = "empty"
    FRAGMENT = "fragment"
    RELATIVE = "relative"
    PROTOCOL_RELATIVE = "protocol_relative"
    #: A placeholder of the mailer or of the upstream stands in it: `{{…}}`, `{%…%}`, `%%…%%`, `*|…|*`, `[URL]`.
    TEMPLATE = "template"
    MAILTO = "mailto"
    TEL = "tel"
    SMS = "sms"
    CID = "cid"
    DATA = "data"
    JAVASCRIPT = "javascript"
    OTHER_SCHEME = "other_scheme"
    #: `https+notrack://`, the mailer's own opt-out: see `strip_notrack`.
    NOTRACK = "notrack"
    #: An attribute such as `clicktracking=off` stands beside the href; said by the caller, who sees it.
    OPT_OUT = "opt_out"
    NO_HOST = "no_host"
    BAD_HOST = "bad_host"
    BAD_PORT = "bad_port"
    USERINFO = "userinfo"
    BACKSLASH = "backslash"
    CONTROL_CHARACTER = "control_character"
    #: The charset is unknown, or the octets are not in it.
    UNDECODABLE = "undecodable"
    #: What it asks for depends on the part's charset, and programs differ on what that is.
    CHARSET_DEPENDENT = "charset_dependent"
    TOO_LONG = "too_long"
    OWN_LINK = "own_link"
    #: A pattern of the skip list matches it.
    SKIPPED = "skipped"
    #: The text that the reader sees is an address itself, and the settings leave such links alone; said by the caller.
    VISIBLE_URL = "visible_url"
    #: It is the `xlink:href` of a link in SVG, a retired spelling; said by the caller.
    XLINK = "xlink"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Either the URL to track, as written, or the reason to leave the link alone.

    A query whose octets depend on the page's charset stands in the URL as those octets, percent-encoded.
    """

    url: str | None = None
    reason: LinkReason | None = None


_C0_AND_SPACE = "".join(map(chr, range(0x21)))
_TAB_AND_NEWLINE = str.maketrans("", "", "\t\r\n")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_SCHEMES = {
    "mailto": LinkReason.MAILTO,
    "tel": LinkReason.TEL,
    "sms": LinkReason.SMS,
    "cid": LinkReason.CID,
    "data": LinkReason.DATA,
    "javascript": LinkReason.JAVASCRIPT,
    "http+notrack": LinkReason.NOTRACK,
    "https+notrack": LinkReason.NOTRACK,
}
# What nearly every link looks like: nothing in it can be read in two ways, and no placeholder but `%%…%%` fits in.
_USUAL = re.compile(r"https?://((?:[a-z0-9-]+\.)+[a-z]{2,})(?:[/?#][!-\[\]-z}~]*)?")
_USUAL_HOST_CHARS = 250
_TEMPLATE_PAIRS = (("{{", "}}"), ("{%", "%}"), ("*|", "|*"))
_PERCENT_FIELD = re.compile(r"%%[A-Za-z0-9_.:\[\] -]{1,64}%%")
_NON_ASCII = re.compile(rb"[\x80-\xff]")
_NOTRACK = re.compile(rb"\A([\x00-\x20]*https?)(?:\+|&#0{0,8}43;|&#x0{0,8}2b;|&plus;)notrack(?=:)", re.IGNORECASE)
_ATTRIBUTE_ESCAPES = str.maketrans(
    {"&": "&amp;", '"': "&quot;", "<": "&lt;", ">": "&gt;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
)
# Codecs that are no charsets of mail: they read more into plain ASCII than ASCII.
_NO_CHARSETS = frozenset({"idna", "punycode", "raw-unicode-escape", "unicode-escape", "utf-7", "undefined"})


def judge(value: bytes, *, charset: str, page: str, skip: tuple[str, ...], public_url: str) -> Verdict:
    """Judge a raw attribute value: its quotes taken off, its character references still encoded.

    *charset* reads the value; *page* is that of the whole page, in which a browser sends the query.
    """
    text = _text(value, charset)
    if text is None:
        return Verdict(reason=LinkReason.UNDECODABLE)
    verdict = judge_url(unescape(text), skip=skip, public_url=public_url)
    if verdict.url is None or verdict.url.isascii():
        return verdict
    url = spelled(verdict.url, page)
    if url is None:
        return Verdict(reason=LinkReason.CHARSET_DEPENDENT)
    return Verdict(reason=LinkReason.TOO_LONG) if _is_too_long(url) else Verdict(url=url)


def judge_url(url: str, *, skip: tuple[str, ...], public_url: str) -> Verdict:
    """Judge a URL as it stands in running text, or as an attribute's value means it."""
    # What a browser drops before it parses (WHATWG URL 4.4): C0 and space around, tab, CR and LF anywhere.
    url = url.strip(_C0_AND_SPACE)
    if not url.isprintable():
        url = url.translate(_TAB_AND_NEWLINE)
    reason = _reason(url, skip, public_url)
    return Verdict(url=url) if reason is None else Verdict(reason=reason)


def attribute(url: str) -> bytes:
    """Return *url* as an attribute value: double quotes included, ASCII only, right in every charset."""
    return b'"' + url.translate(_ATTRIBUTE_ESCAPES).encode("ascii", "xmlcharrefreplace") + b'"'


def location(url: str) -> str | None:
    """Return *url* for a Location header: every ASCII character as it is, the rest percent-encoded or in A-labels.

    None for what `judge` takes for no address either: not http(s), a control character, a host in doubt.
    """
    address = addresses.parse(url)
    if isinstance(address, addresses.Flaw):
        return None
    if url.isascii():
        return url
    tail = _NON_ASCII.sub(lambda octet: b"%%%02X" % octet[0][0], address.tail.encode("utf-8"))
    return f"{address.scheme}://{address.host}{address.port}{tail.decode('ascii')}"


def strip_notrack(value: bytes) -> bytes:
    """Return a raw attribute value with `https+notrack://` turned into `https://`; anything else as it is."""
    return _NOTRACK.sub(rb"\1", value, count=1)


def _text(value: bytes, charset: str) -> str | None:
    # ASCII means itself in every charset this may be called with, so an unknown label spoils no plain link.
    if value.isascii():
        return value.decode("ascii")
    try:
        name = codecs.lookup(charset).name
        if name in _NO_CHARSETS:
            return None
        return value.decode(name)
    except (LookupError, ValueError):
        return None


def _reason(url: str, skip: tuple[str, ...], public_url: str) -> LinkReason | None:
    reason = None if _is_usual(url, public_url) else _unusual_reason(url, public_url)
    if reason is not None:
        return reason
    if matches_any(skip, url):
        return LinkReason.SKIPPED
    return LinkReason.TOO_LONG if _is_too_long(url) else None


def _is_usual(url: str, public_url: str) -> bool:
    """Tell whether *url* is so plain that it is a web address, and none of ours."""
    usual = _USUAL.fullmatch(url)
    if usual is None or usual.end(1) > _USUAL_HOST_CHARS or "%%" in url:
        return False
    own = _own(public_url)
    return own is None or usual[1] != own.host or not ("/track/" in url or "/unsubscribe/" in url)


def _unusual_reason(url: str, public_url: str) -> LinkReason | None:
    if not url:
        return LinkReason.EMPTY
    if url.startswith("#"):
        return LinkReason.FRAGMENT
    if _is_template(url):
        return LinkReason.TEMPLATE
    match addresses.parse(url):
        case addresses.Flaw.NO_WEB_SCHEME:
            return _scheme_reason(url)
        case addresses.Flaw() as flaw:
            return LinkReason(flaw.value)
        case addresses.Address() as address if _is_own(address, public_url):
            return LinkReason.OWN_LINK
    return None


def _is_too_long(url: str) -> bool:
    return len(url.encode("utf-8")) > MAX_URL_OCTETS


def _is_template(url: str) -> bool:
    if url.startswith("["):
        return True
    for opening, closing in _TEMPLATE_PAIRS:
        if opening in url and closing in url.partition(opening)[2]:
            return True
    return "%%" in url and _PERCENT_FIELD.search(url) is not None


def _scheme_reason(url: str) -> LinkReason:
    scheme = _SCHEME.match(url)
    if scheme is not None:
        return _SCHEMES.get(scheme[1].lower(), LinkReason.OTHER_SCHEME)
    return LinkReason.PROTOCOL_RELATIVE if url[:2].replace("\\", "/") == "//" else LinkReason.RELATIVE


def _is_own(address: addresses.Address, public_url: str) -> bool:
    own = _own(public_url)
    return own is not None and address.tail.startswith(own.tails) and address.origin() == own.origin


class _Own(NamedTuple):
    """What our own links are told by."""

    #: In lower case.
    host: str
    origin: tuple[str, str, str]
    #: What stands behind it.
    tails: tuple[str, str]


@functools.lru_cache(maxsize=8)
def _own(public_url: str) -> _Own | None:
    address = addresses.parse(public_url)
    if isinstance(address, addresses.Flaw):
        return None
    base = address.tail.rstrip("/")
    return _Own(address.host.lower(), address.origin(), (f"{base}/track/", f"{base}/unsubscribe/"))
