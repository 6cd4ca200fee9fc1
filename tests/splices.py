"""Undo, with nothing but what the documentation says, what a relay changed in a message: the oracle of promise 4.

It knows the message as it was submitted and the message that left, and shares no code with the injector but the
tokens. Whatever it cannot explain stays, so that the comparison with the submitted bytes fails.
"""

import binascii
import re
from collections.abc import Iterator

import msgspec
from selectolax.lexbor import LexborHTMLParser

from injector.tokens import Keyring, Purpose
from tests.leaves import Leaf, destination_of, leaves, split

__all__ = ["ADDED", "REMOVED", "Leaf", "Undone", "leaves", "split", "undo"]

#: The fields that are put into a message, and those that are taken out of it.
ADDED = frozenset(
    {
        b"received",
        b"message-id",
        b"x-original-message-id",
        b"list-unsubscribe",
        b"list-unsubscribe-post",
        b"mime-version",
    }
)
REMOVED = frozenset({b"bcc", b"resent-bcc", b"x-outrider-track", b"x-mailgun-track", b"x-pm-trackopens"})

_FIELD = re.compile(rb"[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*")
_ENCODING_FIELD = re.compile(rb"^content-transfer-encoding[ \t]*:[^\r\n]*\r\n", re.IGNORECASE | re.MULTILINE)
_LABEL = b"Content-Transfer-Encoding: quoted-printable\r\n"
# In ISO-2022-JP a quotation mark may be half a letter, between two escape sequences.
_ATTRIBUTE = re.compile(rb"\"(?:\x1b\$[@B][^\x1b]*\x1b\([BJ]|[^\"])*\"|'[^']*'|[^\s>]+")
_LINKING_TAG = re.compile(rb"<(?:a|area|[vw]:[a-z]+)\s[^>]*>", re.IGNORECASE)
_MARK = re.compile(
    rb"(?<=\s)(?:(?:data-no-track|data-ignore|data-pm-no-track|data-skip-click|mautic:disable-tracking|ses:no-track)"
    rb"(?:=(?:\"[^\"]*\"|'[^']*'|[^\s>]*))?"
    rb"|clicktracking=([\"']?)off\1|disable-tracking=([\"']?)true\2|data-msys-clicktrack=([\"']?)0\3)(?=[\s>])"
    rb"|(?<=http)\+notrack(?=://)|(?<=https)\+notrack(?=://)",
    re.IGNORECASE,
)
_LONGEST_LINE = 998


class Undone(msgspec.Struct, frozen=True, kw_only=True):
    """A message with the changes taken out again, and what they were."""

    content: bytes
    #: The id that was stamped; none when the message kept its own.
    stamped: bytes | None
    unsubscribe: bytes | None
    #: Where the wrapped hrefs lead, in the order of the message.
    links: tuple[str, ...]
    pixels: int
    #: How many marks of links that their sender excepted were taken out.
    excepted: int
    #: The names of the fields that were taken out, in the order of the message.
    removed: tuple[bytes, ...]


def undo(left: bytes, submitted: bytes, *, keyring: Keyring, public_url: str) -> Undone:
    """Return *left* with every documented change taken out again."""
    head, body = split(left)
    header = _Header(split(submitted)[0], keyring, public_url)
    ours = _Ours(keyring, public_url)
    # The body goes first: the label of a part that had to be folded may stand in the header.
    content = _undo_parts(head + body, submitted, ours)
    head, body = split(content)
    content = header.undo(head) + body
    return Undone(
        content=content,
        stamped=header.stamped,
        unsubscribe=header.unsubscribe,
        links=tuple(ours.links),
        pixels=ours.pixels,
        excepted=ours.excepted,
        removed=tuple(header.removed),
    )


