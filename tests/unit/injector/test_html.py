"""The HTML scanner: which hrefs are found, where the pixel goes; numbers in names are rows of the trap table."""

import pytest

from injector.html import scan
from injector.links import attribute, judge, strip_notrack

PUBLIC = "https://t.example.com"


def T(url: str) -> bytes:  # noqa: N802  the letter of the trap table
    """Return the attribute value that stands for a tracked link to *url*."""
    return attribute(f"{PUBLIC}/track/c/{url.encode().hex()}")


def wrap(html: bytes) -> bytes:
    """Wrap what is to be wrapped, as the relay does, with a token that can be read."""
    out, at = [], 0
    for href in scan(html).hrefs:
        url = judge(href.value, charset="utf-8", page="utf-8", skip=(), public_url=PUBLIC).url
        if url is not None and href.opt_out is None:
            out += [html[at : href.start], T(url)]
            at = href.end
    return b"".join([*out, html[at:]])


def values(html: bytes) -> list[bytes]:
    """Return the values of the hrefs that are found."""
    return [href.value for href in scan(html).hrefs]


X = T("https://x.test/")


class TestAttributes:
    """The first href counts, in any spelling a browser reads, and no other attribute."""

    def test_h1_only_the_href_counts(self) -> None:
        html = (
            b'<a data-href="https://d.test/" xhref=\'https://d.test/\' href="https://x.test/" hrefx="https://d.test/">'
        )
        assert wrap(html) == html.replace(b'"https://x.test/"', X)

    def test_h2_a_bracket_in_a_value_ends_no_tag(self) -> None:
        html = b'<a title="1 > 0" href="https://x.test/"><p title=\'<a href="https://y.test/">\'>'
        assert wrap(html) == html.replace(b'"https://x.test/"', X)

    def test_h3_h4_the_value_is_handed_on_as_it_stands(self) -> None:
        assert values(b'<a href="https://x.test/?a=1&copy=2&amp;b=2">') == [b"https://x.test/?a=1&copy=2&amp;b=2"]

    @pytest.mark.parametrize(
        ("html", "value"),
        [
            (b"<A HREF = 'https://x.test/?q=\"z\"'>", b'https://x.test/?q="z"'),
            (b"<a href=https://x.test/p?x=1&y=2>", b"https://x.test/p?x=1&y=2"),
            (b"<a href=https://x.test/>", b"https://x.test/"),
            (b"<a href=https://x.test/ id=y>", b"https://x.test/"),
            (b'<a\r\nhref\t=\f\n"https://x.test/"\r\n>', b"https://x.test/"),
            (b"<a/href='https://x.test/'/>", b"https://x.test/"),
            (b"<a id=\"y\"href='https://x.test/'title>", b"https://x.test/"),
            (b'<a x=y="z href=https://x.test/\'q">', b"https://x.test/'q\""),
            (b'<a ="x" href=https://x.test/>', b"https://x.test/"),
            (b"<a id= href=y href=https://x.test/>", b"https://x.test/"),
            (b"<a href= https://x.test/>", b"https://x.test/"),
            (b"<a href==x>", b"=x"),
            (b'<a href="">', b""),
            (b'<a href=" \r\nhttps://x.test/a\r\nb">', b" \r\nhttps://x.test/a\r\nb"),
        ],
    )
    def test_h5_h7_spellings_of_an_attribute(self, html: bytes, value: bytes) -> None:
        [href] = scan(html).hrefs
        assert href.value == value
        assert html[href.start : href.end] in {value, b'"%b"' % value, b"'%b'" % value}
        assert href.tag_end == len(html)

    @pytest.mark.parametrize("tag", [b"<a href=x >", b'<a\nclass="c" href="x" title=">">', b"<area href='x' alt/>"])
    def test_the_content_begins_behind_the_tag(self, tag: bytes) -> None:
        [href] = scan(b"<p>" + tag + b"text > more</a>").hrefs
        assert href.tag_end == 3 + len(tag)

    def test_h5_the_new_value_is_quoted(self) -> None:
        assert wrap(b"<a href=https://x.test/>") == b"<a href=" + X + b">"

    def test_h6_the_first_href_wins(self) -> None:
        html = b'<a href="https://one.test/" href="https://two.test/" HREF=https://three.test/>'
        assert wrap(html) == html.replace(b'"https://one.test/"', T("https://one.test/"))

    def test_h6_a_first_href_without_value_wins_too(self) -> None:
        assert values(b'<a href href="https://x.test/">') == []


