"""The grammar takes what mailers send and nothing that could become another address, line or command."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.address import Flaw, Path, mailbox, split_path

LOCAL_64 = b"l" * 64
DOMAIN_255 = b".".join([b"d" * 63] * 3 + [b"d" * 63])


def read(argument: bytes, *, utf8: bool = False) -> str | Flaw | None:
    """Return the address of an argument, why it is none, or None where there is no path."""
    path = split_path(argument)
    return None if path is None else mailbox(path, utf8=utf8) if path.local else ""


@pytest.mark.parametrize(
    ("argument", "address"),
    [
        (b"<a@b.example>", "a@b.example"),
        (b" <a@b.example>", "a@b.example"),
        (b"<>", ""),
        (b"<B.User+tag@Y.Example>", "B.User+tag@Y.Example"),
        (b"<user=name@domain.example>", "user=name@domain.example"),
        (b"<!#$%&'*+-/?=^_`{|}~@b.example>", "!#$%&'*+-/?=^_`{|}~@b.example"),
        (b'<"a b"@y.example>', '"a b"@y.example'),
        (b'<"a>b"@y.example>', '"a>b"@y.example'),
        (b'<"a@b"@y.example>', '"a@b"@y.example'),
        (b'<"a\\"b"@y.example>', '"a\\"b"@y.example'),
        (b"<a@localhost>", "a@localhost"),
        (b"<a@xn--e1afmkfd.example>", "a@xn--e1afmkfd.example"),
        (b"<@one.example,@two.example:a@b.example>", "a@b.example"),
        (b"<@one.example:a@b.example>", "a@b.example"),
        (b'"Shop" <a@b.example>', "a@b.example"),
        (b"Shop <a@b.example>", "a@b.example"),
        (b"Shop<a@b.example>", "a@b.example"),
        (b'"Shop <x@y.example>" <a@b.example>', "a@b.example"),
        (b"sales@shop.example <a@b.example>", "a@b.example"),
        ("Магазин <a@b.example>".encode(), "a@b.example"),
        ("Магазин <a@b.example>".encode("cp1251"), "a@b.example"),
        (b"=?utf-8?q?Shop?= <a@b.example>", "a@b.example"),
        (b"a@b.example", "a@b.example"),
        (b'"a b"@y.example', '"a b"@y.example'),
        (b"<" + LOCAL_64 + b"@b.example>", "l" * 64 + "@b.example"),
        (b"<a@" + DOMAIN_255 + b">", "a@" + DOMAIN_255.decode()),
    ],
)
def test_an_address_comes_out_as_it_went_in(argument: bytes, address: str) -> None:
    """Case, quotes and tags are the mailbox owner's; a route and a display name are dropped."""
    assert read(argument) == address


@pytest.mark.parametrize(
    "argument",
    [
        b"",
        b" ",
        b"<",
        b">",
        b"<a>",
        b"postmaster",
        b"<postmaster>",
        b"<b",
        b"<a@b.example",
        b"a@b.example>",
        b"<<a@b.example>>",
        b"<a@b.example>x",
        b"<a@b.example><c@d.example>",
        b"<a@b.example>, <c@d.example>",
        b"< a@b.example>",
        b"<a@b.example >",
        b"<a b@c.example>",
        b"<a@b c.example>",
        b"<a@@b.example>",
        b"<a@b@c.example>",
        b"<@b.example>",
        b"<a@>",
        b"<.a@b.example>",
        b"<a.@b.example>",
        b"<a..b@c.example>",
        b"<a@.example>",
        b"<a@b..example>",
        b"<a@b.example.>",
        b"<a@-b.example>",
        b"<a@b-.example>",
        b"<a@b_c.example>",
        b"<a@" + b"d" * 64 + b".example>",
        b"<a@" + DOMAIN_255 + b"d>",
        b"<" + LOCAL_64 + b"l@b.example>",
        b"<a@[127.0.0.1]>",
        b"<a@[IPv6:::1]>",
        b"<a(comment)@b.example>",
        b"<a@b.example(comment)>",
        b'<"b\\"@y>',
        b'<"b"c@y.example>',
        b'<""a""@y.example>',
        b"<a\\@b@c.example>",
        b"<a@b.example\x00>",
        b"<a\x00@b.example>",
        b"<a\r\nRCPT TO:<c@d.example>@b.example>",
        b"<a\n@b.example>",
        b"<a@b.example>\n",
        b"<a@b.example> SIZE=1\n",
        b'<"a\rb"@c.example>',
        b'<"a\\\nb"@c.example>',
        b"<a\x7f@b.example>",
        b"<a\t@b.example>",
        b"\x1bShop <a@b.example>",
        b"<=?utf-8?q?a?=@b.example>",
        b'<"=?utf-8?q?a?="@b.example>',
        b"<=?utf-8?q?b=0d=0aRCPT_TO:<evil@z.example>?=@y.example>",
        b"<=?utf-7?b?YQ0KREFUQQ?=@y.example>",
        b"=?utf-8?q?a=40b.example?=",
    ],
)
def test_what_is_no_address_is_refused(argument: bytes) -> None:
    """Neither repaired nor decoded: what the grammar does not know is no address, with SMTPUTF8 or without."""
    assert read(argument) in {None, Flaw.SYNTAX}
    assert read(argument, utf8=True) in {None, Flaw.SYNTAX}


