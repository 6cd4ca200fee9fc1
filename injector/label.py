"""Read what a reader sees of a link, and tell whether that is an address itself.

A visible address that differs from its target is what deceivers write, and some mail programs and many readers take it
for that. The reading is bounded and linear, and done only where the policy asks for it.
"""

import re
from html import unescape
from typing import Final

#: A label is read so far, markup included: no address that a reader sees is longer.
MAX_LABEL_OCTETS: Final = 2_000

# A label ends with its link, or where the next link begins: there a browser ends the first.
_END: Final = re.compile(rb"</?a(?=[ \t\n\f\r/>])", re.IGNORECASE)
# An opening that never closes takes all there is.
_UNSEEN: Final = re.compile(r"<!--.*?(?:-->|\Z)|<(style|script)\b.*?(?:</\1\b|\Z)", re.IGNORECASE | re.DOTALL)
_TAG: Final = re.compile(
    r"<(?=[a-z/!?])/?(?P<name>[a-z0-9]*)(?:[^>\"']++|\"[^\"]*+(?:\"|\Z)|'[^']*+(?:'|\Z))*+(?:>|\Z)", re.IGNORECASE
)
# What stands on two lines is not one address; `wbr`, `b` or `font` keep a line together.
_BREAKS: Final = frozenset(
    ("br", "p", "div", "table", "tr", "td", "th", "li", "ul", "ol", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "center")
)
# Joiners, soft hyphens, marks of direction: a reader sees none of them.
_INVISIBLE: Final = re.compile(r"[\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
# Quotation marks, brackets, dashes and arrows around an address are the sentence's.
_FRAME: Final = " .,;:!?\"'`<>()[]{}|*~\u2013\u2014\u2026\u201c\u201d\u201e\u2018\u2019\xab\xbb\u2039\u203a\u2192\u2022"
_ADDRESS: Final = re.compile(
    r"[a-z][a-z0-9+.-]*://\S+"
    r"|(?:(?:[^\x00-,/:-@\[-^`{-\x7f.]++\.)++(?P<ending>[a-z]{2,63}|xn--[a-z0-9-]{1,59}|[^\x00-\x7f]{2,63})"
    r"|[0-9]{1,3}(?:\.[0-9]{1,3}){3})(?P<rest>(?::[0-9]{1,5})?(?:[/?#]\S*)?)"
)
# No top-level domains: a name that ends so and has no path is a file's.
_FILES: Final = re.compile(
    "avi|bmp|css|csv|docx?|eml|exe|gif|html?|ics|jpe?g|js|json|mp[34]|odt|pdf|php|png|pptx?|rtf|svg|txt|vcf|xlsx?|xml"
)


def end_of(octets: bytes, at: int) -> int:
    """Return where the label that begins at *at* ends, at most `MAX_LABEL_OCTETS` further on."""
    limit = min(at + MAX_LABEL_OCTETS, len(octets))
    end = _END.search(octets, at, limit)
    return limit if end is None else end.start()


def shows_address(octets: bytes, at: int, *, charset: str) -> bool:
    """Tell whether a reader sees a URL or a host name where the content of an `a` begins at *at*."""
    markup = octets[at : end_of(octets, at)]
    # Every address has a dot or a colon, as it is or as a character reference.
    return any(mark in markup for mark in (b".", b":", b"&")) and is_address(_text(markup.decode(charset, "replace")))


def is_address(text: str) -> bool:
    """Tell whether *text* is a URL or a host name: no e-mail address, no file's name, no sentence that holds one."""
    seen = " ".join(_INVISIBLE.sub("", text).split()).strip(_FRAME)
    match = _ADDRESS.fullmatch(seen.lower())
    return match is not None and (not _FILES.fullmatch(match["ending"] or "") or bool(match["rest"]))


def _text(markup: str) -> str:
    plain = _TAG.sub(lambda tag: " " if tag["name"].lower() in _BREAKS else "", _UNSEEN.sub("", markup))
    return unescape(plain)
