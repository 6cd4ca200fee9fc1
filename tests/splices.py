"""Undo, with nothing but what the documentation says, what a relay changed in a message: the oracle of promise 4.

It knows the message as it was submitted and the message that left, and shares no code with the injector but the
tokens. Whatever it cannot explain stays, so that the comparison with the submitted bytes fails.
"""

import base64
import binascii
import html
import re
from collections.abc import Iterator
from email import message_from_string
from email.message import Message

import msgspec

from injector.tokens import Keyring, Purpose

_FIELD = re.compile(rb"[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*")
_ATTRIBUTE = re.compile(rb"\"[^\"]*\"|'[^']*'|[^\s>]+")
_LONGEST_LINE = 998


class Leaf(msgspec.Struct, frozen=True, kw_only=True):
    """A part without parts: its type, its transfer encoding, and its octets as they stand in the message."""

    kind: str
    attached: bool
    encoding: str
    #: None: it says nothing about its charset.
    charset: str | None
    raw: bytes

    @property
    def decoded(self) -> bytes:
        """Its octets with the transfer encoding undone."""
        match self.encoding:
            case "base64":
                return base64.b64decode(self.raw)
            case "quoted-printable":
                return binascii.a2b_qp(self.raw)
            case _:
                return self.raw


class Undone(msgspec.Struct, frozen=True, kw_only=True):
    """A message with the changes taken out again, and what they were."""

    content: bytes
    #: The id that was stamped; none when the message kept its own.
    stamped: bytes | None
    unsubscribe: bytes | None
    #: Where the wrapped hrefs lead, in the order of the message.
    links: tuple[str, ...]
    pixels: int


def split(content: bytes) -> tuple[bytes, bytes]:
    """Return the header with its last line end, and the body with the empty line before it."""
    if content.startswith(b"\r\n"):
        return b"", content
    end = content.find(b"\r\n\r\n")
    return (content, b"") if end < 0 else (content[: end + 2], content[end + 2 :])


def leaves(content: bytes) -> list[Leaf]:
    """Return the leaves of a message in order, those of an embedded message too."""
    return [
        Leaf(
            kind=part.get_content_type(),
            attached=part.get_content_disposition() == "attachment",
            encoding=str(part.get("Content-Transfer-Encoding", "")).strip().lower(),
            charset=part.get_content_charset(),
            raw=_payload(part),
        )
        # In latin-1 every octet is one character, and none of them is made up.
        for part in message_from_string(content.decode("latin-1")).walk()
        if not part.is_multipart()
    ]


def _payload(part: Message) -> bytes:
    payload = part.get_payload()
    assert isinstance(payload, str)
    return payload.encode("latin-1")


def undo(left: bytes, submitted: bytes, *, keyring: Keyring, public_url: str) -> Undone:
    """Return *left* with every documented change taken out again."""
    head, body = split(left)
    head, stamped, unsubscribe = _undo_header(head, split(submitted)[0], keyring, public_url)
    content = head + body
    ours = _Ours(keyring, public_url)
    for gone, came in zip(leaves(left), leaves(submitted), strict=True):
        if gone.raw == came.raw:
            continue
        assert (gone.kind, gone.attached) == ("text/html", False), f"a part of type {gone.kind} was changed"
        assert gone.charset == came.charset, "the charset is another"
        assert ours.undo(gone.decoded, came) == came.decoded, "the text is another"
        if gone.encoding != came.encoding:
            # The one case in which a part leaves under another label.
            assert any(len(line) > _LONGEST_LINE for line in came.raw.split(b"\r\n"))
            assert gone.encoding == "quoted-printable"
            label = b"Content-Transfer-Encoding: quoted-printable\r\n"
            assert content.count(label) == 1
            content = content.replace(label, b"Content-Transfer-Encoding: %b\r\n" % came.encoding.encode())
        assert max(map(len, gone.raw.split(b"\r\n"))) <= _LONGEST_LINE
        assert content.count(gone.raw) == 1
        content = content.replace(gone.raw, came.raw)
    return Undone(
        content=content, stamped=stamped, unsubscribe=unsubscribe, links=tuple(ours.links), pixels=ours.pixels
    )


class _Ours:
    """The URLs of ours in a message's text."""

    def __init__(self, keyring: Keyring, public_url: str) -> None:
        base = re.escape(public_url.encode())
        self._keyring = keyring
        self._pattern = re.compile(
            rb'"%b/track/c/(?P<link>[^"]+)"|<img src="%b/track/o/(?P<pixel>[^"]+)"[^>]*>' % (base, base)
        )
        self.links: list[str] = []
        self.pixels = 0

    def undo(self, text: bytes, came: Leaf) -> bytes:
        """Return *text* without the pixel and with the hrefs as they stand in *came* at the same place."""
        return b"".join(self._pieces(text, came))

    def _pieces(self, text: bytes, came: Leaf) -> Iterator[bytes]:
        at = place = 0
        for found in self._pattern.finditer(text):
            before = text[at : found.start()]
            at = found.end()
            place += len(before)
            yield before
            if found["pixel"] is not None:
                self._keyring.verify(Purpose.OPEN, found["pixel"].decode())
                self.pixels += 1
                continue
            written = _ATTRIBUTE.match(came.decoded, place)
            assert written is not None, "a link of ours stands where the mailer had no href"
            assert came.charset or written[0].isascii(), "octets of no known charset were taken for an address"
            meant = html.unescape(written[0].strip(b"\"'").decode(came.charset or "ascii"))
            assert self._keyring.verify(Purpose.CLICK, found["link"].decode()).url == meant
            self.links.append(meant)
            place += len(written[0])
            yield written[0]
        yield text[at:]


def _undo_header(
    head: bytes, came: bytes, keyring: Keyring, public_url: str
) -> tuple[bytes, bytes | None, bytes | None]:
    fields = _FIELD.findall(head)
    assert b"".join(fields) == head
    names = {_name(field): field for field in reversed(_FIELD.findall(came))}
    assert fields.pop(0).startswith(b"Received: from ")
    stamped = unsubscribe = None
    kept: list[bytes] = []
    for field in fields:
        name = _name(field)
        if name == b"message-id" and field not in names.values() and stamped is None:
            stamped = field.partition(b":")[2].strip(b" \r\n<>")
        elif name == b"x-original-message-id" and name not in names:
            own = names[b"message-id"]
            kept.append(own.partition(b":")[0] + b":" + field.partition(b":")[2])
        elif name == b"list-unsubscribe" and name not in names and unsubscribe is None:
            unsubscribe = field.partition(b":")[2].strip(b" \r\n<>")
            base, _, token = unsubscribe.rpartition(b"/")
            assert base == f"{public_url}/unsubscribe".encode()
            keyring.verify(Purpose.UNSUBSCRIBE, token.decode())
        elif name == b"list-unsubscribe-post" and name not in names:
            assert field == b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
        else:
            kept.append(field)
    return b"".join(kept), stamped, unsubscribe


def _name(field: bytes) -> bytes:
    return field.partition(b":")[0].strip().lower()
