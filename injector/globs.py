"""Match URLs against an operator's shell patterns, in linear time.

`fnmatch` makes one regular expression with many stars, which backtracks without end on a hostile URL. Here every piece
between two stars has a fixed width, so the leftmost place for each is as good as any and nothing is tried twice.
"""

import functools
import re
from collections.abc import Callable

_TOKEN = re.compile(r"(?P<star>\*+)|\[(?P<negated>!?)(?P<members>\]?[^\]]*)\]|(?P<any>\?)|(?P<plain>.)", re.DOTALL)


def matches_any(patterns: tuple[str, ...], url: str) -> bool:
    """Return whether the whole of *url* matches one of *patterns*: `*`, `?`, `[a-z]`, `[!a-z]`, in any case."""
    return any(matches(url) for matches in _compiled(patterns))


@functools.lru_cache(maxsize=64)
def _compiled(patterns: tuple[str, ...]) -> tuple[Callable[[str], bool], ...]:
    return tuple(_compile(pattern) for pattern in patterns)


def _compile(pattern: str) -> Callable[[str], bool]:
    pieces = _pieces(pattern)
    widths = [len(piece) for piece in pieces]
    first, *others = [re.compile("".join(piece), re.IGNORECASE | re.DOTALL) for piece in pieces]
    needed = _needed(pattern)

    def matches(url: str) -> bool:
        # Most URLs hold nothing of the kind, and the case of ASCII is soon told.
        if needed not in url.lower() and url.isascii():
            return False
        found = first.match(url)
        if found is None:
            return False
        if not others:
            return found.end() == len(url)
        for piece in others[:-1]:
            found = piece.search(url, found.end())
            if found is None:
                return False
        last = len(url) - widths[-1]
        return last >= found.end() and others[-1].match(url, last) is not None

    return matches


def _pieces(pattern: str) -> list[list[str]]:
    """Cut *pattern* at its stars; each piece is a list of expressions that match one character."""
    pieces: list[list[str]] = [[]]
    for token in _TOKEN.finditer(pattern):
        if token["star"]:
            pieces.append([])
        elif token["any"]:
            pieces[-1].append(".")
        elif token["plain"]:
            pieces[-1].append(re.escape(token["plain"]))
        else:
            pieces[-1].append(_members(token["negated"], token["members"]))
    return pieces


def _needed(pattern: str) -> str:
    """Return, in lower case, what every URL in ASCII holds that matches *pattern*."""
    plain = "".join(token["plain"] or "\0" for token in _TOKEN.finditer(pattern))
    return max(plain.split("\0"), key=len).lower() if pattern.isascii() else ""


def _members(negated: str, members: str) -> str:
    listed = []
    for low, high in re.findall(r"(.)(?:-(.))?", members, re.DOTALL):
        # An empty range such as `z-a` matches nothing, as in fnmatch; `re` would refuse to compile it.
        if not high or low <= high:
            listed.append(re.escape(low) + (f"-{re.escape(high)}" if high else ""))
    if not listed:
        return "." if negated else "(?!)."
    return f"[{'^' if negated else ''}{''.join(listed)}]"
