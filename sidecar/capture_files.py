"""Do away with captured mail: that of a person who is erased, and that which is old.

A message is two files, `KEY.eml` and `KEY.json` (`relay.capture`): they go together. Everything here blocks, so it
belongs in a thread.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

from ledger.traces import Traces


def forget_captured(directory: Path, keys: Collection[str], traces: Traces) -> int:
    """Delete the captured messages with these *keys*, and all that name the address; return how many."""
    named = {_key(path) for path in _files(directory) if _names(path, traces)}
    return sum(_delete(directory, key) for key in named.union(keys))


def drop_captured(directory: Path, before: float) -> int:
    """Delete the captured messages that were written before *before*, in seconds since the epoch; return how many."""
    old = {_key(path) for path in _files(directory) if _written(path) < before}
    return sum(_delete(directory, key) for key in old)


def _files(directory: Path) -> Iterator[Path]:
    if directory.is_dir():
        yield from (path for path in directory.iterdir() if path.is_file())


def _key(path: Path) -> str:
    # One that was never finished is called `.KEY.eml.PID`.
    return path.name.removeprefix(".").partition(".")[0]


def _names(path: Path, traces: Traces) -> bool:
    try:
        return traces.stand_in_octets(path.read_bytes())
    except FileNotFoundError:
        return False


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _delete(directory: Path, key: str) -> bool:
    """Delete a message's files; false when there were none."""
    paths = [directory / f"{key}.eml", directory / f"{key}.json", *directory.glob(f".{key}.*")]
    there = [path for path in paths if path.is_file()]
    for path in there:
        path.unlink(missing_ok=True)
    return bool(there)
