"""Keep the content of a message that is still coming in: small ones in memory, large ones in a file without a name.

A slow sender of a large message must cost disk, not memory. What is in the file is gone when the process is.
"""

import tempfile
from pathlib import Path
from typing import BinaryIO, Protocol, cast

#: Above this many octets a content goes to disk.
THRESHOLD = 256 * 1024


class Held(Protocol):
    """Where a content waits for its end."""

    def add(self, piece: bytes) -> None:
        """Append *piece*; raise `OSError` when there is no room."""

    def clear(self) -> None:
        """Forget everything."""

    def take(self, *, skip: int) -> bytes:
        """Return all but the first *skip* octets, and forget them."""


class Spool:
    """A content in memory up to a threshold, then in a file of *directory*; None is the system's own."""

    def __init__(self, directory: Path | None = None, *, threshold: int = THRESHOLD) -> None:
        self._directory = directory
        self._threshold = threshold
        # One buffer, not a list: a client that sends single octets would make a list of millions.
        self._memory = bytearray()
        self._file: BinaryIO | None = None
        self._octets = 0

    def __len__(self) -> int:
        """Return how many octets are held."""
        return self._octets

    def add(self, piece: bytes) -> None:
        """Append *piece*; raise `OSError` when there is no room."""
        self._octets += len(piece)
        if self._file is None:
            self._memory += piece
            if len(self._memory) <= self._threshold:
                return
            opened = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 - it stays open between two blocks
            self._file = cast("BinaryIO", opened)
            piece = bytes(self._memory)
            self._memory.clear()
        self._file.write(piece)

    def clear(self) -> None:
        """Forget everything, the file with it."""
        self._octets = 0
        self._memory.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def take(self, *, skip: int) -> bytes:
        """Return all but the first *skip* octets, and forget them."""
        if self._file is None:
            content = bytes(memoryview(self._memory)[skip:])
        else:
            self._file.seek(skip)
            content = self._file.read()
        self.clear()
        return content
