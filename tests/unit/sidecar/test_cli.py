"""The command line, as an operator meets it: exit codes, messages, and nothing that should not be shown."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from relay.passwords import parse, verify
from sidecar.cli import main
from sidecar.cli_commands import COMMAND_BODIES
from sidecar.cli_parser import COMMANDS, moment, parser

ROOT = Path(__file__).parents[3]

MAIL = b"""\
From: shop@example.com
To: ann@example.net
X-Id-Mail: [123]
Message-ID: <first@example.com>
Content-Type: text/html; charset=utf-8

<html><body><a href="https://example.com/offer">Offer</a></body></html>
"""


@pytest.fixture(autouse=True)
def _nobodys_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, logging_put_back: None) -> None:  # noqa: ARG001 - asked for what it does afterwards
    """Run every command without this machine's settings, in an empty directory."""
    for name in list(os.environ):
        if name.startswith("OUTRIDER_") or name in {"DATABASE_URL", "REDIS_URL"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("OUTRIDER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, text: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command as the launcher does."""
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        input=text,
        capture_output=True,
        check=False,
        timeout=50,
    )


class TestUsage:
    """What is typed wrongly ends with 2 and says what is right."""

    @pytest.mark.parametrize(
        "arguments", [(), ("nonsense",), ("run", "--nonsense"), ("explain",), ("status", "a", "b")]
    )
    def test_a_wrong_argument(self, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 2
        assert "usage: outrider" in capsys.readouterr().err

    @pytest.mark.parametrize("arguments", [("--help",), ("test", "--help"), *((c.name, "-h") for c in COMMANDS)])
    def test_help(self, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 0
        assert capsys.readouterr().out.startswith("usage: outrider")

    def test_every_command_has_a_body(self) -> None:
        """Of all commands, `test` alone is run before the arguments are read: they are pytest's."""
        assert {command.name for command in COMMANDS} - {"test"} == set(COMMAND_BODIES)

    def test_a_shortened_option_is_not_guessed(self) -> None:
        with pytest.raises(SystemExit) as left:
            main(["demo", "--ex"])
        assert left.value.code == 2

    @pytest.mark.parametrize("limit", ["0", "1001", "-1", "many", "\u0663"])
    def test_a_limit_out_of_bounds(self, limit: str) -> None:
        with pytest.raises(SystemExit) as left:
            main(["messages", "--limit", limit])
        assert left.value.code == 2

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
            ("2026-11-20T08:00:00Z", datetime(2026, 11, 20, 8, tzinfo=UTC)),
            ("2026-11-20T08:00:00+02:00", datetime(2026, 11, 20, 8, tzinfo=timezone(timedelta(hours=2)))),
        ],
    )
    def test_a_time(self, text: str, expected: datetime) -> None:
        assert moment(text) == expected

    def test_a_time_that_is_none(self) -> None:
        with pytest.raises(SystemExit) as left:
            main(["replay", "--since", "yesterday"])
        assert left.value.code == 2

    def test_a_listing_is_told_what_was_asked(self) -> None:
        given = parser().parse_args(["messages", "--campaign", "7", "--status", "queued", "--limit", "5", "--json"])
        assert (given.campaign, given.status, given.limit, given.json, given.cursor) == ("7", "queued", 5, True, None)


class TestSettings:
    """check-config, describe-config, and starts that are refused."""

    def test_run_without_an_upstream(self) -> None:
        done = run("run")
        assert done.returncode == 2
        assert done.stderr.startswith(b"outrider: OUTRIDER_RELAY__UPSTREAM: no upstream is set")
        assert b"smtp://" in done.stderr
        assert b"Traceback" not in done.stderr

    def test_every_problem_on_a_line_of_its_own(self) -> None:
        done = run("check-config", "--set", "relay.nonsense=1", OUTRIDER_RELAY__WORKERS="x", OUTRIDER_NO="1")
        assert done.returncode == 2
        assert done.stdout == b""
        assert done.stderr.decode().splitlines() == [
            "outrider: OUTRIDER_NO: no such setting",
            "outrider: OUTRIDER_RELAY__WORKERS: expected an integer of at least 0",
            "outrider: --set relay.nonsense: no such setting",
        ]

    def test_check_config_shows_where_a_value_is_from(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OUTRIDER_RELAY__UPSTREAM", "smtp://ann:hunter2@mail.example.com:587?starttls=required")
        monkeypatch.setenv("OUTRIDER_RELAY__ROUTES", "from:example.com=smtp://ann:hunter7@one smtps://ann:hunter8@two")
        monkeypatch.setenv("OUTRIDER_KEYS__SIGNING", "hunter3,hunter4")
        monkeypatch.setenv("OUTRIDER_AMS__API_KEY", "hunter5")
        assert main(["check-config", "--set", "console.token=hunter6"]) == 0
        shown = capsys.readouterr().out
        assert 'upstream = ["smtp://[credentials]@mail.example.com:587?starttls=required"]  # OUTRIDER_REL' in shown
        assert 'routes = ["from:example.com=smtp://[credentials]@one smtps://[credentials]@two"]' in shown
        assert 'signing = ["[secret]", "[secret]"]  # OUTRIDER_KEYS__SIGNING' in shown
        assert 'token = "[secret]"  # --set console.token' in shown
        assert 'listen = "127.0.0.1:2525"\n' in shown
        assert "OUTRIDER_KEYS__SIGNING: a key has fewer than 32 characters" in shown
        assert "hunter" not in shown

    def test_what_check_config_shows_is_toml(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert main(["check-config", "--set", "relay.max_bytes=5000", "--set", 'ams.unsubscribe_action=a"\\{|;']) == 0
        (tmp_path / "again.toml").write_text(capsys.readouterr().out)
        assert main(["check-config", "--config", "again.toml"]) == 0
        shown = capsys.readouterr().out
        assert "max_bytes = 5000  # relay.max_bytes in again.toml" in shown
        assert r'unsubscribe_action = "a\"\\{|;"' in shown

    def test_check_config_names_a_missing_upstream(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["check-config"]) == 0
        assert "OUTRIDER_RELAY__UPSTREAM is not set" in capsys.readouterr().out

    def test_options_stand_before_or_after_the_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--set", "relay.workers=3", "--data-dir", "here", "check-config", "--set", "ams.interval=5"]) == 0
        shown = capsys.readouterr().out
        assert "workers = 3" in shown
        assert "interval = 5" in shown
        assert f'data_dir = "{Path.cwd() / "here"}"' in shown

    def test_an_option_twice(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--data-dir", "a", "check-config", "--data-dir", "b"]) == 2
        assert capsys.readouterr().err == "outrider: --data-dir: given twice, with different values\n"

    def test_describe_config_is_the_page(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["describe-config"]) == 0
        assert capsys.readouterr().out == (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")

    @pytest.mark.parametrize("role", ["relay", "tracker", "courier", "console"])
    def test_a_role_alone_shares_servers(self, capsys: pytest.CaptureFixture[str], role: str) -> None:
        assert main([role, "--set", "relay.upstream=capture"]) == 2
        assert capsys.readouterr().err.startswith("outrider: DATABASE_URL and REDIS_URL: expected both")


class TestLedger:
    """Commands that look into the ledger."""

    def test_migrate(self, capsys: pytest.CaptureFixture[str], database_url: str) -> None:
        arguments = ["migrate", "--set", f"database_url={database_url}", "--set", "keys.signing=a"]
        assert main([*arguments, "--set", "keys.identity=b"]) == 0
        assert capsys.readouterr().out == "nothing to apply\n"

    @pytest.mark.parametrize(
        "command", ["migrate", "status", "messages", "export", "sync-counts", "unmatched", "replay"]
    )
    def test_where_nothing_has_run(self, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str) -> None:
        assert main([command]) == 1
        captured = capsys.readouterr()
        assert captured.err.startswith(f"outrider: no ledger: nothing has run on {tmp_path / 'data'} yet")
        assert not (tmp_path / "data").exists()

    def test_a_listing(self, capsys: pytest.CaptureFixture[str], database_url: str) -> None:
        given = [f"database_url={database_url}", "keys.signing=a", "keys.identity=b"]
        assert main(["messages", "--json", *(word for one in given for word in ("--set", one))]) == 0
        assert json.loads(capsys.readouterr().out) == {"messages": [], "next": None}

    def test_a_database_that_is_away(self) -> None:
        url = "postgresql://ann:hunter2@127.0.0.1:1/x"
        done = run("migrate", DATABASE_URL=url, OUTRIDER_KEYS__SIGNING="a", OUTRIDER_KEYS__IDENTITY="b")
        assert (done.returncode, done.stderr) == (1, b"outrider: PostgreSQL did not do it: ConnectionRefusedError\n")


class TestExplain:
    """A dry run over a file."""

    def test_for_a_person(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        (tmp_path / "mail.eml").write_bytes(MAIL)
        assert main(["explain", "mail.eml"]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("Campaign: 123 (AMS mailing 123)\n")
        assert "tracked: https://example.com/offer" in shown
        assert "X-Original-Message-ID" in shown

    def test_for_a_machine(self) -> None:
        done = run("explain", "--json", "-", text=MAIL.replace(b"\n", b"\r\n"))
        assert done.returncode == 0
        document = json.loads(done.stdout)
        assert document["campaign"] == {"id": "123", "reason": None, "ams_mailing": 123, "to_send": None}
        assert [link["tracked"] for link in document["parts"][0]["links"]] == [True]

    def test_settings_count(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        (tmp_path / "mail.eml").write_bytes(MAIL)
        skip = ["--set", "inject.skip=*example.com*", "--set", "relay.campaign_headers=X-Other"]
        assert main(["explain", "mail.eml", "--json", *skip]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["campaign"]["reason"] == "no_header"
        assert [link["tracked"] for link in document["parts"][0]["links"]] == [False]

    @pytest.mark.parametrize(("content", "code"), [(b"a: b\n\nx\0y", "550"), (b"a: b\n\nx\ry", "550")])
    def test_what_the_relay_would_refuse(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes, code: str
    ) -> None:
        (tmp_path / "mail.eml").write_bytes(content)
        assert main(["explain", "mail.eml"]) == 1
        assert code in capsys.readouterr().err

    def test_too_large(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        (tmp_path / "mail.eml").write_bytes(b"a: b\n\n" + b"x" * 1024)
        assert main(["explain", "mail.eml", "--set", "relay.max_bytes=1024"]) == 1
        assert "552" in capsys.readouterr().err

    def test_a_file_that_is_missing(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["explain", "none.eml"]) == 2
        assert capsys.readouterr().err == "outrider: none.eml: No such file or directory\n"


class TestPasswd:
    """The users file."""

    def test_a_user_is_added_and_changed(self, tmp_path: Path) -> None:
        path = tmp_path / "users"
        for user, password in (("ann", b"first\n"), ("bob", b"b\n"), ("ann", b"second pass word\n")):
            done = run("passwd", str(path), user, text=password)
            assert (done.returncode, done.stderr) == (0, b"")
        users = parse(path.read_text())
        assert list(users) == ["ann", "bob"]
        assert verify(users, "ann", b"second pass word")
        assert not verify(users, "ann", b"first")
        assert path.stat().st_mode & 0o777 == 0o600
        assert list(tmp_path.iterdir()) == [path]

    def test_the_files_mode_is_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "users"
        path.write_text("# mine\n")
        path.chmod(0o640)
        assert run("passwd", str(path), "ann", text=b"x\n").returncode == 0
        assert path.stat().st_mode & 0o777 == 0o640
        assert path.read_text().startswith("# mine\nann:$scrypt$")

    @pytest.mark.parametrize(("user", "text", "code"), [("an:n", b"x\n", 2), ("ann", b"\n", 1), ("ann", b"", 1)])
    def test_what_cannot_be(self, tmp_path: Path, user: str, text: bytes, code: int) -> None:
        done = run("passwd", "users", user, text=text)
        assert done.returncode == code
        assert done.stderr.startswith(b"outrider: ")
        assert list(tmp_path.iterdir()) == []

    def test_a_file_that_is_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "users").write_text("ann:hunter2\n")
        done = run("passwd", "users", "bob", text=b"x\n")
        assert done.returncode == 2
        assert b"hunter2" not in done.stderr
        assert (tmp_path / "users").read_text() == "ann:hunter2\n"


class TestManners:
    """What a terminal expects of any command."""

    def test_ctrl_c_shows_no_traceback(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "mail")
        command = subprocess.Popen(
            [sys.executable, "-m", "sidecar", "explain", "mail"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
        )
        # Opening succeeds once the command is reading.
        with command, (tmp_path / "mail").open("wb"):
            command.send_signal(signal.SIGINT)
            _, said = command.communicate(timeout=30)
        assert (command.returncode, said) == (130, b"")

    def test_a_reader_that_has_seen_enough(self) -> None:
        with subprocess.Popen(
            [sys.executable, "-m", "sidecar", "describe-config"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as command:
            assert command.stdout is not None
            assert command.stderr is not None
            command.stdout.close()
            said = command.stderr.read()
        assert (command.returncode, said) == (1, b"")

    def test_help_loads_no_servers_and_no_drivers(self) -> None:
        """The first answer comes fast: none of the heavy libraries is loaded for it."""
        code = (
            "import sys; from sidecar.cli import main\n"
            "try: main(['--help'])\n"
            "except SystemExit: pass\n"
            "heavy = {'asyncio', 'asyncpg', 'aiohttp', 'aiosmtpd', 'aiosmtplib', 'redis', 'structlog', 'bs4'}\n"
            "print(sorted(heavy & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
        )
        assert done.stdout.splitlines()[-1] == "[]"
