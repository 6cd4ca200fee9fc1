"""Amazon SES as an upstream: its hosts, the id in its 250, and the header that carries our key into its events."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from providers.fields import TOKEN_FIELD

TAGS_HEADER = "X-SES-MESSAGE-TAGS"

_REPLY = re.compile(r"(?:\A|\s)Ok ([0-9A-Za-z]{2,64}(?:-[0-9A-Za-z]{1,64}){2,8})\.?\s*\Z", re.IGNORECASE)
_TAG = re.compile(r"[A-Za-z0-9_:-]{1,256}=[!-+\--<>-~]{1,256}")
# A list that is longer is left alone: what SES refuses for one tag too many would be the mailer's loss.
_TAGS_LIMIT = 48

# The registry compares whole labels, and "amazonaws.com" is half the world: every region's own host is listed. The
# numbers say how far an area's regions count; of a region that is newer the operator says `profile=ses`.
_AREAS: Mapping[int, tuple[str, ...]] = MappingProxyType(
    {
        1: ("us-gov-east", "us-gov-west", "ca-central", "ca-west", "mx-central", "sa-east", "eu-north", "af-south"),
        2: (
            "us-east",
            "us-west",
            "eu-central",
            "eu-south",
            "ap-south",
            "ap-east",
            "il-central",
            "me-central",
            "me-south",
        ),
        7: ("eu-west", "ap-northeast", "ap-southeast"),
    }
)
_REGIONS = tuple(f"{area}-{n}" for last, areas in _AREAS.items() for area in areas for n in range(1, last + 1))
_PATTERNS = ("email-smtp.{}.amazonaws.com", "email-smtp-fips.{}.amazonaws.com", "email-smtp.{}.vpce.amazonaws.com")

HOSTS = tuple(pattern.format(region) for region in _REGIONS for pattern in _PATTERNS)


def reply_id(reply: str) -> str | None:
    """Return the id in `250 Ok 0100…-000000`, which is `mail.messageId` in every event."""
    match = _REPLY.search(reply)
    return match[1] if match else None


def stamp(key: str, present: Mapping[str, str]) -> dict[str, str]:
    """Add our key to the message tags; a header that is not a list of tags, or is full, stays as it is."""
    before = [tag.strip() for tag in present.get(TAGS_HEADER, "").split(",") if tag.strip()]
    others = [tag for tag in before if not tag.startswith(f"{TOKEN_FIELD}=")]
    if len(others) > _TAGS_LIMIT or not all(_TAG.fullmatch(tag) for tag in others):
        return {}
    # A tag's alphabet has no full stop, and the key of a second attempt names the same message.
    return {TAGS_HEADER: ", ".join([*others, f"{TOKEN_FIELD}={key.partition('.')[0]}"])}
