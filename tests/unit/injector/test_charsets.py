"""A label says how a body can be worked on, or that nobody knows."""

import codecs

import pytest

from injector import charsets
from injector.charsets import Charset, charset_of, exact_codec

CODECS = sorted({*charsets._STANDARD, *charsets._MORE, "ascii"})
BYTEWISE = [codec for codec in CODECS if codec not in charsets._WIDE]
ALL_ASCII = bytes(range(0x80))


def known(label: str | None) -> Charset:
    """Return the charset of *label*, which must have one."""
    charset = charset_of(label)
    assert charset is not None, label
    return charset


class TestLabels:
    """The standard's labels mean what the standard says, the others what mail means by them."""

    def test_m06_every_label_of_the_standard_is_in_the_table(self) -> None:
        """WHATWG Encoding 4.2 has 228 labels; seven of them name what readers show nothing of, or guess at."""
        labels = [label for line in charsets._STANDARD.values() for label in line.split()]
        assert len(labels) == len(set(labels)) == 228 - 7
        assert not set(labels).intersection(label for line in charsets._MORE.values() for label in line.split())

    @pytest.mark.parametrize(
        ("label", "codec"),
        [
            ("iso-8859-1", "cp1252"),
            ("us-ascii", "cp1252"),
            ("ASCII", "cp1252"),
            ("latin1", "cp1252"),
            ("iso-8859-9", "cp1254"),
            ("iso-8859-11", "cp874"),
            ("TIS-620", "cp874"),
            ("visual", "iso8859-8"),
            ("iso-8859-8-i", "iso8859-8"),
            ("gb2312", "gb18030"),
            ("gbk", "gb18030"),
            ("ks_c_5601-1987", "cp949"),
            ("euc-kr", "cp949"),
            ("shift_jis", "cp932"),
            ("unicode", "utf-16"),
            ("unicodefffe", "utf-16-be"),
            ("x-unicode20utf8", "utf-8"),
            ("koi8-ru", "koi8-u"),
        ],
    )
    def test_m06_labels_are_read_as_the_standard_reads_them(self, label: str, codec: str) -> None:
        assert known(label).codec == codec

    @pytest.mark.parametrize(
        ("label", "codec"),
        [
            (None, "ascii"),
            ("UTF-8", "utf-8"),
            ('"utf-8"', "utf-8"),
            ("'utf8'", "utf-8"),
            (' "utf-8" ', "utf-8"),
            ("\tutf-8\r\n", "utf-8"),
            ("utf_8", "utf-8"),
            ("unicode-1-1-utf-8", "utf-8"),
            ("windows-1251", "cp1251"),
            ("win-1251", "cp1251"),
            ("cp1251", "cp1251"),
            ("cp-1251", "cp1251"),
            ("windows_1251", "cp1251"),
            ("iso8859_15", "iso8859-15"),
            ("koi8-r", "koi8-r"),
            ("windows-874", "cp874"),
            ("cp-850", "cp850"),
            ("cp850", "cp850"),
            ("ibm850", "cp850"),
            ("cp437", "cp437"),
            ("cp852", "cp852"),
            ("x-mac-roman", "mac-roman"),
            ("x-mac-cyrillic", "mac-cyrillic"),
            ("x-mac-ce", "mac-latin2"),
            ("euc-jp", "euc_jp"),
            ("euc-tw", "ascii"),
        ],
    )
    def test_m06_these_are_worked_on_as_octets(self, label: str | None, codec: str) -> None:
        charset = known(label)
        assert (charset.codec, charset.wide) == (codec, False)

    @pytest.mark.parametrize(
        ("label", "codec"),
        [
            ("iso-2022-jp", "iso2022_jp"),
            ("iso-2022-jp-1", "iso2022_jp_1"),
            ("iso-2022-jp-2", "iso2022_jp_2"),
            ("iso-2022-jp-3", "iso2022_jp_3"),
            ("iso-2022-jp-ms", "iso2022_jp_ext"),
            ("gb18030", "gb18030"),
            ("x-gbk", "gb18030"),
            ("utf-16", "utf-16"),
            ("x-sjis", "cp932"),
            ("windows-31j", "cp932"),
            ("ms932", "cp932"),
            ("big5-hkscs", "big5hkscs"),
            ("utf-7", "utf-7"),
            ("johab", "johab"),
        ],
    )
    def test_m06_these_are_decoded_and_encoded_back(self, label: str, codec: str) -> None:
        charset = known(label)
        assert (charset.codec, charset.wide) == (codec, True)

    @pytest.mark.parametrize(
        "label",
        [
            *("default", "binary", "unknown-8bit", "x-unknown", "unknown", "", " ", '""'),
            *("rot13", "cp037", "hex", "idna", "utf-8; x", "x-mac-arabic", "cp864"),
            *("replacement", "csiso2022kr", "iso-2022-kr", "iso-2022-cn", "iso-2022-cn-ext", "hz-gb-2312"),
            "x-user-defined",
        ],
    )
    def test_m06_these_are_not_looked_into(self, label: str) -> None:
        assert charset_of(label) is None


