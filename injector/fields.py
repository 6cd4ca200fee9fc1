"""Find the header fields of a message or of a part in its raw bytes, and read their parameters.

Every field keeps the byte range it has in the content; nothing is ever written back from the parsed form.
"""

import re
from collections.abc import Callable, Collection, Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

MAX_FIELDS: Final = 1_000
MAX_BLOCK: Final = 256 * 1024
MAX_PARAMETERS: Final = 100
# Of one name, in a block that is over the limits already: nobody writes more, and memory must end somewhere.
MAX_SAME: Final = 10_000

# Possessive throughout: each byte is looked at once, whatever is sent. White space before the colon is obsolete
# (RFC 5322 4.5) but a reader accepts it, so a Bcc written that way is a Bcc.
_FIELD = re.compile(rb"([!-9;-~]++)[ \t]*+:([^\r\n]*+(?:\r\n[ \t][^\r\n]*+)*+(?:\r\n|\Z))|")
_PARAMETER = re.compile(
    r"""\s*+([^\s=;"]++)\s*+=\s*+(?:"([^"\\]*+(?:\\.[^"\\]*+)*+)"[^;]*+|([^;]*+))(?:;|\Z)""", re.DOTALL
)
_HYPHEN: Final = ord("-")
_FOLD = re.compile(r"\r\n(?=[ \t])")
_SEGMENT = re.compile(r"([^*]+)(?:\*(\d{1,3}))?(\*)?")