def _undo_parts(left: bytes, submitted: bytes, ours: "_Ours") -> bytes:
    pieces: list[bytes] = []
    # Where the last leaf ended, here and there: its like must not be taken for the next one.
    here = there = 0
    for gone, came in zip(leaves(left), leaves(submitted), strict=True):
        at, place = left.index(gone.raw, here), submitted.index(came.raw, there)
        between = left[here:at]
        here, there = at + len(gone.raw), place + len(came.raw)
        if gone.raw != came.raw:
            assert (gone.kind, gone.attached) == ("text/html", False), f"a part of type {gone.kind} was changed"
            assert gone.charset == came.charset, "the charset is another"
            assert max(map(len, gone.raw.split(b"\r\n"))) <= _LONGEST_LINE
            edits = ours.undo_leaf(gone, came)
            if gone.encoding == came.encoding:
                _same_lines(gone, came, edits)
            else:
                # The one case in which a part leaves under another label.
                assert any(len(line) > _LONGEST_LINE for line in came.raw.split(b"\r\n"))
                assert gone.encoding == "quoted-printable"
                between = _relabelled(between, submitted[:place])
        pieces += (between, came.raw)
    return b"".join((*pieces, left[here:]))


def _relabelled(between: bytes, before: bytes) -> bytes:
    """Return what stands before a part with the label that the part came with, which stands at the end of *before*."""
    header = before[before.rfind(b"\r\n\r\n", 0, -4) + 4 :] if b"\r\n\r\n" in before[:-4] else before
    came = _ENCODING_FIELD.findall(header)
    assert len(came) <= 1
    start, label, rest = between.rpartition(_LABEL)
    assert label, "it does not say how it is encoded"
    if not came and not re.search(rb"^mime-version:", before, re.IGNORECASE | re.MULTILINE):
        assert start.endswith(b"MIME-Version: 1.0\r\n"), "the label means nothing"
        start = start.removesuffix(b"MIME-Version: 1.0\r\n")
    return start + (came[0] if came else b"") + rest


