"""Find the parts of a message in its raw bytes: every leaf with the range of its header and of its body.

Nothing here builds a tree that could be serialised: offsets into the content are all that leaves this file, so
no boundary, preamble or folded line can ever come out different. Time is linear in the content.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import msgspec

from injector.fields import Field, Headers, index_of, read_block
from injector.part_header import PartHeader, describe, read_part_header
from injector.skip import Reason

MAX_PARTS: Final = 500
MAX_DEPTH: Final = 50

# After so many lines that begin like a delimiter and are none, a pattern is worth its making, unless it gets too long.
_MISSES: Final = 1_024
_PATTERN: Final = 4_096

#: The encodings that encode nothing.
IDENTITY: Final = frozenset({"", "7bit", "8bit", "binary"})


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One leaf: a part that has no parts of its own, or one that is not opened."""

    #: Its position, counted from 1 at every level: `1.2.1`; the root is `1`.
    path: str
    #: Lower-case `type/subtype`.
    kind: str
    parameters: Mapping[str, str]
    #: The multiparts around it, outermost first.
    enclosing: tuple[str, ...]
    #: The paths of the multiparts around it.
    parents: tuple[str, ...]
    #: Lower-case Content-Transfer-Encoding, "" when absent.
    encoding: str
    encoding_field: Field | None
    #: It is the message itself and has no MIME-Version.
    lacks_mime_version: bool
    #: Lower-case disposition, "" when absent.
    disposition: str
    named: bool
    #: Where a header field of this part may be added.
    header_end: int
    body_start: int
    body_end: int
    #: Why the structure alone forbids to touch it.
    reason: Reason | None = None


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """A message as its bytes and what was found in them."""

    content: bytes
    headers: Headers
    #: Where lines are prepended: behind an mbox `From ` line, else 0.
    headers_start: int
    body_start: int
    #: False: the header runs into the body without an empty line.
    separated: bool
    #: Type and parameters of the message itself.
    kind: str
    leaves: tuple[Part, ...]
    #: Why the structure as a whole forbids to touch the body.
    reason: Reason | None = None


def parse(content: bytes) -> Mail:
    """Find the header fields and the leaves of *content*, whose lines end in CRLF; never raises."""
    with suppress(Exception):
        return _parse(content)
    headers = Headers(content=content, start=0, end=0, over_limit=False, index={})
    return Mail(
        content=content,
        headers=headers,
        headers_start=0,
        body_start=0,
        separated=True,
        kind="text/plain",
        leaves=(),
        reason=Reason.REWRITE_FAILED,
    )


def _parse(content: bytes) -> Mail:
    start = _mbox_line(content)
    block = read_block(content, start)
    headers = index_of(content, start, block)
    walk = _Walk(content)
    if block.over_limit:
        reason: Reason | None = Reason.HEADER_LIMIT
    elif not block.separated:
        reason = Reason.MALFORMED_HEADER
    else:
        reason = walk.run(describe(content, block))
    return Mail(
        content=content,
        headers=headers,
        headers_start=start,
        body_start=block.body_start,
        separated=block.separated,
        kind=walk.kind,
        leaves=() if reason else tuple(walk.leaves),
        reason=reason,
    )


def _mbox_line(content: bytes) -> int:
    # The envelope line of an mbox file is no header field; Postfix looks for it, quoted too, in the first line only.
    if not content[:6].lstrip(b">").startswith(b"From "):
        return 0
    end = content.find(b"\r\n")
    return len(content) if end < 0 else end + 2


class _Multipart:
    """A multipart that is open: its delimiter may still come."""

    __slots__ = ("boundary", "child_kind", "children", "enclosing", "parents", "path", "root")

    def __init__(self, part: Part, boundary: bytes) -> None:
        self.path = part.path
        self.boundary = boundary
        self.children = 0
        self.enclosing = (*part.enclosing, part.kind)
        self.parents = (*part.parents, part.path)
        # RFC 2046 5.1.5
        self.child_kind = "message/rfc822" if part.kind == "multipart/digest" else "text/plain"
        # RFC 2387 3.2: the root of a related is named by its Content-ID, or it is the first part.
        self.root = part.parameters.get("start", "").strip("<> ")

    def has_root(self, content_id: str) -> bool:
        """Tell whether the part of *content_id*, the latest, is the root."""
        return content_id == self.root if self.root else self.children == 1


