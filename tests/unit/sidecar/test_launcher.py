"""The launcher, run on small checkouts of their own: a real venv, a real pip, one wheel made here, no network."""

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sidecar.child import Account, barrier

ROOT = Path(__file__).resolve().parents[3]
NOBODY = Account(uid=65534, gid=65534)
BASE_PYTHON = str(getattr(sys, "_base_executable", sys.executable))
HAS_PIP = subprocess.run([BASE_PYTHON, "-c", "import pip"], capture_output=True, check=False).returncode == 0

CLI = """
import importlib.util, json, os, sys, tiny
print(json.dumps({"args": sys.argv[1:], "cwd": os.getcwd(), "prefix": sys.prefix, "tiny": tiny.VERSION,
                  "uid": os.getuid(), "json": json.__file__, "tests": importlib.util.find_spec("proof") is not None}))
"""

pytestmark = pytest.mark.timeout(180)


def wheel(folder: Path, version: str, name: str = "tiny") -> str:
    """Make a wheel of a small package and return its requirement, hash and all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{name}-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{name}-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
            record += f"{file},sha256={digest},{len(text)}\n"
        archive.writestr(f"{name}-{version}.dist-info/RECORD", f"{record}{name}-{version}.dist-info/RECORD,,\n")
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


class Checkout:
    """A checkout that holds the launcher, its two locks and a CLI that says where it is."""

    def __init__(self, root: Path) -> None:
        self.root = root / "check out"
        self.wheels = root / "wheels"
        self.home = root / "home"
        self.temporary = root / "temporary"
        for folder in (self.root / "sidecar", self.home, self.temporary):
            folder.mkdir(parents=True)
        self.home.chmod(0o700)
        shutil.copy2(ROOT / "outrider", self.root / "outrider")
        (self.root / "sidecar" / "__main__.py").write_text(CLI)
        self.require(wheel(self.wheels, "1.0"))

    def require(self, line: str) -> None:
        """Let *line* be all that everything needs; the tests need the package `proof` too."""
        self.lock.write_text(f"# a comment, as the real one has\n{line}")
        self.tests_lock.write_text(line + wheel(self.wheels, "1.0", "proof"))

    @property
    def lock(self) -> Path:
        return self.root / "requirements-embedded.lock"

    @property
    def tests_lock(self) -> Path:
        return self.root / "requirements-dev.lock"

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": self.wheels.as_uri(),
        } | more

    def popen(
        self,
        *args: str,
        python: str = BASE_PYTHON,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        uid: int | None = None,
        launcher: Path | None = None,
    ) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [python, str(launcher or self.root / "outrider"), *args],
            cwd=cwd or self.home,
            env=self.environment(**(env or {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )

    def start(self, *args: str, **how: Any) -> tuple[int, str, str]:
        """Run the launcher to its end; return status, output and messages."""
        process = self.popen(*args, **how)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    """Return a checkout that nothing was installed in yet."""
    with tempfile.TemporaryDirectory(prefix="outrider-launcher-") as folder:
        Path(folder).chmod(0o755)
        yield Checkout(Path(folder))


def blinded(checkout: Checkout, source: str) -> dict[str, str]:
    """Return an environment in which the launcher's own interpreter runs *source* first."""
    folder = checkout.root.parent / hashlib.sha256(source.encode()).hexdigest()[:8]
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(source)
    return {"PYTHONPATH": str(folder)}


