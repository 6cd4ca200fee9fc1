"""The reader finds the one true end of a message however its bytes arrive, and lets nothing past that is none."""

import re
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import replies
from relay.reader import DataReader
from relay.replies import Reply
from relay.spool import Spool

HEADER = b"Subject: x\r\n\r\n"
END = b"\r\n.\r\n"


def read(
    wire: bytes, *cuts: int, max_bytes: int = 1 << 20, max_received: int = 50, threshold: int = 1 << 18
) -> tuple[bytes | Reply, bytes]:
    """Feed *wire* cut at *cuts*; return the result and what was left for the next command."""
    reader = DataReader(Spool(threshold=threshold), max_bytes=max_bytes, max_received=max_received)
    edges = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})
    for start, stop in pairwise(edges):
        used = reader.feed(wire[start:stop])
        if used is not None:
            return reader.result(), wire[start + used :]
    pytest.fail("the end was not found")


@pytest.mark.parametrize(
    ("wire", "content"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"a\r\n..\r\n.\r\n", b"a\r\n.\r\n"),
        (b"a\r\n..b\r\n.\r\n", b"a\r\n.b\r\n"),
        (b"a\r\n.b\r\n.\r\n", b"a\r\nb\r\n"),
        (b"a.\r\nb.c\r\n.\r\n", b"a.\r\nb.c\r\n"),
        (b"a\r\n. \r\n.\r\n", b"a\r\n \r\n"),
        (b"a\nb\r\n.\r\n", b"a\r\nb\r\n"),
        (b"a\n\nb\r\n.\r\n", b"a\r\n\r\nb\r\n"),
        (b"a\n..b\r\n.\r\n", b"a\r\n.b\r\n"),
        (b"a\n\r\n.\r\n", b"a\r\n\r\n"),
        (b"\xcf\xf0\xe8\r\n.\r\n", b"\xcf\xf0\xe8\r\n"),
        (b"x" * 500_000 + b"\r\n.\r\n", b"x" * 500_000 + b"\r\n"),
    ],
)
def test_content_comes_out_unstuffed_with_crlf_only(wire: bytes, content: bytes) -> None:
    """RFC 5321 4.5.2, and other line ends made CRLF; a line has any length."""
    assert read(wire) == (content, b"")


DEVIANTS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\n",
    b"\n.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r\r\n.\r\r\n",
    b"\r\n.\r\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\n.\n\r\n",
    b"\r\n\r.\r\n",
]


@pytest.mark.parametrize("deviant", DEVIANTS)
def test_a_deviant_end_refuses_the_whole_message(deviant: bytes) -> None:
    """It is read to the true end first, so that what follows the deviant is never taken for commands."""
    wire = HEADER + b"a" + deviant + b"MAIL FROM:<evil@example.net>\r\nDATA\r\nforged" + END
    assert read(wire + b"QUIT\r\n") == (replies.BAD_LINE_ENDS, b"QUIT\r\n")
    assert read(wire + b"QUIT\r\n", *range(len(wire))) == (replies.BAD_LINE_ENDS, b"QUIT\r\n")


@pytest.mark.parametrize("start", [b".\n", b".\r", b"\0", b"\r"])
def test_a_deviant_end_at_the_very_beginning_is_one_too(start: bytes) -> None:
    """The content begins at the beginning of a line."""
    assert read(start + b"x" + END)[0] == replies.BAD_LINE_ENDS


def test_the_end_is_found_byte_by_byte() -> None:
    """A client may send one octet at a time; what comes after the end is the next command's."""
    wire = HEADER + b"body\r\n..\r\n" + b"more" + END
    assert read(wire + b"QUIT\r\n", *range(len(wire) + 6)) == (HEADER + b"body\r\n.\r\nmore\r\n", b"QUIT\r\n")
    assert read(wire + b"QUIT\r\n") == (HEADER + b"body\r\n.\r\nmore\r\n", b"QUIT\r\n")


def reference(wire: bytes, max_bytes: int) -> tuple[bytes | Reply, bytes]:
    """Say the same as the reader in the slowest and plainest way: from the whole, line by line."""
    content, _, left = (b"\r\n" + wire).partition(END)
    content += b"\r\n"
    lines = re.split(rb"\r?\n", content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))[1:-1]
    bare_cr = re.search(rb"\r(?!\n)", content)
    lone_dot = b"." in lines and b"\n" in content.replace(b"\r\n", b"")
    plain = [line.removeprefix(b".") for line in lines]
    text = b"".join(line + b"\r\n" for line in plain)
    if bare_cr or lone_dot or b"\0" in content:
        return replies.BAD_LINE_ENDS, left
    return (replies.TOO_BIG if len(text) > max_bytes else text), left


