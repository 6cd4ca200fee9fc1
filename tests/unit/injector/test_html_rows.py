"""Rows H1 to H32 of the trap table, from the message that comes in to the one that leaves.

Where a row leaves a choice or the contract chose otherwise, the test's docstring says what holds.
"""

import pytest

import injector
from injector.links import attribute
from tests.unit.injector.mails import BASE, HexMinter, html_of, longest_line, options, part, rewrite, top

X = "https://example.com/"


def through(html: bytes, *, charset: str = "utf-8", encoding: str = "8bit") -> bytes:
    """Return *html* as it leaves, without a pixel."""
    return html_of(rewrite(top(part(html, "text/html", encoding, charset)), options(opens=False)).content)


def tracked(*urls: str) -> list[bytes]:
    """Return the attribute values that stand for links to *urls*, in the order in which a mail names them."""
    return [attribute(HexMinter().click(number, url) or "") for number, url in enumerate(urls)]


def reasons(html: bytes) -> list[str | None]:
    """Return what the plan says of each link."""
    plan = injector.plan(injector.parse(top(part(html, "text/html", "8bit"))), options(), campaign=True)
    return [found.reason for leaf in plan.leaves for found in leaf.found]


def shown(html: bytes) -> bytes:
    """Return *html* as it leaves, `@` in place of the pixel."""
    before, pixel, rest = html_of(rewrite(top(part(html)), options(clicks=False)).content).partition(b'<img src="')
    assert pixel
    assert rest.startswith(f"{BASE}/track/o/".encode())
    assert b"/track/o/" not in rest.partition(b">")[2]
    return before + b"@" + rest.partition(b">")[2]


class TestAttributes:
    """Which attribute is the link, and what it says."""

    def test_h1_only_the_href_is_a_link(self) -> None:
        [link] = tracked(X)
        assert through(b'<a data-href="https://example.net/" href="https://example.com/">') == (
            b'<a data-href="https://example.net/" href=%b>' % link
        )

    def test_h2_a_bracket_in_another_value(self) -> None:
        [link] = tracked(X)
        assert through(b'<a title="1 > 0" href="https://example.com/">') == b'<a title="1 > 0" href=%b>' % link

    def test_h3_what_looks_like_a_character_reference(self) -> None:
        url = "https://example.com/?a=1&copy=2&region=eu&notify=0"
        assert through(f'<a href="{url}">'.encode()) == b"<a href=%b>" % tracked(url)[0]

    @pytest.mark.parametrize("ampersand", ["&amp;", "&#38;", "&#x26;", "&AMP;"])
    def test_h4_a_reference_is_decoded_once(self, ampersand: str) -> None:
        for written, url in ((ampersand, "&"), (f"{ampersand}amp;", "&amp;")):
            assert through(f'<a href="{X}?a=1{written}b=2">'.encode()) == (
                b"<a href=%b>" % tracked(f"{X}?a=1{url}b=2")[0]
            )

    @pytest.mark.parametrize(
        ("tag", "url", "expected"),
        [
            (b"<A HREF = 'https://example.com/?q=\"z\"'>", 'https://example.com/?q="z"', b"<A HREF = %b>"),
            (b"<a href=https://example.com/p?x=1&y=2>", "https://example.com/p?x=1&y=2", b"<a href=%b>"),
        ],
    )
    def test_h5_any_quotes_or_none(self, tag: bytes, url: str, expected: bytes) -> None:
        assert through(tag) == expected % tracked(url)[0]

    def test_h6_the_first_of_two(self) -> None:
        [link] = tracked("https://example.com/one")
        assert through(b'<a href="https://example.com/one" href="https://example.com/two">') == (
            b'<a href=%b href="https://example.com/two">' % link
        )

    def test_h7_line_ends_and_spaces(self) -> None:
        assert through(b'<a href=" \r\n https://example.com/a\r\nb ">') == (
            b"<a href=%b>" % tracked("https://example.com/ab")[0]
        )

    def test_h8_the_case_is_kept(self) -> None:
        """A link without a scheme is left alone: a mail has none to lend it."""
        [link] = tracked("HTTPS://Example.com/Up")
        html = b'<a href="HTTPS://Example.com/Up"><a href="//example.com/p">'
        assert through(html) == b'<a href=%b><a href="//example.com/p">' % link
        assert reasons(html) == [None, "protocol_relative"]

    def test_h9_no_web_address(self) -> None:
        html = b"".join(
            b'<a href="%b">' % url
            for url in (
                b"mailto:a@example.com?subject=https://example.com",
                b"tel:1",
                b"sms:1",
                b"#top",
                b"",
                b"rel/p",
                b"cid:1",
                b"data:,x",
                b"javascript:x",
                b"java\tscript:x",
            )
        )
        assert through(html) == html

    def test_h10_a_placeholder(self) -> None:
        """A placeholder inside an address leaves the link alone too: nobody here knows what it becomes."""
        html = b"".join(
            b'<a href="%b">' % url
            for url in (b"{{unsub}}", b"%%url%%", b"*|URL|*", b"[URL]", b"https://example.com/?e={{email}}")
        )
        assert through(html) == html
        assert reasons(html) == ["template"] * 5


