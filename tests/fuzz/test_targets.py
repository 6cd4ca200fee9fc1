"""The fuzz targets over the corpus, over what was found before, and, in the long rounds, under the fuzzer for a minute.

A find is made small and kept in `tests/corpus/found`, with a line in its README; from then on it is an ordinary test.
"""

import binascii
import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from injector.encodings import Splice
from tests.fuzz.proof import MINTER, a_browser_agrees, differs_only_there
from tests.fuzz.targets import TARGETS
from tests.leaves import leaves

ROOT = Path(__file__).resolve().parent.parent.parent
CORPUS = ROOT / "tests" / "corpus"
FOUND = CORPUS / "found"

SECONDS = 60
#: The fuzzer ends by itself; what it is given beyond its time is for the start and the last input.
PATIENCE = SECONDS + 60
#: In octets. A minute is short: what is longer is looked at once, in the ordinary test.
LONGEST = 4_096
OPTIONS = (
    f"-max_total_time={SECONDS}",
    "-timeout=10",
    "-rss_limit_mb=2048",
    f"-max_len={LONGEST}",
    "-verbosity=1",
    "-print_final_stats=1",
)


def corpus() -> Iterator[bytes]:
    """Yield every message of the corpus, every page that stands in one, and every find."""
    for path in sorted((CORPUS / "mail").glob("*.eml")):
        content = path.read_bytes()
        yield content
        for leaf in leaves(content):
            if leaf.kind == "text/html":
                with suppress(binascii.Error):  # one message is damaged on purpose
                    yield leaf.decoded
    for path in finds():
        yield path.read_bytes()


def finds() -> list[Path]:
    """Return the files of what was found."""
    return sorted(path for path in FOUND.iterdir() if path.name != "README.md")


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_over_the_corpus(name: str) -> None:
    """Invariant: whatever is known by now breaks no promise, taken for a message, a page, a token or a header."""
    inputs = [*TARGETS[name].seeds, *corpus()]
    for octets in inputs:
        TARGETS[name].run(octets)
    assert len(inputs) > 40


def test_every_find_says_what_it_showed() -> None:
    """A file without its line is a riddle to whoever meets it next."""
    lines = (FOUND / "README.md").read_text(encoding="utf-8").splitlines()
    named = [line.split("`")[1] for line in lines if line.startswith("| `")]
    assert named == [path.name for path in finds()]


def test_a_broken_promise_is_seen() -> None:
    """The targets are no formality: what is no pair of before and after is told apart, octet by octet."""
    differs_only_there(b"abc", b"aXc", [Splice(1, 2, b"X")])
    for left in (b"aXd", b"aYc", b"aX", b"aXcc", b"bXc"):
        with pytest.raises(AssertionError):
            differs_only_there(b"abc", left, [Splice(1, 2, b"X")])


def test_a_page_that_a_browser_reads_otherwise_is_seen() -> None:
    """A link that leads elsewhere, a text or an attribute that is another, a tag that came or went."""
    page = '<p id=x>text<a href=" https://example.com/?a&amp;b" class=y>z</a><!--[if mso]><a href="w"><![endif]-->'
    ours = MINTER.click(0, "https://example.com/?a&b")
    wrapped = page.replace(" https://example.com/?a&amp;b", ours).replace('"w"', f'"{ours}"')
    a_browser_agrees(page, wrapped)
    for old, new in (
        (ours, MINTER.click(0, "https://example.com/?a")),
        (ours, "https://example.net/"),
        ("text", "tex"),
        ("class=y", "class=w"),
        (" class=y", ""),
        ("id=x", "id=x title=y"),
        ("</a>", "</a><img>"),
        ("<p id=x>", ""),
        ("<![endif]-->", "<b><![endif]-->"),
    ):
        with pytest.raises((AssertionError, ValueError)):
            a_browser_agrees(page, wrapped.replace(old, new, 1))


@pytest.mark.soak
@pytest.mark.timeout(PATIENCE + 30)
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has wheels for Linux on x86-64 and Python 3.11 only"
)
@pytest.mark.parametrize("name", TARGETS)
def test_a_minute_of_fuzzing_finds_nothing(name: str, tmp_path: Path) -> None:
    """Invariant: the same, of a minute of inputs that atheris makes from the corpus where it sees new code reached."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for octets in [*TARGETS[name].seeds, *(known for known in corpus() if len(known) <= LONGEST)]:
        (folder / hashlib.sha256(octets).hexdigest()[:16]).write_bytes(octets)
    with (tmp_path / "fuzz.log").open("wb") as log:
        status = subprocess.run(
            [
                sys.executable,
                str(ROOT / "tests" / "fuzz" / "run.py"),
                name,
                str(folder),
                *OPTIONS,
                f"-artifact_prefix={tmp_path}/find-",
            ],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
            timeout=PATIENCE,
            check=False,
        ).returncode
    said = (tmp_path / "fuzz.log").read_text("utf-8", "replace")
    found = {path.name: path.read_bytes() for path in tmp_path.glob("find-*")}
    assert (status, found) == (0, {}), said[-4_000:]
    assert "DONE" in said
