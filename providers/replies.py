"""What a receiving server's final refusal says of the address, by its codes (RFC 3463, RFC 7505, RFC 5321 4.2.3).

Only a code that speaks of the address is hard: a hard bounce takes the address off the mailer's lists.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

from providers.notice import Bounce

#: The subject and the detail of an enhanced code. X.1.7 and X.1.8 speak of the sender's address.
_DETAILS: Mapping[str, Bounce] = MappingProxyType(
    {
        "1.0": Bounce.HARD,
        "1.1": Bounce.HARD,
        "1.2": Bounce.HARD,
        "1.3": Bounce.HARD,
        "1.4": Bounce.HARD,
        "1.6": Bounce.HARD,
        "1.10": Bounce.HARD,
        "2.1": Bounce.HARD,
        "2.3": Bounce.BLOCK,
        "3.4": Bounce.BLOCK,
        # Exchange Online says so of an address that it does not know; and no host is known for the domain.
        "4.1": Bounce.HARD,
        "4.4": Bounce.HARD,
    }
)
#: The subject, where the detail is none of these.
_SUBJECTS: Mapping[str, Bounce] = MappingProxyType(
    {
        "1": Bounce.BLOCK,
        "2": Bounce.SOFT,
        "3": Bounce.SOFT,
        "4": Bounce.SOFT,
        "5": Bounce.BLOCK,
        "6": Bounce.BLOCK,
        "7": Bounce.BLOCK,
    }
)
_CODES: Mapping[str, Bounce] = MappingProxyType(
    {
        "550": Bounce.HARD,
        "551": Bounce.HARD,
        "552": Bounce.SOFT,
        "553": Bounce.HARD,
        "554": Bounce.BLOCK,
        "521": Bounce.HARD,
        "556": Bounce.HARD,
    }
)
_ENHANCED = re.compile(r"5\.(\d{1,3})\.(\d{1,3})")


def bounce_of(smtp_code: str, enhanced_code: str) -> Bounce:
    """Return the class of a bounce; a reply that was temporary until nobody tried any more is soft."""
    if (enhanced := _ENHANCED.fullmatch(enhanced_code)) is not None:
        subject, detail = enhanced.groups()
        if (known := _DETAILS.get(f"{subject}.{detail}") or _SUBJECTS.get(subject)) is not None:
            return known
    if smtp_code.startswith("4") or enhanced_code.startswith("4."):
        return Bounce.SOFT
    return _CODES.get(smtp_code, Bounce.UNKNOWN)