def _same_lines(gone: Leaf, came: Leaf, edits: list[tuple[int, int]]) -> None:
    """Check that encoded lines without an edit are the lines that came; *edits* are ranges of what came, decoded."""
    lines, others = came.raw.split(b"\r\n"), iter(gone.raw.split(b"\r\n"))
    if came.encoding == "base64":
        # Four letters are three octets: what stands before the first edit's is in no way concerned.
        letters = 4 * (min(edits)[0] // 3)
        for line in lines:
            letters -= len(line.strip())
            assert letters < 0 or line == next(others), "a line before the first edit is another"
            if letters < 0:
                return
    elif came.encoding == "quoted-printable":
        end = 0
        for line in lines:
            start, end = end, end + len(binascii.a2b_qp(line + b"\r\n"))
            if len(line) <= _LONGEST_LINE and all(last < start or end < first for first, last in edits):
                assert line in others, "a line without an edit is another"
        assert end == len(came.decoded) + 2


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
        self.excepted = 0

    def undo_leaf(self, gone: Leaf, came: Leaf) -> list[tuple[int, int]]:
        """Check that *gone* is *came* but for what is ours; return the ranges of what came that were edited."""
        assert came.codec == gone.codec
        if not came.codec.startswith(("utf-16", "utf-32")):
            edits: list[tuple[int, int]] = []
            assert b"".join(self._pieces(gone.decoded, came.decoded, came, edits)) == came.decoded
            return edits
        # Each letter has one spelling in these, so that equal letters are equal octets. The mark stays a letter.
        codec = came.codec + ("" if came.codec.endswith("e") else _order(came.decoded))
        edits, letters = [], came.decoded.decode(codec)
        utf8 = msgspec.structs.replace(came, charset="utf-8")
        text, other = letters.encode(), gone.decoded.decode(codec).encode()
        assert letters.encode(codec) == came.decoded
        assert b"".join(self._pieces(other, text, utf8, edits)) == text
        return [(_octets(text[:start], codec), _octets(text[:end], codec)) for start, end in edits]

    def _pieces(self, text: bytes, came: bytes, leaf: Leaf, edits: list[tuple[int, int]]) -> Iterator[bytes]:
        """Yield *text* without the pixel, with the hrefs and the marks as they stand in *came* at the same place."""
        marks = [
            (tag.start() + mark.start(), tag.start() + mark.end())
            for tag in _LINKING_TAG.finditer(came)
            for mark in _MARK.finditer(tag[0])
        ]
        at = place = 0
        for found in self._pattern.finditer(text):
            before = self._with_marks(text[at : found.start()], came, place, marks, edits)
            at = found.end()
            place += len(before)
            yield before
            if came.startswith(found[0], place):
                # Ours already when the message came: it was rewritten before.
                place += len(found[0])
                yield found[0]
                continue
            if found["pixel"] is not None:
                self._keyring.verify(Purpose.OPEN, found["pixel"].decode())
                self.pixels += 1
                edits.append((place, place))
                continue
            written = _ATTRIBUTE.match(came, place)
            assert written is not None, "a link of ours stands where the mailer had no href"
            assert leaf.charset or written[0].isascii(), "octets of no known charset were taken for an address"
            meant = _meant(written[0].decode(leaf.codec), leaf.codec)
            assert self._keyring.verify(Purpose.CLICK, found["link"].decode()).url == meant
            self.links.append(meant)
            edits.append((place, place + len(written[0])))
            place += len(written[0])
            yield written[0]
        yield self._with_marks(text[at:], came, place, marks, edits)

    def _with_marks(
        self, text: bytes, came: bytes, place: int, marks: list[tuple[int, int]], edits: list[tuple[int, int]]
    ) -> bytes:
        """Put back each opt-out mark that stands in *came*, from *place* on, and not in *text*."""
        for start, end in marks:
            at = start - place
            if at < 0 or at > len(text) or text.startswith(came[start:end], at):
                continue
            # One space may have gone with it.
            spaced = start - 1 if text[at - 1 :].startswith(came[end : end + 2]) else start
            text = text[: spaced - place] + came[spaced:end] + text[spaced - place :]
            self.excepted += 1
            edits.append((spaced, end))
        return text


def _order(body: bytes) -> str:
    assert body[:2] in {b"\xff\xfe", b"\xfe\xff"}, "nobody knows the order of its octets"
    return "-le" if body.startswith(b"\xff\xfe") else "-be"


def _octets(text: bytes, codec: str) -> int:
    return len(text.decode().encode(codec))


def _meant(written: str, codec: str) -> str:
    """Return where an attribute's value leads a browser that shows a page in *codec*."""
    anchor = LexborHTMLParser(f"<a href={written}>").css_first("a")
    assert anchor is not None
    meant = anchor.attributes["href"]
    assert meant is not None
    return destination_of(meant, codec)


class _Header:
    """What of ours stands in a header, compared with the header that came."""

    def __init__(self, came: bytes, keyring: Keyring, public_url: str) -> None:
        self._came = _FIELD.findall(came)
        self._names = {_name(field): field for field in reversed(self._came)}
        self._keyring = keyring
        self._public_url = public_url
        self.stamped: bytes | None = None
        self.unsubscribe: bytes | None = None
        self.removed: list[bytes] = []

    def undo(self, head: bytes) -> bytes:
        """Return *head* without what was put in, and with what was taken out."""
        fields = _FIELD.findall(head)
        assert b"".join(fields) == head
        assert fields.pop(0).startswith(b"Received: from ")
        kept = [kept for field in fields if (kept := self._kept(field))]
        return b"".join(self._with_removed(kept))

    def _kept(self, field: bytes) -> bytes | None:
        name, value = _name(field), field.partition(b":")[2]
        if name == b"message-id" and field not in self._names.values() and self.stamped is None:
            self.stamped = value.strip(b" \r\n<>")
            return None
        if name == b"x-original-message-id" and name not in self._names:
            return b":".join((self._names[b"message-id"].partition(b":")[0], value))
        if name == b"list-unsubscribe" and name not in self._names and self.unsubscribe is None:
            self.unsubscribe = value.strip(b" \r\n<>")
            base, _, token = self.unsubscribe.rpartition(b"/")
            assert base == f"{self._public_url}/unsubscribe".encode()
            self._keyring.verify(Purpose.UNSUBSCRIBE, token.decode())
            return None
        if name == b"list-unsubscribe-post" and name not in self._names:
            assert field == b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
            assert self.unsubscribe is not None, "it announces one click for somebody else's address"
            return None
        return field

    def _with_removed(self, kept: list[bytes]) -> Iterator[bytes]:
        at = 0
        for field in self._came:
            if at < len(kept) and kept[at] == field:
                at += 1
                yield field
            elif _name(field) in REMOVED:
                self.removed.append(_name(field))
                yield field
        yield from kept[at:]


def _name(field: bytes) -> bytes:
    return field.partition(b":")[0].strip().lower()
