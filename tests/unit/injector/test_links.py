"""Links: what is tracked, exactly how, and why the rest is left alone; numbers are rows of the trap tables."""

import html
import re
from html.parser import HTMLParser

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from injector.links import LinkReason, Verdict, attribute, judge, judge_url, location, strip_notrack

PUBLIC = "https://t.example.com"
SKIP = ("*amsweb.php*",)


def verdict(
    value: str | bytes, *, charset: str = "utf-8", skip: tuple[str, ...] = SKIP, public: str = PUBLIC
) -> Verdict:
    """Judge an attribute's value."""
    octets = value.encode() if isinstance(value, str) else value
    return judge(octets, charset=charset, page=charset, skip=skip, public_url=public)


def tracked(value: str | bytes, **options: str) -> str | None:
    """Return the URL that is tracked for an attribute's value."""
    return verdict(value, charset=options.get("charset", "utf-8")).url


def reason(value: str | bytes) -> str | None:
    """Return why an attribute's value is left alone."""
    return verdict(value).reason


class TestExactness:
    """A tracked URL is what was written, octet for octet."""

    @pytest.mark.parametrize(
        "written", [" \r\n https://x.test/a\r\nb ", "\thttps://x.test/\ta\nb", "\x01https://x.te\nst/ab\x1f"]
    )
    def test_h7_what_a_browser_drops_is_dropped(self, written: str) -> None:
        assert tracked(written) == "https://x.test/ab"

    @pytest.mark.parametrize(
        "url",
        [
            "HTTPS://X.test/Up",
            "hTTp://X.Test:080/%7e%7E",
            'https://x.test/?q="z"',
            r"https://x.test/?q=$1&r=\g<0>&s=$&",
            "https://x.test/?u=href=http://y.test",
            "https://x.test/it's",
            "https://x.test/@me,(1)!*|~;p=1?a[]=1",
            "https://x.test?a=1",
            "https://x.test#f",
            "https://[2001:db8::1]:8443/",
            "https://x.test/a%20b%2Fc?d=%E9&e=a+b",
            "https://x.test/%zz?50%",
            "https://x.test/#/spa?x=1",
            "https://x.test/?sig=AbC%3D#f",
            "https://x.test/?utm_source=own",
            "https://x.test/a%2Fb?q=%7E%2F&u=|&a[]=1",
            "https://x.test:443/a/../b/./c//d",
            "https://x.test/a b",
            "https://x.test/?path=C:\\dir",
            "https://x.test/?f={%22a%22:1}",
            "https://x_y.test./",
            "https://x.test/" + "p" * 1485,
        ],
    )
    def test_h5_h8_h20_h21_h22_h23_w1_ascii_stays_as_written(self, url: str) -> None:
        assert tracked(html.escape(url)) == url
        assert location(url) == url

    def test_h18_a_url_that_begins_another_keeps_to_itself(self) -> None:
        assert [tracked("https://x.test/a"), tracked("https://x.test/a/b")] == [
            "https://x.test/a",
            "https://x.test/a/b",
        ]

    @pytest.mark.parametrize(
        ("url", "header"),
        [
            ("https://пример.рф/путь?q=ю#я", "https://xn--e1afmkfd.xn--p1ai/%D0%BF%D1%83%D1%82%D1%8C?q=%D1%8E#%D1%8F"),
            ("https://bücher.test/日?a=%7e|[]", "https://xn--bcher-kva.test/%E6%97%A5?a=%7e|[]"),
            ("https://x.test/é%2F", "https://x.test/%C3%A9%2F"),
            ("HTTP://Faß.Test:8080/", "HTTP://xn--fa-hia.test:8080/"),
            ("https://good。test/", "https://good.test/"),
            ("https://☕.test/", "https://xn--53h.test/"),
            ("https://x.test/\x80", "https://x.test/%C2%80"),
        ],
    )
    def test_h21_row_47_w2_a_location_is_ascii_and_goes_to_the_same_host(self, url: str, header: str) -> None:
        assert tracked(url) == url
        assert location(url) == header

    @pytest.mark.parametrize(
        ("charset", "octets"),
        [
            ("windows-1251", b"https://x.test/\xef\xf3\xf2\xfc"),
            ("koi8-r", b"https://x.test/\xd0\xd5\xd4\xd8"),
            ("utf-8", "https://x.test/путь".encode()),
        ],
    )
    def test_the_charset_says_what_the_octets_mean(self, charset: str, octets: bytes) -> None:
        assert tracked(octets, charset=charset) == "https://x.test/путь"

    @pytest.mark.parametrize(
        "charset", ["us-ascii", "x-unknown", "utf-8", "idna", "unicode_escape", "hex", "utf-7", "a\x00b", "\udc80"]
    )
    def test_octets_without_a_meaning_are_left_alone(self, charset: str) -> None:
        octets = b"https://x.test/\xe9"
        assert verdict(octets, charset=charset) == Verdict(reason=LinkReason.UNDECODABLE)

    @pytest.mark.parametrize("charset", ["x-unknown", "unicode_escape", "utf-7"])
    def test_ascii_means_itself_whatever_the_label(self, charset: str) -> None:
        assert tracked(b"https://x.test/?%5Cu0041+AEE-", charset=charset) == "https://x.test/?%5Cu0041+AEE-"


