"""The HTML scanner inside pictures, where HTML can be read in two ways; numbers are rows of the trap table."""

import pytest

from injector.html import scan


def values(html: bytes) -> list[bytes]:
    """Return the values of the hrefs that are found."""
    return [href.value for href in scan(html).hrefs]


class TestLinks:
    """A link of a picture is a link; the policy on the retired spelling is made elsewhere."""

    @pytest.mark.parametrize(
        ("html", "found"),
        [
            (b'<svg><a xlink:href="x">', [(b"x", "svg:a")]),
            (b"<SVG width=1><g><A XLINK:HREF='x' class=c>", [(b"x", "svg:a")]),
            (b"<svg><a href=y xlink:href=x>", [(b"y", "a")]),
            (b"<svg><a xlink:href=x href=y>", [(b"y", "a")]),
            (b"<svg><a xlink:href=x href>", []),
            (b"<svg><a xlink:href>", []),
            (b"<svg><use xlink:href=x><area xlink:href=x>", []),
            (b"<svg></svg><a xlink:href=x>", []),
            (b"<svg/><a xlink:href=x>", []),
            (b"<svg><svg></svg><a xlink:href=x></svg>", [(b"x", "svg:a")]),
            (b"<!--[if mso]><svg><![endif]--><a xlink:href=x>", []),
            (b"<svg><!--[if mso]><a xlink:href=x><![endif]--><a xlink:href=y>", [(b"y", "svg:a")]),
        ],
    )
    def test_h12_which_attribute_is_the_link(self, html: bytes, found: list[tuple[bytes, str]]) -> None:
        assert [(href.value, href.element) for href in scan(html).hrefs] == found


class TestTwoReadings:
    """In a picture the scan goes as far as HTML and SVG are read alike."""

    @pytest.mark.parametrize(
        "before",
        [
            b"<svg><style>a > b {}</style>",
            b"<svg><style><![CDATA[ .a{} ]]></style>",
            b"<svg><style><!-- .a{} --></style>",
            b"<svg><title>x</title><desc>y</desc>",
            b"<svg><title/><path d='M0 0'/>",
            b"<svg><style/><script/>",
            b"<math><mi><![CDATA[x]]></mi>",
            b"<svg><![CDATA[ > ]]>",
            b"<svg><![CDATA[ <a href=y ]]>",
            b"<svg></svg><style><p></style>",
            b"<svg></svg><![CDATA[>",
            b"<svg a=/><title>x</title>",
            b"<svg/><style><p></style>",
        ],
    )
    def test_h28_a_link_is_found_after(self, before: bytes) -> None:
        assert values(before + b"<a href=x>") == [b"x"]

    @pytest.mark.parametrize(
        "doubt",
        [
            b"<style><a href=x></style>",
            b"<style><!--</style><a href=x>--></style>",
            b"<style><p title='</style><a href=x>'>",
            b"<title><p></title>",
            b"<title>",
            b"<![CDATA[ > <a href=x> ]]>",
            b"<![CDATA[ > <!-- ]]>",
            b"<![CDATA[ >",
            b"<![CDATA[",
            b"<svg>" * 100,
        ],
    )
    def test_h15_h28_nothing_is_touched_after(self, doubt: bytes) -> None:
        """Neither is the picture: a pixel inside would end it."""
        found = scan(b"<p><a href=y><svg><g>" + doubt + b"<a href=x></g></svg></body>")
        assert [href.value for href in found.hrefs] == [b"y"]
        assert found.pixel_at == len(b"<p><a href=y>")

    def test_h27_a_body_end_before_the_doubt_stands(self) -> None:
        assert scan(b"<p></body><svg><title>").pixel_at == 3
