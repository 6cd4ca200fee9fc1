"""Read the few fields of a form that a POST may carry: urlencoded or multipart; pure, and it never raises.

Only what RFC 8058 and our own page send is understood. Anything else is no field, never an error.
"""

import re
from urllib.parse import unquote_to_bytes

#: More fields than any form of ours has; the rest is not read.
MAX_FIELDS = 20

_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_NAME = re.compile(rb'[;\s]name=(?:"([^"]{0,100})"|([^\s;"]{1,100}))', re.IGNORECASE)


def fields(content_type: str, body: bytes) -> list[tuple[bytes, bytes]]:
    """Return the names and values in *body*, at most `MAX_FIELDS`, without blanks around a value."""
    if content_type.lstrip().lower().startswith("multipart/form-data"):
        match = _BOUNDARY.search(content_type)
        return _multipart((match[1] or match[2]).encode("utf-8", "replace"), body) if match else []
    return [
        (_decoded(name), _decoded(value).strip())
        for name, _, value in (pair.partition(b"=") for pair in body.split(b"&", MAX_FIELDS)[:MAX_FIELDS])
    ]


def _multipart(boundary: bytes, body: bytes) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    # Bare line feeds are accepted (RFC 7578 wants CRLF): the answer is the same page either way.
    parts = (b"\n" + body.replace(b"\r\n", b"\n")).split(b"\n--" + boundary, MAX_FIELDS + 1)
    for part in parts[1 : MAX_FIELDS + 1]:
        head, blank, value = part.partition(b"\n\n")
        name = _NAME.search(head)
        if blank and name is not None:
            found.append((name[1] or name[2] or b"", value.strip()))
    return found


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))
