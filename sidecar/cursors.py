"""Spell the position at which a page of a listing ends, and read it back: opaque, and harmless when it is made up."""

import base64
import binascii
from datetime import datetime
from typing import Annotated, TypeVar

import msgspec

Position = TypeVar("Position")

_Row = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Time = Annotated[datetime, msgspec.Meta(tz=True)]

#: A position in a listing by row, in one by source and person, and in one by time and row.
ROW_CURSOR: msgspec.msgpack.Decoder[int] = msgspec.msgpack.Decoder(_Row)
SUPPRESSION_CURSOR: msgspec.msgpack.Decoder[tuple[str, bytes]] = msgspec.msgpack.Decoder(tuple[str, bytes])
EVENT_CURSOR: msgspec.msgpack.Decoder[tuple[datetime, int]] = msgspec.msgpack.Decoder(tuple[_Time, _Row])


def cursor_text(position: object) -> str | None:
    """Spell the position at which a page ends; none when nothing follows."""
    if position is None:
        return None
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(position)).decode("ascii").rstrip("=")


def position_of(text: str, kind: msgspec.msgpack.Decoder[Position]) -> Position:
    """Return the position that *text* spells; raise `ValueError` when it is no cursor of this *kind*."""
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return kind.decode(raw)
    except (UnicodeEncodeError, binascii.Error, msgspec.MsgspecError):
        raise ValueError("not a cursor of this listing") from None
