"""MAIL and RCPT: each argument earns its sender or recipient, or the one reply that says what is wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import replies
from relay.commands import Sender, read_mail, read_rcpt
from relay.replies import Reply

LIMIT = 1000


def mail(argument: bytes, *, extended: bool = True) -> Sender | Reply:
    """Read a MAIL argument with a limit of 1,000 octets."""
    return read_mail(argument, extended=extended, max_bytes=LIMIT)


@pytest.mark.parametrize(
    ("argument", "sender"),
    [
        (b"FROM:<a@b.example>", Sender(address="a@b.example", smtputf8=False, eight_bit=False)),
        (b"from: <a@b.example>", Sender(address="a@b.example", smtputf8=False, eight_bit=False)),
        (b"FROM:<>", Sender(address="", smtputf8=False, eight_bit=False)),
        (b"FROM:<> BODY=8bitmime", Sender(address="", smtputf8=False, eight_bit=True)),
        (b"FROM:<a@b.example> BODY=7BIT SIZE=1000", Sender(address="a@b.example", smtputf8=False, eight_bit=False)),
        (b"FROM:<a@b.example> smtputf8", Sender(address="a@b.example", smtputf8=True, eight_bit=False)),
        (
            "FROM:<ю@b.example> SMTPUTF8 BODY=8BITMIME".encode(),
            Sender(address="ю@b.example", smtputf8=True, eight_bit=True),
        ),
        (b"FROM:<a@b.example> SIZE=0", Sender(address="a@b.example", smtputf8=False, eight_bit=False)),
        (
            b"FROM:<a@b.example> RET=HDRS ENVID=QQ314159 AUTH=<>",
            Sender(address="a@b.example", smtputf8=False, eight_bit=False),
        ),
        (b'FROM:"Shop" <a@b.example> SIZE=1', Sender(address="a@b.example", smtputf8=False, eight_bit=False)),
    ],
)
def test_a_sender_is_declared(argument: bytes, sender: Sender) -> None:
    """The parameters we offer are read, those we only tolerate are passed over."""
    assert mail(argument) == sender


@pytest.mark.parametrize(
    ("argument", "reply"),
    [
        (b"", replies.BAD_SENDER),
        (b"FROM", replies.BAD_SENDER),
        (b"TO:<a@b.example>", replies.BAD_SENDER),
        (b"FROM:", replies.BAD_SENDER),
        (b"FROM:user", replies.BAD_SENDER),
        (b"FROM:user size=1234", replies.BAD_SENDER),
        (b"FROM:<a@[127.0.0.1]>", replies.BAD_SENDER),
        ("FROM:<ю@b.example>".encode(), replies.SENDER_NEEDS_UTF8),
        (b"FROM:<\xff@b.example> SMTPUTF8", replies.BAD_SENDER),
        (b"FROM:<a@b.example> SIZE=1001", replies.TOO_BIG),
        (b"FROM:<a@b.example> SIZE=99999999999999999999", replies.TOO_BIG),
        (b"FROM:<a@b.example> SIZE=-1", replies.BAD_ARGUMENTS),
        (b"FROM:<a@b.example> SIZE=abc", replies.BAD_ARGUMENTS),
        (b"FROM:<a@b.example> SIZE=1e9", replies.BAD_ARGUMENTS),
        (b"FROM:<a@b.example> SIZE=", replies.BAD_ARGUMENTS),
        (b"FROM:<a@b.example> SIZE", replies.BAD_ARGUMENTS),
        (b"FROM:<a@b.example> SIZE=+1", replies.BAD_ARGUMENTS),
        (b"FROM:<a@b.example> SIZE=" + b"9" * 5000, replies.BAD_ARGUMENTS),
        ("FROM:<a@b.example> SIZE=١٢".encode(), replies.BAD_ARGUMENTS),
        (b"FROM:<a@b.example> BODY=BINARYMIME", replies.BAD_ARGUMENTS),
        (b"FROM:<a@b.example> BODY", replies.BAD_ARGUMENTS),
        (b"FROM:<a@b.example> SMTPUTF8=1", replies.BAD_ARGUMENTS),
        (b"FROM:<a@b.example> SIZE=1 size=2", replies.BAD_ARGUMENTS),
        (b"FROM:<a@b.example> =1", replies.BAD_ARGUMENTS),
        (b"FROM:<a@b.example> <c@d.example>", replies.BAD_ARGUMENTS),
        (b"FROM:<a@b.example> FOO=1", replies.UNKNOWN_PARAMETER),
        (b"FROM:<a@b.example> NOTIFY=NEVER", replies.UNKNOWN_PARAMETER),
        (b"FROM:<a@b.example> REQUIRETLS", replies.UNKNOWN_PARAMETER),
        (b"FROM:<a@b.example> XVERP", replies.UNKNOWN_PARAMETER),
    ],
)
def test_a_bad_sender_is_told_what_is_wrong(argument: bytes, reply: Reply) -> None:
    """Syntax 501, too big 552, outside ASCII 553, a parameter we would not honour 555."""
    assert mail(argument) == reply


@pytest.mark.parametrize(
    ("argument", "reply"),
    [
        (b"TO:<>", replies.BAD_RECIPIENT),
        (b"TO:", replies.BAD_RECIPIENT),
        (b"FROM:<a@b.example>", replies.BAD_RECIPIENT),
        (b"TO:<postmaster>", replies.BAD_RECIPIENT),
        (b"TO:<a@b.example> SIZE=1", replies.UNKNOWN_PARAMETER),
        (b"TO:<user=name@domain.example> foo=bar", replies.UNKNOWN_PARAMETER),
        ("TO:<ю@b.example>".encode(), replies.RECIPIENT_NEEDS_UTF8),
    ],
)
def test_a_bad_recipient_is_told_what_is_wrong(argument: bytes, reply: Reply) -> None:
    """There is no null recipient, and no recipient without a domain to relay to."""
    assert read_rcpt(argument, extended=True, utf8=False) == reply


def test_a_recipient_is_read() -> None:
    """DSN parameters are tolerated; UTF-8 follows what MAIL declared."""
    argument = b"TO:<a@b.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+40b.example"
    assert read_rcpt(argument, extended=True, utf8=False) == "a@b.example"
    assert read_rcpt("to: <ю@b.example>".encode(), extended=True, utf8=True) == "ю@b.example"


def test_parameters_belong_to_ehlo() -> None:
    """RFC 5321 4.1.1.11: a client that said HELO knows none."""
    assert mail(b"FROM:<a@b.example> SIZE=1", extended=False) == replies.UNKNOWN_PARAMETER
    assert mail(b"FROM:<a@b.example>", extended=False) == Sender(address="a@b.example", smtputf8=False, eight_bit=False)


@given(st.binary(max_size=120))
def test_any_argument_gets_one_answer(argument: bytes) -> None:
    """Invariant: for any bytes, a clean value or a 5xx; never an exception."""
    sender = mail(b"FROM:" + argument)
    assert sender.code // 100 == 5 if isinstance(sender, Reply) else sender.address.isprintable()
    recipient = read_rcpt(b"TO:" + argument, extended=True, utf8=True)
    assert recipient.code // 100 == 5 if isinstance(recipient, Reply) else recipient.isprintable()