class TestElements:
    """Links are wrapped where a click makes a request, and nowhere else."""

    def test_h9_h10_what_is_no_web_address_stays(self) -> None:
        html = b'<a href="mailto:a@b.test?subject=https://x.test"></a><a href="#top"><a href="{{unsub}}"><a href=cid:1>'
        assert wrap(html) == html

    @pytest.mark.parametrize(
        "html",
        [
            b'<link href="https://f.test/c.css">',
            b'<base href="https://x.test/">',
            b'<form action="https://x.test/"><button formaction="https://x.test/">',
            b'<img src="https://x.test/i.png" srcset="https://x.test/i.png 2x" usemap=#m>',
            b'<html xmlns="http://www.w3.org/1999/xhtml" href="https://x.test/">',
            b'<abbr href="https://x.test/"><aside href="https://x.test/"><areas href="https://x.test/">',
            b'<a xlink:href="https://x.test/s"></a><svg></svg><a xlink:href="https://x.test/s"></a>',
            b'<o:p href="https://x.test/"><v href="https://x.test/"><image href="https://x.test/">',
            b'</a href="https://x.test/">',
        ],
    )
    def test_h11_h12_other_elements_and_attributes_stay(self, html: bytes) -> None:
        assert values(html) == []

    @pytest.mark.parametrize(
        "attribute",
        [
            b'class="c"', b"class='c'", b"class=c", b"hidden", b'data-x="1"', b'HREF2="y"', b'style="a:\'b\'"',
            b'x="<a>"', b'id="c"/',
        ],
    )  # fmt: skip
    def test_h1_whatever_stands_beside_the_href(self, attribute: bytes) -> None:
        html = b'<a %b href="https://x.test/"><a href="https://x.test/" %b><a href="https://x.test/" %b %b>'
        html %= (attribute,) * 4
        assert wrap(html) == html.replace(b'"https://x.test/"', X)

    def test_a_template_is_an_element_like_any_other(self) -> None:
        """Browsers show nothing of it; a program that does shows a link that works."""
        html = b'<template><a href="https://x.test/"></a></template>'
        assert wrap(html) == html.replace(b'"https://x.test/"', X)

    def test_h12_areas_and_svg_links_with_href(self) -> None:
        html = b'<map><area shape=rect href="https://x.test/"></map><svg><a href="https://x.test/"><text>x</text></a></svg>'
        assert wrap(html) == html.replace(b'"https://x.test/"', X)
        assert [href.element for href in scan(html).hrefs] == ["area", "a"]


class TestConditionalComments:
    """What only Outlook sees is wrapped as well as what it does not see."""

    def test_h13_both_halves_of_a_bulletproof_button(self) -> None:
        html = (
            b'<!--[if mso]><v:roundrect href="https://x.test/b?a=1&amp;c=2"></v:roundrect><![endif]-->'
            b'<!--[if !mso]><!--><a href="https://x.test/b?a=1&amp;c=2">B</a><!--<![endif]-->'
        )
        assert wrap(html) == html.replace(b'"https://x.test/b?a=1&amp;c=2"', T("https://x.test/b?a=1&c=2"))
        assert [href.element for href in scan(html).hrefs] == ["v:roundrect", "a"]

    @pytest.mark.parametrize(
        "opening",
        [
            b"<!--[if mso]>",
            b"<!--[if gte mso 9]>",
            b"<!--[if (mso)|(IE)]>",
            b"<!-- [IF !mso]>",
            b"<!--[if mso | IE]>",
            b"<!--[if\r\nmso]>",
        ],
    )
    def test_h13_spellings_of_a_condition(self, opening: bytes) -> None:
        html = opening + b'<td><a href="https://x.test/">x</a><w:anchorlock href=https://x.test/></td><![endif]-->'
        assert values(html) == [b"https://x.test/", b"https://x.test/"]

    @pytest.mark.parametrize(
        "html",
        [
            b'<!--[if !mso]><!--><a href="https://x.test/">x</a><!--<![endif]-->',
            b'<!--[if !mso]><!-- --><a href="https://x.test/">x</a><!--<![endif]-->',
            b'<!--[if !mso]>--><a href="https://x.test/">x</a><!--<![endif]-->',
            b'<!--[if mso]><style><a href="https://y.test/"><![endif]--><a href="https://x.test/">x</a>',
            b'<!--[if mso]><style></style><a href="https://x.test/"><![endif]-->',
            b'<!--[if mso]><a href="https://y.test/ <![endif]--><a href="https://x.test/">x</a>',
            b'<!--[if mso]><!-- <a href="https://y.test/"> --><a href="https://x.test/">x</a>',
        ],
    )
    def test_h13_what_a_condition_opens_it_closes(self, html: bytes) -> None:
        assert wrap(html) == html.replace(b'"https://x.test/"', X)

    def test_h13_a_comment_that_only_mentions_a_condition_is_a_comment(self) -> None:
        assert (
            values(b'<!-- see [if mso]> <a href="https://x.test/"> --><!--[iffy]><a href="https://x.test/">-->') == []
        )

    def test_h14_downlevel_revealed_markers_are_kept(self) -> None:
        html = b'<![if !mso]><a href="https://x.test/">x</a><![endif]><!-- x -->'
        assert wrap(html) == html.replace(b'"https://x.test/"', X)


