"""Find the one message that an event names, or say why there is none: never the likeliest. Pure.

The ids are tried in their order. One that is a message's own key decides; any other must lead to exactly one message
of the recipient that the event names, where it names one.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from courier.sighting import Lookup, Sighting
from ledger.attribution import Correlated
from providers.notice import Step


class Missing(StrEnum):
    """Why an event has no message yet; the strongest of what its ids gave."""

    #: It came without any id.
    NO_ID = "no_id"
    #: A hit whose message is not committed yet, or never was ours.
    UNKNOWN_KEY = "unknown_key"
    #: None of its ids leads to a message.
    UNKNOWN_ID = "unknown_id"
    #: An id leads to a message, and it went to somebody else.
    OTHER_RECIPIENT = "other_recipient"
    #: An id leads to several messages, and the recipient is not named or has several of them.
    AMBIGUOUS = "ambiguous"


class Found(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The message, and by which step it was found."""

    message: Correlated
    step: Step


_STRENGTH = tuple(Missing)


def attribute(sighting: Sighting, led: Mapping[bytes, Sequence[Correlated]]) -> Found | Missing:
    """Return the message that *sighting* is about; *led* gives the messages to which each of its ids leads."""
    if not sighting.names:
        return Missing.NO_ID
    worst = Missing.UNKNOWN_KEY if sighting.notice is None else Missing.UNKNOWN_ID
    for lookup in sighting.names:
        outcome = _one_of(lookup, led.get(lookup.named, ()), sighting.recipient)
        if outcome is None:
            continue
        # Asked of the enum, because to ask a struct's class takes ten times as long.
        if not isinstance(outcome, Missing):
            return outcome
        worst = max(worst, outcome, key=_STRENGTH.index)
    return worst


def _one_of(lookup: Lookup, messages: Sequence[Correlated], recipient: bytes) -> Found | Missing | None:
    if not messages:
        return None
    if lookup.own:
        # What nearly all hits are.
        return Found(message=messages[0], step=lookup.step) if len(messages) == 1 else Missing.AMBIGUOUS
    if lookup.step is Step.BATCH and not recipient:
        # It stands for several, also when only one of them is known yet.
        return Missing.AMBIGUOUS
    if recipient:
        theirs = [one for one in messages if one.recipient_index == recipient]
        # Of who was erased nobody knows the address any more: an id of that message alone is still good.
        erased = [one for one in messages if not one.recipient_index and lookup.step is not Step.BATCH]
        messages = theirs or erased
        if not messages:
            return Missing.OTHER_RECIPIENT
    if len(messages) > 1:
        return Missing.AMBIGUOUS
    return Found(message=messages[0], step=lookup.step)
