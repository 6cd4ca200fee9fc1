"""The alert rules ask for metrics that there are, with labels that they have."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
ROLES = ("relay", "tracker", "courier", "sidecar")

_METRIC = re.compile(r"\boutrider_[a-z_]+")
_LABELS = re.compile(r"\b(outrider_[a-z_]+)\{([^}]*)\}")


def rules() -> list[dict[str, Any]]:
    """Return every rule of the file."""
    loaded = YAML(typ="safe").load((ROOT / "deploy" / "alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def series() -> dict[str, set[str]]:
    """Return the labels of every series that our code exports, by its name."""
    for role in ROLES:
        for path in (ROOT / role).rglob("*.py"):
            if "Counter(" in (text := path.read_text(encoding="utf-8")) or "Gauge(" in text:
                importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    found: dict[str, set[str]] = {}
    for collector in set(REGISTRY._collector_to_names):
        for name in REGISTRY._collector_to_names[collector]:
            found[name] = set(getattr(collector, "_labelnames", ()))
    return found


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_asks_for_what_there_is(rule: dict[str, Any]) -> None:
    """A metric that is renamed takes its alert along."""
    there = series()
    names = set(_METRIC.findall(rule["expr"]))
    assert names
    assert names <= there.keys()
    for name, labels in _LABELS.findall(rule["expr"]):
        assert set(re.findall(r"(\w+)\s*[!=]", labels)) <= there[name]
    for label in re.findall(r"\$labels\.(\w+)", str(rule["annotations"])):
        assert f"by ({label})" in rule["expr"]


def test_each_rule_says_what_is_wrong_and_how_bad() -> None:
    """Names are single, and words are given."""
    every = rules()
    assert len({rule["alert"] for rule in every}) == len(every)
    for rule in every:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "description"}
