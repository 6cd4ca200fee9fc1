"""The tokens of HTML as regular expressions over octets (WHATWG HTML 13.2.5).

Each matches exactly what the tokeniser takes for one token, or nothing at all. All repetition is possessive: the
matcher never goes back, so that its work is linear in the input and its memory constant.
"""

import re
from collections.abc import Iterable
from string import ascii_lowercase
from typing import Final

from injector.wrapped import LINKING, LINKING_PREFIXES

#: Elements whose content is text, whatever it looks like. `noscript` too: clients differ on what they show of it.
RAW_TEXT: Final = (
    b"script",
    b"style",
    b"textarea",
    b"title",
    b"xmp",
    b"noscript",
    b"iframe",
    b"noembed",
    b"noframes",
    b"plaintext",
)
#: Elements in which those are none.
FOREIGN: Final = (b"svg", b"math")


def _all_of(pattern: bytes) -> bytes:
    """Return *pattern* for as often as it matches.

    Where it fails half-way, Python before 3.11.5 goes on from there instead of from where it began. A branch begins
    anew: so the last one, which matches nowhere, puts the matcher back.
    """
    return rb"(?:%b|(?!))*+" % pattern


# What ends a tag's name stands in `_END`; what ends an attribute's, besides.
_END: Final = rb"[ \t\n\f\r/>]"
_REST: Final = rb"[^ \t\n\f\r/>]*+"
# An attribute's value has its quotes. One that never closes takes all there is, so that its tag does not end.
_ASSIGNED: Final = (
    rb"[ \t\n\f\r]*+=[ \t\n\f\r]*+(%b\"[^\"]*+(?:\"|\Z)|'[^']*+(?:'|\Z)|[^ \t\n\f\r>\"'][^ \t\n\f\r>]*+)?"
)
_ATTRIBUTE: Final = rb"[ \t\n\f\r/]*+%b[^ \t\n\f\r/>][^ \t\n\f\r/=>]*+(?:" + _ASSIGNED % rb"?:" + rb"|)"
# The usual spelling first, for it is faster; then any.
_ATTRIBUTES: Final = _all_of(rb"[ \t\n\f\r]++[^ \t\n\f\r/=>]++=\"[^\"]*+\"") + _all_of(_ATTRIBUTE % b"")


def _any_of(names: Iterable[bytes]) -> bytes:
    return rb"(?i:%b)" % b"|".join(map(re.escape, names))


def _attributes_but(names: Iterable[bytes]) -> bytes:
    return _all_of(_ATTRIBUTE % (rb"(?!%b[ \t\n\f\r/=>])" % _any_of(names)))


def first_of(names: Iterable[bytes]) -> re.Pattern[bytes]:
    """Return a pattern for the first attribute of a tag with one of *names*, given in lower case; `value` is quoted."""
    names = tuple(names)
    return re.compile(
        rb"%b[ \t\n\f\r/]*+(?P<attribute>(?P<name>%b)(?=[ \t\n\f\r/=>])(?:%b)?)"
        % (_attributes_but(names), _any_of(names), _ASSIGNED % rb"?P<value>")
    )


#: A start or end tag. `tail` ends in a slash when the tag ends in `/>` and the slash belongs to no value.
TAG: Final = re.compile(rb"<(?P<closing>/?)(?P<name>[a-zA-Z]%b)%b(?P<tail>[ \t\n\f\r/]*+)>" % (_REST, _ATTRIBUTES))
#: A comment, but for `<!-->` and `<!--->`.
COMMENT: Final = re.compile(rb"<!--(?P<content>%b)--!?>" % _all_of(rb"[^-]++|-(?!-!?>)"))
#: What makes Outlook read a comment: `[if mso]>` behind the `<!--`.
CONDITION: Final = re.compile(rb"[ \t\n\f\r]*+\[if[^a-z0-9][^\]>]*+\]>", re.IGNORECASE)
#: The ends of raw text. `plaintext` has none; `(?!)` matches nowhere.
RAW_TEXT_END: Final = {
    name: re.compile(rb"(?!)" if name == b"plaintext" else rb"</%b(?=%b)" % (name, _END), re.IGNORECASE)
    for name in RAW_TEXT
}
#: Behind `<!--` a script may hold another script, tags and all (13.2.5.20 to 13.2.5.31).
SCRIPT_TURN: Final = re.compile(rb"<!--|-->|</?script(?=%b)" % _END, re.IGNORECASE)
#: Raw text that is the same text where there is no raw text.
SAME_TEXT: Final = re.compile(_all_of(rb"[^<]++|<!--[^<>]*+(?<=--)>|<!\[CDATA\[[^<>]*+(?<=\]\])>"))

_LINKS: Final = (*map(re.escape, sorted(LINKING)), *(re.escape(prefix) + _REST for prefix in LINKING_PREFIXES))
_STARTS: Final = (*LINKING, *LINKING_PREFIXES, *FOREIGN, *RAW_TEXT)
_ENDS: Final = (b"body", *FOREIGN)


def _letter_but(taken: Iterable[bytes]) -> bytes:
    letters = "".join(sorted(set(ascii_lowercase).difference(b"".join(taken).decode())))
    return b"[%b]" % (letters + letters.upper()).encode()


# Most names are told from all that matter by a letter or two.
_DULL_NAME: Final = rb"(?:/(?:%b|(?!%b%b)[a-zA-Z])|%b|t%b|(?!(?i:%b)%b)[a-zA-Z])%b" % (
    _letter_but(name[:1] for name in _ENDS),
    _any_of(_ENDS),
    _END,
    _letter_but(name[:1] for name in _STARTS),
    _letter_but(name[1:2] for name in _STARTS if name[:1] == b"t"),
    b"|".join((*_LINKS, *FOREIGN, *RAW_TEXT)),
    _END,
    _REST,
)
_DULL: Final = (
    _DULL_NAME + rb"(?:>|%b[ \t\n\f\r/]*+>)" % _ATTRIBUTES,
    # A link that leads nowhere.
    rb"(?i:%b)(?=%b)%b[ \t\n\f\r/]*+>" % (b"|".join(_LINKS), _END, _attributes_but([b"href", b"xlink:href"])),
    rb"!--(?:-?>|[^-hH]*+%b--!?>)" % _all_of(rb"(?:-(?!-!?>)|[hH](?![rR][eE][fF]))[^-hH]*+"),
    # A doctype, `<![if !mso]>`, `<![endif]>`, and the other comments that are none (13.2.5.41).
    rb"!(?!--|\[CDATA\[)[^>]*+>|\?[^>]*+>|/(?![a-zA-Z])[^>]*+>",
    # No token at all.
    rb"(?![a-zA-Z/!?])",
)
# Most links have these beside a href, and nothing else. None of them is anybody's opt-out.
_USUAL: Final = _all_of(rb"[ \t\n\f\r]++(?:class|id|name|rel|style|target|title)=\"[^\"]*+\"")
#: All that concerns nobody, and then one link if it is spelled as most are. Without one, what is left begins with the
#: `<` of something else, or of something that never ends.
DULL: Final = re.compile(
    rb"%b[^<]*+%b(?:<a%b[ \t\n\f\r]++href=(?P<href>\"[^\"]*+\")%b[ \t\n\f\r]*+>|)"
    % (_all_of(rb"[^<]*+<++(?:%b)" % b"|".join(_DULL)), _all_of(rb"<(?=<)"), _USUAL, _USUAL)
)
