"""The skip list's patterns: as in a shell, but in linear time; numbers are rows of the trap table."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from injector.globs import matches_any


class TestMatches:
    """A pattern is matched against the whole URL, in any case."""

    @pytest.mark.parametrize(
        ("pattern", "url", "skipped"),
        [
            ("*amsweb.php*", "https://x.test/AMSweb.php?id=1", True),
            ("*amsweb.php*", "https://x.test/amsweb-php", False),
            ("https://x.test/*", "HTTPS://X.TEST/a", True),
            ("https://x.test", "https://x.test/", False),
            ("*/unsubscribe", "https://x.test/unsubscribe-tips", False),
            ("*/unsubscribe", "https://x.test/unsubscribe", True),
            ("*://x.test/?", "https://x.test/a", True),
            ("*://x.test/?", "https://x.test/ab", False),
            ("*/[0-9][!a-c]", "https://x.test/7d", True),
            ("*/[0-9][!a-c]", "https://x.test/7B", False),
            ("*[*]*", "https://x.test/a*b", True),
            ("*[[]]", "https://x.test/?a[]", True),
            ("*a*a*", "https://x.test/a", False),
            ("*ab*b", "https://x.test/ab", False),
            ("*[z-a]*", "https://x.test/z", False),
            ("*[", "https://x.test/[", True),
            ("*.test/*\n*", "https://x.test/", False),
            ("", "https://x.test/", False),
            ("*AMS[w]eb*", "https://x.test/amsweb", True),
            ("*k.test*", "https://\u212a.test/", True),
            ("*\u212a.test*", "https://k.test/", True),
        ],
    )
    def test_h26_patterns(self, pattern: str, url: str, *, skipped: bool) -> None:
        assert matches_any(("nothing", pattern), url) == skipped

    def test_many_stars_stay_linear(self) -> None:
        """`fnmatch` would not come back from this."""
        assert not matches_any(("*a" * 60 + "*b",), "https://x.test/" + "a" * 1400)


@given(st.text("ab*?[]-!x", max_size=8), st.text("abx-!]", max_size=8))
def test_globs_match_as_the_shell_does(pattern: str, text: str) -> None:
    """Invariant: on small inputs, where it can be afforded, fnmatch is right and agrees."""
    assert matches_any((pattern,), text) == fnmatchcase(text, pattern)


@given(st.text("abAB*?[]-!\u212ak\u017fs", max_size=6), st.text("abAB\u212aKk\u017fS-", max_size=6))
def test_what_is_looked_for_first_changes_nothing(pattern: str, text: str) -> None:
    """Invariant: a URL that matches between two others matches alone, whatever the case of its letters."""
    alone = matches_any((pattern,), text)
    assert matches_any((pattern,), text.swapcase()) == alone or not text.isascii() or not pattern.isascii()
    # What is not ASCII is not looked for first.
    assert matches_any((pattern + "*",), text + "\xe9") or not alone
