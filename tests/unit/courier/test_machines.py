"""How well people are told from machines, on a log with known truth: what docs/machines.md says is what comes out.

A rule that changes changes these numbers; they are printed when they differ, to be looked at and written down.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from courier.classify import Reason
from ledger.events import EventType
from tests.judging import Told, judge_all
from tests.visitors import visits

PAGE = Path(__file__).resolve().parents[3] / "docs" / "machines.md"
HITS = 10_000


@pytest.fixture(scope="module")
def told() -> list[Told]:
    """Judge a log of 10,000 hits."""
    return judge_all(visits(seed=8, count=HITS))


def percent(part: int, whole: int) -> str:
    """Return a share to one decimal, cut off and never rounded up."""
    return f"{part * 1000 // whole / 10:.1f} %"


def scores(told: Iterable[Told]) -> tuple[str, str, str]:
    """Return how many hits there are, and precision and recall of calling one a machine's."""
    found = Counter((one.visit.machine, one.machine) for one in told)
    right, wrong, missed = found[True, True], found[False, True], found[True, False]
    return f"{found.total():,}", percent(right, right + wrong), percent(right, right + missed)


def table(heading: str) -> dict[str, tuple[str, ...]]:
    """Return the rows of the table below *heading* of the page, by their first cell."""
    part = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line[:1] == "|"]
    return {first: tuple(rest) for first, *rest in rows[2:]}


def test_precision_and_recall_are_those_that_the_page_states(told: list[Told]) -> None:
    """Of what is called a machine's, how much is; of what is a machine's, how much is called so."""
    kinds: Mapping[str, list[EventType]] = {
        "opens": [EventType.OPENED],
        "clicks": [EventType.CLICKED],
        "all": list(EventType),
    }
    measured = {name: scores(one for one in told if one.visit.hit.type in types) for name, types in kinds.items()}
    assert table("How well it works") == measured


def test_what_becomes_of_each_kind_is_what_the_page_states(told: list[Told]) -> None:
    """The kinds that are told wrongly are named as openly as the others."""
    by_kind = defaultdict(list)
    for one in told:
        by_kind[one.visit.kind].append(one)
    measured = {
        kind: (
            "machine" if found[0].visit.machine else "person",
            f"{len(found):,}",
            percent(sum(one.machine == one.visit.machine for one in found), len(found)),
        )
        for kind, found in by_kind.items()
    }
    assert table("Kind by kind") == measured


def test_other_settings_do_what_the_page_states() -> None:
    """Fewer links or more seconds find more machines, and take more people for one."""
    log = [visit for visit in visits(seed=8, count=HITS) if visit.hit.type is EventType.CLICKED]
    measured = {
        f"{links} in {seconds} s" if links else "none": scores(judge_all(log, links=links, seconds=seconds))[1:]
        for links, seconds in ((0, 60), (2, 60), (3, 60), (4, 60), (5, 60), (6, 60), (4, 10), (4, 30))
    }
    assert table("Other settings") == measured


def test_it_stays_as_good_on_other_days() -> None:
    """No stroke of luck with one seed: nine of ten machines are found, and next to nobody is taken for one."""
    for seed in range(3):
        found = Counter((one.visit.machine, one.machine) for one in judge_all(visits(seed=seed, count=HITS)))
        assert found[True, True] / (found[True, True] + found[False, True]) > 0.96
        assert found[True, True] / (found[True, True] + found[True, False]) > 0.94


def test_nothing_is_dropped_and_every_rule_is_on_the_page(told: list[Told]) -> None:
    """Each hit has a verdict, and each reason is explained."""
    assert len(told) == len({one.visit.hit.id for one in told}) == HITS
    assert {one.reason for one in told} >= set(Reason) - {
        Reason.BARE_USER_AGENT,
        Reason.PROVIDER_SAYS,
        Reason.PROVIDER_SILENT,
    }
    assert [reason for reason in Reason if not re.search(rf"^\| `{reason}` \|", PAGE.read_text(), re.MULTILINE)] == []
