"""A click goes where the href went: Location and href are one address to a browser's URL parser.

Lexbor reads the attribute as a browser does, and ada resolves the address by the WHATWG URL Standard; neither shares
anything with the injector.
"""

import html
from collections.abc import Callable

import ada_url
import pytest
from hypothesis import given
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from injector.links import location
from tests.unit.injector.mails import destination, html_of, options, part, rewrite, top


def browsed(url: str) -> str | None:
    """Return the address that a browser opens for *url*; None if it takes it for none."""
    try:
        return ada_url.URL(url).href
    except ValueError:
        return None


def href_of(page: bytes) -> str:
    """Return the href of the only link of *page*, as a browser's HTML parser reads it."""
    anchor = LexborHTMLParser(page).css_first("a")
    assert anchor is not None
    return anchor.attributes["href"] or ""


def clicked(page: bytes, charset: str = "utf-8") -> str | None:
    """Return the Location of the wrapped link of *page*; None if it is left alone."""
    rendered = rewrite(top(part(page, encoding="base64", charset=charset)), options(opens=False))
    left = html_of(rendered.content).decode("utf-16" if charset == "utf-16" else "latin-1")
    target = destination(href_of(left.encode())) if rendered.links else None
    return None if target is None else location(target)


SCHEMES = st.just("https://") | st.sampled_from(
    ["https://", "http://", "HTTPS://", " \n https://", "ht\ttps://", "https:", "//", ""]
)
_HOSTS = """
example.com EXAMPLE.com. a_b.example x..y -a- xn--e1afmkfd.example a@example.com a:b@example.com exa%6Dple.com \\
[2001:db8::1] [::1 192.0.2.1 0xc0.0x2.1 127.1 256.1.1.1 example.1 09 1.2.3.4.5
пример.example faß.example 日本。example ☕.example ①.example אב.example xn--faß a\u05d0 1\u05d0 \u0301a a\u200db a\xadb
"""
HOSTS = st.just("example.com") | st.sampled_from([*_HOSTS.split(), "exam\nple.com", "exa mple.com", ""])
PORTS = st.just("") | st.sampled_from(["", ":", ":443", ":0", ":08443", ":65535", ":65536", ":x"])
_PIECES = r"""
/ /.. /. /%2e%2E // a ? # %zz % %E9 %2F | [] {} ^ ` ' " < > \ \1 & = + ; : @ $& ~ é 日本
&copy=2 &amp; &#38; &#x26; &eacute; &#9; &#0; &#128; &lt &nbsp
"""
PIECES = st.sampled_from(
    [*_PIECES.split(), "b c", "\t", "\r\n", "\U0001f600", "\xa0", "\x80", "\ufffd", "\ufdd0", "\x7f"]
)
RESTS = st.builds("{}{}".format, st.sampled_from("/?#"), st.lists(PIECES, max_size=8).map("".join))


@given(SCHEMES, HOSTS, PORTS, RESTS, st.sampled_from([str, html.escape]))
def test_a_click_goes_where_a_browser_went(
    scheme: str, host: str, port: str, rest: str, spelling: Callable[[str], str]
) -> None:
    """Invariant: what is wrapped leads to the address that a browser opens for the href; what leads nowhere is not."""
    value = spelling(f"{scheme}{host}{port}{rest}").replace('"', "&quot;")
    page = f'<a href="{value}">x</a>'.encode()
    led = clicked(page)
    if led is not None:
        assert led.isascii()
        assert browsed(href_of(page)) is not None
        assert browsed(led) == browsed(href_of(page))


# Letters of every script, and those that no host may hold.
LETTERS = st.characters(exclude_categories=["Cs"], min_codepoint=0xA0)


@given(st.text(st.one_of(LETTERS, st.sampled_from("ab1-.xn")), min_size=1, max_size=12))
def test_a_host_in_letters_is_the_one_that_a_browser_opens(host: str) -> None:
    """Invariant: a host gets the A-labels that a browser gives it, or it is left alone."""
    url = f"https://{host}/"
    led = location(url)
    if led is not None:
        assert browsed(url) is not None
        assert browsed(led) == browsed(url)