class TestTextAndComments:
    """Nothing is found where a browser sees no markup."""

    @pytest.mark.parametrize(
        "html",
        [
            b'<!-- <a href="https://c.test/"> -->',
            b'<!-- -- > <a href="https://c.test/"> --!><p>',
            b'<!--!> <a href="https://c.test/"> -->',
            b'<!-- <a href="https://c.test/">',
            b'<!doctype html "<a href="https://c.test/>',
            b'<?xml <a href="https://c.test/"?>',
            b'</ <a href="https://c.test/">',
            b'<!x <a href="https://c.test/">',
            b'<![CDATA[ <a href="https://c.test/" ]]>',
            b'<script type="application/ld+json">{"url":"<a href=https://x.test/>"}</script>',
            b'<script><!-- <script> </script> <a href="https://c.test/"> --></script>',
            b'<style>a[href="https://x.test/"]{} <a href="https://x.test/"></style>',
            b'<textarea><a href="https://x.test/"></textarea>',
            b'<TITLE><a href="https://x.test/"></TITLE >',
            b'<xmp><a href="https://x.test/"></xmp><noscript><a href="https://x.test/"></noscript>',
            b'<iframe><a href="https://x.test/"></iframe><noembed><a href="https://x.test/"></noembed>',
            b'<noframes><a href="https://x.test/"></noframes>',
            b'<plaintext></plaintext><a href="https://x.test/">',
            b'<style></styles></style <a href="https://x.test/"></style',
        ],
    )
    def test_h15_no_link_is_found_in(self, html: bytes) -> None:
        assert values(html) == []

    @pytest.mark.parametrize(
        "before",
        [
            b"<!-->",
            b"<!--->",
            b"<!---->",
            b"<!-- x --!>",
            b"<!-- <!-- -->",
            b"<!>",
            b"</>",
            b"<?>",
            b"<![CDATA[x>",
            b"<![CDATA[x]]>",
            b"<![CDATA[>]]>",
            b"<template>",
            b"<script></script>",
            b"<script><!-- <script> </script> --></script>",
            b"<script><!--></script>",
            b"<script><!-- </script>",
            b"<style></STYLE\t>",
            b"<style></style/>",
            b"<title></titles></title>",
            b"<xmpp>",
            b"<scripts>",
            b"</script>",
            b"</style><!x>",
            b"<p a=b\"><q c='>'><br d=\"'\">",
            b'<p"><p ="x><p a =" >"><p a=\'\'b=">">',
            b"<" + b"p" * 5000 + b" a" * 5000 + b' b=">"' * 300 + b">",
            b"a < b <3 << <- ",
            b"<",
            b"x<<<",
            b"<br>" * 2000,
        ],
    )
    def test_h15_h28_a_link_is_found_after(self, before: bytes) -> None:
        html = before + b'<a href="https://x.test/">'
        assert wrap(html) == before + b"<a href=" + X + b">"


