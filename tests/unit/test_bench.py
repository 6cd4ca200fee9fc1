"""The benches: they run, every case has its row, and what is not right is told; never a word about time."""

import gc
import json

import msgspec
import pytest

from bench import benches, harness, mails
from bench import injector as injector_bench
from bench.harness import Bar, Case, measure, table
from bench.report import Found
from bench.stage import Stage
from sidecar import cli, cli_parser


def case(name: str, *, flaw: str | None = None, baseline: str | None = None, bar: Bar | None = None) -> Case:
    """Return a case that takes hardly any time."""
    return Case(name=name, run=lambda: name, flaw=lambda _: flaw, baseline=baseline, bar=bar)


@pytest.fixture(autouse=True)
def _nobody_elses_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collect nothing between two cases: among thousands of other tests each collection takes most of a second."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


@pytest.mark.usefixtures("logging_put_back")
class TestCommand:
    """`./outrider bench` measures and prints."""

    def test_every_case_has_its_row_in_json(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each case is run once and its result looked at; hostile mail is small, and mail of its own links rare."""
        monkeypatch.setattr(injector_bench, "MEGABYTE", 20_000)
        monkeypatch.setattr(injector_bench, "_VARIANTS", range(1_000, 1_002))
        monkeypatch.setattr(injector_bench, "_OTHER_VARIANTS", range(2_000, 2_002))
        monkeypatch.setattr(harness, "_ROUND_NS", 1)
        # To watch every allocation takes ten times as long: see TestHarness.
        monkeypatch.setattr(harness, "_peak_kib", lambda _run: 0.0)
        cases = injector_bench.cases()
        monkeypatch.setattr(injector_bench, "cases", lambda: cases)
        assert cli.main(["bench", "injector", "--rounds", "1", "--json"]) == 0
        [report] = json.loads(capsys.readouterr().out)
        assert report["bench"] == "injector"
        assert set(report["machine"]) == {"cores", "architecture", "python", "packages", "programs"}
        assert [row["name"] for row in report["rows"]] == [each.name for each in cases]
        assert [row["flaw"] for row in report["rows"] if row["flaw"] is not None] == []
        assert all(row["ratio"] > 0 for row in report["rows"] if row["baseline"])

    def test_the_table_names_every_case(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(injector_bench, "cases", lambda: [case("one"), case("two", baseline="one")])
        assert cli.main(["bench", "injector", "--rounds", "2"]) == 0
        out = capsys.readouterr().out
        assert all(name in out for name in ("injector", "one", "two", "CPU us", "p99 us", "peak KiB"))

    def test_all_is_every_bench_as_it_is_told(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The command's names are the benches that there are, and what it says reaches each but the long ones."""
        assert {*cli_parser.BENCHES, *cli_parser.LONG_BENCHES} == set(benches.BENCHES)
        stages: list[Stage] = []

        async def bench(stage: Stage) -> Found:
            stages.append(stage)
            return Found(rows=(), table="a table", left_out=("nobody: not installed",))

        monkeypatch.setattr(benches, "BENCHES", dict.fromkeys(cli_parser.BENCHES, bench))
        assert cli.main(["bench", "--rounds", "3", "--against", "haraka,nginx", "--haraka", "/opt/haraka"]) == 0
        told = Stage(rounds=3, against=frozenset({"haraka", "nginx"}), haraka="/opt/haraka")
        assert stages == [told] * len(cli_parser.BENCHES)
        out = capsys.readouterr().out
        assert all(f"{name}, " in out for name in cli_parser.BENCHES)
        assert "left out: nobody: not installed" in out
        assert cli.main(["bench", "--against", "none"]) == 0
        assert stages[-1] == Stage(against=frozenset())

    def test_a_wrong_result_fails_the_command(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(injector_bench, "cases", lambda: [case("one", flaw="a link is lost")])
        assert cli.main(["bench", "injector", "--rounds", "1"]) == 1
        assert "WRONG: a link is lost" in capsys.readouterr().out

    @pytest.mark.parametrize(
        "arguments", [("nonsense",), ("--rounds", "0"), ("--rounds", "many"), ("--against", "sendmail")]
    )
    def test_a_wrong_argument(self, arguments: tuple[str, ...]) -> None:
        with pytest.raises(SystemExit) as left:
            cli.main(["bench", *arguments])
        assert left.value.code == 2


class TestHarness:
    """A row says what was measured, against what, and whether the bar was met."""

    def test_a_bar_is_met_or_not(self) -> None:
        """Bars that nothing can miss, and that nothing can meet."""
        bars = {
            "wide": Bar(ratio=1e9, cpu_us=1e9),
            "ratio": Bar(ratio=1e-9, cpu_us=1e9),
            "limit": Bar(ratio=1e9, cpu_us=0.0),
        }
        rows, pace = measure([case("base"), *(case(n, baseline="base", bar=b) for n, b in bars.items())], rounds=3)
        assert pace == 1
        assert [(row.name, row.met) for row in rows] == [
            ("base", None),
            ("wide", True),
            ("ratio", False),
            ("limit", False),
        ]
        assert [line.split()[-1] for line in table(rows).splitlines()[2:]] == ["ok", "over", "over"]

    def test_a_slow_machine_may_take_longer(self) -> None:
        """A yardstick that took next to nothing where the bars were set: by that, this machine is a slow one."""
        yardstick = msgspec.structs.replace(case("yardstick"), yardstick_us=1e-12)
        rows, pace = measure([yardstick, case("late", bar=Bar(cpu_us=1e-6))], rounds=3)
        assert pace > 1e6
        assert rows[1].met

    def test_rounds_are_counted(self) -> None:
        few = msgspec.structs.replace(case("few"), most_rounds=2)
        assert [row.rounds for row in measure([case("all"), few], rounds=5).rows] == [5, 2]

    def test_each_round_takes_every_case_in_turn(self) -> None:
        turns: list[str] = []

        def noted(name: str) -> Case:
            return Case(name=name, run=lambda: turns.append(name), flaw=lambda _: None)

        measure([noted("a"), noted("b")], rounds=4)
        changes = [name for at, name in enumerate(turns) if at == 0 or turns[at - 1] != name]
        assert changes[-8:] == ["a", "b"] * 4

    def test_the_baseline_is_timed_right_before_and_right_behind(self) -> None:
        """A machine that changes its pace changes it for both."""
        turns: list[str] = []

        def noted(name: str, baseline: str | None = None) -> Case:
            return Case(name=name, run=lambda: turns.append(name), flaw=lambda _: None, baseline=baseline)

        rows = measure([noted("a"), noted("b"), noted("c", "a")], rounds=3).rows
        changes = [name for at, name in enumerate(turns) if at == 0 or turns[at - 1] != name]
        assert changes[-12:] == ["b", "a", "c", "a"] * 3
        assert [row.ratio is None for row in rows] == [True, True, False]

    def test_memory_is_the_most_that_was_held(self) -> None:
        held = Case(name="held", run=lambda: bytes(1_000_000), flaw=lambda _: None)
        [row] = measure([held], rounds=1).rows
        assert 900 < row.peak_kib < 1_100


class TestMails:
    """The mails are what the benches say they are, in every run."""

    @pytest.mark.parametrize(("links", "octets"), [(16, 20_000), (67, 98_000)])
    def test_a_newsletter_is_as_large_as_it_is_called(self, links: int, octets: int) -> None:
        page = mails.newsletter(links=links, octets=octets)
        assert abs(len(page) - octets) < octets / 10
        assert page.count(b'<a href="https://') == links
        assert page.count(b"<v:roundrect ") == mails.OUTLOOK_LINKS

    def test_equal_arguments_give_equal_mail(self) -> None:
        assert mails.newsletter(variant=3) == mails.newsletter(variant=3) != mails.newsletter(variant=4)

    @pytest.mark.parametrize("encoding", ["quoted-printable", "base64", "8bit"])
    def test_a_message_is_about_25_kilobytes(self, encoding: str) -> None:
        assert 20_000 < len(mails.message(mails.newsletter(), encoding)) < 35_000
