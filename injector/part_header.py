"""Read what the header of a part says of it: its type, how it is encoded, and how it is to be shown.

The parts of one mail have the headers of those of the next: the usual ones are read once for all of them.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import msgspec

from injector.fields import Block, Field, parameters, read_block, text_of
from injector.skip import Reason

_READ: Final = frozenset({"content-type", "content-transfer-encoding", "content-disposition", "content-id"})
_TOKEN: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~")
# What is remembered: a header that says what kind of text follows, and nothing that could be a name.
_SHORT: Final = 256
_MOST_USUAL: Final = 256
_USUAL: Final = re.compile(
    rb"(?:content-type: ?[a-z]{1,20}/[a-z.+-]{1,40}"
    rb"(?:;(?:\r\n[ \t])?[ \t]*(?:charset|format|delsp)=\"?[a-z0-9_-]{1,20}\"?)*\r\n"
    rb"|content-transfer-encoding: ?[a-z0-9-]{1,20}\r\n){1,2}\r\n",
    re.IGNORECASE,
)


class PartHeader(msgspec.Struct, frozen=True, kw_only=True):
    """A header as far as it concerns the part below it."""

    #: Lower-case `type/subtype`; "" where none is given.
    kind: str
    #: Those of the type.
    parameters: Mapping[str, str]
    #: Lower-case Content-Transfer-Encoding, "" when absent.
    encoding: str
    encoding_field: Field | None
    #: Lower-case disposition, "" when absent.
    disposition: str
    #: The disposition names a file.
    filename: bool
    #: Without its brackets.
    content_id: str
    mime_version: bool
    #: Where a field may be added.
    end: int
    body_start: int
    #: Why it alone forbids to touch the part.
    reason: Reason | None


_usual_ones: Final[dict[bytes, PartHeader]] = {}


class Placed(NamedTuple):
    """A header, and what its offsets are counted from."""

    header: PartHeader
    base: int


def read_part_header(content: bytes, start: int, stops: Callable[[bytes], bool]) -> Placed:
    """Read the header of the part at *start*; *stops* tells of a line `--…` whether it ends the part already."""
    end = content.find(b"\r\n\r\n", start, start + _SHORT)
    octets = content[start : end + 4] if end >= 0 else b""
    header = _usual_ones.get(octets) or _usual(octets)
    if header is not None:
        return Placed(header, start)
    return Placed(describe(content, read_block(content, start, stops=stops)), 0)


def _usual(octets: bytes) -> PartHeader | None:
    if _USUAL.fullmatch(octets) is None:
        return None
    header = describe(octets, read_block(octets, 0))
    if len(_usual_ones) < _MOST_USUAL:
        _usual_ones[octets] = header
    return header


def describe(content: bytes, block: Block) -> PartHeader:
    """Return what *block* says, which was read in *content*."""
    fields: dict[str, Field] = {}
    reason: Reason | None = None
    if not block.separated:
        reason = Reason.MALFORMED_HEADER
    elif block.over_limit:
        reason = Reason.HEADER_LIMIT
    mime_version = False
    for field in block.fields:
        mime_version = mime_version or field.name == "mime-version"
        if field.name in _READ:
            first = fields.setdefault(field.name, field)
            # The transfer encoding may have to be named anew, which two fields would make two stories.
            twice = first is not field and field.name == "content-transfer-encoding"
            if twice or (first is not field and text_of(content, first) != text_of(content, field)):
                reason = reason or Reason.AMBIGUOUS_HEADER
    texts = {name: text_of(content, field) for name, field in fields.items()}
    kind = texts.get("content-type", "")
    disposition = texts.get("content-disposition", "")
    return PartHeader(
        kind=_kind(kind),
        parameters=parameters(kind) if kind else {},
        encoding=texts.get("content-transfer-encoding", "").lower(),
        encoding_field=fields.get("content-transfer-encoding"),
        disposition=disposition.partition(";")[0].strip().lower(),
        filename=bool(disposition) and "filename" in parameters(disposition),
        content_id=texts.get("content-id", "").strip("<> "),
        mime_version=mime_version,
        end=block.end,
        body_start=block.body_start,
        reason=reason,
    )


def _kind(value: str) -> str:
    kind = value.partition(";")[0].strip().lower()
    main, slash, sub = kind.partition("/")
    # RFC 2045 5.2: what cannot be read is plain text.
    if slash and main and sub and _TOKEN.issuperset(main) and _TOKEN.issuperset(sub):
        return kind
    return "text/plain" if value else ""