class TestLeftAlone:
    """What a redirect cannot reach, or not exactly, says why it is left alone."""

    @pytest.mark.parametrize(
        ("value", "why"),
        [
            ("mailto:a@b.test?subject=https://x.test", "mailto"),
            ("MAILTO:a@b.test", "mailto"),
            ("tel:1", "tel"),
            ("sms:1", "sms"),
            ("cid:1", "cid"),
            ("data:,x", "data"),
            ("javascript:x", "javascript"),
            ("java\tscript:x", "javascript"),
            ("jav&#x09;ascript:x", "javascript"),
            ("ftp://x.test/", "other_scheme"),
            ("xhttps://x.test/", "other_scheme"),
            ("#top", "fragment"),
            ("#", "fragment"),
            ("", "empty"),
            (" \r\n ", "empty"),
            ("rel/p", "relative"),
            ("/rel/p", "relative"),
            ("?q=https://x.test/", "relative"),
            ("x.test/https://x.test/", "relative"),
            ("//x.test/p", "protocol_relative"),
            ("/\\x.test/p", "protocol_relative"),
            ("\\\\x.test\\p", "protocol_relative"),
        ],
    )
    def test_h8_h9_rows_49_50_what_is_no_web_address(self, value: str, why: str) -> None:
        assert reason(value) == why

    @pytest.mark.parametrize(
        "value",
        [
            "{{unsub}}",
            "{{{unsub}}}",
            "%%url%%",
            "[%%MailingID%%]",
            "*|URL|*",
            "[URL]",
            "{% url %}",
            "https://x.test/?e={{email}}",
            "https://x.test/?e={% email %}",
            "https://x.test/?e=*|EMAIL|*",
            "https://x.test/?e=%%Email%%&amp;m=[%%MailingID%%]",
            "https://{{host}}/",
            "https://[URL]/{{x}}",
        ],
    )
    def test_h10_a_placeholder_is_for_somebody_else_to_fill(self, value: str) -> None:
        assert reason(value) == "template"

    @pytest.mark.parametrize(
        "url", ["https://x.test/a%%b", "https://x.test/*|~", "https://x.test/}}{{", "https://x.test/?%25%25x%25%25"]
    )
    def test_h10_what_only_resembles_a_placeholder_is_tracked(self, url: str) -> None:
        assert tracked(url) == url

    @pytest.mark.parametrize(
        ("value", "why"),
        [
            ("https:evil.test", "no_host"),
            ("https:/evil.test", "no_host"),
            ("https:///evil.test", "no_host"),
            ("https://", "no_host"),
            ("https://?q", "no_host"),
            ("https://:443/", "no_host"),
            ("https:\\\\evil.test", "backslash"),
            ("https:/\\evil.test", "backslash"),
            ("https://evil.test\\.good.test/", "backslash"),
            ("https://good.test\\@evil.test", "backslash"),
            ("https://x.test/a\\b", "backslash"),
            ("https://good.test@evil.test", "userinfo"),
            ("https://u:p@x.test/", "userinfo"),
            ("https://x.test:99999/", "bad_port"),
            ("https://x.test:8_0/", "bad_port"),
            ("https://x.test:٨٠/", "bad_port"),
            ("https://x.test:80:80/", "bad_port"),
            ("https://a b.test/", "bad_host"),
            ("https://ex%61mple.test/", "bad_host"),
            ("https://[2001:db8::1/", "bad_port"),
            ("https://[fe80::1%25eth0]/", "bad_host"),
            ("https://[v1.x]/", "bad_host"),
            ("https://.../", "bad_host"),
            ("https://x\u200b\u202e.test/", "bad_host"),
            (f"https://{'x' * 64}é.test/", "bad_host"),
            (f"https://{'x.' * 128}test/", "bad_host"),
            ("https://x.test/&#1;a", "control_character"),
            ("https://x.test/\x00a", "control_character"),
            ("https://x.test/\x7f", "control_character"),
            ("https://x.test/\x1b[2J", "control_character"),
            ("https+notrack://x.test/", "notrack"),
            ("http+notrack://x.test/", "notrack"),
        ],
    )
    def test_w3_w4_rows_45_49_where_a_browser_may_go_elsewhere(self, value: str, why: str) -> None:
        assert reason(value) == why

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "//x.test/",
            "https:evil.test",
            "https:\\\\evil.test",
            "https://a@b.test/",
            "https://x.test/\r\nSet-Cookie: x",
            "https://x.test/\t",
            "javascript:x",
            "https://x.test:99999/",
            "https://x.test/\ud800",
            "ftp://x.test/",
            "https:///x",
        ],
    )
    def test_row_46_what_is_not_tracked_has_no_location(self, url: str) -> None:
        assert location(url) is None

    def test_row_45_an_encoded_line_end_stays_encoded(self) -> None:
        assert location("https://x.test/%0d%0aSet-Cookie:x") == "https://x.test/%0d%0aSet-Cookie:x"

    def test_h30_a_long_url_is_left_alone(self) -> None:
        assert reason("https://x.test/" + "p" * 1486) == "too_long"
        assert reason("https://x.test/" + "é" * 743) == "too_long"
        assert reason("data:" + "x" * 1_000_000) == "data"

    def test_a_surrogate_in_a_text_is_left_alone(self) -> None:
        assert judge_url("https://x.test/\ud800", skip=(), public_url=PUBLIC).reason == "undecodable"


