"""What becomes of the links that are found: numbers, reasons and marks, in every kind of charset."""

import msgspec
import pytest

import injector
from injector.find import MAX_REMEMBERED
from injector.marks import Found
from tests.unit.injector.mails import body_of, destination, html_of, links_of, options, part, rewrite, top


def found(page: bytes, charset: str = "utf-8", encoding: str = "base64") -> tuple[Found, ...]:
    """Return what was decided on the links of a page."""
    mail = injector.parse(top(part(page, encoding=encoding, charset=charset)))
    return injector.plan(mail, options(), campaign=False).leaves[0].found


class TestNumbers:
    """All hrefs that mean one address share a number, counted from 0 in the order of the message."""

    def test_h18_h19_one_number_for_one_address(self) -> None:
        page = (
            b'<a href="https://x.test/a">1</a><a href="https://x.test/a/b">2</a><a href=" https://x.test/&#97; ">3</a>'
            b'<a href="https://x.test/a" clicktracking="off">4</a><a href="mailto:a@x.test">5</a>'
        )
        plan = injector.plan(injector.parse(top(part(page))), options(), campaign=False)
        assert [(link.number, link.url, link.count) for link in plan.links] == [
            (0, "https://x.test/a", 2),
            (1, "https://x.test/a/b", 1),
        ]
        assert [(each.url is not None, each.reason) for each in plan.leaves[0].found] == [
            (True, None),
            (True, None),
            (True, None),
            (False, "opt_out"),
            (False, "mailto"),
        ]

    def test_a_value_too_long_to_be_remembered_is_judged_alike(self) -> None:
        padded = b" " * MAX_REMEMBERED + b"https://x.test/a"
        assert [each.url for each in found(b'<a href="%b">x</a>' % padded)] == ["https://x.test/a"]


class TestMarks:
    """What is not wrapped changes by nothing but the sender's own mark."""

    def test_h19_the_opt_out_goes_and_the_href_stays(self) -> None:
        page = b'<a clicktracking="off" href="https://x.test/">x</a>'
        assert body_of(rewrite(top(part(page)), options(opens=False)).content) == b'<a href="https://x.test/">x</a>'

    def test_the_opt_out_scheme_becomes_the_scheme_it_stands_for(self) -> None:
        page = b"<a href='https+notrack://x.test/?a=1&amp;b'>x</a>"
        left = body_of(rewrite(top(part(page)), options(opens=False)).content)
        assert left == b"<a href='https://x.test/?a=1&amp;b'>x</a>"

    def test_with_clicks_off_nothing_changes(self) -> None:
        page = b'<a clicktracking="off" href="https+notrack://x.test/">x</a><a href="https://x.test/">y</a>'
        chosen = options(opens=False, clicks=False)
        assert body_of(rewrite(top(part(page)), chosen).content) == page
        mail = injector.parse(top(part(page)))
        plan = injector.plan(mail, msgspec.structs.replace(chosen, opens=True), campaign=False)
        assert {each.reason for each in plan.leaves[0].found} == {"clicks_off"}

    def test_h12_the_retired_spelling_in_svg_is_named_and_stays(self) -> None:
        page = b'<svg><a xlink:href="https://x.test/s"><text>s</text></a><a href="https://x.test/t">t</a></svg>'
        decided = [(each.element, each.url, each.reason) for each in found(page)]
        assert decided == [("svg:a", None, "xlink"), ("a", "https://x.test/t", None)]
        assert b'<a xlink:href="https://x.test/s">' in rewrite(top(part(page))).content


class TestCharsets:
    """A link means the same in every charset, and what nobody can read is left alone."""

    PAGE = '<p>日</p><a href="https://x.test/日?q=1">日</a><a href="https://x.test/a">a</a>'

    @pytest.mark.parametrize("charset", ["utf-8", "shift_jis", "euc-jp", "gb18030", "big5", "iso-2022-jp", "utf-16"])
    def test_links_among_letters(self, charset: str) -> None:
        page = self.PAGE.encode(charset)
        assert [each.url for each in found(page, charset)] == ["https://x.test/日?q=1", "https://x.test/a"]
        left = html_of(rewrite(top(part(page, encoding="base64", charset=charset)), options(opens=False)).content)
        targets = [destination(url) for url in links_of(left.decode(charset))]
        assert targets == ["https://x.test/日?q=1", "https://x.test/a"]
        assert left.decode(charset).startswith("<p>日</p>")

    def test_octets_that_are_not_in_the_charset_spoil_their_link_alone(self) -> None:
        page = b'\xff<a href="https://x.test/\xff">x</a><a href="https://x.test/a">a</a>'
        assert [(each.url, each.reason) for each in found(page)] == [(None, "undecodable"), ("https://x.test/a", None)]

    def test_letters_without_a_charset_are_not_guessed_at(self) -> None:
        page = '<a href="https://x.test/é">x</a><a href="https://x.test/&eacute;">y</a><a href="https://x.test/">z</a>'
        decided = [(each.url, each.reason) for each in found(page.encode(), "")]
        assert decided == [(None, "undecodable"), ("https://x.test/é", None), ("https://x.test/", None)]

    def test_a_mark_that_contradicts_the_label_leaves_only_ascii_to_be_read(self) -> None:
        page = b"\xef\xbb\xbf" + '<a href="https://x.test/é">x</a><a href="https://x.test/">z</a>'.encode()
        decided = [(each.url, each.reason) for each in found(page, "windows-1251")]
        assert decided == [(None, "undecodable"), ("https://x.test/", None)]

    @pytest.mark.parametrize(
        ("charset", "octets"),
        [("koi8-u", b"\xae"), ("euc-jp", b"\xa1\xc1"), ("iso-2022-jp", b"\x1b$B!A\x1b(B"), ("big5", b"\xa1\xe3")],
    )
    def test_a_letter_that_programs_read_differently_is_in_doubt(self, charset: str, octets: bytes) -> None:
        decided = found(b'<a href="https://x.test/' + octets + b'">x</a>', charset)
        assert [each.reason for each in decided] == ["charset_dependent"]
