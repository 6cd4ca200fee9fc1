"""The forms that RFC 8058 and our page send are read; anything else is no field and no error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.forms import MAX_FIELDS, fields

URLENCODED = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("content_type", "body", "found"),
    [
        (URLENCODED, b"List-Unsubscribe=One-Click", [(b"List-Unsubscribe", b"One-Click")]),
        (URLENCODED, b"a=1&b=%32+3&c", [(b"a", b"1"), (b"b", b"2 3"), (b"c", b"")]),
        (URLENCODED, b"a=%zz%", [(b"a", b"%zz%")]),
        ("", b"a=1\r\n", [(b"a", b"1")]),
        (
            "Multipart/Form-Data; charset=utf-8; boundary=XyZ",
            b'--XyZ\r\nContent-Disposition: form-data; filename="n"; name="a"\r\nX: y\r\n\r\n1\r\n--XyZ--\r\n',
            [(b"a", b"1")],
        ),
        ("multipart/form-data; boundary=b", b"--b\nContent-Disposition: form-data; name=a\n\n1\n--b--", [(b"a", b"1")]),
        ("multipart/form-data; boundary=b", b'--b\r\nX-filename="a"\r\n\r\n1\r\n--b--', []),
        ("multipart/form-data; boundary=b", b'preamble name="a"\r\n\r\n1', []),
        ("multipart/form-data", b"a=1", []),
    ],
)
def test_fields_are_read(content_type: str, body: bytes, found: list[tuple[bytes, bytes]]) -> None:
    """Names and values as they were meant, blanks around a value taken off."""
    assert fields(content_type, body) == found


@given(st.text(), st.binary(max_size=500))
def test_reading_never_fails(content_type: str, body: bytes) -> None:
    """Invariant: any body under any label is read, bounded, without an exception."""
    for label in (content_type, "multipart/form-data; boundary=" + content_type, URLENCODED):
        assert len(fields(label, body)) <= MAX_FIELDS


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=9), st.binary(max_size=9)), min_size=1, max_size=9))
def test_multipart_gives_back_what_was_put_in(pairs: list[tuple[bytes, bytes]]) -> None:
    """Invariant: a well-formed multipart body is read as its fields, for names and values without structure."""
    plain = [(name.hex().encode(), value.hex().encode()) for name, value in pairs]
    body = b"".join(b'--=_b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % pair for pair in plain)
    assert fields('multipart/form-data; boundary="=_b"', body + b"--=_b--\r\n") == plain
