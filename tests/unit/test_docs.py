"""The pages that people read: what they name exists, what they tell people to type is understood.

Each check first proves that it found something to look at, so that none can pass by looking at nothing.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from injector.links import LinkReason
from injector.skip import Reason
from sidecar.catalogue import by_environment
from sidecar.cli_parser import COMMANDS, parser

ROOT = Path(__file__).resolve().parents[2]
ADRS = sorted((ROOT / "docs" / "adr").glob("*.md"))
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
        *(ROOT / "docs").glob("*.md"),
        *ADRS,
    ]
)
#: Everything written for people and machines that names settings and addresses.
TEXTS = [*PAGES, *(ROOT / name for name in ("env.example", "docker-compose.yml", "Dockerfile"))]

_FENCE = re.compile(r"^ *```[a-z]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_PATH = re.compile(r"\A(?:[a-z_]+/)+(?:[a-z0-9_.-]+\.[a-z]+)?(?:::[a-z0-9_]+)?\Z")
_SETTING = re.compile(r"\b(?:OUTRIDER_(?!TEST_)[A-Z][A-Z0-9_]*|DATABASE_URL|REDIS_URL)\b")
_ADDRESS = re.compile(r"[A-Za-z0-9._%+-]+@((?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,})")
_HOST = re.compile(r"\b(?:https?|smtps?|rediss?|postgresql)://(?:[^\s/@\"'<>]*@)?([A-Za-z0-9.-]+)")
_METRIC = re.compile(r"\boutrider_[a-z][a-z_]+\b")

# A name without a dot is a container's, and nobody's outside.
_EXAMPLE = re.compile(r"\A(?:[a-z0-9-]+|127\.0\.0\.1|(?:[a-z0-9-]+\.)*example(?:\.(?:com|net|org))?)\Z")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
texts = pytest.mark.parametrize("text", TEXTS, ids=lambda text: str(text.relative_to(ROOT)))


def read(path: Path) -> str:
    """Return the text of a page."""
    return path.read_text(encoding="utf-8")


def code(page: Path) -> Iterator[str]:
    """Yield what stands in code on *page*: the lines of blocks, continued ones joined, and the spans of prose."""
    for block in _FENCE.findall(read(page)):
        yield from block.replace("\\\n", " ").splitlines()
    yield from _CODE.findall(_FENCE.sub("", read(page)))


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of each `./outrider …` that *page* tells people to type."""
    for line in code(page):
        _, found, rest = line.partition("./outrider ")
        if found:
            words = shlex.split(rest, comments=True)
            # What follows is the shell's.
            end = next((at for at, word in enumerate(words) if word in {"|", ">", "&&", ";"}), len(words))
            yield words[:end]


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of *page*, spelt as they are on the common hosts of repositories."""
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(_FENCE.sub("", read(page))))
    return {text.strip().replace(" ", "-") for text in kept}


def paths(page: Path) -> Iterator[str]:
    """Yield every path that stands in code on *page*, of a file or a directory of ours."""
    for span in _CODE.findall(_FENCE.sub("", read(page))):
        if _PATH.match(span) and (ROOT / span.partition("/")[0]).is_dir():
            yield span


class TestWhatIsNamed:
    """Files, tests, links and reasons exist."""

    def test_the_flow_is_short_and_names_files(self) -> None:
        flow = ROOT / "docs" / "flow.md"
        assert len(read(flow).splitlines()) < 80
        assert len(list(paths(flow))) > 50

    @pages
    def test_every_path_exists(self, page: Path) -> None:
        for path in paths(page):
            name, _, test = path.partition("::")
            assert (ROOT / name).exists(), path
            assert not test or f"def {test}(" in read(ROOT / name), path

    @pages
    def test_every_link_leads_somewhere(self, page: Path) -> None:
        for link in _LINK.findall(_FENCE.sub("", read(page))):
            target, _, anchor = link.partition("#")
            aim = (page.parent / target).resolve() if target else page
            assert aim.exists(), link
            assert not anchor or anchor in anchors(aim), link

    def test_links_and_anchors_were_looked_at(self) -> None:
        found = [link for page in PAGES for link in _LINK.findall(read(page))]
        assert len(found) > 30
        assert any("#" in link for link in found)

    def test_every_reason_is_explained(self) -> None:
        page = read(ROOT / "docs" / "injection.md")
        assert [reason for reason in (*Reason, *LinkReason) if f"`{reason}`" not in page] == []

    @pytest.mark.parametrize("adr", ADRS, ids=lambda adr: adr.name)
    def test_a_decision_rejects_something_and_is_confirmed_by_a_test(self, adr: Path) -> None:
        sections = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", read(adr), re.MULTILINE | re.DOTALL))
        assert list(sections) == ["Context", "Decision", "Options rejected", "Consequences", "Confirmation"]
        assert sections["Options rejected"].count("\n- ") >= 1
        assert "::test_" in sections["Confirmation"]

    def test_decisions_are_numbered_without_a_gap(self) -> None:
        assert [adr.name[:4] for adr in ADRS] == [f"{number:04}" for number in range(1, len(ADRS) + 1)]
        for number, adr in enumerate(ADRS, 1):
            assert read(adr).startswith(f"# {number}. ")


class TestWhatIsTyped:
    """Commands, settings and metrics are understood."""

    @pages
    def test_every_command_is_understood(self, page: Path) -> None:
        for words in commands(page):
            # In prose a command stands by its name alone; with arguments it is meant to be typed as it is.
            assert words[0] in {command.name for command in COMMANDS}
            if len(words) > 1:
                assert parser().parse_args(words).command == words[0]

    def test_commands_were_looked_at(self) -> None:
        told = {words[0] for page in PAGES for words in commands(page) if words}
        assert told >= {"demo", "test", "run", "relay", "tracker", "courier", "console", "explain", "status", "replay"}

    def test_the_changelog_names_every_command(self) -> None:
        page = read(ROOT / "CHANGELOG.md")
        assert [command.name for command in COMMANDS if f"`{command.name}`" not in page] == []

    @texts
    def test_every_setting_exists(self, text: Path) -> None:
        assert [name for name in _SETTING.findall(read(text)) if name not in by_environment()] == []

    def test_settings_were_looked_at(self) -> None:
        named = {name for text in TEXTS if text.name != "settings.md" for name in _SETTING.findall(read(text))}
        assert len(named) > 30

    @pages
    def test_every_metric_is_counted_somewhere(self, page: Path) -> None:
        counted = {
            name.removesuffix("_total")
            for package in ("relay", "tracker", "courier", "sidecar", "ledger")
            for file in (ROOT / package).rglob("*.py")
            for name in re.findall(r'"(outrider_[a-z_]+)"', read(file))
        }
        assert len(counted) > 20
        assert [name for name in _METRIC.findall(read(page)) if name.removesuffix("_total") not in counted] == []


class TestNobodyIsNamed:
    """Addresses and hosts are examples."""

    @texts
    def test_addresses_and_hosts_are_examples(self, text: Path) -> None:
        found = [*_ADDRESS.findall(read(text)), *_HOST.findall(read(text))]
        assert [host for host in found if not _EXAMPLE.match(host.lower())] == []

    def test_some_were_looked_at(self) -> None:
        assert {"example.net", "example.com"} <= {host for text in TEXTS for host in _ADDRESS.findall(read(text))}
        assert "smtp.example.com" in _HOST.findall(read(ROOT / "docs" / "howto.md"))
