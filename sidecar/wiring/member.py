"""A member of the fleet: one role in a process of its own, told its settings on stdin by its parent.

Its stdin stays open as long as the parent lives. At its end this process ends at once: everything that was answered is
on disk. The libraries load before the settings are read, so that the members load while the servers start.
"""

import gc
import os
import sys
import threading


def main() -> int:
    """Run the role that the command line names; a second word, `quiet`, asks for warnings and worse only."""
    # A developer's tools bring rich, and structlog would load all of it to print tracebacks that nobody here prints.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None is how an import is refused
    # Nothing that is loaded is garbage: looking for it again and again is a tenth of the time to load.
    gc.disable()
    from sidecar.wiring.process import role_module, serve
    from sidecar.wiring.role import decode_settings

    role = sys.argv[1]
    role_module(role)
    gc.freeze()
    gc.enable()
    line = sys.stdin.buffer.readline()
    if not line:
        return 1
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return serve(role, decode_settings(line), ready=_say_ready, alone=False, quiet="quiet" in sys.argv[2:])


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
