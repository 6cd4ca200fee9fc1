"""Start the command line: `python -m sidecar`, which is what the launcher execs."""

import gc
import sys

from sidecar.cli import main

if __name__ == "__main__":
    # What is loaded is no garbage: looking for it less often makes every command start sooner.
    gc.set_threshold(50_000)
    # A developer's tools bring rich, and structlog would load all of it to print tracebacks that nobody here prints.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None is how an import is refused
    sys.exit(main())