class TestUsual:
    """What is judged at a glance is judged as it would be with care."""

    @pytest.mark.parametrize(
        "url",
        [
            "https://example.com",
            "https://example.com/a-b_c~d?e=1&f=[2]#g",
            "http://a.b.example.com?x",
            "https://-a.example.com/",
            f"https://{'a' * 240}.example/",
            f"https://{'a' * 247}.example/",
            f"https://{'a.' * 130}example/",
            "https://example.com/%%NAME%%",
            "https://example.com/%7B%%",
            "https://example.com/{{name}}",
            "https://example.com/*|name|*",
            "https://1.2.3.4/",
            "https://1.2.3/",
            "https://a.0x/",
            "https://a.0xff/",
            "https://a..b.example/",
            "https://t.example.com/track/c/x",
            "https://t.example.com/unsubscribe/x",
            "https://other.example.com/track/c/x",
            "https://example.com\\a",
            "https://example.com/a\\b",
            "https://example.com/a\x7fb",
            "https://example.com/a b",
            f"https://example.com/{'p' * 1480}",
            f"https://example.com/{'p' * 1481}",
            "https://example.com/skipped",
        ],
    )
    def test_a_capital_letter_in_its_scheme_changes_nothing(self, url: str) -> None:
        """With one, it is looked at with care."""
        glance, care = (
            judge_url(each, skip=("*skipped*",), public_url="https://t.example.com")
            for each in (url, url.replace("http", "Http", 1))
        )
        assert (glance.reason, glance.url) == (care.reason, care.url and care.url.replace("Http", "http", 1))

    @given(st.text("az.-09xX/?#@:[]%{|}*\\ ", max_size=12))
    def test_nor_does_it_in_any_other(self, rest: str) -> None:
        glance, care = (
            judge_url(f"{scheme}://a{rest}", skip=(), public_url="https://t.example.com")
            for scheme in ("https", "Https")
        )
        assert (glance.reason, glance.url is None) == (care.reason, care.url is None)


class TestOwnLinks:
    """Our own links are not wrapped twice; what only resembles them is."""

    @pytest.mark.parametrize(
        "url",
        [
            "https://t.example.com/track/c/TOKEN",
            "HTTPS://T.Example.com:443/track/o/x",
            "https://t.example.com/unsubscribe/x",
        ],
    )
    def test_h25_row_48_our_own_links(self, url: str) -> None:
        assert reason(url) == "own_link"

    @pytest.mark.parametrize(
        "url",
        [
            "https://t.example.com.evil.test/track/c/x",
            "https://x.test/?u=https://t.example.com/track/c/x",
            "https://t.example.com/",
            "https://t.example.com/tracker/c/x",
            "https://t.example.com:8443/track/c/x",
            "http://t.example.com/track/c/x",
            "https://t.example.com?/track/c/x",
        ],
    )
    def test_h25_what_only_resembles_our_own(self, url: str) -> None:
        assert tracked(url) == url

    def test_h25_our_own_links_below_a_path(self) -> None:
        def judged(url: str) -> str | None:
            return verdict(url, public="http://example.com:8080/mail/").reason

        assert judged("http://example.com:8080/mail/track/c/x") == "own_link"
        assert judged("http://example.com:8080/mail/unsubscribe/x") == "own_link"
        assert judged("http://example.com:8080/track/c/x") is None
        assert judged("http://example.com/mail/track/c/x") is None

    def test_an_own_link_is_known_before_it_is_too_long(self) -> None:
        assert reason("https://t.example.com/track/c/" + "x" * 2000) == "own_link"


