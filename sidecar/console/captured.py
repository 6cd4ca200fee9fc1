"""Read captured mail: the files that the capture upstream wrote, and a message taken apart to be looked at.

Reading never fails on what a message holds: a part that cannot be decoded is shown as well as it can be.
"""

import email
import html
import os
import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from email.header import decode_header, make_header
from email.message import Message
from pathlib import Path

import msgspec

from ledger.ids import key_bytes

#: Octets of one message that are read for its headers.
_HEAD = 65_536

#: Inline pictures become part of the page up to this many octets in all.
_PICTURES = 10_000_000
_PICTURE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})

# The standard library's reader tries every open boundary on every line: 2,000 levels take it 3 s.
_MULTIPARTS = 100

_LINKS = 200

_DOCTYPE = re.compile(r"\A\s*<!doctype[^>]{0,200}>", re.IGNORECASE)
_HREF = re.compile(
    r"""\bhref\s{0,20}=\s{0,20}(?:"([^"]{1,4000})"|'([^']{1,4000})'|([^\s"'<>]{1,4000}))""", re.IGNORECASE
)
_CID = re.compile(r"""\bcid:([^\s"'<>)]{1,200})""", re.IGNORECASE)
_BOUNDARY = re.compile(rb"boundary\s?=", re.IGNORECASE)
_LINE_ENDS = re.compile(r"\r\n|\r|\n")


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What `KEY.json` says of the message beside it."""

    key: str
    sender: str
    recipient: str
    received_at: datetime


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the inbox."""

    envelope: Envelope
    subject: str
    author: str


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One leaf of a message; its number counts leaves from 0."""

    number: int
    content_type: str
    name: str
    size: int
    attached: bool


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """A message taken apart."""

    subject: str
    author: str
    to: str
    date: str
    headers: tuple[tuple[str, str], ...]
    text: str | None
    #: The first HTML part as a page of its own, pictures inside.
    page: str | None
    #: Where its HTML links, or its text's where there is no HTML.
    links: tuple[str, ...]
    parts: tuple[Part, ...]
    #: It could not be taken apart: only its source tells.
    broken: bool = False


class Capture:
    """The directory that the capture upstream writes; its calls block, so run them in a thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def listing(self, *, page: int, size: int) -> tuple[list[Summary], int]:
        """Return one page of summaries, newest first, counted from 1, and how many messages there are."""
        found: list[tuple[int, str]] = []
        with suppress(FileNotFoundError), os.scandir(self._directory) as entries:
            for entry in entries:
                key, _, suffix = entry.name.rpartition(".")
                if suffix == "eml" and _is_key(key):
                    with suppress(FileNotFoundError):
                        found.append((entry.stat().st_mtime_ns, key))
        found.sort(reverse=True)
        shown = found[(page - 1) * size : page * size]
        return [summary for _, name in shown if (summary := self._summary(name)) is not None], len(found)

    def content(self, key: str) -> bytes | None:
        """Return the octets that left under *key*; none when there is no such message."""
        if not _is_key(key):
            return None
        with suppress(FileNotFoundError):
            return (self._directory / f"{key}.eml").read_bytes()
        return None

    def envelope(self, key: str) -> Envelope | None:
        """Return the envelope under which *key* left."""
        path = self._directory / f"{key}.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Envelope)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError:
            # Half a file, or another's: the message can be seen all the same.
            received = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            return Envelope(key=key, sender="", recipient="", received_at=received)

    def _summary(self, key: str) -> Summary | None:
        envelope = self.envelope(key)
        if envelope is None:
            return None
        head = b""
        with suppress(FileNotFoundError), (self._directory / f"{key}.eml").open("rb") as file:
            head = file.read(_HEAD).partition(b"\r\n\r\n")[0]
        headers = _headers(email.message_from_bytes(head))
        return Summary(envelope=envelope, subject=_first(headers, "subject"), author=_first(headers, "from"))


def read_mail(content: bytes) -> Mail:
    """Take a message apart."""
    try:
        return _broken() if len(_BOUNDARY.findall(content)) > _MULTIPARTS else _taken_apart(content)
    # The standard library's reader has its own limits (nesting, charsets, malformed fields); the source still shows.
    except Exception:  # noqa: BLE001 - see above
        return _broken()


