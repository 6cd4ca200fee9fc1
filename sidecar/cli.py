"""Read the command line, run the command, and turn what can go wrong into a line and an exit code.

0 all well, 1 something failed, 2 a wrong setting or argument, 130 stopped at the keyboard. Nobody who types a command
is ever shown a traceback for what is theirs to put right.
"""

import os
import sys
from collections.abc import Sequence

from sidecar.cli_parser import PROGRAM, parser
from sidecar.settings import SettingsError

_KEYBOARD = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; argparse's own errors leave with 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except SettingsError as error:
        for problem in error.problems:
            print(f"{PROGRAM}: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _KEYBOARD
    except BrokenPipeError:
        # The reader of `outrider export | head` has seen enough; the interpreter must not flush into the pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["test"] and arguments[1:] not in (["-h"], ["--help"]):
        # pytest's options are its own affair: argparse would take them for ours.
        from sidecar.checks import run_checks

        return run_checks(arguments[1:])
    given = parser().parse_args(arguments)
    from sidecar.cli_commands import COMMAND_BODIES
    from sidecar.failures import CommandError

    try:
        return COMMAND_BODIES[given.command](given)
    except CommandError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return error.code
