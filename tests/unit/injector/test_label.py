"""Labels that are addresses themselves, and labels that are not; numbers are rows of the trap table."""

import re

import msgspec
import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

import injector
from injector.label import MAX_LABEL_OCTETS, end_of, is_address, shows_address
from tests.unit.injector.mails import destination, links_of, options, part, rewrite, top


def shown(markup: str, charset: str = "utf-8") -> bool:
    """Tell whether a link with *markup* in it shows an address."""
    return shows_address(f"{markup}</a> example.com".encode(charset), 0, charset=charset)


class TestRule:
    """A URL or a host name is an address; a word, a sentence or an e-mail address is none."""

    @pytest.mark.parametrize(
        "markup",
        [
            "https://x.test/p",
            "HTTP://X.TEST",
            "www.x.test",
            "x.test/path?a=1",
            "x.test:8080",
            "x.test",
            "<b>x</b>.test",
            "<span title='a > b'>x</span><wbr>.te<i>st</i>",
            " \u200bx.test\ufeff\r\n",
            "&nbsp;x&#46;test&#8203;",
            "https&colon;//x&period;test",
            "x&shy;.test",
            "\u2068x.test\u2069",
            "(x.test)",
            "\u201cx.test\u201d",
            "x.test \xbb",
            "x.test.",
            "<!-- c --><style>p{}</style>x.test",
            "x.test<!-- never ended",
            "x.test</span",
            "192.0.2.1/path",
            "192.0.2.1",
            "x.test/invoice.pdf",
            "ftp://x.test/",
            "xn--e1afmkfd.xn--p1ai",
            "пример.рф",
            "हिन्दी.भारत",
            "日本.jp",
        ],
    )
    def test_h24_an_address(self, markup: str) -> None:
        assert shown(markup)

    @pytest.mark.parametrize(
        "markup",
        [
            "",
            "Read on",
            "word",
            "Go to x.test",
            "Visit<br>x.test",
            "x.test<p>and more",
            "a@x.test",
            "mailto:a@x.test",
            "&copy; 2020",
            "e.g.",
            "3.14",
            "v1.2",
            "...",
            "localhost",
            "invoice.pdf",
            "Node.js",
            "R&amp;D.test",
            "https://",
            "x..test",
            "https://x.test/ and more",
            '<img src="https://x.test/" alt="x.test">',
            '<b title="x.test">more</b>',
            "<!-- x.test -->more",
        ],
    )
    def test_h24_no_address(self, markup: str) -> None:
        assert not shown(markup)

    @pytest.mark.parametrize("charset", ["windows-1251", "koi8-r", "utf-8"])
    def test_h24_it_is_read_in_the_charset_of_its_part(self, charset: str) -> None:
        assert shown("пример.рф", charset)

    @pytest.mark.parametrize("end", [b"</a>", b"</A >", b"<a href=x>", b"<A\n", b"</a/"])
    def test_it_ends_with_its_link_or_where_the_next_begins(self, end: bytes) -> None:
        assert end_of(b"x.test" + end + b"more", 0) == 6

    @pytest.mark.parametrize("end", [b"</abbr>", b"<area>", b"<address>", b"a>"])
    def test_it_does_not_end_with_another_element(self, end: bytes) -> None:
        assert end_of(b"x" + end + b"</a>", 0) == 1 + len(end)

    def test_it_is_read_no_further_than_its_bound(self) -> None:
        assert end_of(b"x" * 10_000, 5) == 5 + MAX_LABEL_OCTETS


class TestPolicy:
    """`track` wraps a link whatever it shows; `leave` leaves those alone that show an address."""

    PAGE = (
        b'<a href="https://x.test/p">https://x.test/p</a><a href="https://x.test/q"><b>x</b>.test</a>'
        b'<a href="https://x.test/r">more</a><area href="https://x.test/s">x.test'
    )

    def test_h24_by_default_all_are_wrapped(self) -> None:
        assert rewrite(top(part(self.PAGE))).links == 4

    @pytest.mark.parametrize("charset", ["utf-8", "windows-1251", "utf-16", "iso-2022-jp"])
    def test_h24_those_that_show_an_address_are_left_alone(self, charset: str) -> None:
        chosen = msgspec.structs.replace(options(), visible_urls="leave")
        page = self.PAGE.decode().encode(charset)
        plan = injector.plan(
            injector.parse(top(part(page, encoding="base64", charset=charset))), chosen, campaign=False
        )
        assert [each.reason for each in plan.leaves[0].found] == ["visible_url", "visible_url", None, None]
        assert [link.url for link in plan.links] == ["https://x.test/r", "https://x.test/s"]

    def test_h24_their_octets_stay(self) -> None:
        chosen = msgspec.structs.replace(options(opens=False), visible_urls="leave")
        left = rewrite(top(part(self.PAGE)), chosen).content
        assert self.PAGE[:91] in left
        assert [destination(url) for url in links_of(left.partition(b"\r\n\r\n")[2])][2:] == [
            "https://x.test/r",
            "https://x.test/s",
        ]

    def test_a_link_that_is_left_alone_anyway_keeps_its_reason(self) -> None:
        chosen = msgspec.structs.replace(options(), visible_urls="leave")
        mail = injector.parse(top(part(b'<a href="mailto:a@x.test">x.test</a>')))
        assert [each.reason for each in injector.plan(mail, chosen, campaign=False).leaves[0].found] == ["mailto"]


PIECES = st.sampled_from(
    ["<b>", "</b>", "<i class='>'>", "x", ".", "test", "https://", "/p", " ", "&amp;", "&#46;", "<!-- c -->", "é", "@"]
)


@given(st.lists(PIECES).map("".join))
def test_beautifulsoup_reads_the_same_label(markup: str) -> None:
    """Invariant: on tame markup a parser reads the text on which the rule decides."""
    text = BeautifulSoup(f"<p>{markup}</p>", "html.parser").get_text()
    assert shown(markup) == is_address(text)


@given(st.text(max_size=300), st.sampled_from(["utf-8", "windows-1251", "us-ascii"]))
def test_any_octets_are_an_address_or_not(text: str, charset: str) -> None:
    """Invariant: whatever stands in a link, the rule decides, and never calls a text with a space in it an address."""
    octets = text.encode(errors="replace")
    if shows_address(octets, 0, charset=charset):
        # Beyond ASCII everything may be a letter of a host's name: Unicode has more of them each year.
        assert re.search(r"\w|[^\x00-\x7f]", text)
