"""What is to change in a page, before anybody knows for whom: its links as found, and the marks they leave."""

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

PIXEL: Final = -1
CONSTANT: Final = -2


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
    """What the marks become for one recipient: the pixel, and per link its URL and its quoted attribute value."""

    #: None: this recipient's pixel is in the part already.
    pixel: bytes | None
    urls: dict[int, bytes | None]
    attributes: dict[int, bytes | None]
