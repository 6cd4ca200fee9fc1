"""Who an event and its message are, where the provider has no one field for it: dedupe ids, our key in a JSON header.

Nothing here guesses: an event without enough in it is told from others by all of its bytes.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from providers.fields import TOKEN_FIELD, encoded, folded_in
from providers.notice import Notice, What

_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE)


def fingerprint(event: Any, told: tuple[str, ...], more: tuple[str, ...] = ()) -> str:
    """Return one word for all copies of an event.

    It is made of *told* and *more*; where a part of *told* is missing they would take different events for one, and it
    is made of the whole event.
    """
    whole = "\0".join(told + more).encode() if all(told) else encoded(event)
    return hashlib.sha256(whole).hexdigest()


def unread(provider: str, entry: Any) -> Notice:
    """Return the notice of an entry of a batch that is not of the documented shape."""
    return Notice(provider=provider, what=What.UNKNOWN, dedupe=fingerprint(entry, ("",)), raw=encoded(entry))


def keyed(key: str, present: Mapping[str, str], name: str) -> dict[str, str]:
    """Return the header *name* with our key in its JSON object; nothing where the mailer's value is no such object."""
    before = present.get(name, "")
    try:
        after = folded_in(present, name, {TOKEN_FIELD: key})
    except (UnicodeEncodeError, RecursionError):
        return {}
    return {name: after} if after != before else {}


def uuid_in(reply: str) -> str | None:
    """Return the UUID in an upstream's reply to the final dot, in lower case."""
    return match[0].lower() if (match := _UUID.search(reply)) is not None else None