class TestCodecs:
    """What is edited as octets has its markup in its octets."""

    @pytest.mark.parametrize("codec", CODECS)
    def test_every_codec_exists(self, codec: str) -> None:
        assert codecs.lookup(codec)

    @pytest.mark.parametrize("codec", BYTEWISE)
    def test_ascii_octets_are_ascii_and_nothing_else_is(self, codec: str) -> None:
        assert ALL_ASCII.decode(codec).encode() == ALL_ASCII
        for octet in range(0x80, 0x100):
            letter = bytes([octet]).decode(codec, "ignore")
            assert not letter or not letter.isascii()

    @pytest.mark.parametrize("codec", BYTEWISE)
    def test_no_other_letter_holds_an_ascii_octet(self, codec: str) -> None:
        """But for the two that EUC-JP writes as a backslash and a tilde, which it reads as such."""
        codes = {*range(0x80, 0xD800), *range(0xE000, 0x30000)} - {0xA5, 0x203E}
        letters = "".join(map(chr, sorted(codes)))
        octets = letters.encode(codec, "ignore")
        assert not octets.translate(None, bytes(range(0x80, 0x100)))

    @pytest.mark.parametrize("codec", sorted(charsets._WIDE - {"utf-7"}))
    def test_what_is_wide_has_to_be(self, codec: str) -> None:
        letters = "".join(chr(code) for code in range(0x80, 0x10000) if not 0xD800 <= code < 0xE000)
        assert letters.encode(codec, "ignore").translate(None, bytes(range(0x80, 0x100)))

    @pytest.mark.parametrize("codec", BYTEWISE)
    def test_letters_of_one_octet_codecs_come_back(self, codec: str) -> None:
        if codec in {"utf-8", "euc_jp", "ascii"}:
            return
        for octet in range(0x80, 0x100):
            letter = bytes([octet]).decode(codec, "ignore")
            assert not letter or letter.encode(codec) == bytes([octet])


class TestByteOrder:
    """The order of octets must be said, and said once."""

    @pytest.mark.parametrize(
        ("label", "body", "codec"),
        [
            ("utf-16", b"\xff\xfe<\x00", "utf-16-le"),
            ("utf-16", b"\xfe\xff\x00<", "utf-16-be"),
            ("utf-16", b"<\x00", None),
            ("utf-16", b"\xef\xbb\xbf<", None),
            ("utf-16le", b"<\x00", "utf-16-le"),
            ("utf-16le", b"\xff\xfe<\x00", "utf-16-le"),
            ("utf-16le", b"\xfe\xff\x00<", None),
            ("utf-16be", b"\xff\xfe<\x00", None),
            ("utf-32", b"\xff\xfe\x00\x00<\x00\x00\x00", "utf-32-le"),
            ("utf-32", b"\xff\xfe<\x00", None),
        ],
    )
    def test_the_byte_order_must_be_known(self, label: str, body: bytes, codec: str | None) -> None:
        assert exact_codec(known(label), body) == codec

    @pytest.mark.parametrize(
        ("label", "body", "codec"),
        [
            ("utf-8", b"\xef\xbb\xbfx", "utf-8"),
            ("koi8-r", b"x", "koi8-r"),
            ("koi8-r", b"\xef\xbb\xbfx", "ascii"),
            (None, b"\xef\xbb\xbfx", "ascii"),
            ("utf-8", b"\xff\xfex\x00", None),
            ("koi8-r", b"\xfe\xff\x00x", None),
            ("shift_jis", b"\xef\xbb\xbfx", None),
            ("shift_jis", b"x", "cp932"),
        ],
    )
    def test_m07_a_mark_that_says_otherwise_is_a_doubt(self, label: str | None, body: bytes, codec: str | None) -> None:
        """Of the letters only; where ASCII is in doubt too, the part is left alone."""
        assert exact_codec(known(label), body) == codec