class TestHosts:
    """What every browser opens is wrapped; what none opens is left alone."""

    @pytest.mark.parametrize(
        "url",
        [
            "https://example.com/a b/../c?d=[1]|{2}&e=%zz#f g",
            "https://пример.example:8443/путь/日本?q=ю&x='1'#я",
            "http://[2001:db8::1]:8080/?a=1&copy=2",
            "https://192.0.2.1/é%2F",
            "https://127.1/",
            "HTTPS://Example.COM?q",
        ],
    )
    def test_ordinary_and_odd_addresses_are_wrapped(self, url: str) -> None:
        led = clicked(f'<a href="{html.escape(url)}">x</a>'.encode())
        assert led is not None
        assert browsed(led) == browsed(url)

    @pytest.mark.parametrize("host", ["example.1", "256.1.1.1", "09", "1.2.3.4.5", "1..2", "x.0x", "4294967296"])
    def test_a_host_that_no_browser_opens_is_left_alone(self, host: str) -> None:
        """To a browser a host that ends in a number is an IPv4 address or a mistake (WHATWG URL 3.5)."""
        assert browsed(f"https://{host}/") is None
        assert location(f"https://{host}/") is None

    @pytest.mark.parametrize("host", ["xn--faß", "a\u0627", "\u0301a", "a\u200cb", "xn--a.é", "é." + "b" * 64])
    def test_letters_that_make_no_host_are_left_alone(self, host: str) -> None:
        assert location(f"https://{host}/") is None


class TestQueries:
    """The octets of a query are those that a browser would have sent from the page."""

    @pytest.mark.parametrize(
        ("charset", "query", "sent"),
        [
            ("windows-1251", "ю", "%FE"),
            ("windows-1251", "ю☕", "%FE%26%239749%3B"),
            ("koi8-r", "ю", "%C0"),
            ("koi8-u", "ї", "%A7"),
            ("iso-8859-1", "é&euro;", "%E9%80"),
            ("iso-8859-9", "&euro;ş", "%80%FE"),
            ("us-ascii", "&eacute;&euro;", "%E9%80"),
            ("windows-1255", "א", "%E0"),
            ("cp866", "ю", "%EE"),
            ("shift_jis", "日本", "%93%FA%96{"),
            ("euc-jp", "日本", "%C6%FC%CB%DC"),
            ("iso-2022-jp", "a日本b", "a%1B$BF|K\\%1B(Bb"),
            ("gb2312", "日本", "%C8%D5%B1%BE"),
            ("gb18030", "日本", "%C8%D5%B1%BE"),
            ("big5", "日本", "%A4%E9%A5%BB"),
            ("euc-kr", "日本☃", "%EC%ED%DC%E2%26%239731%3B"),
            ("utf-16", "日", "%E6%97%A5"),
            ("utf-8", "日", "%E6%97%A5"),
        ],
    )
    def test_a_query_is_sent_in_the_charset_of_its_page(self, charset: str, query: str, sent: str) -> None:
        """WHATWG URL 4.4: a query in the page's encoding, path and fragment in UTF-8; values of its indexes."""
        page = f'<a href="https://example.com/?p={query}&amp;q=1#&eacute;">x</a>'.encode(charset, "xmlcharrefreplace")
        assert clicked(page, charset) == f"https://example.com/?p={sent}&q=1#%C3%A9"

    @pytest.mark.parametrize("charset", ["windows-1251", "shift_jis", "iso-2022-jp"])
    def test_what_is_no_query_is_sent_in_utf_8(self, charset: str) -> None:
        page = '<a href="https://example.com/п?q=1#?п">x</a>'.encode(charset)
        assert clicked(page, charset) == "https://example.com/%D0%BF?q=1#?%D0%BF"

    @pytest.mark.parametrize(
        ("charset", "query"),
        [
            ("cp850", "é"),  # browsers do not know it
            ("utf-7", "é"),
            ("iso-2022-jp", "¥"),
            ("shift_jis", "☃"),  # browsers may know it
            ("euc-jp", "〜"),
            ("big5", "&#9789;"),
            ("gb2312", "&#128512;"),
            ("koi8-u", "╬"),
            ("windows-1251", "&#xad;&#x98;&#152;&#x85;&#x9f;&#x81;"),
            ("", "&eacute;"),  # nobody said which
        ],
    )
    def test_a_query_in_doubt_is_left_alone(self, charset: str, query: str) -> None:
        page = f'<a href="https://example.com/?p={query}">x</a>'.encode(charset or "ascii", "xmlcharrefreplace")
        assert clicked(page, charset) is None

    def test_one_address_in_two_charsets_is_two_destinations(self) -> None:
        page = '<a href="https://example.com/?q=ю">x</a>'
        assert clicked(page.encode(), "utf-8") != clicked(page.encode("koi8-r"), "koi8-r")