class TestElements:
    """What is a link, and what only looks like one."""

    def test_h11_what_nobody_clicks(self) -> None:
        html = (
            b'<html xmlns="http://www.w3.org/1999/xhtml"><link href="https://example.com/c.css">'
            b'<base href="https://example.com/"><form action="https://example.com/">'
            b'<img src="https://example.com/i.png" srcset="https://example.com/i.png 2x">'
        )
        assert through(html) == html

    def test_h12_an_image_map_and_a_picture(self) -> None:
        """An `xlink:href` is found and left alone: programs differ on whether they follow it."""
        [link] = tracked(X)
        html = b'<map><area href="https://example.com/"></map><svg><a xlink:href="https://example.com/s">x</a></svg>'
        assert through(html) == html.replace(b'"https://example.com/"', link)
        assert reasons(html) == [None, "xlink"]

    def test_h13_both_halves_of_a_button(self) -> None:
        [link] = tracked("https://example.com/b?a=1&c=2")
        html = (
            b'<!--[if mso]><v:roundrect href="https://example.com/b?a=1&amp;c=2"></v:roundrect><![endif]-->'
            b'<!--[if !mso]><!--><a href="https://example.com/b?a=1&amp;c=2">B</a><!--<![endif]-->'
        )
        assert through(html) == html.replace(b'"https://example.com/b?a=1&amp;c=2"', link)

    def test_h14_markers_that_are_no_comments(self) -> None:
        html = b'<![if !mso]><a href="https://example.com/">x</a><![endif]>'
        assert through(html) == html.replace(b'"https://example.com/"', tracked(X)[0])

    def test_h15_comments_and_raw_text(self) -> None:
        html = (
            b'<!-- <a href="https://example.com/"> -->'
            b'<script type="application/ld+json">{"url":"https://example.com/"}</script>'
            b'<style>a[href="https://example.com/"]{}</style><textarea><a href="https://example.com/"></textarea>'
        )
        assert through(html) == html


class TestFidelity:
    """What is not a link is not touched."""

    def test_h16_references_stay_references(self) -> None:
        html = b'<p>a<br>b&nbsp;c&zwnj;d&mdash;</p><a href="https://example.com/">'
        content = rewrite(top(part(html, "text/html", "7bit", "us-ascii"))).content
        assert content.isascii()
        assert html_of(content).startswith(html.replace(b'"https://example.com/"', tracked(X)[0]))

    def test_h17_a_broken_structure_stays(self) -> None:
        html = b'<table><tr><td><a href="https://example.com/">x<td>y</table>'
        assert through(html) == html.replace(b'"https://example.com/"', tracked(X)[0])

    @pytest.mark.parametrize("paths", [("a", "a/b"), ("a/b", "a")])
    def test_h18_addresses_that_begin_each_other(self, paths: tuple[str, str]) -> None:
        urls = [X + path for path in paths]
        assert through("".join(f'<a href="{url}">' for url in urls).encode()) == (
            b"".join(b"<a href=%b>" % link for link in tracked(*urls))
        )

    @pytest.mark.parametrize(
        "tag",
        [
            b'<a clicktracking="off" href="https://example.com/">',
            b'<a href="https://example.com/" clicktracking="off">',
        ],
    )
    def test_h19_one_of_two_opts_out(self, tag: bytes) -> None:
        assert through(tag + b'<a href="https://example.com/">') == (
            b'<a href="https://example.com/"><a href=%b>' % tracked(X)[0]
        )

    @pytest.mark.parametrize(
        "url",
        [
            r"https://example.com/?q=$1&r=\g<0>&s=$&",
            "https://example.com/?u=href=http://example.net",
            "https://example.com/it's",
            "https://example.com/@me,(1)!*|~;p=1?a[]=1",
            "https://example.com?a=1",
            "https://[2001:db8::1]:8443/",
            "https://example.com/a%20b%2Fc?d=%E9&e=a+b",
            "https://example.com/%zz?50%",
            "https://example.com/#/spa?x=1",
            "https://example.com/?sig=AbC%3D#f",
            "https://example.com/?utm_source=own",
        ],
    )
    def test_h20_h21_h22_h23_an_address_is_taken_literally(self, url: str) -> None:
        """Of H23 there is nothing else to hold: Outrider adds no parameter to anybody's address."""
        assert through(f'<a href="{url}">'.encode()) == b"<a href=%b>" % tracked(url)[0]

    def test_h24_an_address_as_label(self) -> None:
        """It is a link like any other, unless `OUTRIDER_INJECT__VISIBLE_URLS` says `leave`: see test_label.py."""
        for label in (b"https://example.com/p", b"<b>example</b>.com"):
            html = b'<a href="https://example.com/p">%b</a>' % label
            assert through(html) == b"<a href=%b>%b</a>" % (tracked("https://example.com/p")[0], label)

    def test_h25_our_own_links(self) -> None:
        own = f"{BASE}/track/c/TOKEN"
        others = [f"{BASE}.evil.example.com/track/c/x", f"{X}?u={BASE}/"]
        html = "".join(f'<a href="{url}">' for url in (own, *others)).encode()
        first, second = tracked(*others)
        assert through(html) == b'<a href="%b"><a href=%b><a href=%b>' % (own.encode(), first, second)

    def test_h26_a_class_or_a_path_says_nothing(self) -> None:
        url = "https://example.com/unsubscribe-tips"
        assert through(b'<a class="no-unsubscribe" href="https://example.com/unsubscribe-tips">') == (
            b'<a class="no-unsubscribe" href=%b>' % tracked(url)[0]
        )


