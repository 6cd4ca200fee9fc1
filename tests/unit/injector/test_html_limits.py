"""The HTML scanner at its limits: the place for the pixel, and hostile input; numbers are rows of the trap table."""

from collections.abc import Callable
from time import process_time

import pytest

from injector.html import MAX_LINKS, HtmlMap, ScanLimitError, scan

PIXEL = b"<img>"


def with_pixel(html: bytes) -> bytes:
    """Put a pixel where the scanner says."""
    at = scan(html).pixel_at
    return html[:at] + PIXEL + html[at:]


class TestPixel:
    """One place, where the pixel is seen and disturbs nothing."""

    @pytest.mark.parametrize(
        "html",
        [
            b"<body>x@</body>",
            b"<BODY>x@</BODY ></HTML>",
            b"<body>x@</body\r\n></html>",
            b"</body>x@</body>y",
            b"<!-- </body> -->@</body><!-- </body> -->",
            b"x@</body><style></body></style><script></body></script><title></body></title>",
            b"x@</body><p title='</body>'><!--[if mso]></body><![endif]-->",
            b"<pre>&lt;/body&gt;</pre>@</body></html> text",
            b"x@</body><!--[if mso]><a href=y></a></body><![endif]-->",
            b"<![if !mso]>@</body><![endif]>",
            b'@</body class="x">',
            b"x</bodyx>@",
            b"x<body>@",
            b"<head></head>x@",
            b"x@</body>\xff\x00",
            b"@",
        ],
    )
    def test_h27_h31_before_the_last_real_body_end_or_at_the_end(self, html: bytes) -> None:
        assert with_pixel(html.replace(b"@", b"")) == html.replace(b"@", PIXEL)

    @pytest.mark.parametrize(
        "html",
        [
            b'x@<a href="https://x.test/',
            b"x@<!-- y",
            b"x@<style> y",
            b"x@<p ",
            b"x@<!doctype",
            b"x@<plaintext>y",
            b"x@</body",
            b"x@<title/>",
        ],
    )
    def test_h28_before_what_never_ends(self, html: bytes) -> None:
        """A pixel inside an open tag would end it; inside an open comment nobody would fetch it."""
        assert with_pixel(html.replace(b"@", b"")) == html.replace(b"@", PIXEL)


class TestHostileInput:
    """Any octets are mapped, and in a time that grows as they do."""

    @pytest.mark.parametrize(
        "html",
        [
            b'x <a href="https://x.test/ tail',
            b"<a href=https://x.test/",
            b"<a href='https://x.test/'",
            b"<a href='https://x.test/' ",
            b'<a title="x <a href=y>',
            b"<a title='x <a href=y>",
            b'<p title="x <a href=y>',
            b"\x00<\x00a\x00",
            b"<a\x00 href=x>",
            b"\xef\xbb\xbf<?xml version='1.0'?><p>a < b<",
            b"<",
            b"</",
            b"<!",
            b"<!-",
            b"<a",
            b"<a ",
            b"<a href",
            b"<a href=",
            b'<a href="',
            b"",
        ],
    )
    def test_h28_no_link_and_no_error(self, html: bytes) -> None:
        assert scan(html).hrefs == ()

    def test_h29_nesting_costs_nothing(self) -> None:
        [href] = scan(b"<div>" * 20_000 + b"<a href=x>" + b"</div>" * 20_000).hrefs
        assert href.value == b"x"

    def test_h29_more_links_than_any_mail_has(self) -> None:
        assert len(scan(b"<tr><td><a href=x>y</a>" * MAX_LINKS).hrefs) == MAX_LINKS
        with pytest.raises(ScanLimitError):
            scan(b"<tr><td><a href=x>y</a>" * (MAX_LINKS + 1))

    def test_h30_a_megabyte_in_a_value(self) -> None:
        assert len(scan(b'<a href="data:' + b"x" * 1_000_000 + b'"><a href="https://x.test/">').hrefs) == 2

    @pytest.mark.parametrize(
        "unit",
        [
            b"<",
            b"<!--",
            b"<a ",
            b'<a href="',
            b"<a href=x ",
            b"<div>",
            b"</",
            b"<![if",
            b"<script>",
            b"&amp",
            b"<a x='",
            b"<?",
            b"<a><b>",
            b"<![CDATA[",
            b"<![CDATA[>",
            b"<!--[if x]>href<![CDATA[>-->",
            b"<!--[if mso]>href-->",
            b"<!--[if",
            b"<!-->",
            b"<!--!>",
            b"--!>",
            b"<p a=1 ",
            b'<p a="',
            b'<p a="">',
            b'<p a=""',
            b'<p ="',
            b'<p a = "1">',
            b"<p/",
            b'<p a=x"y ',
            b"<p a='\"",
            b"<a\n=",
            b"<a = ",
            b"<p" + b" " * 50,
            b"<style></style",
            b"<script><!--<script>",
            b"<script><!--",
            b"</body",
            b"</body ",
            b"<v:",
            b'"',
            b"=",
        ],
    )
    def test_time_is_linear(self, unit: bytes) -> None:
        """Doubling the input may at most triple the time; quadratic would be four times, and more than any noise."""
        assert _growth(scan, unit) < 3


def _growth(function: Callable[[bytes], HtmlMap], unit: bytes) -> float:
    """Return how much longer twice the input takes; the best of several tries, for the machine is shared."""

    def seconds(size: int) -> float:
        html = (unit * (size // len(unit) + 1))[:size]
        times = []
        for _ in range(3):
            started = process_time()
            function(html)
            times.append(process_time() - started)
        return min(times)

    growth = 0.0
    for _ in range(5):
        # What is done in under a millisecond is not quadratic: at this size that would take seconds.
        growth = seconds(128_000) / max(seconds(64_000), 0.001)
        if growth < 3:
            break
    return growth
