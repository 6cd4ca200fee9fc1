"""Start a server as a child without privileges that cannot outlive this process, and recognise one that did.

The uid changes in the child only, and the parent-death signal is asked for after it: a change of credentials clears
it. That signal is tied to the thread that forked, so children are started from the main thread.
"""

import asyncio
import ctypes
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from signal import Signals

import msgspec

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: the child may run nothing that takes a lock.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None

#: The whole environment of a server: PGDATA, PGPORT or LD_PRELOAD of the caller are none of its business.
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

_TAIL_BYTES = 2000
_TAIL_LINES = 6


class EmbeddedError(Exception):
    """The embedded servers cannot run here; the text says what to do about it."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """The account that runs the servers while Outrider itself runs as root."""

    uid: int
    gid: int


def server_account() -> Account | None:
    """Return the account to drop to: `nobody` as root, None for a plain user, who needs no other."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedError(
            "PostgreSQL refuses to run as root and there is no account `nobody` to run it as: "
            "start Outrider as a plain user, or set DATABASE_URL and REDIS_URL"
        ) from None
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


def barrier(account: Account | None, path: Path) -> Path | None:
    """Return the first part of *path* that *account* may not enter or read; None when the way is free."""
    if account is None:
        return None
    for part in (*reversed(path.parents), path):
        status = part.stat()
        if status.st_uid == account.uid:
            bits = status.st_mode >> 6
        elif status.st_gid == account.gid:
            bits = status.st_mode >> 3
        else:
            bits = status.st_mode
        needed = 0o1 if stat.S_ISDIR(status.st_mode) else 0o4
        if bits & needed != needed:
            return part
    return None


def give(account: Account | None, path: Path) -> None:
    """Hand *path*, which this process has just made, to the account that runs the servers."""
    if account is not None:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


async def spawn(
    argv: Sequence[str], *, account: Account | None, dies_with: Signals, output: Path
) -> asyncio.subprocess.Process:
    """Start *argv* as *account*, in a session of its own, its output appended to *output*.

    *dies_with* is what the kernel sends it when this process is gone (Linux only; elsewhere `orphan` finds it).
    """
    parent = os.getpid()

    def become_a_server() -> None:
        if account is not None:
            os.setgroups([])
            os.setgid(account.gid)
            os.setuid(account.uid)
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, int(dies_with), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)  # the parent died before it could be watched
        os.umask(0o077)

    try:
        with output.open("ab") as log_file:
            return await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                # A terminal's Ctrl-C is for Outrider alone: it still needs its database while it drains.
                start_new_session=True,
                cwd="/",
                env=_ENVIRONMENT,
                preexec_fn=become_a_server,
            )
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedError(f"{argv[0]} cannot be started: {error}") from error


def tail(log_file: Path) -> str:
    """Return the last lines of a server's log, for the message of an error."""
    try:
        text = log_file.read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-_TAIL_LINES:])


def read_pid(pid_file: Path) -> int | None:
    """Return the process id in the first line of *pid_file*, if there is one."""
    try:
        first, _, _ = pid_file.read_text("utf-8").partition("\n")
        return int(first)
    except (FileNotFoundError, ValueError):
        return None


def is_alive(pid: int) -> bool:
    """Say whether a process of that id exists, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


async def runs_with(pid: int, argument: str) -> bool:
    """Say whether process *pid* was started with *argument*: a recycled pid is somebody else."""
    if sys.platform == "linux":
        return os.fsencode(argument) in _arguments(pid)
    ps = await asyncio.create_subprocess_exec(
        "/bin/ps", "-ww", "-p", str(pid), "-o", "command=", stdout=asyncio.subprocess.PIPE
    )
    listed, _ = await ps.communicate()
    return os.fsencode(argument) in listed


def _arguments(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