HIDE = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {names} else found(name, package)
"""


@pytest.fixture
def quick(checkout: Checkout) -> dict[str, str]:
    """Return an environment that spares the 5 seconds of bringing pip along, where the base interpreter has one."""
    return blinded(checkout, HIDE.format(names={"ensurepip"})) if HAS_PIP else {}


def test_first_start_installs_and_the_second_only_starts(checkout: Checkout) -> None:
    """From any folder, under any name of it, with the arguments as they came, and nothing written elsewhere."""
    elsewhere = checkout.root.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "json.py").write_text("raise SystemExit('the wrong json')")
    (elsewhere / "start").symlink_to(checkout.root / "outrider")

    status, out, err = checkout.start("demo", "--name", "a b", cwd=elsewhere)
    assert status == 0, err
    assert err.splitlines() == ["outrider: installing the locked packages into .venv; this happens once"]
    said = json.loads(out)
    assert said["args"] == ["demo", "--name", "a b"]
    assert said["cwd"] == str(elsewhere)
    assert said["prefix"] == str(checkout.root / ".venv")
    assert said["tiny"] == "1.0"
    assert list(checkout.home.iterdir()) == []
    assert list(checkout.temporary.iterdir()) == []

    status, out, err = checkout.start("status", cwd=elsewhere, launcher=elsewhere / "start")
    assert (status, err) == (0, "")
    assert json.loads(out)["args"] == ["status"]


def test_two_first_starts_at_once(checkout: Checkout, quick: dict[str, str]) -> None:
    """One installs, the other waits for it; both run."""
    both = [checkout.popen(str(number), env=quick) for number in range(2)]
    ends = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [json.loads(out)["args"] for out, _ in ends] == [["0"], ["1"]]
    assert sum("installing the locked" in err for _, err in ends) == 1


def test_interrupted_installation_is_repaired(checkout: Checkout, quick: dict[str, str]) -> None:
    """Ctrl-C at any moment leaves nothing that a later start would trust."""
    process = checkout.popen(env=quick)
    deadline = time.monotonic() + 60
    while not (checkout.root / ".venv" / "bin" / "python").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert out == ""
    assert "start" in err
    litter = checkout.root / ".venv" / "lib" / "litter"
    litter.parent.mkdir(exist_ok=True)
    litter.touch()

    status, out, err = checkout.start(env=quick)
    assert status == 0, err
    assert json.loads(out)["tiny"] == "1.0"
    assert not litter.exists()


def test_changed_lock_and_moved_checkout_install_again(checkout: Checkout, quick: dict[str, str]) -> None:
    """A virtual environment knows where it stands, so one that moved is made anew."""
    assert checkout.start(env=quick)[0] == 0
    checkout.require(wheel(checkout.wheels, "2.0"))
    status, out, err = checkout.start(env=quick)
    assert status == 0, err
    assert json.loads(out)["tiny"] == "2.0"

    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))
    status, out, err = checkout.start(env=quick)
    assert status == 0, err
    assert "installing" in err
    assert json.loads(out)["prefix"] == str(checkout.root / ".venv")


ONCE, ADDED = (
    "outrider: installing the locked packages into .venv; this happens once",
    "outrider: adding to .venv what the tests need; this happens once",
)


def test_the_tests_needs_come_on_top_when_they_are_first_run(checkout: Checkout, quick: dict[str, str]) -> None:
    """What runs meanwhile keeps its environment, and nothing is installed twice."""
    status, out, err = checkout.start("demo", env=quick)
    assert (status, err.splitlines()) == (0, [ONCE])
    assert not json.loads(out)["tests"]
    before = checkout.root / ".venv" / "in use"
    before.touch()
    status, out, err = checkout.start("test", "quick", env=quick)
    assert (status, err.splitlines()) == (0, [ADDED])
    assert json.loads(out)["tests"]
    for words in (["test"], ["demo"], []):
        status, out, err = checkout.start(*words, env=quick)
        assert (status, err) == (0, "")
        assert json.loads(out)["args"] == words
    assert before.exists()


def test_an_environment_made_for_the_tests_serves_every_command(checkout: Checkout, quick: dict[str, str]) -> None:
    """Their lock holds the other one; when it changes, each command makes what it needs itself."""
    status, out, err = checkout.start("test", env=quick)
    assert (status, err.splitlines()) == (0, [ONCE])
    assert json.loads(out)["tests"]
    assert checkout.start("demo", "test", env=quick)[2] == ""
    checkout.require(wheel(checkout.wheels, "2.0"))
    status, out, err = checkout.start("demo", env=quick)
    assert (status, err.splitlines()) == (0, [ONCE])
    said = json.loads(out)
    assert (said["tiny"], said["tests"]) == ("2.0", False)


def test_an_addition_that_failed_is_not_built_upon(checkout: Checkout, quick: dict[str, str]) -> None:
    """Everything else goes on with what it has; the tests begin anew."""
    right = checkout.tests_lock.read_text()
    assert checkout.start("demo", env=quick)[0] == 0
    checkout.tests_lock.write_text(checkout.lock.read_text() + f"proof==1.0 --hash=sha256:{'0' * 64}\n")
    status, out, err = checkout.start("test", env=quick)
    assert (status, out) == (1, "")
    assert err.splitlines()[0] == ADDED
    status, out, err = checkout.start("demo", env=quick)
    assert (status, err) == (0, "")
    litter = checkout.root / ".venv" / "litter"
    litter.touch()
    checkout.tests_lock.write_text(right)
    status, out, err = checkout.start("test", env=quick)
    assert (status, err.splitlines()) == (0, [ONCE])
    assert json.loads(out)["tests"]
    assert not litter.exists()


def test_wrong_hash_is_refused(checkout: Checkout, quick: dict[str, str]) -> None:
    """What an index serves under the right name is not trusted for it."""
    right = checkout.lock.read_text()
    checkout.require(f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
    status, out, err = checkout.start(env=quick)
    assert (status, out) == (1, "")
    assert "HASHES" in err
    assert err.splitlines()[-1].startswith("outrider: the installation failed")
    checkout.lock.write_text(right)
    assert checkout.start(env=quick)[0] == 0


def test_a_foreign_environment_is_left_alone(checkout: Checkout, quick: dict[str, str]) -> None:
    """Whoever keeps a `.venv` of his own there is asked, not robbed."""
    own = checkout.root / ".venv" / "lib" / "own"
    own.mkdir(parents=True)
    status, out, err = checkout.start(env=quick)
    assert (status, out) == (1, "")
    assert err == f"outrider: {checkout.root / '.venv'} was not made by this launcher: move it away, then start again\n"
    assert own.exists()
    own.parent.parent.rename(checkout.root / "mine")
    assert checkout.start(env=quick)[0] == 0


def test_missing_venv_package_is_named(checkout: Checkout) -> None:
    """Debian splits it off; the message is the command that brings it."""
    env = blinded(checkout, HIDE.format(names={"ensurepip", "pip"}))
    status, out, err = checkout.start(env=env)
    assert (status, out) == (1, "")
    assert err.splitlines()[-1] == (
        "outrider: this Python cannot make virtual environments: apt-get install python3-venv"
    )
    assert not (checkout.root / ".venv").exists()


@pytest.mark.skipif(not HAS_PIP, reason="the base interpreter has no pip of its own")
def test_a_system_pip_replaces_the_missing_venv_package(checkout: Checkout, quick: dict[str, str]) -> None:
    """Where there is a pip, nothing has to be installed by hand."""
    status, out, err = checkout.start(env=quick)
    assert status == 0, err
    assert json.loads(out)["tiny"] == "1.0"


def test_an_old_python_finds_a_newer_one(checkout: Checkout, quick: dict[str, str]) -> None:
    """A name on PATH that does not run, as version managers leave, is passed over."""
    folder = checkout.root.parent / "bin"
    folder.mkdir()
    env = blinded(checkout, "import sys\nsys.version_info = (3, 8, 0, 'final', 0)\n") | {"PATH": str(folder)}
    status, out, err = checkout.start(env=env)
    assert (status, out) == (1, "")
    assert err == ("outrider: Python 3.11 or newer is needed, and this is 3.8: apt-get install python3 python3-venv\n")
    (folder / "python3.13").write_text("#!/bin/sh\nexit 127\n")
    (folder / "python3.12").write_text(
        f'#!/bin/sh\nexport PYTHONPATH={quick.get("PYTHONPATH", "")}\nexec "{BASE_PYTHON}" "$@"\n'
    )
    for path in folder.iterdir():
        path.chmod(0o755)
    status, out, err = checkout.start("run", env=env)
    assert status == 0, err
    assert json.loads(out)["args"] == ["run"]


def python_for_everybody() -> str | None:
    """Return a Python that can make environments and that a plain user can run."""
    check = "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"
    for path in (BASE_PYTHON, "/usr/bin/python3", "/usr/local/bin/python3"):
        if not Path(path).exists() or barrier(NOBODY, Path(path).resolve()) is not None:
            continue
        if subprocess.run([path, "-c", check], capture_output=True, check=False).returncode == 0:
            return path
    return None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.skipif(python_for_everybody() is None, reason="the Pythons here are root's alone")
def test_a_plain_user_installs_and_runs(checkout: Checkout) -> None:
    """Nothing needs root, and a checkout that belongs to somebody else says so."""
    python = python_for_everybody()
    assert python is not None
    status, out, err = checkout.start(cwd=Path("/"), uid=NOBODY.uid, python=python)
    assert (status, out) == (1, "")
    assert "Permission denied" in err
    for path in (checkout.root.parent, *checkout.root.parent.rglob("*")):
        os.chown(path, NOBODY.uid, NOBODY.gid)
    status, out, err = checkout.start(uid=NOBODY.uid, python=python)
    assert status == 0, err
    assert json.loads(out)["uid"] == NOBODY.uid