class TestPixel:
    """One, where it is fetched and nobody sees it."""

    @pytest.mark.parametrize(
        "html",
        [
            b"<BODY>x@</BODY >",
            b"<!-- </body> --><style></body></style><pre>&lt;/body&gt;</pre>@</body>",
            b"</body>x@</body>",
            b"x@",
            b"x@</body></html>text",
            b"<head></head>x@",
        ],
    )
    def test_h27_h31_before_the_last_real_body_end(self, html: bytes) -> None:
        assert shown(html.replace(b"@", b"")) == html

    def test_h31_it_takes_no_room_and_is_not_hidden(self) -> None:
        content = html_of(rewrite(top(part(b"<body>x</body>"))).content)
        pixel = content.removeprefix(b"<body>x").removesuffix(b"</body>")
        assert b'width="1" height="1" alt=""' in pixel
        assert b"display" not in pixel
        assert b"hidden" not in pixel


class TestTrouble:
    """Damage is carried on as it is, and nothing takes long."""

    @pytest.mark.parametrize(
        "html",
        [
            b'<a href="https://example.com/ tail',
            b"<p>a < b",
            b"\xef\xbb\xbf<p>x",
            b"<?xml version='1.0'?><p>x",
            b"<![CDATA[ x ]]><p>y",
        ],
    )
    def test_h28_nothing_is_lost(self, html: bytes) -> None:
        assert through(html) == html
        assert shown(html).replace(b"@", b"") == html

    def test_h29_deep_and_wide(self) -> None:
        """A mail with more than 5,000 links leaves untouched."""
        [link] = tracked(X)
        deep = b"<div>" * 20_000 + b'<a href="https://example.com/">' + b"</div>" * 20_000
        assert through(deep, encoding="base64") == deep.replace(b'"https://example.com/"', link)
        wide = top(part(b'<tr><td><a href="https://example.com/">x</a></td></tr>' * 12_000, "text/html", "base64"))
        assert rewrite(wide).reason == "link_limit"

    def test_h30_a_long_address_beside_a_longer_one(self) -> None:
        """It stays as it is, since a token that holds it would be longer; lines stay under 998 octets all the same."""
        long = b'<a href="https://example.com/%b"><img src="data:image/png;base64,%b">' % (
            b"p" * 3000,
            b"A" * 1_000_000,
        )
        html = long + b'<a href="https://example.com/">'
        content = rewrite(top(part(html))).content
        assert longest_line(content) <= 998
        assert html_of(content).startswith(html.replace(b'"https://example.com/"', tracked(X)[0]))

    def test_h32_what_was_rewritten_is_not_rewritten_again(self) -> None:
        html = b'<body><a href="https://example.com/">x</a><area href=https://example.net/></body>'
        once = rewrite(top(part(html))).content
        assert html_of(rewrite(once).content) == html_of(once)
        assert html_of(once).count(BASE.encode()) == 3
