"""Find an address in what strangers wrote: replies, links, Message-IDs, senders.

Pure. The same pattern is understood by Python and by PostgreSQL (`~*`), so that the rows that are found are the rows
that are reworded. Somebody else's address that merely ends or begins like this one is left alone.
"""

import base64
import re
from functools import cached_property

import idna

from ledger.ids import canonical_address

#: What stands where an address stood.
ERASED = "erased"
#: The same in a column of addresses. No address is without an @.
ERASED_BYTES = b"erased"

# Neither in the middle of a longer local part (after an escape such as %3C a new word begins), nor of a longer domain.
_LEFT = r"(?:(?<![A-Za-z0-9._-])|(?<=[%=][0-9A-Fa-f]{2})|(?<=%25[0-9A-Fa-f]{2}))"
# The digits of an escaped octet are no letters before it.
_LEFT_OF_OCTETS = rf"(?:{_LEFT}|(?<=\\[0-7]{{3}}))"
_RIGHT = r"(?![A-Za-z0-9-]|\.[A-Za-z0-9])"
_NO_WORD_BEFORE, _NO_WORD_AFTER = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"

# VERP spells it `=`; then come percent-encoding, once and twice, quoted-printable, HTML.
_AT = "(?:@|=|%(?:25)?40|=40|&#64;)"

# Shorter than this, an encoded piece or a local part could stand anywhere by chance.
_LEAST_ENCODED = 12
_LEAST_LOCAL = 3

# How many characters of base64 an offset of so many octets touches, and leaves unlike what the octets alone give.
_TOUCHED = {0: 0, 1: 2, 2: 3}


class Traces:
    """The forms in which one address may stand in a text, in any case of letters."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._canonical = canonical_address(address)
        self._local = self._canonical.rpartition("@")[0]
        runs = re.findall("[a-z0-9]+", self._local)
        # Whatever the form, this stands in it: one look tells most texts that they do not hold the address.
        self._hint: str = max(runs, key=len, default="")

    @cached_property
    def pattern(self) -> str:
        """The address in text."""
        return self._pattern(octal=False)

    @cached_property
    def octet_pattern(self) -> str:
        """The address in octets that PostgreSQL spells by `encode(…, 'escape')`."""
        return self._pattern(octal=True)

    @property
    def plain(self) -> list[bytes]:
        """The address as octets, in the spellings that mailers write into headers."""
        return sorted({form.encode("utf-8", "surrogateescape") for form in (*self._forms, self._address.lower())})

    def erased(self, text: str | None, *, own: bool = False) -> str | None:
        """Return *text* with a mark for each form; *own* texts, of a message to it, lose its local part alone too."""
        if text is None or not self._may_stand_in(text):
            return text
        return (self._own if own else self._strict).sub(ERASED, text)

    def stand_in(self, text: str | None) -> bool:
        """Tell whether *text* holds the address."""
        return text is not None and self._may_stand_in(text) and self._strict.search(text) is not None

    def stand_in_octets(self, content: bytes) -> bool:
        """Tell whether a file holds the address."""
        return self.stand_in(content.decode("utf-8", "surrogateescape"))

    @cached_property
    def _forms(self) -> tuple[str, ...]:
        local, _, domain = self._canonical.rpartition("@")
        try:
            shown = idna.decode(domain)
        except idna.IDNAError:
            shown = domain
        return tuple(dict.fromkeys((self._address, self._canonical, f"{local}@{shown}")))

    @cached_property
    def _encoded(self) -> tuple[str, ...]:
        pieces: list[str] = []
        for form in self._forms[:2]:
            octets = form.encode("utf-8", "surrogateescape")
            pieces.append(octets.hex())
            for offset, touched in _TOUCHED.items():
                spelt = base64.b64encode(bytes(offset) + octets).decode("ascii")
                pieces.append(spelt[touched : (offset + len(octets)) * 8 // 6])
        return tuple(dict.fromkeys(piece for piece in pieces if len(piece) >= _LEAST_ENCODED))

    @cached_property
    def _strict(self) -> re.Pattern[str]:
        return re.compile(self.pattern, re.IGNORECASE)

    @cached_property
    def _own(self) -> re.Pattern[str]:
        if len(self._local) < _LEAST_LOCAL:
            return self._strict
        local = "".join(_spelt(char, octal=False) for char in self._local)
        return re.compile(f"{self.pattern}|{_NO_WORD_BEFORE}{local}{_NO_WORD_AFTER}", re.IGNORECASE)

    def _pattern(self, *, octal: bool) -> str:
        forms = "|".join("".join(_spelt(char, octal=octal) for char in form) for form in self._forms)
        encoded = [re.escape(piece).replace(r"\+", "[+-]").replace("/", "[/_]") for piece in self._encoded]
        left = _LEFT_OF_OCTETS if octal else _LEFT
        return "|".join((f"{left}(?:{forms}){_RIGHT}", *encoded))

    def _may_stand_in(self, text: str) -> bool:
        low = text.casefold()
        return self._hint in low or any(piece.casefold() in low for piece in self._url_safe)

    @cached_property
    def _url_safe(self) -> tuple[str, ...]:
        swapped = (piece.replace("+", "-").replace("/", "_") for piece in self._encoded)
        return tuple(dict.fromkeys((*self._encoded, *swapped)))


def _spelt(char: str, *, octal: bool) -> str:
    """Return one character of an address as a regular expression: itself, or as it is escaped in URLs."""
    if char == "@":
        return _AT
    if char.isascii() and char.isalnum():
        return char
    octets = char.encode("utf-8", "surrogateescape")
    percent = "".join(f"%(?:25)?{octet:02X}" for octet in octets)
    itself = "".join(rf"\\{octet:03o}" for octet in octets) if octal and not char.isascii() else re.escape(char)
    return f"(?:{itself}|{percent})"
