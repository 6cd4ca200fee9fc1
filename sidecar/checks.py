"""Run every check and test, as `./outrider test` does on a laptop and in CI alike.

A check that fails is shown and does not stop the others. The tests come last, so that pytest's summary ends it all.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import unified_diff
from pathlib import Path

from sidecar.catalogue import BARE_NAMES, PREFIX
from sidecar.reference import reference
from sidecar.settings import LAUNCHER_DIRECTORY

SETTINGS_PAGE = "docs/settings.md"

_TEST_SWITCHES = "OUTRIDER_TEST_"
_SOAK_SWITCH = "OUTRIDER_TEST_SOAK"
# One more than the cores of a small machine: half of the time a test waits for a socket or a server.
_WORKERS = "3"
_COLLECT = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0"]


def run_checks(arguments: Sequence[str], *, root: Path = LAUNCHER_DIRECTORY) -> int:
    """Run the checks and tests of *root*; with *arguments*, pytest alone with those (`soak`: the long rounds).

    Returns 0 when all held, 1 when something failed, 2 for arguments that pytest does not take, 130 after Ctrl-C.
    """
    if list(arguments[:1]) == ["soak"]:
        return _tests(root, ["-m", "soak", *arguments[1:]], _environment() | {_SOAK_SWITCH: "1"})
    if arguments:
        return _tests(root, list(arguments), _environment())
    environment = _environment()
    with ThreadPoolExecutor() as side_by_side:
        # Beside the checks the tests are read once: each worker finds them compiled.
        side_by_side.submit(_run, _COLLECT, root, environment)
        held = {name: side_by_side.submit(_holds, name, command, root) for name, command in _commands(root).items()}
    failed = [name for name, holds in held.items() if not holds.result()]
    if not _page_is_current(root):
        failed.append(SETTINGS_PAGE)
    if failed:
        _say(f"failed: {', '.join(failed)}")
    code = _tests(root, ["-n", _WORKERS, "--dist", "loadfile", "--no-loadscope-reorder", "-m", "not soak"], environment)
    return code or int(bool(failed))


def _commands(root: Path) -> dict[str, list[str]]:
    # The launcher has no suffix that a linter would find it by.
    paths = [".", *(name for name in ("outrider",) if (root / name).is_file())]
    lint_imports = Path(sys.executable).with_name("lint-imports")
    return {
        "ruff check": [sys.executable, "-m", "ruff", "check", "--quiet", *paths],
        "ruff format": [sys.executable, "-m", "ruff", "format", "--check", "--quiet", *paths],
        "mypy": [sys.executable, "-m", "mypy"],
        "import-linter": [str(lint_imports)],
    }


def _run(
    command: Sequence[str], root: Path, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    # A fixed command of ours, never anybody's input.
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - see above


def _holds(name: str, command: Sequence[str], root: Path) -> bool:
    done = _run(command, root)
    if done.returncode == 0:
        _say(f"{name}: ok")
        return True
    _say(f"{name}: failed\n{done.stdout}{done.stderr}".rstrip())
    return False


def _page_is_current(root: Path) -> bool:
    page = root / SETTINGS_PAGE
    found = page.read_text(encoding="utf-8") if page.is_file() else ""
    difference = list(
        unified_diff(found.splitlines(), reference().splitlines(), SETTINGS_PAGE, "describe-config", lineterm="")
    )
    if not difference:
        _say(f"{SETTINGS_PAGE}: ok")
        return True
    _say(f"{SETTINGS_PAGE}: failed, write it with ./outrider describe-config > {SETTINGS_PAGE}")
    _say("\n".join(difference))
    return False


def _tests(root: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    command = [sys.executable, "-m", "pytest", *arguments]
    # pytest reports its own interruption, so Ctrl-C is left to it.
    with subprocess.Popen(command, cwd=root, env=environment) as tests:  # noqa: S603 - the developer's own arguments
        while True:
            try:
                code = tests.wait()
                break
            except KeyboardInterrupt:
                continue
    match code:
        case 0:
            return 0
        case 2:
            return 130
        case 4:
            return 2
        case _:
            return 1


def _environment() -> dict[str, str]:
    """Return this environment without an operator's settings: the tests bring servers and settings of their own."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in BARE_NAMES and (not name.startswith(PREFIX) or name.startswith(_TEST_SWITCHES))
    }
    if environment.pop("PYTHONDONTWRITEBYTECODE", ""):
        # Where the tree shall stay clean, what each worker and each process would compile anew is kept aside.
        environment["PYTHONPYCACHEPREFIX"] = str(Path(sys.prefix) / "bytecode")
    return environment


def _say(text: str) -> None:
    # pytest writes to the same place by itself: nothing may wait in a buffer.
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