class _Walk:
    """One pass over the delimiters of a message."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.leaves: list[Part] = []
        self.kind = "text/plain"
        self.open: list[_Multipart] = []
        # A delimiter line without its `--` in front: the level it belongs to, and whether it closes it.
        self.delimiters: dict[bytes, tuple[int, bool]] = {}
        # What every delimiter begins with: the longer, the faster it is looked for.
        self.mark = b"\r\n--"
        self.parts = 0
        self.leaf: Part | None = None

    def run(self, header: PartHeader) -> Reason | None:
        """Collect the leaves below *header*; return why that was given up."""
        content = self.content
        reason = self._begin(header, 0)
        pos = header.body_start - 2
        misses = 0
        while self.open and not reason:
            at = content.find(self.mark, max(pos, 0))
            if at < 0:
                break
            line_end = content.find(b"\r\n", at + 4)
            if line_end < 0:
                line_end = len(content)
            pos = line_end
            hit = self.delimiters.get(content[at + 4 : line_end].rstrip(b" \t"))
            if hit is None:
                misses += 1
                if misses % _MISSES == 0:
                    pos = self._next_delimiter(pos)
                continue
            level, closes = hit
            self._end_leaf(at)
            self._close(level if closes else level + 1)
            if not closes:
                header, base = read_part_header(content, min(line_end + 2, len(content)), self._stops)
                reason = self._begin(header, base)
                pos = base + header.body_start - 2
        self._end_leaf(len(content))
        return reason

    def _next_delimiter(self, pos: int) -> int:
        """Return where the next delimiter begins, or how far none does: faster than to look at each line like one."""
        boundaries = b"|".join([re.escape(multipart.boundary) for multipart in self.open])
        if len(boundaries) > _PATTERN:
            return pos
        found = re.compile(rb"\r\n--(?:%b)(?:--)?[ \t]*+(?:\r\n|\Z)" % boundaries).search(self.content, pos)
        return found.start() if found else len(self.content)

    def _stops(self, line: bytes) -> bool:
        return line[2:].rstrip(b" \t") in self.delimiters

    def _end_leaf(self, end: int) -> None:
        if self.leaf is not None:
            self.leaves.append(
                msgspec.structs.replace(self.leaf, body_end=max(end, self.leaf.body_start))
                if end >= self.leaf.body_start
                else msgspec.structs.replace(self.leaf, body_start=end, body_end=end)
            )
            self.leaf = None

    def _close(self, level: int) -> None:
        if level == len(self.open):
            return
        for multipart in self.open[level:]:
            del self.delimiters[multipart.boundary]
            del self.delimiters[multipart.boundary + b"--"]
        del self.open[level:]
        self._set_mark()

    def _begin(self, header: PartHeader, base: int) -> Reason | None:
        """Open the multipart, or start the leaf, whose *header* was just read, with offsets from *base*."""
        self.parts += 1
        if self.parts > MAX_PARTS:
            return Reason.PART_LIMIT
        part = self._part(header, base)
        if self.parts == 1:
            self.kind = part.kind
        if not part.kind.startswith("multipart/") or part.reason:
            self.leaf = part
            return None
        reason: Reason | None = None
        boundary = part.parameters.get("boundary", "").encode("utf-8", "surrogateescape").rstrip(b" \t")
        if part.encoding not in IDENTITY:
            reason = Reason.ENCODED_MULTIPART
        elif not boundary:
            reason = Reason.NO_BOUNDARY
        elif boundary in self.delimiters or boundary + b"--" in self.delimiters:
            reason = Reason.BOUNDARY_REUSED
        if reason:
            self.leaf = msgspec.structs.replace(part, reason=reason)
            return None
        if len(self.open) == MAX_DEPTH:
            return Reason.DEPTH_LIMIT
        self.delimiters[boundary] = (len(self.open), False)
        self.delimiters[boundary + b"--"] = (len(self.open), True)
        self.open.append(_Multipart(part, boundary))
        self._set_mark()
        return None

    def _set_mark(self) -> None:
        self.mark = b"\r\n--"
        if self.open:
            # Of all strings, the least and the greatest share what all share. RFC 2046 5.1.1: 70 octets at most.
            boundaries = [multipart.boundary[:70] for multipart in self.open]
            least, greatest = min(boundaries), max(boundaries)
            shared = len(least)
            if least is not greatest:
                pairs = zip(least, greatest, strict=False)
                shared = next((at for at, (one, other) in enumerate(pairs) if one != other), shared)
            self.mark += least[:shared]

    def _part(self, header: PartHeader, base: int) -> Part:
        parent = self.open[-1] if self.open else None
        reason = header.reason
        path = "1"
        if parent:
            parent.children += 1
            path = f"{parent.path}.{parent.children}"
            if parent.enclosing[-1] == "multipart/related" and not parent.has_root(header.content_id):
                reason = reason or Reason.RELATED_RESOURCE
        body_start = base + header.body_start
        return Part(
            path=path,
            kind=header.kind or (parent.child_kind if parent else "text/plain"),
            parameters=header.parameters,
            enclosing=parent.enclosing if parent else (),
            parents=parent.parents if parent else (),
            encoding=header.encoding,
            encoding_field=_moved(header.encoding_field, base) if header.encoding_field else None,
            lacks_mime_version=parent is None and not header.mime_version,
            disposition=header.disposition,
            # A name on the message itself is only its title; on a part it makes mail programs offer a file.
            named=header.filename or (parent is not None and "name" in header.parameters),
            header_end=base + header.end,
            body_start=body_start,
            body_end=body_start,
            reason=reason,
        )


def _moved(field: Field, base: int) -> Field:
    return Field(name=field.name, start=base + field.start, value=base + field.value, end=base + field.end)
