"""Start the command line: `python -m sidecar`, which is what the launcher execs."""

import sys

from sidecar.cli import main

if __name__ == "__main__":
    sys.exit(main())
