"""Read the leaves of a message with the standard library, and its links as a browser does: a second opinion.

Nothing here shares code with the injector. What browsers and mail programs do with charsets stands here once.
"""

import base64
import binascii
import re
from email import message_from_string
from email.message import Message

import msgspec

_C0_AND_SPACE = "".join(map(chr, range(0x21)))
_NO_TABS = str.maketrans("", "", "\t\r\n")
_NON_ASCII = re.compile(r"[^\x00-\x7f]+")
# The special-query percent-encode set (WHATWG URL 1.3).
_ENCODED = frozenset({*range(0x21), *b"\"#'<>", *range(0x7F, 0x100)})

#: What browsers and mail programs take these labels for, where Python takes them for less or for nothing.
_CODECS = {
    "us-ascii": "cp1252",
    "iso-8859-1": "cp1252",
    "latin1": "cp1252",
    "iso-8859-8-i": "iso8859-8",
    "iso-8859-8-e": "iso8859-8",
    "iso-8859-9": "cp1254",
    "iso-8859-11": "cp874",
    "tis-620": "cp874",
    "windows-874": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "x-gbk": "gb18030",
    "big5": "big5hkscs",
    "euc-kr": "cp949",
    "ks_c_5601-1987": "cp949",
    "shift_jis": "cp932",
    "x-sjis": "cp932",
    "windows-31j": "cp932",
}


class Leaf(msgspec.Struct, frozen=True, kw_only=True):
    """A part without parts: its type, its transfer encoding, and its octets as they stand in the message."""

    kind: str
    attached: bool
    encoding: str
    #: None: it says nothing about its charset.
    charset: str | None
    raw: bytes

    @property
    def decoded(self) -> bytes:
        """Its octets with the transfer encoding undone."""
        match self.encoding:
            case "base64":
                return base64.b64decode(self.raw)
            case "quoted-printable":
                return binascii.a2b_qp(self.raw)
            case _:
                return self.raw

    @property
    def codec(self) -> str:
        """The codec that its reader decodes it with; one letter for each octet where it does not say."""
        return "latin-1" if self.charset is None else _CODECS.get(self.charset, self.charset)


def split(content: bytes) -> tuple[bytes, bytes]:
    """Return the header with its last line end, and the body with the empty line before it."""
    if content.startswith(b"\r\n"):
        return b"", content
    end = content.find(b"\r\n\r\n")
    return (content, b"") if end < 0 else (content[: end + 2], content[end + 2 :])


def leaves(content: bytes) -> list[Leaf]:
    """Return the leaves of a message in order, those of an embedded message too."""
    return [
        Leaf(
            kind=part.get_content_type(),
            attached=part.get_content_disposition() == "attachment",
            encoding=str(part.get("Content-Transfer-Encoding", "")).strip().lower(),
            charset=part.get_content_charset(),
            raw=_payload(part),
        )
        # In latin-1 every octet is one character, and none of them is made up.
        for part in message_from_string(content.decode("latin-1")).walk()
        if not part.is_multipart()
    ]


def _payload(part: Message) -> bytes:
    payload = part.get_payload()
    assert isinstance(payload, str)
    return payload.encode("latin-1")


def text_of(leaf: Leaf) -> str:
    """Return what a reader sees of *leaf*, with a mark for each octet that is not in its charset."""
    return leaf.decoded.decode(leaf.codec, "replace")


def destination_of(href: str, codec: str) -> str:
    """Return where *href*, its references decoded, leads a browser that shows a page in *codec*.

    What a browser drops is dropped (WHATWG URL 4.4), and letters in the query are sent in the page's charset (4.4,
    percent-encode after encoding), unless that is UTF-8 or UTF-16; everything else stays as it is.
    """
    url, mark, fragment = href.strip(_C0_AND_SPACE).translate(_NO_TABS).partition("#")
    path, question, query = url.partition("?")
    if not codec.startswith("utf"):
        query = _NON_ASCII.sub(lambda letters: _sent(letters[0], codec), query)
    return f"{path}{question}{query}{mark}{fragment}"


def _sent(letters: str, codec: str) -> str:
    try:
        octets = letters.encode(codec)
    except UnicodeEncodeError:
        if len(letters) > 1:
            return "".join(_sent(letter, codec) for letter in letters)
        return f"%26%23{ord(letters)}%3B"
    return "".join(
        chr(octet) if 0x20 < octet < 0x7F and octet not in b"\"#<>'" else f"%{octet:02X}" for octet in octets
    )
