"""The whole job, watched: a campaign in over SMTP, its recipients' hits in over HTTP, and what AMS is told.

Everything is real: the servers, the processes, the sockets. Each step says what was observed, and `--exit` turns that
into an exit code.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.settings import Settings


def main(settings: "Settings", *, exit_when_done: bool) -> int:
    """Run the demo and return 0 only if every step was observed to hold."""
    from sidecar.demo.scene import play

    return play(settings, exit_when_done=exit_when_done)
