"""Say how a part's bytes can be worked on, from the charset label it carries.

The labels are those of the WHATWG Encoding standard (4.2), read as the standard reads them, and those that mail is
sent with beyond it. Python's own look-up knows `rot13`, `hex` and EBCDIC, and not these. What the standard calls
`replacement` and `x-user-defined` is not looked into: readers see different things there, if anything.

Only an href with letters beyond ASCII depends on how a codec reads them; everything else stays as bytes, or is written
back in the codec that read it. Python's codecs for one-octet charsets agree with the standard in all they know, except
for two letters of KOI8-U; a few signs of EUC-JP, ISO-2022-JP, Big5 and GB18030 differ. An octet that Python does not
know leaves the link alone.
"""

from typing import Final

import msgspec


class Charset(msgspec.Struct, frozen=True, kw_only=True):
    """A charset we can edit: Python's codec, and whether its ASCII can be edited as bytes."""

    codec: str
    #: True: markup is not found in the bytes (shifted states, two bytes a letter); decode, edit, encode back.
    wide: bool = False


# Per codec, the labels of the standard. What it calls iso-8859-1, -9 and -11 are the Windows code pages.
_STANDARD: Final = {
    "utf-8": "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf-8 utf8 x-unicode20utf8",
    "cp866": "866 cp866 csibm866 ibm866",
    "iso8859-2": "csisolatin2 iso-8859-2 iso-ir-101 iso8859-2 iso88592 iso_8859-2 iso_8859-2:1987 l2 latin2",
    "iso8859-3": "csisolatin3 iso-8859-3 iso-ir-109 iso8859-3 iso88593 iso_8859-3 iso_8859-3:1988 l3 latin3",
    "iso8859-4": "csisolatin4 iso-8859-4 iso-ir-110 iso8859-4 iso88594 iso_8859-4 iso_8859-4:1988 l4 latin4",
    "iso8859-5": "csisolatincyrillic cyrillic iso-8859-5 iso-ir-144 iso8859-5 iso88595 iso_8859-5 iso_8859-5:1988",
    "iso8859-6": "arabic asmo-708 csiso88596e csiso88596i csisolatinarabic ecma-114 iso-8859-6 iso-8859-6-e"
    " iso-8859-6-i iso-ir-127 iso8859-6 iso88596 iso_8859-6 iso_8859-6:1987",
    "iso8859-7": "csisolatingreek ecma-118 elot_928 greek greek8 iso-8859-7 iso-ir-126 iso8859-7 iso88597 iso_8859-7"
    " iso_8859-7:1987 sun_eu_greek",
    "iso8859-8": "csiso88598e csisolatinhebrew hebrew iso-8859-8 iso-8859-8-e iso-ir-138 iso8859-8 iso88598 iso_8859-8"
    " iso_8859-8:1988 visual csiso88598i iso-8859-8-i logical",
    "iso8859-10": "csisolatin6 iso-8859-10 iso-ir-157 iso8859-10 iso885910 l6 latin6",
    "iso8859-13": "iso-8859-13 iso8859-13 iso885913",
    "iso8859-14": "iso-8859-14 iso8859-14 iso885914",
    "iso8859-15": "csisolatin9 iso-8859-15 iso8859-15 iso885915 iso_8859-15 l9",
    "iso8859-16": "iso-8859-16",
    "koi8-r": "cskoi8r koi koi8 koi8-r koi8_r",
    "koi8-u": "koi8-ru koi8-u",
    "mac-roman": "csmacintosh mac macintosh x-mac-roman",
    "mac-cyrillic": "x-mac-cyrillic x-mac-ukrainian",
    "cp874": "dos-874 iso-8859-11 iso8859-11 iso885911 tis-620 windows-874",
    "cp1250": "cp1250 windows-1250 x-cp1250",
    "cp1251": "cp1251 windows-1251 x-cp1251",
    "cp1252": "ansi_x3.4-1968 ascii cp1252 cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100 iso8859-1 iso88591"
    " iso_8859-1 iso_8859-1:1987 l1 latin1 us-ascii windows-1252 x-cp1252",
    "cp1253": "cp1253 windows-1253 x-cp1253",
    "cp1254": "cp1254 csisolatin5 iso-8859-9 iso-ir-148 iso8859-9 iso88599 iso_8859-9 iso_8859-9:1989 l5 latin5"
    " windows-1254 x-cp1254",
    "cp1255": "cp1255 windows-1255 x-cp1255",
    "cp1256": "cp1256 windows-1256 x-cp1256",
    "cp1257": "cp1257 windows-1257 x-cp1257",
    "cp1258": "cp1258 windows-1258 x-cp1258",
    "gb18030": "chinese csgb2312 csiso58gb231280 gb2312 gb_2312 gb_2312-80 gbk iso-ir-58 x-gbk gb18030",
    "big5hkscs": "big5 big5-hkscs cn-big5 csbig5 x-x-big5",
    "euc_jp": "cseucpkdfmtjapanese euc-jp x-euc-jp",
    "iso2022_jp": "csiso2022jp iso-2022-jp",
    "cp932": "csshiftjis ms932 ms_kanji shift-jis shift_jis sjis windows-31j x-sjis",
    "cp949": "cseuckr csksc56011987 euc-kr iso-ir-149 korean ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601"
    " windows-949",
    # The standard reads `utf-16` as little-endian, RFC 2781 as big-endian: see `exact_codec`.
    "utf-16": "csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16",
    "utf-16-le": "utf-16le",
    "utf-16-be": "unicodefffe utf-16be",
}

