"""Character references in an attribute: as a browser decodes them; numbers are rows of the trap table."""

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from injector.references import unescape


class TestUnescape:
    """References are decoded once, by the rule for attributes."""

    @pytest.mark.parametrize(
        "url", ["https://x.test/?a=1&copy=2&region=eu&notify=0", "https://x.test/?a&lt=1&ampx=2&notin"]
    )
    def test_h3_a_name_without_semicolon_stays(self, url: str) -> None:
        assert unescape(url) == url

    @pytest.mark.parametrize("written", ["&amp;", "&#38;", "&#x26;", "&#X26;", "&AMP;", "&#038;", "&#38", "&amp"])
    def test_h4_an_ampersand_is_decoded(self, written: str) -> None:
        ends_well = written if written.endswith(";") else written + ";"
        assert unescape(f"https://x.test/?a=1{ends_well}b=2") == "https://x.test/?a=1&b=2"
        assert unescape(f"https://x.test/?a=1{written}") == "https://x.test/?a=1&"

    def test_h4_decoding_happens_once(self) -> None:
        assert unescape("https://x.test/?a=1&amp;amp;b=2&amp;lt;") == "https://x.test/?a=1&amp;b=2&lt;"

    @pytest.mark.parametrize(
        ("written", "meant"),
        [
            ("&copy;", "©"),
            ("&copy", "©"),
            ("&copy&x", "©&x"),
            ("&copy=", "&copy="),
            ("&copyx;", "&copyx;"),
            ("&notin;", "∉"),
            ("&nosuchname;", "&nosuchname;"),
            ("&;&#;&#x;", "&;&#;&#x;"),
            ("&#x41&#66", "AB"),
            ("&#128;", "€"),
            ("&#x110000;&#xD800;", "\ufffd\ufffd"),
            ("&#99999999999999999999;", "\ufffd"),
            ("&#0000000000000065;", "A"),
            ("&#0;", "\ufffd"),
        ],
    )
    def test_references_as_in_a_browser(self, written: str, meant: str) -> None:
        assert unescape(f"https://x.test/?{written}") == f"https://x.test/?{meant}"

    def test_a_number_of_a_million_digits_is_harmless(self) -> None:
        assert unescape(f"https://x.test/&#{'9' * 1_000_000};") == "https://x.test/\ufffd"


@given(st.text())
def test_what_was_escaped_comes_back(text: str) -> None:
    """Invariant: unescape() undoes escaping, once: what looked like a reference before looks like it again."""
    assert unescape(html.escape(text)) == text


@given(st.text("&#x;=19aAcopy ", max_size=30))
def test_unescape_never_raises(text: str) -> None:
    """Invariant: any text has a meaning, and one without an ampersand means itself."""
    assert "&" in text or unescape(text) == text
    assert unescape(text.replace("&", "")) == text.replace("&", "")
