"""Addresses in running text: taken as far as a reader's program takes them; numbers are rows of the trap table."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from injector.text import scan


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
