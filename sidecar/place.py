"""The directories of the embedded servers: whose they are, who may enter, and the lock that one supervisor holds.

Sockets live apart in a short directory, because the path of a unix socket ends at 107 bytes.
"""

import contextlib
import fcntl
import hashlib
import hmac
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import msgspec

from sidecar.child import Account, EmbeddedError, barrier, give, server_account

#: macOS allows 103 bytes; the longest name in the directory is PostgreSQL's `.s.PGSQL.5432.lock`.
_SOCKET_PATH_BYTES = 100
_LONGEST_NAME = ".s.PGSQL.5432.lock"

_LOCK_ATTEMPTS = 10
_LOCK_PAUSE_SECONDS = 0.02


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the servers of one data directory live."""

    home: Path
    run: Path
    account: Account | None

    @property
    def logs(self) -> Path:
        """What the servers print."""
        return self.home / "log"

    @property
    def store(self) -> Path:
        """Copies of binaries that the servers' account cannot reach where they are installed."""
        return self.home / "bin"

    def secret(self, server: str, *, fresh: bool) -> str:
        """Return the password of *server*, made at its first start; only a *fresh* server can be given a new one."""
        path = self.home / f"{server}.secret"
        with contextlib.suppress(FileNotFoundError):
            return path.read_text("ascii").strip()
        if not fresh:
            raise EmbeddedError(f"{path} is missing: without it nobody gets into the {server} data beside it")
        return _write(path, secrets.token_hex(24))

    def announce(self, text: str) -> None:
        """Let other processes of this account know who holds the directory, and *text*."""
        (self.home / "lock").write_text(f"{os.getpid()}\n{text}", "utf-8")

    def write(self, path: Path, text: str) -> None:
        """Write a file that the servers' account alone may read."""
        _write(path, text, self.account)


def _write(path: Path, text: str, account: Account | None = None) -> str:
    # All or nothing: a crash leaves no half of a password behind.
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        if account is not None:
            os.fchown(file.fileno(), account.uid, account.gid)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    return text


@contextmanager
def occupied(data_dir: Path, *, servers: bool = True) -> Iterator[Place]:
    """Prepare *data_dir* and hold it for the time of the block; a second holder is refused.

    Without *servers* of our own nobody but us has to reach into it.
    """
    account = server_account() if servers else None
    home = _prepare(data_dir, account)
    with os.fdopen(os.open(home / "lock", os.O_RDWR | os.O_CREAT, 0o600), "r+") as lock:
        _take(lock, home)
        run = _socket_directory(home, account)
        place = Place(home=home, run=run, account=account)
        place.announce("")
        try:
            yield place
        finally:
            place.announce("")
            shutil.rmtree(run, ignore_errors=True)


def announced(data_dir: Path) -> str | None:
    """Return what the holder of *data_dir* announces: empty while it starts or stops, None when nobody holds it."""
    try:
        with (data_dir / "lock").open() as lock:
            if _try_lock(lock, fcntl.LOCK_SH):
                return None
            _, _, text = lock.read().partition("\n")
            return text
    except FileNotFoundError:
        return None


def _try_lock(lock: TextIO, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _take(lock: TextIO, home: Path) -> None:
    # `announced` touches the lock for an instant, so one refusal is not yet an answer.
    for _ in range(_LOCK_ATTEMPTS):
        if _try_lock(lock, fcntl.LOCK_EX):
            return
        time.sleep(_LOCK_PAUSE_SECONDS)
    holder = lock.readline().strip() or "unknown"
    raise EmbeddedError(f"another Outrider (pid {holder}) runs on this data directory: {home}")


def _prepare(data_dir: Path, account: Account | None) -> Path:
    home = data_dir.resolve()
    # The servers' account passes through, and can list nothing.
    home.mkdir(mode=0o700 if account is None else 0o711, parents=True, exist_ok=True)
    stop = barrier(account, home)
    if stop == home and home.stat().st_uid == os.geteuid():
        home.chmod(home.stat().st_mode & 0o7777 | 0o001)
        stop = barrier(account, home)
    if stop is not None:
        raise EmbeddedError(
            f"PostgreSQL does not run as root, and the account `nobody` cannot enter {stop}: name another data "
            "directory, such as OUTRIDER_DATA_DIR=/var/lib/outrider, or set DATABASE_URL and REDIS_URL"
        )
    (home / "log").mkdir(mode=0o700, exist_ok=True)
    (home / "bin").mkdir(exist_ok=True)
    (home / "bin").chmod(0o755)  # whatever the umask
    return home


def _socket_directory(home: Path, account: Account | None) -> Path:
    """Make the directory of the sockets, under a name that nobody else can guess and so nobody can take."""
    seed = home / "sockets.secret"
    if not seed.exists():
        _write(seed, secrets.token_hex(24))
    name = hmac.new(seed.read_bytes(), os.fsencode(home), hashlib.sha256).hexdigest()[:12]
    run = _base(account) / f"outrider-{name}"
    try:
        run.mkdir(mode=0o700)
    except FileExistsError:
        status = run.lstat()
        own = {os.geteuid()} if account is None else {os.geteuid(), account.uid}
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in own:
            raise EmbeddedError(f"{run} is not ours: remove it, sockets have to go there") from None
        shutil.rmtree(run)
        run.mkdir(mode=0o700)
    give(account, run)
    return run


def _base(account: Account | None) -> Path:
    for text in (os.environ.get("XDG_RUNTIME_DIR", ""), "/run", "/tmp"):  # noqa: S108 - the name inside is secret
        base = Path(text)
        if not text or not base.is_dir() or not os.access(base, os.W_OK | os.X_OK):
            continue
        base = base.resolve()
        length = len(os.fsencode(base / "outrider-123456789012" / _LONGEST_NAME))
        if length < _SOCKET_PATH_BYTES and barrier(account, base) is None and _is_trusted(base):
            return base
    raise EmbeddedError("no directory takes the servers' sockets: make /tmp writable or set XDG_RUNTIME_DIR")


def _is_trusted(base: Path) -> bool:
    # In a directory that others may write to, only the sticky bit keeps them from replacing ours.
    status = base.stat()
    shared = bool(status.st_mode & 0o022)
    return status.st_uid in {0, os.geteuid()} and (not shared or bool(status.st_mode & stat.S_ISVTX))
