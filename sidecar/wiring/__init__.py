"""How concrete things are put together: one file for each role's process, and the fleet of them.

`presence` is what every role needs around it; `process` runs one role; `fleet` runs all of Outrider from one command.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.settings import Settings


def run_all(settings: "Settings") -> int:
    """Run the whole of Outrider in the foreground, and return the exit code."""
    from sidecar.wiring.fleet import main

    return main(settings)


def run_role(role: str, settings: "Settings") -> int:
    """Run one role alone in the foreground, and return the exit code."""
    from sidecar.wiring.process import serve

    return serve(role, settings, ready=lambda: None, alone=True)
