"""The patterns of HTML's tokens: what every Python from 3.11.0 on matches alike."""

import re
from collections.abc import Iterator

from injector import html, markup

_NEVER = b"|(?!)"
_POSSESSIVE_GROUP = re.compile(rb"(?<!\\)\)(?:[*+?]|\{[0-9,]+\})\+")


def patterns() -> Iterator[re.Pattern[bytes]]:
    """Yield every pattern that the scanner uses."""
    for found in (*vars(markup).values(), *vars(html).values()):
        if isinstance(found, re.Pattern):
            yield found
        elif isinstance(found, dict):
            yield from (each for each in found.values() if isinstance(each, re.Pattern))


def test_a_possessive_group_ends_in_a_branch_that_never_matches() -> None:
    """Without it, Python before 3.11.5 goes on from where the last, failed repetition stopped: no link is found."""
    ends = [(each.pattern, group.start()) for each in patterns() for group in _POSSESSIVE_GROUP.finditer(each.pattern)]
    assert len(ends) > 10
    assert [pattern[:at] for pattern, at in ends if not pattern[:at].endswith(_NEVER)] == []
