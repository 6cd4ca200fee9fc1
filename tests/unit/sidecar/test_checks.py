"""`./outrider test`: what it runs, what it reports, and how it ends."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from sidecar.reference import reference

ROOT = Path(__file__).parents[3]

PYPROJECT = """\
[tool.ruff.lint]
select = ["F"]
[tool.mypy]
strict = true
files = ["part"]
[tool.importlinter]
root_packages = ["part"]
include_external_packages = true
[[tool.importlinter.contracts]]
name = "part is pure"
type = "forbidden"
source_modules = ["part"]
forbidden_modules = ["socket"]
[tool.pytest.ini_options]
addopts = "--strict-markers -p no:cacheprovider -p xdist.plugin"
markers = ["soak: long"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a small project in which every check holds."""
    root = tmp_path / "project"
    for name, text in {
        "pyproject.toml": PYPROJECT,
        "part/__init__.py": '"""A part."""\n\nNUMBER: int = 1\n',
        "tests/test_part.py": '"""A test."""\n\n\ndef test_it() -> None:\n    """Hold."""\n    assert True\n',
        "docs/settings.md": reference(),
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def checked(root: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run the checks on *root* in a process of their own; return its exit code and what it printed."""
    call = f"run_checks({list(arguments)!r}, root=pathlib.Path({str(root)!r}))"
    code = f"import sys, pathlib; from sidecar.checks import run_checks; sys.exit({call})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env=_without_our_pytest() | {"PYTHONPATH": str(ROOT)} | dict(environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=55,
    )
    return done.returncode, done.stdout


def _without_our_pytest() -> dict[str, str]:
    # Loading every plugin takes longer than all that is tried here.
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return own | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


class TestAll:
    """Without arguments everything runs."""

    def test_all_is_well(self, project: Path) -> None:
        code, shown = checked(project)
        assert code == 0, shown
        for name in ("ruff check", "ruff format", "mypy", "import-linter", "docs/settings.md"):
            assert f"{name}: ok\n" in shown
        assert "1 passed" in shown.splitlines()[-1]

    def test_a_failing_check_is_shown_and_the_rest_still_runs(self, project: Path) -> None:
        (project / "part" / "__init__.py").write_text('"""A part."""\n\nimport os\n\nNUMBER: int = "1"\n')
        (project / "docs" / "settings.md").unlink()
        code, shown = checked(project)
        assert code == 1
        assert "F401" in shown
        assert "Incompatible types in assignment" in shown
        assert "failed: ruff check, mypy, docs/settings.md\n" in shown
        assert "1 passed" in shown.splitlines()[-1]


class TestPytest:
    """With arguments pytest runs alone, with those."""

    def test_arguments_are_pytests(self, project: Path) -> None:
        code, shown = checked(project, "-q", "-k", "nothing_of_that_name")
        assert code == 1
        assert "ruff" not in shown
        assert "1 deselected" in shown

    def test_a_failing_test(self, project: Path) -> None:
        (project / "tests" / "test_part.py").write_text("def test_it():\n    assert False\n")
        code, shown = checked(project, "-q")
        assert code == 1
        assert "1 failed" in shown.splitlines()[-1]

    def test_an_argument_that_pytest_does_not_take(self, project: Path) -> None:
        code, _ = checked(project, "--no-such-option")
        assert code == 2

    def test_soak_runs_the_marked_tests_at_full_length(self, project: Path) -> None:
        (project / "tests" / "test_soak.py").write_text(
            "import os, pytest\n\n@pytest.mark.soak\ndef test_long():\n"
            "    assert os.environ['OUTRIDER_TEST_SOAK'] == '1'\n"
        )
        code, shown = checked(project, "soak")
        assert code == 0, shown
        assert "1 passed, 1 deselected" in shown.splitlines()[-1]

    def test_an_operators_settings_do_not_reach_the_tests(self, project: Path) -> None:
        (project / "tests" / "test_part.py").write_text(
            "import os\n\ndef test_it():\n"
            "    assert {'DATABASE_URL', 'OUTRIDER_RELAY__LISTEN'}.isdisjoint(os.environ)\n"
            "    assert os.environ['OUTRIDER_TEST_REDIS_URL'] == 'x'\n"
        )
        given = {"DATABASE_URL": "x", "OUTRIDER_RELAY__LISTEN": "x", "OUTRIDER_TEST_REDIS_URL": "x"}
        code, shown = checked(project, "-q", environment=given)
        assert code == 0, shown

    def test_what_is_compiled_is_kept_beside_a_tree_that_shall_stay_clean(self, project: Path) -> None:
        (project / "tests" / "test_part.py").write_text(
            "import sys\n\ndef test_it():\n    assert sys.pycache_prefix and not sys.dont_write_bytecode\n"
        )
        code, shown = checked(project, "-q", environment={"PYTHONDONTWRITEBYTECODE": "1"})
        assert code == 0, shown
