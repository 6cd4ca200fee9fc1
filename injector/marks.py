"""What is to change in a page, before anybody knows for whom: its links as found, and the marks they leave."""

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

PIXEL: Final = -1
CONSTANT: Final = -2

#: What stands around the pixel's address. Out of the flow and one pixel wide: nothing moves, and no client treats it as
#: hidden content.
PIXEL_HEAD: Final = b"<img src="
PIXEL_TAIL: Final = (
    b' width="1" height="1" alt="" style="position:absolute;top:0;left:0;'
    b'width:1px;height:1px;margin:0;padding:0;border:0">'
)


class Mark(NamedTuple):
    """One edit of the decoded body: `[start:end)` gives way to a link, the pixel, or `new`."""

    start: int
    end: int
    #: The number of the link, or PIXEL, or CONSTANT.
    link: int
    new: bytes = b""


def with_pixel_at(marks: Iterable[Mark], place: int) -> tuple[Mark, ...]:
    """Return *marks*, sorted, with the pixel's at *place*."""
    return tuple(sorted((*marks, Mark(place, place, PIXEL))))


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A link as it was found: its attribute value or text, and what was decided."""

    value: bytes
    element: str
    #: The destination, when it is to be tracked.
    url: str | None
    reason: str | None


class Values(NamedTuple):
    """What the marks become for one recipient: per link its URL and its quoted attribute value, and the pixel's."""

    #: The pixel's address as an attribute value. None: this recipient's is in the part already.
    source: bytes | None
    urls: dict[int, bytes | None]
    attributes: dict[int, bytes | None]
    #: All attribute values are of octets that stand for themselves, in quoted-printable too.
    plain: bool


def pixel_of(values: Values) -> bytes | None:
    """Return the pixel's tag; None: the part has it already."""
    return None if values.source is None else b"%b%b%b" % (PIXEL_HEAD, values.source, PIXEL_TAIL)
