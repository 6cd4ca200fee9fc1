"""Sealed values: nobody reads or moves them, nothing is taken for one that is none, and keys rotate."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.sealing import HEAD_BYTES, MARK, TEXT_MARK, UNREADABLE, Column, SealedError, Sealer

OLD, NEW = b"an older key made up for tests", b"a newer key made up for tests"
ANN = "ann@example.net"

plain, sealing = Sealer(), Sealer([NEW])

texts = st.text(max_size=80)
octets = st.binary(max_size=80)


@given(value=octets, column=st.sampled_from(Column))
def test_octets_come_back(value: bytes, column: Column) -> None:
    """Sealed or kept as they are, whatever they begin with."""
    for sealer in (plain, sealing, Sealer([NEW, OLD])):
        assert sealer.open(column, sealer.seal(column, value)) == value
        assert sealer.open(column, sealer.seal(column, MARK + value)) == MARK + value


@given(value=texts)
def test_words_come_back(value: str) -> None:
    """The same for columns of text."""
    for sealer in (plain, sealing):
        for words in (value, TEXT_MARK + value, f"{value}\ud800"):
            stored = sealer.seal_text(Column.REPLY, words)
            assert sealer.open_text(Column.REPLY, stored) == words
    assert sealing.seal_text(Column.REPLY, None) is None
    assert sealing.open_text(Column.REPLY, None) is None


@given(value=octets.filter(bool))
def test_what_is_sealed_shows_nothing(value: bytes) -> None:
    """Not the value, not that two are equal; and a text holds what PostgreSQL's can."""
    stored = sealing.seal(Column.SENDER, value)
    assert stored != sealing.seal(Column.SENDER, value)
    assert len(stored) == len(value) + HEAD_BYTES + 12 + 16
    assert len(value) < 4 or value not in stored
    words = sealing.seal_text(Column.REPLY, "550 <ann@example.net>")
    assert words is not None
    assert words.isascii()
    assert words[1:].replace("/", "").replace("+", "").rstrip("=").isalnum()
    assert b"ann@" not in base64.b64decode(words[1:])


def test_without_a_key_a_value_is_itself() -> None:
    """And with one it is still readable as it is: rows from before."""
    assert plain.seal_address(Column.SENDER, ANN) == ANN.encode()
    assert plain.seal_text(Column.REPLY, "250 Ok") == "250 Ok"
    assert sealing.open_address(Column.SENDER, ANN.encode()) == ANN
    assert sealing.open_text(Column.REPLY, "250 Ok") == "250 Ok"


def test_an_address_of_any_octets() -> None:
    """What is no UTF-8 comes back, and is shown with a mark."""
    odd = b"j\xf6rg@example.net".decode("utf-8", "surrogateescape")
    for sealer in (plain, sealing):
        stored = sealer.seal_address(Column.SENDER, odd)
        assert sealer.open_address(Column.SENDER, stored) == odd
        assert sealer.show_address(Column.SENDER, stored) == "j\N{REPLACEMENT CHARACTER}rg@example.net"


def test_nobody_stays_nobody() -> None:
    """A null sender names nobody, and is found as one."""
    assert sealing.seal_address(Column.SENDER, "") == b""
    assert sealing.seal_text(Column.REPLY, "") == ""
    assert sealing.is_current(b"")
    assert sealing.is_current_text("")
    assert sealing.is_current_text(None)


def test_another_key_opens_nothing() -> None:
    """It is told which setting is wrong; whoever only shows it shows that it is sealed."""
    stored, words = sealing.seal_address(Column.SENDER, ANN), sealing.seal_text(Column.REPLY, ANN)
    for stranger in (Sealer([OLD]), plain):
        with pytest.raises(SealedError, match="OUTRIDER_KEYS__ADDRESSES"):
            stranger.open(Column.SENDER, stored)
        with pytest.raises(SealedError):
            stranger.open_text(Column.REPLY, words)
        assert stranger.show_address(Column.SENDER, stored) == UNREADABLE
        assert stranger.show_text(Column.REPLY, words) == UNREADABLE


def test_every_octet_counts() -> None:
    """Altered anywhere, cut or moved to another column it does not open; nor is it taken for a plain one."""
    stored = sealing.seal_address(Column.SENDER, ANN)
    for place in range(len(MARK), len(stored)):
        altered = bytearray(stored)
        altered[place] ^= 1
        if altered[len(MARK)] != 0:
            with pytest.raises(SealedError):
                sealing.open(Column.SENDER, bytes(altered))
    for length in range(len(MARK), len(stored)):
        with pytest.raises(SealedError):
            sealing.open(Column.SENDER, stored[:length])
    with pytest.raises(SealedError):
        sealing.open(Column.RECIPIENT, stored)
    for words in (TEXT_MARK, f"{TEXT_MARK}?", f"{TEXT_MARK}AAAA"):
        with pytest.raises(SealedError):
            sealing.open_text(Column.REPLY, words)


def test_keys_rotate() -> None:
    """The first seals, all open; what an older one sealed is told from what is current."""
    old, both = Sealer([OLD]), Sealer([NEW, OLD])
    before, after = old.seal_address(Column.SENDER, ANN), both.seal_address(Column.SENDER, ANN)
    assert both.open_address(Column.SENDER, before) == both.open_address(Column.SENDER, after) == ANN
    assert sealing.open_address(Column.SENDER, after) == ANN
    with pytest.raises(SealedError):
        old.open(Column.SENDER, after)
    assert [both.is_current(stored) for stored in (before, after, ANN.encode())] == [False, True, False]
    assert both.is_current(after[:HEAD_BYTES])
    words = old.seal_text(Column.REPLY, ANN), both.seal_text(Column.REPLY, ANN)
    assert [both.is_current_text(stored) for stored in (*words, ANN)] == [False, True, False]


def test_one_that_opens_for_good() -> None:
    """It has the keys and seals nothing."""
    opening = Sealer([NEW], seals=False)
    stored, words = sealing.seal_address(Column.SENDER, ANN), sealing.seal_text(Column.REPLY, ANN)
    assert opening.seal(Column.SENDER, opening.open(Column.SENDER, stored)) == ANN.encode()
    assert [opening.is_current(one) for one in (stored, ANN.encode(), MARK + b"\x00x")] == [False, True, True]
    assert [opening.is_current_text(one) for one in (words, ANN)] == [False, True]
