"""Addresses in running text: taken as far as a reader's program takes them; numbers are rows of the trap table."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import injector
from injector.text import scan
from tests.unit.injector.mails import (
    BASE,
    HexMinter,
    body_of,
    destination,
    leaves,
    longest_line,
    multipart,
    options,
    part,
    rewrite,
    top,
)


def found(text: str, charset: str = "utf-8") -> list[str]:
    """Return the URLs that are found in a text."""
    octets = text.encode(charset)
    return [octets[start:end].decode(charset) for start, end in scan(octets, charset=charset)]


class TestEnds:
    """An address ends where its sentence goes on."""

    @pytest.mark.parametrize(
        ("text", "url"),
        [
            ("See https://a.test/x.", "https://a.test/x"),
            ("(https://a.test/y)", "https://a.test/y"),
            ('"https://a.test/q"!', "https://a.test/q"),
            ("'https://a.test/q'", "https://a.test/q"),
            ("https://a.test/a,b;c,", "https://a.test/a,b;c"),
            ("https://a.test/x?!...", "https://a.test/x"),
            ("https://x.test/it's", "https://x.test/it's"),
            ("`https://a.test/code`", "https://a.test/code"),
        ],
    )
    def test_x1_final_punctuation_is_not_the_urls(self, text: str, url: str) -> None:
        assert found(text) == [url]

    @pytest.mark.parametrize(
        ("text", "url"), [("<https://a.test/z/>", "https://a.test/z/"), ("https://a.test/s/", "https://a.test/s/")]
    )
    def test_x2_a_final_slash_is_the_urls(self, text: str, url: str) -> None:
        assert found(text) == [url]

    @pytest.mark.parametrize(
        ("text", "url"),
        [
            ("https://a.test/w_(b)", "https://a.test/w_(b)"),
            ("(see https://a.test/w)", "https://a.test/w"),
            ("(see https://a.test/w_(b))", "https://a.test/w_(b)"),
            ("[https://a.test/?a[]=1]", "https://a.test/?a[]=1"),
            ("{https://a.test/{x}}.", "https://a.test/{x}"),
            ("https://a.test/w)))).", "https://a.test/w"),
        ],
    )
    def test_x3_brackets_are_the_urls_when_it_opens_them(self, text: str, url: str) -> None:
        assert found(text) == [url]

    @pytest.mark.parametrize(
        ("text", "urls"),
        [
            ("[t](https://a.test/m)", ["https://a.test/m"]),
            ("[![i](https://a.test/i.png)](https://a.test/m)", ["https://a.test/i.png", "https://a.test/m"]),
            ("> https://a.test/", ["https://a.test/"]),
            ("-- \r\nhttps://sig.test", ["https://sig.test"]),
            ("*https://a.test/x* _https://a.test/x_y_", ["https://a.test/x", "https://a.test/x_y"]),
            ("https://a.test/x_", ["https://a.test/x_"]),
        ],
    )
    def test_x4_marks_of_a_plain_text(self, text: str, urls: list[str]) -> None:
        assert found(text) == urls

    @pytest.mark.parametrize(
        ("text", "url"),
        [
            ("https://a.test/é", "https://a.test/é"),
            ("https://a.test/x、次", "https://a.test/x"),
            ("http://a.test/x\u00a0y", "http://a.test/x"),
            ("https://a.test/путь».", "https://a.test/путь"),
            ("（https://a.test/次）", "https://a.test/次"),  # noqa: RUF001  the full-width brackets are the case
            ("https://a.test/☕", "https://a.test/☕"),
            ("https://a.test/x\u200by", "https://a.test/x"),
        ],
    )
    def test_x5_beyond_ascii_letters_belong_and_punctuation_does_not(self, text: str, url: str) -> None:
        assert found(text) == [url]

    @pytest.mark.parametrize("charset", ["windows-1251", "koi8-r", "gb18030", "shift_jis"])
    def test_x5_the_charset_tells_letters(self, charset: str) -> None:
        assert found("https://a.test/путь, https://b.test/", charset) == ["https://a.test/путь", "https://b.test/"]

    def test_x5_a_url_that_runs_on_illegibly_is_left_out(self) -> None:
        assert scan(b"https://a.test/\xef\xf3 https://b.test/") == ((18, 33),)
        assert scan(b"https://a.test/\xef", charset="x-unknown") == ()

    def test_x6_lines_are_not_joined(self) -> None:
        assert found("https://a.test/long \r\nrest") == ["https://a.test/long"]
        assert found("https://a.test/long\r\nrest") == ["https://a.test/long"]

    def test_x6_half_of_a_url_in_brackets_is_left_out(self) -> None:
        """Some programs join the lines; they would join a part of the old address to the new one."""
        assert found("<https://a.test/very-\r\nlong> <https://b.test/>") == ["https://b.test/"]


class TestBegins:
    """Only an address of its own is one."""

    @pytest.mark.parametrize(
        "text",
        [
            "user@https.test",
            "xhttps://a.test",
            "user@https://a.test",
            "ftp://a.test",
            "www.a.test",
            "git+https://a.test/",
            "https+notrack://a.test/",
            "foo.https://a.test",
            "www.a.test/?u=https://b.test",
            "ftp://a.test/?u=https://b.test",
            "mailto:a@b.test?body=https://b.test",
            "http://",
            "https://.,)",
            "https:/a.test https:a.test",
            "",
        ],
    )
    def test_x7_what_is_no_web_address_of_its_own(self, text: str) -> None:
        assert found(text) == []

    @pytest.mark.parametrize("before", ["", "\t", "(", ":", "=", "1. ", "...", "--", "link:", "é"])
    def test_what_may_stand_before(self, before: str) -> None:
        assert found(f"{before}https://a.test/") == ["https://a.test/"]

    def test_x8_the_same_url_twice_is_found_twice(self) -> None:
        assert found("https://a.test/ HTTPS://A.test/ https://a.test/") == [
            "https://a.test/",
            "HTTPS://A.test/",
            "https://a.test/",
        ]

    def test_a_url_holds_another(self) -> None:
        assert found("https://a.test/?u=https://b.test/,c") == ["https://a.test/?u=https://b.test/,c"]

    def test_a_placeholder_stays_whole_for_the_judge(self) -> None:
        assert found("https://a.test/?e={{email}}. https://a.test/*|X|*") == [
            "https://a.test/?e={{email}}",
            "https://a.test/*|X|*",
        ]

    def test_a_url_marked_by_its_sender_is_left_out(self) -> None:
        assert found('https://a.test[[data-msys-clicktrack="0"]] https://b.test') == ["https://b.test"]


def sent(text: bytes, encoding: str = "", parameters: str = "") -> tuple[bytes, bytes]:
    """Return a text part as it leaves with links in text switched on: as it stands, and decoded."""
    content = top(part(text, f"text/plain{parameters}", encoding))
    left = rewrite(content, options(text_links=True), campaign=False).content
    return body_of(left), leaves(left)[0][1]


def minted(url: str, number: int = 0) -> bytes:
    """Return the address that takes the place of *url*."""
    return (HexMinter().click(number, url) or "").encode()


class TestThroughTheInjector:
    """What leaves is the text that came, with other addresses in it."""

    @pytest.mark.parametrize(
        ("text", "url"),
        [
            ("See https://a.test/x.", "https://a.test/x"),
            ('"https://a.test/q"!', "https://a.test/q"),
            ("<https://a.test/z/>", "https://a.test/z/"),
            ("(see https://a.test/w)", "https://a.test/w"),
            ("[t](https://a.test/m)", "https://a.test/m"),
            ("> https://a.test/\r\n> -- ", "https://a.test/"),
            ("https://a.test/x、次", "https://a.test/x"),
            ("http://a.test/x\u00a0y", "http://a.test/x"),
        ],
    )
    def test_x1_x2_x3_x4_x5_only_the_address_gives_way(self, text: str, url: str) -> None:
        assert sent(text.encode(), "base64")[1] == text.encode().replace(url.encode(), minted(url))

    def test_x5_letters_beyond_ascii_go_with_the_address(self) -> None:
        assert sent("https://a.test/é».".encode(), "8bit")[1] == minted("https://a.test/é") + "».".encode()

    def test_x6_a_flowed_paragraph_keeps_its_soft_line_ends(self) -> None:
        """RFC 3676 4.2: a space before the line end makes one paragraph of two lines, never one address."""
        text = b"Read https://a.test/long \r\nrest of it, \r\nand more.\r\n"
        raw, decoded = sent(text, parameters="; format=flowed")
        assert decoded == raw == text.replace(b"https://a.test/long", minted("https://a.test/long"))
        assert b" \r\nrest of it, \r\n" in decoded

    @pytest.mark.parametrize("cut", range(1, len("https://a.test/x")))
    def test_x6_a_soft_line_break_of_quoted_printable_is_no_end(self, cut: int) -> None:
        url = b"https://a.test/x"
        body = b"caf=C3=A9 " + url[:cut] + b"=\r\n" + url[cut:] + b" now=\r\n and then\r\n"
        content = top(
            b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + body
        )
        left = rewrite(content, options(text_links=True), campaign=False).content
        assert leaves(left)[0][1] == "café ".encode() + minted("https://a.test/x") + b" now and then\r\n"
        assert longest_line(body_of(left)) <= 76
        assert body_of(left).startswith(b"caf=C3=A9 ")

    def test_x6_a_long_line_leaves_legally(self) -> None:
        text = b"word " * 180 + b"https://a.test/" + b"x" * 90 + b" end\r\n"
        raw, decoded = sent(text)
        assert decoded == text.replace(b"https://a.test/" + b"x" * 90, minted("https://a.test/" + "x" * 90))
        assert longest_line(raw) <= 998

    @pytest.mark.parametrize("text", ["user@https.test", "xhttps://a.test", "ftp://a.test", "www.a.test"])
    def test_x7_what_is_no_web_address_stays(self, text: str) -> None:
        assert sent(text.encode())[1] == text.encode()

    def test_x8_one_address_in_text_and_html_is_one_link_in_both_parts(self) -> None:
        alternatives = multipart(
            "alternative",
            part(b"https://b.test/ https://a.test/?x=1&y=2.", "text/plain"),
            part(b'<a href="https://a.test/?x=1&amp;y=2">one</a> <a href="https://a.test/?x=1&#38;y=2">two</a>'),
        )
        plan = injector.plan(injector.parse(top(alternatives)), options(text_links=True), campaign=False)
        assert [(link.number, link.url, link.parts, link.count) for link in plan.links] == [
            (0, "https://b.test/", ("1.1",), 1),
            (1, "https://a.test/?x=1&y=2", ("1.1", "1.2"), 3),
        ]
        left = rewrite(top(alternatives), options(text_links=True), campaign=False).content
        found = re.findall(rf"({BASE}/track/c/([0-9]+)\.[0-9a-f]+)", left.decode())
        assert [(number, destination(url)) for url, number in found] == [
            ("0", "https://b.test/"),
            *[("1", "https://a.test/?x=1&y=2")] * 3,
        ]

    def test_x8_links_in_text_stay_where_nobody_asked_for_them(self) -> None:
        content = top(part(b"https://a.test/", "text/plain"))
        assert body_of(rewrite(content, options(), campaign=False).content) == b"https://a.test/"


PIECES = st.sampled_from(
    [
        "https://",
        "http://",
        "www.",
        "ftp://",
        "mailto:",
        "a.test",
        "/",
        "x",
        " ",
        "\r\n",
        "<",
        ">",
        "(",
        ")",
        "[",
        "]",
        "](",
        "*",
        "_",
        ".",
        ",",
        "é",
        "、",
        "\xa0",
        '"',
        '[[data-msys-clicktrack="0"]]',
        "{",
        "}",
        "'",
        "@",
        "+",
    ]
)


@given(st.lists(PIECES).map("".join), st.sampled_from(["utf-8", "gb18030"]))
def test_spans_are_whole_addresses(text: str, charset: str) -> None:
    """Invariant: spans are in order, apart, and each holds one address without a space or a bracket of its sentence."""
    octets = text.encode(charset)
    last = 0
    for start, end in scan(octets, charset=charset):
        assert last <= start < end <= len(octets)
        assert re.fullmatch(r"https?://[^\s<>\"]*[^\s<>\".,;:!?']", octets[start:end].decode(charset))
        last = end


@given(st.binary(), st.sampled_from(["utf-8", "windows-1251", "?"]))
def test_scan_never_raises(octets: bytes, charset: str) -> None:
    """Invariant: any octets have spans, inside them."""
    text = b"https://" + octets
    assert all(0 <= start < end <= len(text) for start, end in scan(text, charset=charset))