class TestSkip:
    """The skip list names whole URLs."""

    def test_h26_what_a_pattern_matches_is_left_alone(self) -> None:
        assert reason("https://x.test/AMSweb.php?id=1") == "skipped"
        assert verdict("https://x.test/AMSweb.php?id=1", skip=()).url == "https://x.test/AMSweb.php?id=1"

    def test_h26_a_word_in_a_path_is_no_reason(self) -> None:
        assert tracked("https://x.test/unsubscribe-tips") == "https://x.test/unsubscribe-tips"


class TestAttribute:
    """The new value is ASCII in double quotes and means the URL again."""

    def test_h5_quotes_and_ampersands_are_escaped(self) -> None:
        assert (
            attribute('https://t.example.com/?a="1"&b=<2>\'')
            == b'"https://t.example.com/?a=&quot;1&quot;&amp;b=&lt;2&gt;\'"'
        )

    def test_non_ascii_is_written_as_a_reference(self) -> None:
        assert attribute("https://x.test/é") == b'"https://x.test/&#233;"'


class TestNotrack:
    """The opt-out scheme of Postal becomes the scheme it stands for."""

    @pytest.mark.parametrize(
        ("value", "stripped"),
        [
            (b"https+notrack://x.test/?a=1&amp;b", b"https://x.test/?a=1&amp;b"),
            (b" HTTP+NoTrack://x.test/", b" HTTP://x.test/"),
            (b"https&#43;notrack://x.test/", b"https://x.test/"),
            (b"https&#x2B;notrack://x.test/", b"https://x.test/"),
            (b"https&plus;notrack://x.test/", b"https://x.test/"),
            (b"https://x.test/?u=https+notrack://y.test", b"https://x.test/?u=https+notrack://y.test"),
            (b"", b""),
        ],
    )
    def test_strip_notrack(self, value: bytes, stripped: bytes) -> None:
        assert strip_notrack(value) == stripped


class _Parsed(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hrefs += [value for name, value in attrs if (tag, name) == ("a", "href")]


# A parser turns numbers of controls and non-characters into something else; no URL of ours holds them.
VISIBLE = st.characters(codec="utf-8", exclude_categories=["Cc", "Cn", "Cs"])


@given(st.text(VISIBLE))
def test_an_attribute_means_its_url(url: str) -> None:
    """Invariant: an HTML parser reads out of attribute(url) what went in, and nothing else of it."""
    parser = _Parsed()
    parser.feed(f"<a href={attribute(url).decode('ascii')}>x</a>")
    parser.close()
    assert parser.hrefs == [url]


@given(
    st.text(st.characters(codec="ascii"), max_size=40), st.sampled_from(["https://x.test/", "http://X.test:8080?", ""])
)
def test_a_click_goes_where_the_href_went(rest: str, start: str) -> None:
    """Invariant: for ASCII the Location is the href as the browser reads it, to the octet."""
    judged = verdict(html.escape(start + rest), skip=())
    assume(judged.url is not None)
    read = re.sub("[\t\r\n]", "", (start + rest).strip("".join(map(chr, range(33)))))
    assert judged.url == read
    assert location(judged.url or "") == read


@given(st.text(st.characters(), max_size=60), st.sampled_from(["https://", "http://x.test/", "//", ""]))
def test_a_tracked_url_has_an_ascii_location(rest: str, start: str) -> None:
    """Invariant: whatever is tracked can be answered: ASCII, without controls, and itself again when judged."""
    judged = judge_url(start + rest, skip=(), public_url=PUBLIC)
    assert (judged.url is None) != (judged.reason is None)
    if judged.url is not None:
        header = location(judged.url)
        assert header is not None
        assert header.isascii()
        assert header.isprintable()
        assert location(header) == header


@given(
    st.binary(max_size=80),
    st.sampled_from(["utf-8", "windows-1251", "koi8-r", "gb18030", "shift_jis", "us-ascii", "?"]),
)
def test_judge_never_raises(value: bytes, charset: str) -> None:
    """Invariant: every value gets a verdict: a URL or a reason."""
    judged = judge(value, charset=charset, page=charset, skip=SKIP, public_url=PUBLIC)
    assert (judged.url is None) != (judged.reason is None)