@pytest.mark.parametrize("address", ["пётр@пример.example", "анна@b.example", "a@bücher.example", '"п п"@b.example'])
def test_an_address_outside_ascii_needs_smtputf8(address: str) -> None:
    """RFC 6531 3.4: without the client's word, the next server could not take it."""
    argument = f"<{address}>".encode()
    assert read(argument) is Flaw.NEEDS_UTF8
    assert read(argument, utf8=True) == address


@pytest.mark.parametrize(
    "argument",
    [
        "<a\u202eb@c.example>".encode(),
        "<a@\u202eb.example>".encode(),
        "<a\u200fb@c.example>".encode(),
        "<a\u2066b@c.example>".encode(),
        "<a\u200bb@c.example>".encode(),
        "<a\u0085b@c.example>".encode(),
        "<a\u00a0b@c.example>".encode(),
        "<a\u2028b@c.example>".encode(),
        "<a\ue000b@c.example>".encode(),
        "<a@b\u3002example>".encode(),
        "<a@b\uff0fc.example>".encode(),
        "<a@é..example>".encode(),
        ("<a@" + "é" * 64 + ".example>").encode(),
        b"<\xff@b.example>",
        b"<a@b\xc3.example>",
        b"<\xed\xa0\x80@b.example>",
        b"<\xc0\xae@b.example>",
    ],
)
def test_invisible_and_invalid_characters_are_refused(argument: bytes) -> None:
    """Controls, bidi marks, separators and broken UTF-8 make one address look or become another."""
    assert read(argument, utf8=True) is Flaw.SYNTAX


def test_the_parameters_follow_a_space() -> None:
    """What follows the path is handed on as it stands."""
    assert split_path(b"<a@b.example> SIZE=1 BODY=7BIT") == Path(
        local=b"a", domain=b"b.example", parameters=b"SIZE=1 BODY=7BIT"
    )
    assert split_path(b"a@b.example   SIZE=1") == Path(local=b"a", domain=b"b.example", parameters=b"SIZE=1")
    assert split_path(b"<> SIZE=1") == Path(local=b"", domain=b"", parameters=b"SIZE=1")


@given(st.binary(max_size=200) | st.text(alphabet='<>@."\\ab:,=?- \r\n\0é\u202e', max_size=80).map(str.encode))
def test_nothing_but_a_clean_address_comes_out(argument: bytes) -> None:
    """Invariant: for any bytes, an accepted address stands in them literally and holds nothing invisible."""
    for utf8 in (False, True):
        address = read(argument, utf8=utf8)
        if not isinstance(address, str) or isinstance(address, Flaw):
            continue
        assert address.encode() in argument
        assert address.isprintable()
        assert utf8 or address.isascii()
        assert address == "" or (address.count("@") >= 1 and "=?" not in address.rpartition("@")[0])


ATOM = st.text(alphabet="abcXYZ019!#$%&'*+/^_`{|}~-", min_size=1, max_size=8)
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)


@given(
    local=st.lists(ATOM, min_size=1, max_size=5).map(".".join),
    domain=st.lists(LABEL, min_size=1, max_size=5).map(".".join),
    before=st.sampled_from(["", " ", '"Shop, Inc." ', "Shop ", "@a.example:"]),
)
def test_every_plain_address_is_taken(local: str, domain: str, before: str) -> None:
    """Invariant: a Dot-string at LDH labels passes unchanged, whatever stands before its bracket."""
    address = f"{local}@{domain}"
    argument = f"<{before}{address}>" if before.startswith("@") else f"{before}<{address}>"
    assert read(argument.encode()) == address


@pytest.mark.parametrize(
    "hostile",
    [b'"' * 12_000, b"a." * 6_000, b'"a' * 6_000, b"<@a" + b",@a" * 4_000, b'"' + b"\\" * 12_000, b"a " * 6_000 + b"<"],
)
def test_a_hostile_argument_takes_no_longer_than_its_length(hostile: bytes) -> None:
    """Invariant: the longest line a client may send is judged in milliseconds."""
    started = time.perf_counter()
    assert read(hostile) in {None, Flaw.SYNTAX}
    assert time.perf_counter() - started < 1.0
