"""What an upstream that nobody described means by its 250.

Only shapes that name an id beyond doubt are read: an id that is guessed would attribute somebody else's event to us.
"""

import re

# Postfix, Outrider: "queued as ID". Exim: "OK id=ID". Haraka: "Message Queued (UUID)". Sendmail: "ID Message accepted".
_SHAPES = (
    re.compile(r"\bqueued as ([A-Za-z0-9._@-]{4,128})", re.IGNORECASE),
    re.compile(r"\bOK,? id=([A-Za-z0-9._@-]{4,128})", re.IGNORECASE),
    re.compile(r"\bMessage Queued \(([A-Za-z0-9.-]{8,128})\)", re.IGNORECASE),
    re.compile(r"(?:\A|\s)([A-Za-z0-9]{8,32}) Message accepted for delivery", re.IGNORECASE),
)


def reply_id(text: str) -> str | None:
    """Return the id in an upstream's reply to the final dot; none when it names none that we know the shape of."""
    for shape in _SHAPES:
        if (match := shape.search(text)) is not None:
            return match[1].rstrip(".")
    return None
