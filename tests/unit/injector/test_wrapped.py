"""The table of what is wrapped holds: each of its rows is sent through the injector, and the page shows it."""

from pathlib import Path

import msgspec
import pytest

import injector
from injector import html
from injector.links import LinkReason
from injector.wrapped import ADDRESSES, LINKING, LINKING_PREFIXES, PLACES, Place, Written, reference
from tests.unit.injector.mails import HexMinter, body_of, options, part, rewrite, top

PAGE = Path(__file__).resolve().parents[3] / "docs" / "injection.md"
BEGIN, END = "<!-- wrapped: begin -->\n", "<!-- wrapped: end -->\n"


def planned(body: bytes, kind: str = "text/html", charset: str = "utf-8") -> injector.Plan:
    """Return the plan of a message with one part, in which visible addresses are left alone."""
    chosen = msgspec.structs.replace(options(opens=False), visible_urls="leave")
    return injector.plan(injector.parse(top(part(body, kind, charset=charset))), chosen, campaign=False)


# Every element and attribute of HTML that holds an address, and some of XML's.
_ELEMENTS = """
a abbr area audio base blockquote body button del embed form frame head html iframe img input ins link map meta object
q source svg table td track use video image feimage math mglyph v:shape v:fill w:link x:a o:lock av:a
"""
_ATTRIBUTES = """
href src srcset action formaction cite background data poster longdesc ping profile codebase classid usemap manifest
icon archive xmlns data-href xml:base data-saferedirecturl originalsrc
"""


class TestTable:
    """What the table says is what happens."""

    @pytest.mark.parametrize("place", PLACES, ids=Place.example)
    def test_h11_h12_h13_h14_h15_every_place_of_the_table(self, place: Place) -> None:
        plan = planned(place.example().encode(), place.kind)
        found = [each for leaf in plan.leaves for each in leaf.found]
        assert [each.url for each in found if each.url] == ["https://example.com/"] * place.wrapped
        if place.kind == "text/html":
            assert [each.reason for each in found if each.reason] == [place.reason] * (place.reason is not None)
        else:
            assert [leaf.reason for leaf in plan.leaves] == [place.reason]
        if not place.wrapped:
            content = top(part(place.example().encode(), place.kind))
            assert body_of(rewrite(content, options(opens=False)).content) == body_of(content)

    @pytest.mark.parametrize("written", ADDRESSES, ids=lambda written: f"{written.reason} {written.value[:40]}")
    def test_every_address_of_the_table(self, written: Written) -> None:
        found = planned(written.example().encode(), charset=written.charset).leaves[0].found
        assert [(each.reason, each.url is not None) for each in found] == [(written.reason, written.reason is None)]

    def test_every_reason_of_a_link_has_its_row(self) -> None:
        shown = {place.reason for place in PLACES} | {written.reason for written in ADDRESSES}
        assert [reason for reason in LinkReason if reason not in shown] == []

    @pytest.mark.parametrize("element", _ELEMENTS.split())
    def test_the_scanner_finds_links_where_the_table_says(self, element: str) -> None:
        """Invariant: of all elements and attributes, those of the table alone are looked at."""
        name = element.encode()
        linking = name in LINKING or name.startswith(LINKING_PREFIXES)
        for attribute in _ATTRIBUTES.split():
            page = f'<p><{element} {attribute}="https://example.com/"> </p>'.encode()
            assert bool(html.scan(page).hrefs) == (linking and attribute == "href"), attribute

    def test_the_table_and_the_scanner_agree_on_the_elements(self) -> None:
        assert {b"a", b"area"} == LINKING
        assert LINKING_PREFIXES == (b"v:", b"w:")

    def test_a_link_in_a_place_that_is_wrapped_is_wrapped_and_nothing_else_changes(self) -> None:
        for place in PLACES:
            if place.wrapped:
                content = top(part(place.example("https://example.com/?a=1&amp;b=2").encode(), place.kind))
                minted = HexMinter().click(0, "https://example.com/?a=1&b=2") or ""
                left = rewrite(content, options(opens=False)).content
                assert body_of(left) == place.example(minted).encode()

    def test_the_page_holds_the_table(self) -> None:
        """Written with `python -c 'from injector.wrapped import reference; print(reference(), end="")'`."""
        text = PAGE.read_text(encoding="utf-8")
        assert text.count(BEGIN) == text.count(END) == 1
        assert text.partition(BEGIN)[2].partition(END)[0] == reference()
