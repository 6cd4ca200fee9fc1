"""Every reply is one a client can read, and none carries what a client or an exception said."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import replies
from relay.replies import LINE_OCTETS, MAX_LINES, Reply

TABLE = {name: value for name, value in vars(replies).items() if isinstance(value, Reply)}

CLOSING = {
    "TIMED_OUT",
    "SHUTTING_DOWN",
    "TOO_MANY_CONNECTIONS",
    "TOO_MANY_ERRORS",
    "TOO_MUCH_JUNK",
    "TOO_MANY_FAILURES",
}


@pytest.mark.parametrize("name", sorted(TABLE))
def test_a_reply_of_the_table_is_one_short_line_of_ascii(name: str) -> None:
    """Invariant: fixed text, one line, within RFC 5321 4.5.3.1.5."""
    reply = TABLE[name]
    wire = bytes(reply)
    assert wire == str(reply).encode("ascii") + b"\r\n"
    assert len(wire) <= LINE_OCTETS
    assert wire.count(b"\r\n") == 1


def test_everything_but_354_and_challenges_has_an_enhanced_code() -> None:
    """RFC 2034 4: 2yz, 4yz and 5yz replies carry an enhanced status code; 3yz do not."""
    assert {name for name, reply in TABLE.items() if not reply.enhanced} == {"START_DATA"}


def test_421_is_said_where_the_connection_closes() -> None:
    """RFC 5321 3.8: 421 is for a connection that is about to be closed, and for nothing else."""
    assert {name for name, reply in TABLE.items() if reply.code == 421} == CLOSING


def test_an_error_of_ours_is_temporary() -> None:
    """A mailer that gets a 5xx gives the message up; one that gets 451 comes again."""
    assert str(replies.LOCAL_ERROR).startswith("451 4.3.0 ")


def test_the_last_word_of_250_is_the_key() -> None:
    """Mailers keep the last reply, so the key in it can be found again."""
    assert bytes(replies.queued("abcdefghijklmnopqrstuvwxyz")) == (
        b"250 2.0.0 Ok: queued as abcdefghijklmnopqrstuvwxyz\r\n"
    )


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(250, "accepted"), (221, "accepted"), (451, "deferred"), (421, "deferred"), (550, "refused"), (354, "refused")],
)
def test_the_class_of_the_code_is_the_outcome(code: int, outcome: str) -> None:
    """What is neither 2yz nor 4yz is no promise to anybody."""
    assert Reply(code, "", "x").outcome == outcome


@pytest.mark.parametrize(
    ("code", "enhanced"),
    [(199, ""), (600, ""), (250, "5.0.0"), (550, "4.1.1"), (550, "5.1"), (550, "5.1.1 "), (550, "5.1.1\r\n")],
)
def test_a_reply_nobody_could_read_is_not_made(code: int, enhanced: str) -> None:
    """A code out of range, and an enhanced code of another class, are errors of ours."""
    with pytest.raises(ValueError, match="code"):
        Reply(code, enhanced, "x")


@pytest.mark.parametrize(
    ("code", "text", "wire"),
    [
        (550, "5.1.1 No such user", b"550 5.1.1 No such user\r\n"),
        (550, "No such user", b"550 No such user\r\n"),
        (550, "5.1.1 No such user\n5.1.1 See example.com", b"550-5.1.1 No such user\r\n550 5.1.1 See example.com\r\n"),
        (550, "5.1.1 One\r\nTwo", b"550-5.1.1 One\r\n550 5.1.1 Two\r\n"),
        (450, "5.1.1 Of another class", b"450 5.1.1 Of another class\r\n"),
        (550, "5.1.1", b"550 5.1.1 \r\n"),
        (554, "5.7.1 привет\0\x1b[2J", b"554 5.7.1 ??????  [2J\r\n"),
        (550, "", b"550 \r\n"),
    ],
)
def test_an_upstream_verdict_is_passed_through(code: int, text: str, wire: bytes) -> None:
    """Mailers classify failures by code and text, so both arrive as the upstream said them."""
    assert bytes(Reply.passed_through(code, text)) == wire


@given(
    code=st.integers(400, 599),
    text=st.text(max_size=3000) | st.text(alphabet="\r\n\0 45.17é", max_size=2000),
)
def test_no_text_breaks_out_of_its_reply(code: int, text: str) -> None:
    """Invariant: whatever an upstream says, the client reads one reply of that code, line by line, in ASCII."""
    wire = bytes(Reply.passed_through(code, text))
    lines = wire.split(b"\r\n")
    assert lines.pop() == b""
    assert 1 <= len(lines) <= MAX_LINES
    assert all(len(line) + 2 <= LINE_OCTETS for line in lines)
    assert all(re.fullmatch(rb"%d-[ -~]*" % code, line) for line in lines[:-1])
    assert re.fullmatch(rb"%d [ -~]*" % code, lines[-1])