# What mail is sent with beyond the standard; an underscore in place of a hyphen needs no line of its own.
_MORE: Final = {
    "utf-8": "utf-8-sig cp65001 utf8mb4",
    **{f"cp{n}": f"win-{n} win{n} cp-{n} windows{n} x-windows-{n}" for n in range(1250, 1259) if n != 1252},
    "cp1252": "win-1252 win1252 cp-1252 windows1252 x-windows-1252 x-ansi latin-1 ansi_x3.4-1986 cp367 ibm367 csascii"
    " iso646-us iso-ir-6 646 us",
    "cp874": "win-874 cp874 cp-874 x-windows-874 tis620",
    "iso8859-13": "latin7",
    "iso8859-14": "latin8",
    "iso8859-15": "latin9 latin-9",
    "iso8859-16": "iso8859-16 latin10",
    "cp866": "cp-866 ibm-866 dos-866",
    **{
        f"cp{n}": f"cp{n} cp-{n} ibm{n} ibm-{n} dos-{n} {n}"
        for n in (437, 720, 737, 775, 850, 852, 855, 857, 858, 860, 861, 862, 863, 865, 869)
    },
    "cp1125": "cp1125 ibm1125 cp866u",
    "kz1048": "kz-1048 rk1048 strk1048-2002",
    "mac-cyrillic": "mac-cyrillic",
    "mac-latin2": "x-mac-ce x-mac-centraleurroman",
    "mac-greek": "x-mac-greek",
    "mac-turkish": "x-mac-turkish",
    "mac-iceland": "x-mac-icelandic",
    "mac-croatian": "x-mac-croatian",
    "mac-romanian": "x-mac-romanian",
    "euc_jp": "eucjp",
    # Python cannot read it, but no letter of it holds an ASCII octet.
    "ascii": "euc-tw x-euc-tw",
    "utf-7": "utf-7 unicode-1-1-utf-7 unicode-2-0-utf-7 csutf7",
    "utf-16": "utf16",
    "utf-32": "utf-32 utf32 iso-10646-ucs-4 ucs-4",
    "utf-32-le": "utf-32le",
    "utf-32-be": "utf-32be",
    "iso2022_jp_1": "iso-2022-jp-1",
    "iso2022_jp_2": "iso-2022-jp-2 csiso2022jp2",
    "iso2022_jp_3": "iso-2022-jp-3",
    "iso2022_jp_ext": "iso-2022-jp-ext iso-2022-jp-ms cp50220 cp50221 cp50222",
    "cp932": "cp932 cp-932 windows-932 cswindows31j sjis-win x-ms-cp932",
    "big5hkscs": "big5hkscs cp950 cp-950 ms950 windows-950 x-windows-950",
    "gb18030": "cp936 cp-936 ms936 windows-936 euc-cn x-euc-cn cn-gb gb18030-2000",
    "cp949": "cp949 cp-949 ms949 x-windows-949 ks_c_5601 uhc",
    "johab": "johab x-johab cp1361 ms1361",
}

# In all others an octet under 128 is ASCII and never a part of another letter, so bytes that do not decode survive.
_WIDE: Final = frozenset(
    {
        *("utf-7", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"),
        *("iso2022_jp", "iso2022_jp_1", "iso2022_jp_2", "iso2022_jp_3", "iso2022_jp_ext"),
        *("cp932", "big5hkscs", "gb18030", "cp949", "johab"),
    }
)

_LABELS: Final = {
    label: Charset(codec=codec, wide=codec in _WIDE)
    for table in (_STANDARD, _MORE)
    for codec, labels in table.items()
    for label in labels.split()
}
# RFC 2046 4.1.2. Many send something else without saying what, so letters beyond ASCII are not guessed at.
_UNLABELLED: Final = Charset(codec="ascii")

_MARKS: Final = (
    (b"\xff\xfe\x00\x00", "utf-32-le"),
    (b"\x00\x00\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
    (b"\xef\xbb\xbf", "utf-8"),
)
# Hardly any part begins with one of these.
_FIRST: Final = frozenset(mark[:1] for mark, _ in _MARKS)


def charset_of(label: str | None) -> Charset | None:
    """Return what *label* names; a part without a label is ASCII; None: nobody knows."""
    if label is None:
        return _UNLABELLED
    name = label.strip(" \t\r\n\f\"'").lower()
    return _LABELS.get(name) or _LABELS.get(name.replace("_", "-"))


def exact_codec(charset: Charset, body: bytes) -> str | None:
    """Return the codec that maps *body* to text and back with its byte order mark kept as a letter.

    A mark that says otherwise than the label is believed by some readers and not by others: then None, or, where ASCII
    is the same for all of them, the codec of ASCII.
    """
    marked = next((codec for mark, codec in _MARKS if body.startswith(mark)), None) if body[:1] in _FIRST else None
    if charset.codec in {"utf-16", "utf-32"}:
        # Without a mark nobody knows the order: RFC 2781 says big, browsers say little.
        return marked if marked and marked.startswith(charset.codec) else None
    if marked in {None, charset.codec}:
        return charset.codec
    return "ascii" if marked == "utf-8" and not charset.wide else None
