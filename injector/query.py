"""Spell an address as a browser sends it from a page that is not in UTF-8.

Path and fragment travel in UTF-8 whatever the page is in, the query in the page's own encoding (WHATWG URL 4.4), so a
redirect that knows only letters would ask for another address. The charset goes no further than the plan: where octets
depended on it, what a link carries is ASCII. A letter that Python and the standard read or spell differently is in
doubt, and its link is left alone.
"""

import re
from typing import Final, NamedTuple


class _Spelling(NamedTuple):
    """How the letters of an encoding of the standard are spelt with codecs of Python."""

    #: The first spells; the others have to know a letter too, because the first knows more than browsers do.
    codecs: tuple[str, ...]
    #: Letters that browsers read or spell differently.
    disputed: str = ""
    #: A letter that the codec does not know is unknown to browsers too, not in doubt.
    complete: bool = False


# Compared with the indexes of WHATWG Encoding, letter by letter up to U+30000.
_JIS: Final = "¢£¬‖〜\u2212"
_PRIVATE: Final = "".join(map(chr, (*range(0xE78D, 0xE797), 0xE5E5, 0xE7C7, *range(0xE81E, 0xE865))))
_SPELLINGS: Final = {
    **{
        codec: _Spelling((codec,), complete=True)
        for codec in (
            *(f"iso8859-{part}" for part in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
            *("cp866", "cp874", "cp949", "koi8-r", "mac-roman", "mac-cyrillic"),
            *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1256", "cp1257", "cp1258"),
        )
    },
    "cp1255": _Spelling(("cp1255",), "\u05ba", complete=True),
    "koi8-u": _Spelling(("koi8-u",), "╝╬ўЎ", complete=True),
    # What GBK and GB 18030 agree on is the same under each of the labels.
    "gb18030": _Spelling(("gbk",), _PRIVATE),
    "big5hkscs": _Spelling(("big5hkscs", "big5"), "¢£¥•‾\u223c╭╮╯╰☉♁仝\uff0f\uff3c\uff64"),
    "cp932": _Spelling(("shift_jis",), _JIS),
    "euc_jp": _Spelling(("euc_jp", "shift_jis"), _JIS),
    "iso2022_jp": _Spelling(("iso2022_jp", "shift_jis"), _JIS + "¥‾"),
}
# The standard sends UTF-8 from UTF-16 too.
_UTF_8: Final = frozenset({"utf-8", "utf-16", "utf-16-le", "utf-16-be"})

_PARTS: Final = re.compile(r"([^?#]*\?)([^#]*)(.*)", re.DOTALL)
_LETTERS: Final = re.compile(r"[^\x00-\x7f]+")
_CONTROL: Final = re.compile(r"[\x80-\x9f]")
# The standard's special-query percent-encode set.
_ENCODED: Final = re.compile(rb"[^!$-&(-;=?-~]")


def spelled(url: str, codec: str) -> str | None:
    """Return *url*, of a page in the charset that *codec* reads, so that its Location is what a browser asks for.

    None where that is not certain: in a charset that browsers do not know, or of a letter that is in doubt.
    """
    if url.isascii() or codec in _UTF_8:
        return url
    spelling = _SPELLINGS.get(codec)
    if spelling is not None and any(letter in spelling.disputed for letter in url):
        return None
    parts = _PARTS.match(url)
    if parts is None or parts[2].isascii():
        return url
    if spelling is None or _CONTROL.search(parts[2]):
        return None
    try:
        query = _LETTERS.sub(lambda letters: _percent_encoded(letters[0], spelling), parts[2])
    except UnicodeEncodeError:
        return None
    return parts[1] + query + parts[3]


def _percent_encoded(letters: str, spelling: _Spelling) -> str:
    """Return *letters* as a browser sends them; raise `UnicodeEncodeError` where that is in doubt."""
    if spelling.complete:
        return "".join(_sent(letter, spelling.codecs[0]) for letter in letters)
    for codec in spelling.codecs[1:]:
        letters.encode(codec)
    return _escaped(letters.encode(spelling.codecs[0]))


def _sent(letter: str, codec: str) -> str:
    try:
        return _escaped(letter.encode(codec))
    except UnicodeEncodeError:
        # A letter that the page's encoding lacks is sent as a character reference (WHATWG URL 1.3).
        return f"%26%23{ord(letter)}%3B"


def _escaped(octets: bytes) -> str:
    return _ENCODED.sub(lambda octet: b"%%%02X" % octet[0][0], octets).decode("ascii")