class Field(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One header field: `content[start:end]` with its line end, its value from `value` on."""

    name: str
    start: int
    value: int
    end: int


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A header block: its fields, where it ends, and what is wrong with it."""

    fields: tuple[Field, ...]
    #: Where a field may be added: the empty line, or the first byte that is no field.
    end: int
    body_start: int
    #: An empty line (or the end of the content) ended the block; otherwise a line that is no header field did.
    separated: bool = True
    over_limit: bool = False


def read_block(content: bytes, start: int, *, stops: Callable[[bytes], bool] | None = None) -> Block:
    """Read the header block at *start*; *stops* tells whether a line `--…` is a delimiter that ends it early."""
    fields: list[Field] = []
    size = len(content)
    pos = start
    # Where no field stands the pattern matches nothing, so the matches are one behind the other up to there.
    for found in _FIELD.finditer(content, start):
        name = found[1]
        if name is None or name[0] == _HYPHEN:
            if stops and content.startswith(b"--", pos) and stops(content[pos : _line_end(content, pos)]):
                return Block(fields=tuple(fields), end=pos, body_start=pos)
            if name is None:
                break
        value, end = found.span(2)
        if len(fields) == MAX_FIELDS or end - start > MAX_BLOCK:
            end = content.find(b"\r\n\r\n", pos)
            end = size if end < 0 else end + 2
            return Block(fields=(), end=end, body_start=min(end + 2, size), over_limit=True)
        fields.append(Field(name=name.decode("ascii").lower(), start=pos, value=value, end=end))
        pos = end
    if pos < size and not content.startswith(b"\r\n", pos):
        return Block(fields=tuple(fields), end=pos, body_start=pos, separated=False)
    return Block(fields=tuple(fields), end=pos, body_start=min(pos + 2, size))


def _line_end(content: bytes, pos: int) -> int:
    end = content.find(b"\r\n", pos)
    return len(content) if end < 0 else end


class Headers(msgspec.Struct, frozen=True, kw_only=True):
    """The header fields of a message, by name without regard to case.

    A block over the limits is not indexed; its fields are then looked for one name at a time.
    """

    content: bytes
    start: int
    end: int
    over_limit: bool
    index: dict[str, tuple[Field, ...]]

    def fields(self, name: str) -> Sequence[Field]:
        """Return the fields called *name*, in the order of the message."""
        if self.over_limit:
            return _search(self.content[self.start : self.end], name.lower(), self.start)
        return self.index.get(name.lower(), ())

    def among(self, names: Collection[str]) -> list[Field]:
        """Return the fields whose name, in lower case, is among *names*."""
        present = names if self.over_limit else self.index.keys() & names
        return [field for name in present for field in self.fields(name)]

    def all(self, name: str) -> list[str]:
        """Return the values of the fields called *name*: unfolded, stripped, odd bytes as surrogates."""
        return [self.text(field) for field in self.fields(name)]

    def first(self, name: str) -> str | None:
        """Return the first value of *name*, or None."""
        for field in self.fields(name):
            return self.text(field)
        return None

    def count(self, name: str) -> int:
        """Return how many fields are called *name*."""
        return len(self.fields(name))

    def text(self, field: Field) -> str:
        """Return the value of *field*: unfolded, stripped, odd bytes as surrogates."""
        return text_of(self.content, field)


def index_of(content: bytes, start: int, block: Block) -> Headers:
    """Return the block's fields by name."""
    index: dict[str, tuple[Field, ...]] = {}
    for field in block.fields:
        index[field.name] = (*index.get(field.name, ()), field)
    return Headers(content=content, start=start, end=block.end, over_limit=block.over_limit, index=index)


def _search(block: bytes, name: str, offset: int) -> list[Field]:
    lower = b"\r\n" + block.lower()
    needle = b"\r\n" + name.encode("utf-8", "surrogateescape")
    found: list[Field] = []
    pos = lower.find(needle)
    while pos >= 0 and len(found) < MAX_SAME:
        field = _FIELD.match(block, pos)
        if field and field[1] and field[1].lower() == needle[2:]:
            found.append(
                Field(
                    name=name,
                    start=offset + pos,
                    value=offset + field.start(2),
                    end=offset + field.end(),
                )
            )
        pos = lower.find(needle, pos + 2)
    return found


def text_of(content: bytes, field: Field) -> str:
    """Return the value of *field*: unfolded, stripped, odd bytes as surrogates."""
    value = content[field.value : field.end].decode("utf-8", "surrogateescape")
    return _FOLD.sub("", value).strip() if "\r\n" in value[:-2] else value.strip()


def parameters(value: str) -> dict[str, str]:
    """Return the parameters that follow the first `;` of a Content-Type or Content-Disposition value.

    RFC 2231 segments are joined and decoded. A parameter given twice with different values is "", which no
    reader takes for a boundary or a charset: nobody knows which of the two a mail program believes.
    """
    plain: dict[str, str] = {}
    parts: dict[str, dict[int, tuple[str, bool]]] = {}
    pos = value.find(";") + 1
    for _ in range(MAX_PARAMETERS if pos else 0):
        found = _PARAMETER.match(value, pos)
        if found is None:
            pos = value.find(";", pos) + 1
            if not pos:
                break
            continue
        pos = found.end()
        name, quoted, bare = found[1].lower(), found[2], found[3]
        text = _unquoted(quoted) if quoted is not None else bare.strip()
        segment = _SEGMENT.fullmatch(name) if "*" in name else None
        if segment is not None:
            parts.setdefault(segment[1], {})[int(segment[2] or 0)] = (text, bool(segment[3]))
        elif plain.setdefault(name, text) != text:
            plain[name] = ""
        if pos == len(value):
            break
    for name, segments in parts.items():
        joined = _join_segments(segments)
        if plain.setdefault(name, joined) != joined:
            plain[name] = ""
    return plain


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL) if "\\" in text else text


def _join_segments(segments: dict[int, tuple[str, bool]]) -> str:
    # RFC 2231 4.1: the charset and language stand before the first segment only.
    joined = b""
    for number in sorted(segments):
        text, encoded = segments[number]
        if encoded:
            if number == 0:
                text = text.rpartition("'")[2]
            joined += unquote_to_bytes(text.encode("utf-8", "surrogateescape"))
        else:
            joined += text.encode("utf-8", "surrogateescape")
    return joined.decode("utf-8", "surrogateescape")
