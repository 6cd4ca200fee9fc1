"""The mails kept in `tests/corpus/mail`, what each shows, and what is expected to become of it.

They are stored as they travel: CRLF, in the charset and encoding that they name.
"""

import re
import tomllib
from pathlib import Path

import msgspec

CORPUS = Path(__file__).resolve().parent / "corpus"

_INDEXED = re.compile(r"^- `([a-z0-9_]+)`: (.+)\.$", re.MULTILINE)


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What becomes of a mail; the fields are explained at the top of `expected.toml`."""

    campaign: str | None = None
    links: int = 0
    pixel: bool = False
    reason: str | None = None
    unsubscribe: bool = False
    excepted: int = 0
    removed: tuple[str, ...] = ()
    keeps_id: bool = False

    @property
    def injected(self) -> bool:
        """Whether anything is injected."""
        return bool(self.links) or self.pixel


EXPECTED = msgspec.convert(
    tomllib.loads((CORPUS / "expected.toml").read_text(encoding="utf-8")), dict[str, Expected], strict=True
)


def names() -> list[str]:
    """Return the name of every mail that is kept."""
    return sorted(path.stem for path in (CORPUS / "mail").iterdir())


def kept(name: str) -> bytes:
    """Return a mail as it travels."""
    return (CORPUS / "mail" / f"{name}.eml").read_bytes()


def index() -> list[tuple[str, str]]:
    """Return the lines of the index: a mail's name, and what it shows."""
    return _INDEXED.findall((CORPUS / "README.md").read_text(encoding="utf-8"))
