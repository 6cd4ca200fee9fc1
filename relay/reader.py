"""Read the content of a message after DATA, block by block, as the bytes come off the socket.

Incremental, and the same bytes give the same result however they were cut into blocks. Only CRLF.CRLF
ends a message; what some other server might take for the end never gets past this file (RFC 5321 4.1.1.4, 4.5.2).
"""

import re

from relay import replies
from relay.replies import Reply
from relay.spool import Held

_END = b"\r\n.\r\n"

# What a block may end with that the next one decides about: a CR, or a line end with the beginning of a dot line.
_UNDECIDED = re.compile(rb"(?:\r?\n(?:\.\r?)?|\r)\Z")
_UNDECIDED_OCTETS = 4

# A hop prepends its Received line, so a loop shows at the top; a header of megabytes is not worth the time.
_HEADER_OCTETS = 262_144
_RECEIVED = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)
# A list server may bring a message here again; what was here more often goes round and round.
_OWN_HOPS = 3
_OWN_HOP = rb"\sby\s+%b\s+with\s+[A-Z0-9]+\s+id\s+[a-z2-7]{26};"


class DataReader:
    """One message on its way in: `feed` it blocks until it has seen the end, then take its `result`.

    *held* keeps at most *max_bytes* and two blocks. Past the limit, or after a fault, they are discarded while they
    are read, for the rest must not be taken for commands. *hostname* is our name in the Received lines that we write.
    """

    def __init__(self, held: Held, *, max_bytes: int, max_received: int = 50, hostname: str = "") -> None:
        self._held = held
        self._max_bytes = max_bytes
        self._max_received = max_received
        self._hostname = hostname.encode("ascii", "replace")
        # The content begins at the beginning of a line, so a first line of one dot ends it.
        self._undecided = b"\r\n"
        self._octets = -len(self._undecided)
        self._refusal: Reply | None = None

    @property
    def octets(self) -> int:
        """The size so far, as SIZE counts it: without stuffed dots and without the end (RFC 1870 3)."""
        return max(self._octets, 0)

    @property
    def hopeless(self) -> bool:
        """Twice the limit has come and still no end: the connection is better closed."""
        return self._octets > 2 * self._max_bytes

    def feed(self, block: bytes) -> int | None:
        """Take the next block; return how many of its octets belong to the message once the end is in it, else None."""
        piece = self._undecided + block
        # An octet is found twenty times as fast as a string, and base64 has no dots.
        end = piece.find(_END) if b"." in piece else -1
        if end >= 0:
            used = end + len(_END) - len(self._undecided)
            self._keep(piece[: end + 2])
            self._undecided = b""
            return used
        open_end = _UNDECIDED.search(piece, max(len(piece) - _UNDECIDED_OCTETS, 0))
        decided = open_end.start() if open_end else len(piece)
        self._undecided = piece[decided:]
        self._keep(piece[:decided])
        return None

    def result(self) -> bytes | Reply:
        """Return the content, or the reply that refuses it; once, and only after `feed` has returned a number."""
        if self._refusal is not None:
            return self._refusal
        if self._octets > self._max_bytes:
            return replies.TOO_BIG
        content = self._held.take(skip=2)  # The line end that stood before the first line.
        header_end = content.find(b"\r\n\r\n", 0, _HEADER_OCTETS)
        header = content[: header_end if header_end >= 0 else _HEADER_OCTETS]
        return replies.MAIL_LOOP if self._loops(header) else content

    def _loops(self, header: bytes) -> bool:
        """Tell whether a message was at too many places, or too often at this one."""
        if header.count(b"\n") >= self._max_received and len(_RECEIVED.findall(header)) > self._max_received:
            return True
        if not self._hostname or header.count(self._hostname) <= _OWN_HOPS:
            return False
        return len(re.findall(_OWN_HOP % re.escape(self._hostname), header)) > _OWN_HOPS

    def _keep(self, piece: bytes) -> None:
        # A piece is never cut inside a line end or between a line end and a dot, so each rule sees all it needs.
        # Taking every CR away and putting one before every LF changes nothing but what is bare: one exact test, and
        # five times faster than counting.
        normal = piece.replace(b"\r", b"").replace(b"\n", b"\r\n")
        if normal != piece and (piece.count(b"\r") != piece.count(b"\r\n") or _END in normal):
            self._refusal = replies.BAD_LINE_ENDS
        # What could begin the end is held back as long as it can; a dot that is let go here has met a bare LF.
        if b"\0" in normal or normal.endswith(b"\n."):
            self._refusal = replies.BAD_LINE_ENDS
        if b"." in normal and b"\r\n." in normal:
            normal = normal.replace(b"\r\n.", b"\r\n")
        self._octets += len(normal)
        if self._octets > self._max_bytes or self._refusal is not None:
            self._held.clear()
            return
        try:
            self._held.add(normal)
        except OSError:
            self._refusal = replies.NO_ROOM
