"""`./outrider explain`: any message from a file or a pipe, and a line for what is none."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sidecar.cli import main
from sidecar.explain import explanation
from sidecar.settings import InjectSettings, Settings

ROOT = Path(__file__).resolve().parents[3]
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
MAIL = (
    b"From: Shop <shop@example.com>\n"
    b"Message-ID: <own@example.com>\n"
    b"X-Id-Mail: 7\n"
    b"MIME-Version: 1.0\n"
    b"Content-Type: text/html; charset=utf-8\n"
    b"\n"
    b'<a href="https://example.com/offer">example.com/offer</a>\n'
)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("OUTRIDER_")]:
        monkeypatch.delenv(name)


def piped(content: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command with a message on standard input."""
    command = [sys.executable, "-m", "sidecar", "explain", "-", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, input=content, capture_output=True, env=environment, timeout=50, check=False)


class TestInput:
    """A message is read as a file holds it, and refused as the relay would refuse it."""

    def test_line_ends_make_no_difference(self) -> None:
        of_lf, of_crlf = (explanation(content, Settings(), now=NOW) for content in (MAIL, MAIL.replace(b"\n", b"\r\n")))
        assert of_lf == of_crlf
        assert of_lf.report.injected

    @pytest.mark.parametrize("content", [b"", b"\n", b" \r\n\r\n"])
    def test_nothing_is_no_message(self, content: bytes) -> None:
        with pytest.raises(ValueError, match="it is empty"):
            explanation(content, Settings(), now=NOW)

    @pytest.mark.parametrize("content", [b"a: b\n\nx\0", b"a: b\n\nx\ry", b"a: b\r\n\r\n\r\r\n"])
    def test_what_the_relay_refuses(self, content: bytes) -> None:
        with pytest.raises(ValueError, match="550"):
            explanation(content, Settings(), now=NOW)

    def test_a_file_of_30_megabytes(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        (tmp_path / "mail.eml").write_bytes(MAIL + b"x" * 30_000_000)
        assert main(["explain", "mail.eml"]) == 1
        assert capsys.readouterr().err.startswith("outrider: mail.eml: the relay refuses it with 552")

    def test_lines_that_grow_count_too(self) -> None:
        content = b"a: b\n\n" + b"\n" * 14_000_000
        with pytest.raises(ValueError, match="552"):
            explanation(content, Settings(), now=NOW)

    def test_a_directory(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert main(["explain", str(tmp_path)]) == 2
        assert capsys.readouterr().err == f"outrider: {tmp_path}: Is a directory\n"

    def test_an_empty_file(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        (tmp_path / "mail.eml").touch()
        assert main(["explain", "mail.eml"]) == 1
        assert capsys.readouterr().err == "outrider: mail.eml: it is empty\n"


class TestOutput:
    """One line for each thing to know, or one document."""

    def test_octets_of_no_charset_in_a_header(self) -> None:
        content = MAIL.replace(b"<own@", b"<\xff\xfe@").replace(b"charset=utf-8", b'charset="\xff"')
        done = piped(content, "--json")
        assert (done.returncode, done.stderr) == (0, b"")
        document = json.loads(done.stdout)
        assert document["message_id"] == "<\\xff\\xfe@example.com>"
        assert document["parts"][0]["reason"] == "unknown_charset"
        assert piped(content).returncode == 0

    def test_no_colours_and_no_more_than_80_columns(self) -> None:
        done = piped(MAIL)
        assert b"\x1b" not in done.stdout
        assert max(len(line) for line in done.stdout.decode().splitlines()) <= 80

    def test_the_fields_of_the_document(self) -> None:
        document = explanation(MAIL, Settings(), now=NOW).document()
        assert {"campaign", "injected", "reason", "message_id", "headers", "parts", "difference"} <= set(document)
        assert {"resigned_for", "heard", "unread", "fields_added", "fields_removed"} <= set(document)
        part = document["parts"][0]
        assert part["gmail"]["limit"] == 104_448
        assert part["gmail"]["after"] == part["size_after"] > part["size"]
        json.dumps(document)

    def test_the_label_rule_is_a_setting(self) -> None:
        settings = Settings(inject=InjectSettings(visible_urls="leave"))
        link = explanation(MAIL, settings, now=NOW).report.parts[0].links[0]
        assert (link.tracked, link.reason, link.label) == (False, "visible_url", "example.com/offer")
        assert explanation(MAIL, Settings(), now=NOW).report.parts[0].links[0].tracked
