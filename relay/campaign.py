"""Tell which campaign a message belongs to, from the headers its mailer set; never a guess.

The first configured header that is present decides. What it says is a campaign, or it is none and the reason is kept.
"""

import re
import uuid
from collections.abc import Sequence
from typing import Protocol

import msgspec

_NAME = re.compile(r"\A[A-Za-z0-9._:-]{1,64}\Z")
_UUID = re.compile(r"\A[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\Z")
# What a template engine left behind: [%%MailingID%%], {{id}}, *|ID|*, ${id}.
_UNEXPANDED = re.compile(r"%%|\{\{|\*\||\$\{|\{%")

#: By these listmonk names a campaign, and whom a message of it is for.
_LISTMONK_CAMPAIGN, _LISTMONK_SUBSCRIBER = "X-Listmonk-Campaign", "X-Listmonk-Subscriber"

#: By this a mailer may say how many messages the campaign will have; it is removed from what leaves.
TO_SEND_HEADER = "X-Outrider-To-Send"

# Of a number that fits its column.
_MAX_DIGITS = 10

_LARGEST_MAILING = 2**63 - 1


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: an id, or none with its reason (`no_header`, `unexpanded`, `invalid`, `ambiguous`)."""

    id: str | None = None
    reason: str | None = None
    #: The integer under which AMS knows it; none for everybody else's.
    ams_mailing: int | None = None
    #: How many messages its mailer says it will have.
    to_send: int | None = None


class HeaderValues(Protocol):
    """The header fields of a message."""

    def all(self, name: str) -> list[str]:
        """Return the unfolded values of every field of that name."""


def campaign_of(headers: HeaderValues, *, names: Sequence[str], ams_names: Sequence[str]) -> Campaign:
    """Return the campaign that *headers* name, by the first of *names* that is present.

    *ams_names* are the headers whose integers are AMS's mailings.
    """
    for name in names:
        values = {_bare(value) for value in headers.all(name)}
        if not values:
            continue
        if len(values) > 1:
            return Campaign(reason="ambiguous")
        value = values.pop()
        if _UNEXPANDED.search(value):
            return Campaign(reason="unexpanded")
        if not _NAME.match(value):
            return Campaign(reason="invalid")
        is_ams = name.lower() in {ams_name.lower() for ams_name in ams_names}
        return Campaign(
            id=value, ams_mailing=_mailing(value) if is_ams else None, to_send=_expected(headers.all(TO_SEND_HEADER))
        )
    return Campaign(reason="no_header")


def subscriber_of(headers: HeaderValues, campaign: Campaign) -> bytes | None:
    """Return the 16 octets of the UUID under which listmonk knows the recipient of a message of its *campaign*."""
    if campaign.id is None or not _UUID.match(campaign.id):
        return None
    if [_bare(value) for value in headers.all(_LISTMONK_CAMPAIGN)] != [campaign.id]:
        return None
    said = [value.strip() for value in headers.all(_LISTMONK_SUBSCRIBER)]
    return uuid.UUID(said[0]).bytes if len(said) == 1 and _UUID.match(said[0]) else None


def _expected(values: Sequence[str]) -> int | None:
    # Said twice with two numbers, or with none, it says nothing.
    numbers = {value.strip() for value in values}
    text = numbers.pop() if len(numbers) == 1 else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < _MAX_DIGITS and int(text) else None


def _bare(value: str) -> str:
    text = value.strip()
    return text[1:-1].strip() if text.startswith("[") and text.endswith("]") else text


def _mailing(value: str) -> int | None:
    if not (value.isascii() and value.isdigit()):
        return None
    number = int(value)
    return number if 0 < number <= _LARGEST_MAILING else None
