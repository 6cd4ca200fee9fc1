"""What processes cost, as the kernel counts it: CPU time, memory, and who else used the machine.

Times are counted in ticks of 10 ms, so a load must last long enough for its share of an error to be small.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
#: Written into `clear_refs` it sets the highest memory to what is held now.
_RESET_PEAK: Final = "5"


class Busy(NamedTuple):
    """Seconds of CPU time since the machine started: everybody's, this process's tree, and what there was in all."""

    everybody: float
    own: float
    capacity: float

    def foreign_share_since(self, before: "Busy") -> float:
        """Return which share of the cores somebody else used since *before*; 0 to 1."""
        capacity = self.capacity - before.capacity
        foreign = (self.everybody - before.everybody) - (self.own - before.own)
        return max(0.0, min(1.0, foreign / capacity)) if capacity > 0 else 0.0


def busy_seconds() -> Busy:
    """Return what was used so far."""
    first = Path("/proc/stat").read_text("ascii").splitlines()[0]
    # user nice system idle iowait irq softirq steal; guests are counted in user.
    ticks = [int(field) for field in first.split()[1:9]]
    capacity = sum(ticks) / _TICKS_PER_SECOND
    idle = (ticks[3] + ticks[4]) / _TICKS_PER_SECOND
    return Busy(capacity - idle, tree_seconds((os.getpid(),)), capacity)


def tree(pids: Iterable[int]) -> set[int]:
    """Return *pids* and every process below them."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if fields is not None:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = set(pids)
    waiting = list(found)
    while waiting:
        below = [child for child in children.get(waiting.pop(), []) if child not in found]
        found.update(below)
        waiting += below
    return found


def tree_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time of *pids* and all below them, those that have ended and were waited for included."""
    roots = tuple(pids)
    if not roots:
        return 0.0
    ticks = 0
    for pid in tree(roots):
        fields = _stat(pid)
        if fields is not None:
            # utime stime cutime cstime, fields 14 to 17 of proc(5); the first here is its third.
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS_PER_SECOND


def reset_peaks(pids: Iterable[int]) -> None:
    """Forget the highest memory of *pids* and all below them, where the kernel lets us."""
    roots = tuple(pids)
    for pid in tree(roots) if roots else ():
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK, "ascii")


def peak_mib(pids: Iterable[int]) -> float:
    """Return the sum of the highest resident memory of *pids* and all below them; shared pages count for each."""
    return sum(_status_kib(pid, "VmHWM:") for pid in tree(pids)) / 1_024


def resident_mib(pids: Iterable[int]) -> float:
    """Return the sum of the resident memory now."""
    return sum(_status_kib(pid, "VmRSS:") for pid in tree(pids)) / 1_024


def _status_kib(pid: int, name: str) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines():
            if line.startswith(name):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def _stat(pid: int) -> list[str] | None:
    """Return the fields of a process from its state on; None when it is gone."""
    try:
        # The command's name is in brackets and may hold anything; what follows is plain.
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
