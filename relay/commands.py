"""The arguments of MAIL and RCPT: a path, then parameters, each with the reply it earns (RFC 5321 4.1.1.2, 4.1.1.3).

Pure: bytes and limits in, a value or a `Reply` out. A parameter is read in ASCII only; an unknown one is refused,
because the client would believe that we do what it asked for.
"""

import re

import msgspec

from relay import replies
from relay.address import Flaw, Path, mailbox, split_path
from relay.replies import Reply

# RFC 5321 4.1.2 esmtp-param; values of ORCPT may be UTF-8 (RFC 6533).
_PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\x80-\xff]+))?")
_SIZE = re.compile(rb"[0-9]{1,20}")

# Not offered, yet sent by mailers that do not look. DSN parameters (RFC 3461) change nothing here, and AUTH= may be
# ignored by a server that does not trust its client (RFC 4954 5).
_IGNORED_WITH_MAIL = frozenset({b"RET", b"ENVID", b"AUTH"})
_IGNORED_WITH_RCPT = frozenset({b"NOTIFY", b"ORCPT"})


class Sender(msgspec.Struct, frozen=True, kw_only=True):
    """What a MAIL command declares."""

    #: "" is the null sender.
    address: str
    smtputf8: bool
    eight_bit: bool


def read_mail(argument: bytes, *, extended: bool, max_bytes: int) -> Sender | Reply:
    """Read what follows MAIL; *extended* says that the session began with EHLO, *max_bytes* is the SIZE we offer."""
    found = _path_after(b"FROM:", argument)
    if found is None:
        return replies.BAD_SENDER
    parameters = _parameters(found.parameters, extended=extended)
    if isinstance(parameters, Reply):
        return parameters
    size = parameters.pop(b"SIZE", b"0")
    body = parameters.pop(b"BODY", b"7BIT").upper()
    smtputf8 = parameters.pop(b"SMTPUTF8", None)
    if smtputf8 or body not in {b"7BIT", b"8BITMIME"} or not _SIZE.fullmatch(size):
        return replies.BAD_ARGUMENTS
    if parameters.keys() - _IGNORED_WITH_MAIL:
        return replies.UNKNOWN_PARAMETER
    if int(size) > max_bytes:
        return replies.TOO_BIG
    address = mailbox(found, utf8=smtputf8 is not None) if found.local else ""
    if isinstance(address, Flaw):
        return replies.SENDER_NEEDS_UTF8 if address is Flaw.NEEDS_UTF8 else replies.BAD_SENDER
    return Sender(address=address, smtputf8=smtputf8 is not None, eight_bit=body == b"8BITMIME")


def read_rcpt(argument: bytes, *, extended: bool, utf8: bool) -> str | Reply:
    """Read what follows RCPT and return the recipient; *utf8* says that MAIL declared SMTPUTF8."""
    found = _path_after(b"TO:", argument)
    if found is None:
        return replies.BAD_RECIPIENT
    parameters = _parameters(found.parameters, extended=extended)
    if isinstance(parameters, Reply):
        return parameters
    if parameters.keys() - _IGNORED_WITH_RCPT:
        return replies.UNKNOWN_PARAMETER
    address = mailbox(found, utf8=utf8)
    if isinstance(address, Flaw):
        return replies.RECIPIENT_NEEDS_UTF8 if address is Flaw.NEEDS_UTF8 else replies.BAD_RECIPIENT
    return address


def _path_after(keyword: bytes, argument: bytes) -> Path | None:
    return split_path(argument[len(keyword) :]) if argument[: len(keyword)].upper() == keyword else None


def _parameters(text: bytes, *, extended: bool) -> dict[bytes, bytes] | Reply:
    # A parameter without a value has the empty value, which no parameter can be given.
    found: dict[bytes, bytes] = {}
    for word in text.split():
        match = _PARAMETER.fullmatch(word)
        if match is None or match[1].upper() in found:
            return replies.BAD_ARGUMENTS
        found[match[1].upper()] = match[2] or b""
    if found and not extended:
        return replies.UNKNOWN_PARAMETER
    return found
