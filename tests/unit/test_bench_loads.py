"""The benches' loads: rounds in turn, ratios of one round, and nothing lost or doubled without a word."""

import asyncio
import base64
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from bench import course, mails, paired, programs
from bench.course import LINKS, PUBLIC_URL, Course, Target, arrival_flaw, newsletter
from bench.mailer import Batch, submit_watched
from bench.paired import Bar, Load, Outcome, measure
from bench.processes import busy_seconds, peak_mib, resident_mib, tree, tree_seconds
from bench.sink import Arrived, Sink, sink


def load(name: str, per_second: float, *, flaw: str | None = None, bar: Bar | None = None, to: str = "") -> Load:
    """Return a load that says it did so much in a second."""

    async def run() -> Outcome:
        return Outcome(units=1_000, seconds=1_000 / per_second, latencies_us=[1_000.0] * 98 + [5_000.0] * 2, flaw=flaw)

    return Load(name=name, run=run, pids=(os.getpid(),), baseline=to or None, bar=bar)


class TestRounds:
    """A row says what was measured, against what, and whether the bar was met."""

    async def test_each_round_takes_every_load_in_turn(self) -> None:
        turns: list[str] = []

        def noted(name: str) -> Load:
            async def run() -> Outcome:
                turns.append(name)
                return Outcome(units=1, seconds=1.0)

            return Load(name=name, run=run, warm_up=run)

        await measure([noted("a"), noted("b")], rounds=2)
        assert turns == ["a", "b"] * 3

    async def test_a_ratio_is_taken_inside_a_round(self) -> None:
        """A machine that halves its speed from one round to the next leaves the ratio as it is."""
        seconds = iter([1.0, 0.5, 2.0, 1.0, 8.0, 4.0])

        async def run() -> Outcome:
            return Outcome(units=100, seconds=next(seconds))

        found = await measure(
            [Load(name="base", run=run), Load(name="own", run=run, baseline="base", also={"base": 3.0})], rounds=3
        )
        base, own = found.rows
        assert base.ratio is None
        assert (own.ratio, own.ratio_range, own.per_second) == (2.0, (2.0, 2.0), 100.0)
        [further] = own.also
        assert (further.median, further.met) == (2.0, False)

    @pytest.mark.parametrize(
        ("bar", "met"),
        [
            (Bar(times=2.0), True),
            (Bar(times=2.1), False),
            (Bar(per_second=2_000), True),
            (Bar(per_second=2_001), False),
            (Bar(p99_ms=5), True),
            (Bar(p99_ms=4.9), False),
            (Bar(cpu_us=1e9, peak_mib=1e9), True),
            (Bar(peak_mib=0.001), False),
        ],
    )
    async def test_a_bar_is_met_or_not(self, bar: Bar, met: bool) -> None:  # noqa: FBT001 - a parameter of the table
        found = await measure([load("base", 1_000), load("own", 2_000, bar=bar, to="base")], rounds=3)
        assert found.rows[1].met is met
        assert paired.table(found.rows).splitlines()[-1].endswith("ok" if met else "missed")

    async def test_a_slow_machine_may_take_longer(self) -> None:
        """A bar in microseconds is for a machine of pace 1."""
        spent = load("spent", 1_000, bar=Bar(cpu_us=1e-9))
        # What it takes to be asked is all that this process spends.
        for pace, met in ((1.0, False), (1e18, True)):
            [row] = (await measure([_spending(spent)], rounds=1, pace=partial(float, pace))).rows
            assert row.met is met

    async def test_what_was_not_measured_is_not_met(self) -> None:
        bare = msgspec.structs.replace(load("bare", 1_000, bar=Bar(cpu_us=1e9)), pids=())
        [row] = (await measure([bare], rounds=1)).rows
        assert (row.cpu_us, row.met) == (None, False)

    async def test_what_is_wrong_is_told(self) -> None:
        found = await measure([load("own", 1_000, flaw="3 are lost")], rounds=2)
        assert found.rows[0].flaw == "3 are lost"
        assert "WRONG: 3 are lost" in paired.table(found.rows)


def _spending(one: Load) -> Load:
    async def run() -> Outcome:
        before = tree_seconds([os.getpid()])
        while tree_seconds([os.getpid()]) <= before:
            pass
        return await one.run()

    return msgspec.structs.replace(one, run=run)


class TestProcesses:
    """What the kernel says of a process counts for all below it."""

    async def test_a_tree_is_counted_whole(self) -> None:
        """Twenty megabytes and a few ticks, held by a grandchild."""
        script = "import time; held = b'x' * 20_000_000; sum(range(10**6)); print('held', flush=True); time.sleep(60)"
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", f'"{sys.executable}" -c "{script}"; :', stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"held\n"
            pids = tree([process.pid])
            assert len(pids) == 2
            assert tree_seconds([process.pid]) > 0.01
            assert peak_mib([process.pid]) >= resident_mib([process.pid]) > 20
        finally:
            for pid in tree([process.pid]):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            await process.wait()

    def test_a_process_that_is_gone_costs_nothing(self) -> None:
        assert tree_seconds([]) == tree_seconds([2**22 + 1]) == 0.0

    def test_our_own_work_is_not_foreign(self) -> None:
        before = busy_seconds()
        while busy_seconds().own - before.own < 0.05:
            pass
        after = busy_seconds()
        assert 0.0 <= after.foreign_share_since(before) <= 1.0
        ours_alone = after._replace(everybody=before.everybody + after.own - before.own)
        assert ours_alone.foreign_share_since(before) == pytest.approx(0.0, abs=1e-6)


