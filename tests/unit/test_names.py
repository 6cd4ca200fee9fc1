"""The names of our top-level packages, several of which are also names of packages that can be installed."""

import importlib.util
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("relay", "tracker", "courier", "injector", "providers", "ledger", "sidecar", "migrations")


@pytest.mark.parametrize("name", OURS)
def test_no_installed_distribution_owns_a_name_of_ours(name: str) -> None:
    """An `injector` from an index beside ours would be imported in its place."""
    assert packages_distributions().get(name, []) == []


def test_the_check_sees_distributions() -> None:
    """It would pass for ever if it looked at nothing."""
    assert packages_distributions()["pytest"] == ["pytest"]


@pytest.mark.parametrize("name", [name for name in OURS if name != "migrations"])
def test_our_packages_come_from_the_checkout(name: str) -> None:
    """What is imported under our name is what stands in this checkout."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert list(spec.submodule_search_locations or ()) == [str(ROOT / name)]
