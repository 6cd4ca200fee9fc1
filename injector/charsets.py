"""Say how a part's bytes can be worked on, from the charset label it carries.

An explicit table: Python's own look-up knows `rot13`, `hex` and EBCDIC and does not know the labels mail is sent with.
"""

from typing import Final

import msgspec


class Charset(msgspec.Struct, frozen=True, kw_only=True):
    """A charset we can edit: Python's codec, and whether its ASCII can be edited as bytes."""

    codec: str
    #: True: markup is not found in the bytes (shifted states, two bytes a letter); decode, edit, encode back.
    wide: bool = False


# ASCII stays ASCII in these and is never the second byte of a letter that matters: bytes that do not decode survive.
_BYTEWISE: Final = {
    "ascii": "us-ascii ascii ansi_x3.4-1968 iso646-us iso-ir-6 646 us cp367 ibm367",
    "utf-8": "utf-8 utf8 unicode-1-1-utf-8 unicode11utf8 unicode20utf8 x-unicode20utf8 utf-8-sig utf_8",
    "iso8859-1": "iso-8859-1 iso8859-1 iso_8859-1 iso88591 latin1 latin-1 l1 cp819 ibm819 iso-ir-100",
    "iso8859-2": "iso-8859-2 iso8859-2 iso_8859-2 iso88592 latin2 l2",
    "iso8859-3": "iso-8859-3 iso8859-3 iso_8859-3 latin3 l3",
    "iso8859-4": "iso-8859-4 iso8859-4 iso_8859-4 latin4 l4",
    "iso8859-5": "iso-8859-5 iso8859-5 iso_8859-5 cyrillic",
    "iso8859-6": "iso-8859-6 iso8859-6 iso_8859-6 iso-8859-6-e iso-8859-6-i arabic",
    "iso8859-7": "iso-8859-7 iso8859-7 iso_8859-7 greek",
    "iso8859-8": "iso-8859-8 iso8859-8 iso_8859-8 iso-8859-8-e iso-8859-8-i logical hebrew visual",
    "iso8859-9": "iso-8859-9 iso8859-9 iso_8859-9 latin5 l5",
    "iso8859-10": "iso-8859-10 iso8859-10 latin6 l6",
    "iso8859-11": "iso-8859-11 iso8859-11 tis-620 tis620",
    "iso8859-13": "iso-8859-13 iso8859-13 latin7",
    "iso8859-14": "iso-8859-14 iso8859-14 latin8",
    "iso8859-15": "iso-8859-15 iso8859-15 iso_8859-15 latin9 latin-9 l9",
    "iso8859-16": "iso-8859-16 iso8859-16 latin10",
    "cp1250": "windows-1250 win-1250 cp1250 cp-1250 x-cp1250 windows1250",
    "cp1251": "windows-1251 win-1251 cp1251 cp-1251 x-cp1251 windows1251 win1251",
    "cp1252": "windows-1252 win-1252 cp1252 cp-1252 x-cp1252 windows1252 x-ansi",
    "cp1253": "windows-1253 win-1253 cp1253 cp-1253 x-cp1253",
    "cp1254": "windows-1254 win-1254 cp1254 cp-1254 x-cp1254",
    "cp1255": "windows-1255 win-1255 cp1255 cp-1255 x-cp1255",
    "cp1256": "windows-1256 win-1256 cp1256 cp-1256 x-cp1256",
    "cp1257": "windows-1257 win-1257 cp1257 cp-1257 x-cp1257",
    "cp1258": "windows-1258 win-1258 cp1258 cp-1258 x-cp1258",
    "cp874": "windows-874 win-874 cp874 dos-874",
    "cp437": "cp437 ibm437",
    "cp850": "cp850 ibm850",
    "cp852": "cp852 ibm852",
    "cp866": "cp866 ibm866 866 csibm866",
    "koi8-r": "koi8-r koi8_r koi8 koi cskoi8r",
    "koi8-u": "koi8-u koi8-ru",
    "mac-roman": "macintosh mac x-mac-roman csmacintosh",
    "mac-cyrillic": "x-mac-cyrillic x-mac-ukrainian mac-cyrillic",
    "euc_jp": "euc-jp x-euc-jp eucjp cseucpkdfmtjapanese",
}

_WIDE: Final = {
    "utf-7": "utf-7 unicode-1-1-utf-7",
    "utf-16": "utf-16 utf16 unicode csunicode iso-10646-ucs-2 ucs-2",
    "utf-16-le": "utf-16le",
    "utf-16-be": "utf-16be",
    "utf-32": "utf-32 utf32",
    "utf-32-le": "utf-32le",
    "utf-32-be": "utf-32be",
    "iso2022_jp": "iso-2022-jp csiso2022jp",
    "iso2022_jp_1": "iso-2022-jp-1",
    "iso2022_jp_2": "iso-2022-jp-2",
    "iso2022_jp_3": "iso-2022-jp-3",
    "iso2022_jp_ext": "iso-2022-jp-ext",
    "iso2022_kr": "iso-2022-kr csiso2022kr",
    "hz": "hz-gb-2312 hz",
    "cp932": "shift_jis shift-jis sjis x-sjis ms_kanji csshiftjis windows-31j cp932 ms932",
    "big5hkscs": "big5 big5-hkscs cn-big5 csbig5 x-x-big5",
    "gb18030": "gb18030 gbk x-gbk gb2312 gb_2312-80 csgb2312 chinese cp936 ms936 windows-936",
    "cp949": "euc-kr cseuckr ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601 korean windows-949 cp949",
}

_LABELS: Final = {
    label: Charset(codec=codec, wide=wide)
    for table, wide in ((_BYTEWISE, False), (_WIDE, True))
    for codec, labels in table.items()
    for label in labels.split()
}

_BOMS: Final = {
    "utf-16": ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")),
    "utf-32": ((b"\xff\xfe\x00\x00", "utf-32-le"), (b"\x00\x00\xfe\xff", "utf-32-be")),
}


def charset_of(label: str | None) -> Charset | None:
    """Return what *label* names; a part without a label is ASCII (RFC 2046 4.1.2); None: nobody knows."""
    return _LABELS.get("us-ascii" if label is None else label.strip().strip("\"'").lower())


def exact_codec(charset: Charset, body: bytes) -> str | None:
    """Return the codec that maps *body* to text and back with its byte order mark kept as a letter."""
    if charset.codec not in _BOMS:
        return charset.codec
    # Without a mark nobody knows the order: RFC 2781 says big, browsers say little.
    return next((codec for mark, codec in _BOMS[charset.codec] if body.startswith(mark)), None)