PIECES = st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"..", b"\0", b"a", b"bc", b"\r\n.", b"\n.", b".\r", b".\n"])
WIRES = st.lists(PIECES, max_size=30).map(lambda pieces: b"".join(pieces) + END + b"QUIT\r\n")


@pytest.mark.parametrize("length", range(6))
def test_every_short_content_is_read_alike_at_once_and_octet_by_octet(length: int) -> None:
    """All contents of up to five octets out of those that matter: 1,365 of them."""
    for octets in product(b"\r\n.a", repeat=length):
        wire = bytes(octets) + END + b"QUIT\r\n"
        expected = reference(wire, 1 << 20)
        assert read(wire) == expected, wire
        assert read(wire, *range(len(wire))) == expected, wire


@given(wire=WIRES, max_bytes=st.sampled_from([5, 12, 1 << 20]))
def test_the_reader_agrees_with_the_plainest_reading(wire: bytes, max_bytes: int) -> None:
    """Invariant: one pass over blocks says what a reading of the whole says."""
    assert read(wire, max_bytes=max_bytes) == reference(wire, max_bytes)


@given(wire=WIRES, cuts=st.lists(st.integers(0, 200), max_size=40), max_bytes=st.sampled_from([5, 12, 1 << 20]))
def test_every_split_of_the_same_bytes_gives_the_same(wire: bytes, cuts: list[int], max_bytes: int) -> None:
    """Invariant: how the network cuts a message decides nothing."""
    whole = read(wire, max_bytes=max_bytes)
    assert read(wire, *cuts, max_bytes=max_bytes) == whole
    assert read(wire, *cuts, max_bytes=max_bytes, threshold=3) == whole, "from a file it is another"
    assert read(wire, *range(len(wire)), max_bytes=max_bytes) == whole


@given(
    content=st.lists(st.sampled_from([b".", b"..", b"a", b"", b".a"]), max_size=20), cuts=st.lists(st.integers(0, 99))
)
def test_stuffing_is_undone_exactly(content: list[bytes], cuts: list[int]) -> None:
    """Invariant: what a correct client stuffs arrives as it was."""
    stuffed = b"".join((b"." + line if line.startswith(b".") else line) + b"\r\n" for line in content)
    assert read(stuffed + b".\r\n", *cuts)[0] == b"".join(line + b"\r\n" for line in content)


@given(wire=WIRES)
def test_nothing_bare_ever_comes_out(wire: bytes) -> None:
    """Invariant: accepted content has CRLF line ends only, and no NUL: nothing to smuggle upstream."""
    content, _ = read(wire)
    if isinstance(content, bytes):
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", content)
        assert content == b"" or content.endswith(b"\r\n")


def test_the_limit_counts_content_and_not_stuffing() -> None:
    """RFC 1870 3: neither doubled dots nor the end are part of the size."""
    wire = b"..345678\r\n.\r\n"
    assert read(wire, max_bytes=9) == (b".345678\r\n", b"")
    assert read(wire, max_bytes=8) == (replies.TOO_BIG, b"")


def test_too_much_is_discarded_while_it_is_read() -> None:
    """Memory stays at the limit, with line ends or without any; twice the limit is hopeless."""
    for block in (b"x" * 1000, b"x" * 998 + b"\r\n"):
        held = Spool()
        reader = DataReader(held, max_bytes=10_000)
        fed = 0
        while not reader.hopeless:
            assert reader.feed(block) is None
            fed += len(block)
            assert len(held) <= 10_002
        assert 20_000 < fed <= 22_000
        assert reader.feed(b"\r\n.\r\n") is not None
        assert reader.result() == replies.TOO_BIG


def test_the_size_so_far_is_known() -> None:
    """For a log or a metric, while the message is still on its way."""
    reader = DataReader(Spool(), max_bytes=100)
    assert reader.octets == 0
    reader.feed(b"12345")
    assert reader.octets == 5 + 2 - 2
    assert not reader.hopeless


def hops(count: int, spelling: bytes = b"Received: from a by b\r\n\tfor c; d\r\n") -> bytes:
    """Return a message with so many Received fields."""
    return spelling * count + b"Subject: x\r\n\r\nReceived: not a field\r\n"


@pytest.mark.parametrize("spelling", [b"Received: a\r\n", b"RECEIVED : a\r\n", b"received:a\r\n\tb\r\n"])
def test_a_loop_is_refused(spelling: bytes) -> None:
    """RFC 5321 6.3: 50 hops pass, 51 do not; only fields count, not what the body says."""
    assert read(hops(50, spelling) + b".\r\n")[0] == hops(50, spelling)
    assert read(hops(51, spelling) + b".\r\n")[0] == replies.MAIL_LOOP
    assert read(HEADER + hops(60) + b".\r\n")[0] == HEADER + hops(60)
    assert read(hops(3) + b".\r\n", max_received=2)[0] == replies.MAIL_LOOP