class TestFidelity:
    """What is not a wrapped value leaves as it came."""

    def test_h16_h17_entities_and_broken_structure_stay(self) -> None:
        html = b'<p>a<br>b&nbsp;c&zwnj;d&mdash;</p><table><tr><td><a href="https://x.test/">x<td>y</table>'
        assert wrap(html) == html.replace(b'"https://x.test/"', X)

    def test_h18_urls_that_begin_each_other(self) -> None:
        html = b'<a href="https://x.test/a"></a><a href="https://x.test/a/b"></a>'
        assert wrap(html) == b"<a href=%b></a><a href=%b></a>" % (T("https://x.test/a"), T("https://x.test/a/b"))
        assert wrap(html[31:]) == b"<a href=%b></a>" % T("https://x.test/a/b")

    @pytest.mark.parametrize(
        "html", [rb'<a href="https://x.test/?q=$1&r=\g<0>&s=$&">', b'<a href="https://x.test/it\'s">']
    )
    def test_h20_h21_values_are_literal(self, html: bytes) -> None:
        assert wrap(html) == b"<a href=" + T(html[9:-2].decode()) + b">"

    def test_h24_h26_text_and_classes_are_nobodys_business(self) -> None:
        html = b'<a class="no-unsubscribe" href="https://x.test/">https://x.test/</a>'
        assert wrap(html) == html.replace(b'"https://x.test/"', X)

    def test_h32_wrapping_twice_is_wrapping_once(self) -> None:
        once = wrap(b'<a href="https://x.test/"></a><area href=https://y.test/>')
        assert wrap(once) == once


class TestOptOuts:
    """An attribute of any provider leaves its link alone, and is cut out cleanly."""

    @pytest.mark.parametrize(
        "attribute",
        [
            b"data-no-track",
            b'data-no-track=""',
            b'data-ignore="true"',
            b"data-ignore",
            b"clicktracking=off",
            b'CLICKTRACKING="Off"',
            b"ses:no-track",
            b"disable-tracking=true",
            b'data-msys-clicktrack="0"',
            b"data-skip-click",
            b'mautic:disable-tracking="true"',
            b"data-pm-no-track",
        ],
    )
    def test_h19_every_dialect_is_understood(self, attribute: bytes) -> None:
        for html in (
            b'<a href="https://x.test/" %b>x</a><a href="https://x.test/">y</a>' % attribute,
            b'<a %b href="https://x.test/">x</a><a href="https://x.test/">y</a>' % attribute,
        ):
            first, second = scan(html).hrefs
            assert second.opt_out is None
            assert first.opt_out is not None
            start, end = first.opt_out
            assert html[:start] + html[end:] == b'<a href="https://x.test/">x</a><a href="https://x.test/">y</a>'

    @pytest.mark.parametrize(
        "attribute", [b"clicktracking=on", b"disable-tracking=false", b'data-msys-clicktrack="1"', b"data-track=no"]
    )
    def test_h19_the_value_must_say_it(self, attribute: bytes) -> None:
        [href] = scan(b'<a href="https://x.test/" %b>' % attribute).hrefs
        assert href.opt_out is None

    @pytest.mark.parametrize(
        ("html", "cut"),
        [
            (b'<a href=x data-no-track="1"title=y>', b"<a href=x title=y>"),
            (b'<a href=x data-no-track="1"/>', b"<a href=x />"),
            (b'<a href="x"data-no-track>', b'<a href="x">'),
            (b'<a href="x"/data-no-track/>', b'<a href="x"//>'),
            (b"<a data-no-track\r\n href=x>", b"<a\r\n href=x>"),
            (b"<a href=x\r\n\tclicktracking = off >", b"<a href=x\r\n >"),
        ],
    )
    def test_h19_a_cut_joins_no_neighbours(self, html: bytes, cut: bytes) -> None:
        [href] = scan(html).hrefs
        assert href.opt_out is not None
        assert html[: href.opt_out[0]] + html[href.opt_out[1] :] == cut
        assert [again.value for again in scan(cut).hrefs] == [href.value]

    def test_h19_the_scheme_of_postal_is_taken_off_within_the_quotes(self) -> None:
        html = b'<a href="https+notrack://x.test/?a&amp;b">'
        [href] = scan(html).hrefs
        assert html.replace(href.value, strip_notrack(href.value)) == b'<a href="https://x.test/?a&amp;b">'
