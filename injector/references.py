"""Decode HTML character references as a browser does inside an attribute.

Once, never twice; and never by the rule for running text, which would turn `?a=1&copy=2` into another address.
"""

import re
from html.entities import html5

_REFERENCE = re.compile(r"&(?:#([0-9]+);?|#[xX]([0-9a-fA-F]+);?|([A-Za-z][A-Za-z0-9]*)(;|(?![A-Za-z0-9=])))")
_REPLACEMENT = "\ufffd"
_MAX_CODE_POINT = 0x10FFFF
# Numbers that old pages meant in windows-1252 (WHATWG HTML 13.2.5.80); where that is empty they stay themselves.
_WINDOWS_1252 = {number: bytes([number]).decode("cp1252", "ignore") or chr(number) for number in range(0x80, 0xA0)}


def unescape(text: str) -> str:
    """Return an attribute value with its character references decoded.

    Without a semicolon a name counts only where neither `=` nor a letter or digit follows (WHATWG HTML 13.2.5.73).
    """
    references = text.count("&")
    # Most links hold no other reference than this one.
    if references == text.count("&amp;"):
        return text.replace("&amp;", "&") if references else text
    return _REFERENCE.sub(_decoded, text)


def _decoded(match: re.Match[str]) -> str:
    decimal, hexadecimal, name, semicolon = match.groups()
    if name is not None:
        return html5.get(name + semicolon, match[0])
    digits, base, most = (decimal, 10, 7) if decimal is not None else (hexadecimal, 16, 6)
    digits = digits.lstrip("0")
    # Cut by length first: int() of a million digits is refused, and was quadratic before.
    number = int(digits, base) if 0 < len(digits) <= most else 0
    if number == 0 or number > _MAX_CODE_POINT or 0xD800 <= number <= 0xDFFF:
        return _REPLACEMENT
    return _WINDOWS_1252.get(number) or chr(number)
