"""Why Mailgun gave a message up: its own codes and words, then those of the receiving server."""

from collections.abc import Mapping
from types import MappingProxyType

from providers.notice import Bounce
from providers.replies import bounce_of

#: Mailgun did not try: the address bounced, unsubscribed or complained before.
_LISTED = frozenset({"605", "606", "607"})

_REASONS: Mapping[str, Bounce] = MappingProxyType(
    {
        "suppress-bounce": Bounce.SUPPRESSED,
        "suppress-complaint": Bounce.SUPPRESSED,
        "suppress-unsubscribe": Bounce.SUPPRESSED,
        "espblock": Bounce.BLOCK,
        "greylisted": Bounce.SOFT,
        # Tried until it was too old.
        "old": Bounce.SOFT,
    }
)
#: Words that mean a hard bounce where the codes do not say otherwise.
_HARD = frozenset({"bounce", "hardfail"})


def refusal(own_code: str, reason: str, smtp_code: str, enhanced_code: str) -> Bounce:
    """Return the class of a permanent failure. *own_code* is `code` as it came, also where it is none of SMTP's."""
    word = reason.strip().lower()
    if own_code.strip() in _LISTED:
        return Bounce.SUPPRESSED
    if (known := _REASONS.get(word)) is not None:
        return known
    said = bounce_of(smtp_code, enhanced_code)
    return Bounce.HARD if said is Bounce.UNKNOWN and word in _HARD else said