def _broken() -> Mail:
    return Mail(
        subject="", author="", to="", date="", headers=(), text=None, page=None, links=(), parts=(), broken=True
    )


def read_part(content: bytes, number: int) -> tuple[Part, bytes] | None:
    """Return one leaf of a message and its decoded octets; none when it has no such leaf."""
    for index, leaf in enumerate(_leaves(email.message_from_bytes(content))):
        if index == number:
            payload = _payload(leaf)
            return _part(index, leaf, payload), payload
    return None


def _taken_apart(content: bytes) -> Mail:
    message = email.message_from_bytes(content)
    headers = _headers(message)
    text = page = None
    parts: list[Part] = []
    pictures: dict[str, str] = {}
    room = _PICTURES
    for number, leaf in enumerate(_leaves(message)):
        payload = _payload(leaf)
        part = _part(number, leaf, payload)
        parts.append(part)
        if part.content_type == "text/html" and not part.attached and page is None:
            page = _decoded(leaf, payload)
        elif part.content_type == "text/plain" and not part.attached and text is None:
            text = _decoded(leaf, payload)
        content_id = str(leaf.get("Content-ID", "")).strip().strip("<>")
        if content_id and part.content_type in _PICTURE_TYPES and len(payload) <= room:
            room -= len(payload)
            pictures[content_id] = f"data:{part.content_type};base64,{b64encode(payload).decode('ascii')}"
    return Mail(
        subject=_first(headers, "subject"),
        author=_first(headers, "from"),
        to=_first(headers, "to"),
        date=_first(headers, "date"),
        headers=headers,
        text=text,
        page=None if page is None else _as_page(page, pictures),
        links=_links(page),
        parts=tuple(parts),
    )


def _as_page(text: str, pictures: dict[str, str]) -> str:
    # A frame cannot fetch with our cookie from inside its sandbox, so pictures travel with the page; and a link opens
    # a tab of its own, because a frame that went elsewhere would be blocked.
    shown = _CID.sub(lambda found: pictures.get(found[1], found[0]), text)
    doctype = _DOCTYPE.match(shown)
    at = 0 if doctype is None else doctype.end()
    return f'{shown[:at]}<base target="_blank">{shown[at:]}'


def _links(page: str | None) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for match in _HREF.finditer(page or ""):
        url = html.unescape(match[1] or match[2] or match[3]).strip()
        if url.lower().startswith(("http://", "https://")):
            found[url] = None
            if len(found) == _LINKS:
                break
    return tuple(found)


def _leaves(message: Message) -> Iterator[Message]:
    # A stack, because a message may nest deeper than Python recurses.
    waiting = [message]
    while waiting:
        part = waiting.pop()
        inner = part.get_payload()
        if isinstance(inner, list) and part.get_content_maintype() == "multipart":
            waiting.extend(child for child in reversed(inner) if isinstance(child, Message))
        else:
            yield part


def _payload(leaf: Message) -> bytes:
    if leaf.is_multipart():
        # message/rfc822: the message inside, as it stands.
        return b"".join(inner.as_bytes() for inner in leaf.get_payload() if isinstance(inner, Message))
    payload = leaf.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _part(number: int, leaf: Message, payload: bytes) -> Part:
    name = leaf.get_filename() or ""
    return Part(
        number=number,
        content_type=leaf.get_content_type(),
        name=_readable(name),
        size=len(payload),
        attached=bool(name) or leaf.get_content_disposition() == "attachment",
    )


def _decoded(leaf: Message, payload: bytes) -> str:
    charset = leaf.get_content_charset() or "utf-8"
    try:
        return payload.decode(charset, "replace")
    except (LookupError, ValueError):
        return payload.decode("utf-8", "replace")


def _headers(message: Message) -> tuple[tuple[str, str], ...]:
    return tuple((_readable(name), _readable(str(value))) for name, value in message.raw_items())


def _readable(value: str) -> str:
    flat = _LINE_ENDS.sub("", value)
    with suppress(ValueError, LookupError):
        flat = str(make_header(decode_header(flat.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))))
    return flat.encode("utf-8", "replace").decode("utf-8")


def _first(headers: tuple[tuple[str, str], ...], name: str) -> str:
    return next((value for field, value in headers if field.lower() == name), "")


def _is_key(key: str) -> bool:
    try:
        key_bytes(key)
    except ValueError:
        return False
    return True