@pytest.fixture
async def counting() -> AsyncIterator[Sink]:
    """Return a running sink."""
    async with sink() as one:
        yield one


class TestSink:
    """The sink tells a message from its copy, and every content from the next."""

    async def test_what_comes_is_counted(self, counting: Sink) -> None:
        """Over fresh and reused connections, with several recipients, and anew after each beginning."""
        content = newsletter()
        for reuse, recipients in ((True, 1), (False, 1), (True, 3)):
            await counting.begin()
            batch = Batch(content=content, messages=30, sessions=4, recipients=recipients, reuse=reuse)
            submitted = await submit_watched(batch, port=counting.port)
            arrived = await counting.report()
            assert submitted.flaw is None
            assert len(submitted.latencies_us) == 30
            assert (arrived.messages, arrived.recipients, arrived.message_ids) == (30, 30 * recipients, 1)
            assert arrived.octets == 30 * len(content)
            assert arrived.content == content
            assert arrival_flaw(arrived, batch, tracks=False) is None

    async def test_a_final_dot_is_found_wherever_it_is_cut(self, counting: Sink) -> None:
        """Two contents, one of them empty, octet by octet and all in one."""
        words = (
            b"EHLO a.example\r\n",
            *([b"MAIL FROM:<a@example.com>\r\n", b"RCPT TO:<b@example.net>\r\n", b"DATA\r\n", b"x\r\n..\r\n.\r\n"]),
            *([b"MAIL FROM:<a@example.com>\r\n", b"RCPT TO:<c@example.net>\r\n", b"DATA\r\n", b".\r\n"]),
            b"QUIT\r\n",
        )
        stream = b"".join(words)
        for cuts in ([stream], [bytes([octet]) for octet in stream]):
            await counting.begin()
            reader, writer = await asyncio.open_connection("127.0.0.1", counting.port)
            for cut in cuts:
                writer.write(cut)
                await writer.drain()
                await asyncio.sleep(0)
            replies = await reader.read()
            writer.close()
            assert len(re.findall(rb"(?m)^354 ", replies)) == len(re.findall(rb"queued as", replies)) == 2
            arrived = await counting.report()
            assert (arrived.messages, arrived.recipients, arrived.octets) == (2, 2, len(b"x\r\n..\r\n"))


class TestArrival:
    """What is lost, doubled or not rewritten is told."""

    batch = Batch(content=b"", messages=4, sessions=1, recipients=2)

    def test_all_is_well(self) -> None:
        assert arrival_flaw(_arrived(), self.batch, tracks=True) is None

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            ({"messages": 7}, "7 messages"),
            ({"messages": 9}, "9 messages"),
            ({"recipients": 7}, "7 recipients"),
            ({"message_ids": 7}, "7 different Message-IDs"),
            ({"clicks": LINKS - 1}, f"{LINKS - 1} links"),
            ({"opens": 0}, "0 pixels"),
        ],
    )
    def test_what_is_not_is_told(self, changed: dict[str, int], words: str) -> None:
        flaw = arrival_flaw(_arrived(**changed), self.batch, tracks=True)
        assert flaw is not None
        assert words in flaw

    def test_the_mail_is_as_large_as_it_is_called(self) -> None:
        content = newsletter()
        assert 19_000 < len(content) < 22_000
        assert course.tracked(content) == (0, 0)
        page = mails.newsletter(links=LINKS - mails.OUTLOOK_LINKS, octets=17_000, per_card=2)
        assert len(re.findall(rb'<(?:a|v:roundrect)[^>]* href="https://', page)) == LINKS
        large = mails.with_attachment(content, 1_000_000)
        assert abs(len(large) - 1_000_000) < 1_000

    async def test_a_relay_that_loses_mail_is_found_out(self, counting: Sink, tmp_path: Path) -> None:
        """Straight to the sink nothing is rewritten: a target that says it does is told so."""
        runs = Course(counting, None, tmp_path)  # type: ignore[arg-type]  # no target here has a ledger
        batch = Batch(content=newsletter(), messages=5, sessions=2)
        plain = await runs.run(batch, Target(port=counting.port), watched=True)
        assert (plain.units, plain.flaw) == (5, None)
        assert (await runs.run(batch, Target(port=counting.port, tracks=True), watched=True)).flaw is not None


def _arrived(
    *, messages: int = 8, recipients: int = 8, message_ids: int = 8, clicks: int = LINKS, opens: int = 1
) -> Arrived:
    page = f'<a href="{PUBLIC_URL}/track/c/token">' * clicks + f'<img src="{PUBLIC_URL}/track/o/token">' * opens
    content = f"Content-Type: text/html\r\n\r\n{page}\r\n".encode()
    last = base64.b64encode(content).decode()
    return Arrived(messages=messages, recipients=recipients, message_ids=message_ids, octets=1, last=last)


class TestPrograms:
    """Other people's programs are found, or are not."""

    async def test_a_program_says_its_version(self) -> None:
        assert programs.find("no-such-program") is None
        shell = programs.find("sh")
        assert shell is not None
        assert await programs.version(shell, "-c", "echo thing version 1.22.3") == "1.22.3"
        assert await programs.version(shell, "-c", "echo none") == "unknown"

    async def test_a_failure_is_told(self) -> None:
        shell = programs.find("sh") or ""
        assert await programs.finished([shell, "-c", "true"], seconds=10) is None
        told = await programs.finished([shell, "-c", "echo why; exit 3"], seconds=10)
        assert told is not None
        assert told.endswith("why")
        assert "did not end" in (await programs.finished([shell, "-c", "sleep 60"], seconds=0.05) or "")
