"""Start the command line: `python -m sidecar`, which is what the launcher execs."""

import sys

from sidecar.cli import main

if __name__ == "__main__":
    # A developer's tools bring rich, and structlog would load all of it to print tracebacks that nobody here prints.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None is how an import is refused
    sys.exit(main())
