"""One file of the local journal: records of length, CRC-32 and payload; appended, fsynced, and locked by its writer.

Everything here blocks and belongs in a thread. A file whose write or fsync failed once is never appended to again:
after that nobody knows what the disk holds. A torn end is what a crash leaves; what stands in it was never answered.
"""

import fcntl
import os
import secrets
import struct
import time
import zlib
from pathlib import Path

SUFFIX = ".hits"

_HEAD = struct.Struct("<II")
#: The longest payload, in octets: a notice with all of its raw text. What claims to be longer is a torn file.
MAX_PAYLOAD = 262_144

# macOS has no fdatasync. Both make the file's new size durable.
_flush = getattr(os, "fdatasync", os.fsync)


def frame(payload: bytes) -> bytes:
    """Return *payload* as a record."""
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def records(content: bytes) -> tuple[list[bytes], int]:
    """Return the payloads of the whole records in *content*, and how many octets were none.

    A damaged record between whole ones is passed over; at an impossible length the rest is given up.
    """
    found: list[bytes] = []
    at = kept = 0
    while at + _HEAD.size <= len(content):
        size, checksum = _HEAD.unpack_from(content, at)
        end = at + _HEAD.size + size
        if not 0 < size <= MAX_PAYLOAD or end > len(content):
            break
        payload = content[at + _HEAD.size : end]
        if zlib.crc32(payload) == checksum:
            found.append(payload)
            kept += end - at
        at = end
    return found, len(content) - kept


class Segment:
    """An open, locked file of the journal. The lock goes with the process: an unlocked file is an orphan."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.size = os.fstat(descriptor).st_size
        self._descriptor = descriptor

    @classmethod
    def create(cls, directory: Path) -> "Segment":
        """Make a new file in *directory*, durable by name; raise `OSError` when the disk refuses."""
        while True:
            path = directory / f"{time.time_ns():020d}-{secrets.token_hex(4)}{SUFFIX}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            # Between these two lines another worker may have taken it for an orphan; then there is another name.
            if not _locked(descriptor):
                os.close(descriptor)
                continue
            try:
                sync_directory(directory)
            except OSError:
                os.close(descriptor)
                raise
            return cls(path, descriptor)

    @classmethod
    def adopt(cls, path: Path) -> "Segment | None":
        """Take over a file that nobody holds; None when somebody does, or it is gone."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if _locked(descriptor):
            return cls(path, descriptor)
        os.close(descriptor)
        return None

    def append(self, blob: bytes) -> None:
        """Write *blob* and wait until the disk has it; after an `OSError` the file must not be appended to."""
        rest = memoryview(blob)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        _flush(self._descriptor)
        self.size += len(blob)

    def read(self) -> bytes:
        """Return the whole file."""
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            return file.read()

    def remove(self) -> None:
        """Delete the file, then let go of it."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the file: whoever looks next adopts it."""
        os.close(self._descriptor)


def used(directory: Path) -> int:
    """Return the octets of all segments in *directory*, other processes' too."""
    total = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIX):
                try:
                    total += entry.stat().st_size
                except FileNotFoundError:
                    continue
    return total


def _locked(descriptor: int) -> bool:
    """Lock the file for as long as it is open; false when somebody holds it or has already deleted it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(descriptor).st_nlink > 0


def sync_directory(directory: Path) -> None:
    """Make the names in *directory* durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
