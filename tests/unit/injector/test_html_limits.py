"""The HTML scanner at its limits: the place for the pixel, and hostile input; numbers are rows of the trap table."""

import sys
from contextlib import suppress
from time import process_time
from types import FrameType

import pytest

from injector.html import MAX_LINKS, ScanLimitError, scan

PIXEL = b"<img>"

# What a hostile part repeats.
UNITS = [
    b"<", b"<!--", b"<a ", b'<a href="', b"<a href=x ", b"<div>", b"</", b"<![if", b"<script>", b"&amp", b"<a x='",
    b"<?", b"<a><b>", b"<!--[if mso]>", b"<svg>", b"<template>", b" x='", b"<![CDATA[", b"<![CDATA[>",
    b"<!--[if x]>href<![CDATA[>-->", b"<!--[if mso]>href-->", b"<!--[if mso]><!-- href ", b"<!--[if", b"<!-->",
    b"<!--!>", b"--!>", b"- href", b"<!--href-->", b"<p a=1 ", b'<p a="', b'<p a="">', b'<p a=""', b'<p ="',
    b'<p a = "1">', b"<p/", b'<p a=x"y ', b'<p a=\'"', b"<a\n=", b"<a = ", b"<a b>", b"<a clicktracking=on ",
    b"<a href=x clicktracking=on ", b'<a class="', b"<p" + b" " * 50, b"<style></style", b"<style></style>",
    b"<svg></svg>", b"</svg>", b"<svg><style></style>", b"<svg><![CDATA[>]]>", b"<svg><title/>",
    b"<script><!--<script>", b"<script><!--", b"</body", b"</body ", b"</body>", b"<v:", b"<v:a>", b'"', b"=",
    b'<a class="c" href="x">',
]  # fmt: skip
# Where only the beginning makes it hostile.
START = {b" x='": b"<a ", b"- href": b"<!--"}


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
            b"<frameset><frame src=x></frameset>@",
            b"<noframes></body></noframes>@",
            b"<svg><g/></body></svg>x".replace(b"</body>", b"@</body>"),
            b"x<![CDATA[>@</body>]]>",
            b"<body>x</template>@</body>",
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
            b"x@<![CDATA[",
            b"x@<svg><a href='",
            b"x@<svg><g><svg><style>",
            b"<head>x@<style>y</head>",
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

    @pytest.mark.parametrize("unit", UNITS, ids=repr)
    def test_h29_twice_the_input_takes_twice_the_steps(self, unit: bytes) -> None:
        assert _steps(_input(unit, 32_000)) <= 2 * _steps(_input(unit, 16_000)) + 20

    @pytest.mark.parametrize("unit", UNITS, ids=repr)
    def test_h29_no_step_takes_longer_in_a_longer_input(self, unit: bytes) -> None:
        """Quadratic would be four times as long. Noise only adds, so that more rounds come closer to the truth."""
        short = long = float("inf")
        for _ in range(20):
            short, long = min(short, _seconds(_input(unit, 100_000))), min(long, _seconds(_input(unit, 200_000)))
            # What is done in under a millisecond is not quadratic: at this size that would take seconds.
            if long < 3.0 * max(short, 0.001):
                return
        pytest.fail(f"{long / short:.1f} times as long")


def _input(unit: bytes, size: int) -> bytes:
    return START.get(unit, b"") + (unit * (size // len(unit) + 1))[:size]


def _seconds(html: bytes) -> float:
    started = process_time()
    with suppress(ScanLimitError):
        scan(html)
    return process_time() - started


def _steps(html: bytes) -> int:
    """Return how many functions are called, those of the interpreter included."""
    calls = 0

    def count(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        with suppress(ScanLimitError):
            scan(html)
    finally:
        sys.setprofile(before)
    return calls
