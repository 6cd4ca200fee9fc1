"""Edit the header by splices: stamp, prepend, remove, offer to unsubscribe.

A field that is not meant to change is never written again: no folding, no encoding, no order is touched.
"""

import ipaddress
import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

import msgspec

from injector.consent import TRACK_HEADER
from injector.encodings import BY_PLACE, MAX_LINE, Edit
from injector.fields import Field, Headers
from injector.message import Mail

ALWAYS_REMOVED: Final = frozenset({"bcc", "resent-bcc", TRACK_HEADER, "x-outrider-to-send"})
_SECRET: Final = frozenset({"bcc", "resent-bcc"})

_MESSAGE_ID: Final = "message-id"
_ORIGINAL: Final = b"X-Original-Message-ID"
_SIGNED_NAMES = re.compile(r"(?:\A|;)\s*+h\s*+=([^;]*+)")
_URL = re.compile(r"https?://[!#-;=?-~]++")

LIST_UNSUBSCRIBE: Final = "list-unsubscribe"
LIST_UNSUBSCRIBE_POST: Final = "list-unsubscribe-post"


class HeaderEdits(msgspec.Struct, frozen=True, kw_only=True):
    """What changes in the header of one recipient's message."""

    #: Complete header lines that go to the top, each ending in CRLF.
    prepend: tuple[bytes, ...] = ()
    #: The stamped id, with or without angle brackets; None leaves every Message-ID as it came.
    set_message_id: bytes | None = None
    #: Names of fields to remove, without regard to case.
    remove: tuple[str, ...] = ()


def header_splices(
    mail: Mail, edits: HeaderEdits, *, extra: tuple[bytes, ...] = (), strip: Collection[str] = ()
) -> list[Edit]:
    """Return the splices for a message that nobody signed; *extra* are further lines for the top."""
    lines = [*edits.prepend, *extra]
    splices: list[Edit] = []
    gone = ALWAYS_REMOVED.union(strip, map(str.lower, edits.remove))
    if edits.set_message_id is not None:
        gone -= {_MESSAGE_ID}
        stamp = _stamp_line(edits.set_message_id)
        existing = mail.headers.fields(_MESSAGE_ID)
        if existing:
            splices += _stamp(mail.headers, existing, stamp)
        else:
            lines.insert(len(edits.prepend), stamp)
    splices += _removals(mail.headers, gone)
    splices.append((mail.headers_start, mail.headers_start, _below_mbox_line(mail, lines)))
    splices.sort(key=BY_PLACE)
    if not mail.separated:
        # The body began without an empty line: a line of ours must not become part of it, nor it part of ours.
        splices.append((mail.body_start, mail.body_start, b"\r\n"))
    return splices


def sealed_splices(mail: Mail, edits: HeaderEdits) -> list[Edit]:
    """Return the splices for a message whose signature must still verify: no signed field changes, none is added.

    A Bcc goes even when it is signed: showing hidden recipients would be worse than a signature that fails.
    """
    signed = signed_names(mail.headers)
    gone = ALWAYS_REMOVED.union(map(str.lower, edits.remove)) - {_MESSAGE_ID}
    if signed is None:
        gone &= _SECRET
    else:
        gone -= signed - _SECRET
    splices = _removals(mail.headers, gone)
    # RFC 5321 4.4 obliges every hop to add its Received line, so signers do not cover it.
    lines = [line for line in edits.prepend if signed is None or _name(line) not in signed - {"received"}]
    splices.append((mail.headers_start, mail.headers_start, b"".join(lines)))
    splices.sort(key=BY_PLACE)
    return splices


def signed_names(headers: Headers) -> frozenset[str] | None:
    """Return the lower-case names that DKIM and ARC signatures cover; None when one of them cannot be read."""
    names: set[str] = set()
    for field in ("dkim-signature", "arc-message-signature"):
        for value in headers.all(field):
            found = _SIGNED_NAMES.search(value)
            if found is None:
                return None
            names.update(name.strip().lower() for name in found[1].split(":"))
    return frozenset(names)


def unsubscribe_lines(headers: Headers, url: str, *, public_url: str) -> tuple[bytes, ...]:
    """Return the lines that offer *url* as a one-click unsubscribe (RFC 8058); none if it cannot stand in one line.

    A fold inside the URL breaks signatures at some relays, so each field is one line.
    """
    line = b"List-Unsubscribe: <" + url.encode("ascii", "replace") + b">\r\n"
    if not _URL.fullmatch(url) or len(line) - 2 > MAX_LINE:
        return ()
    if one_click_allowed(public_url) and not headers.count(LIST_UNSUBSCRIBE_POST):
        return (line, b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n")
    return (line,)


@lru_cache(maxsize=8)
def one_click_allowed(public_url: str) -> bool:
    """Tell whether *public_url* may be announced for one-click: https, or a loopback address for trying it out."""
    try:
        parts = urlsplit(public_url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme == "https" or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _below_mbox_line(mail: Mail, lines: list[bytes]) -> bytes:
    # A content that ends in the mbox line may lack its line end.
    start = mail.headers_start
    glued = start > 0 and lines and not mail.content.endswith(b"\r\n", 0, start)
    return b"".join((b"\r\n", *lines)) if glued else b"".join(lines)


def _name(line: bytes) -> str:
    return line.partition(b":")[0].strip().decode("latin-1").lower()


def _stamp_line(value: bytes) -> bytes:
    return b"Message-ID: " + (value if value.startswith(b"<") else b"<" + value + b">") + b"\r\n"


def _stamp(headers: Headers, existing: Sequence[Field], stamp: bytes) -> list[Edit]:
    # The first field keeps its place and its value, folds included, under the other name.
    splices: list[Edit] = []
    kept = next((field for field in existing if headers.text(field)), None)
    for field in existing:
        new = stamp if field is existing[0] else b""
        if field is kept:
            splices.append((field.start, field.value - 1, new + _ORIGINAL))
        else:
            splices.append((field.start, field.end, new))
    return splices


def _removals(headers: Headers, names: Collection[str]) -> list[Edit]:
    return [(field.start, field.end, b"") for field in headers.among(names)]
