"""A member of the fleet: one role in a process of its own, told its settings on stdin by its parent.

Its stdin stays open as long as the parent lives. At its end this process ends at once, where the kernel has not done it
already: everything that was answered is on disk.
"""

import os
import sys
import threading

from sidecar.wiring.fleet import decode_settings
from sidecar.wiring.process import serve


def main() -> int:
    """Run the role that the command line names; a second word, `quiet`, asks for warnings and worse only."""
    settings = decode_settings(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return serve(sys.argv[1], settings, ready=_say_ready, alone=False, quiet="quiet" in sys.argv[2:])


def _say_ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    # Unbuffered: a buffer's lock would be in the way of an interpreter that ends.
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
