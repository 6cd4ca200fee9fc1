"""`outrider forget`, as typed: what it refuses, what it waits for, and what it says is left to do."""

import argparse
import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from ledger.ids import recipient_index
from ledger.processes import check_keys, register
from ledger.store import open_ledger
from ledger.traces import Traces
from sidecar import forget_cli
from sidecar.capture_files import forget_captured
from sidecar.settings import KeysSettings, Settings
from tests.commands import command
from tests.rows import Pool, Rows

SIGNING = "a signing key made up for tests, long enough"
IDENTITY = "an identity key made up for tests, long enough"


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Name the ledger and the keys, and no Redis."""
    return Settings(
        data_dir=tmp_path,
        database_url=database_url,
        redis_url="redis://127.0.0.1:1/0",
        keys=KeysSettings(signing=(SIGNING,), identity=IDENTITY),
    )


@pytest.fixture
def environment(settings: Settings) -> Mapping[str, str]:
    """Say the same to a command."""
    return {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "OUTRIDER_DATA_DIR": str(settings.data_dir),
        "OUTRIDER_KEYS__SIGNING": SIGNING,
        "OUTRIDER_KEYS__IDENTITY": IDENTITY,
    }


async def ann(pool: Pool, *statuses: str) -> list[int]:
    """Insert messages to Ann, found by the key of these tests."""
    rows = Rows(pool)
    found = [(await rows.message("ann@example.net", status=status)).id for status in statuses]
    await pool.execute("UPDATE message SET recipient_index = $1", recipient_index(IDENTITY.encode(), "ann@example.net"))
    return found


async def test_what_is_no_address(environment: Mapping[str, str]) -> None:
    """Nothing is guessed: whoever types a name is told so."""
    for text in ("ann", "<ann@example.net>", "ann@example.net ", "@example.net"):
        ended = await command("forget", text, environment=environment)
        assert (ended.code, ended.out) == (2, "")
        assert "is no address" in ended.err


async def test_another_identity_key_is_refused(settings: Settings, environment: Mapping[str, str], pool: Pool) -> None:
    """It would find nothing, and say so."""
    async with open_ledger(settings.database_url) as ledger:
        await check_keys(ledger, identity=IDENTITY.encode(), signing=[SIGNING.encode()])
    await ann(pool, "sent")
    other = {**environment, "OUTRIDER_KEYS__IDENTITY": "another identity key, made up as well"}
    ended = await command("forget", "ann@example.net", environment=other)
    assert (ended.code, ended.out) == (2, "")
    assert "OUTRIDER_KEYS__IDENTITY" in ended.err
    assert (await command("forget", "ann@example.net", environment=environment)).code == 0


async def test_a_receipt_for_people(environment: Mapping[str, str], pool: Pool) -> None:
    """What there was, how to undo what follows from it, and that Redis could not be asked."""
    await ann(pool, "sent", "queued")
    ended = await command("forget", "Ann@Example.NET", environment=environment)
    assert (ended.code, ended.err) == (0, "")
    first, *lines = ended.out.splitlines()
    assert first.startswith("erased at 2")
    assert [line.strip() for line in lines[:2]] == ["2  messages to it", "1  of them cancelled, because they waited"]
    assert "outrider suppress remove" in lines[-2]
    assert lines[-1].startswith("hits that are not recorded yet")


async def test_what_is_being_sent_is_waited_for(
    settings: Settings, pool: Pool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As long as it takes, within bounds; then it is told, and the command fails."""
    monkeypatch.setattr(forget_cli, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(forget_cli, "PATIENCE", 0.2)
    given = argparse.Namespace(address="ann@example.net", json=True)
    (sending,) = await ann(pool, "sending")
    async with open_ledger(settings.database_url) as ledger:
        alive = await register(ledger, "relay")
    await pool.execute("UPDATE delivery SET worker = $1", alive)
    assert await forget_cli.forget(settings, given) == 1
    receipt = json.loads(capsys.readouterr().out)
    assert (receipt["messages"], receipt["in_flight"], receipt["hits"]) == (0, 1, "unknown")
    monkeypatch.setattr(forget_cli, "PATIENCE", 30)
    erasing = asyncio.create_task(forget_cli.forget(settings, given))
    done, _ = await asyncio.wait([erasing], timeout=0.3)
    assert not done
    await pool.execute("UPDATE delivery SET status = 'sent', worker = NULL WHERE message = $1", sending)
    assert await erasing == 0
    assert json.loads(capsys.readouterr().out)["messages"] == 1


def test_captured_mail(tmp_path: Path) -> None:
    """By its key, by what it says, by its envelope, half written; another's stays."""
    for name, content in {
        "hers.eml": "To: everybody@example.net",
        "hers.json": '{"recipient":"x"}',
        "cc.eml": "Cc: Ann <ANN@example.net>",
        "cc.json": "{}",
        "left.eml": "To: everybody@example.net",
        "left.json": '{"recipient":"ann@example.net"}',
        ".torn.eml.7": "To: ann@example.net",
        "joann.eml": "To: joann@example.net",
        "joann.json": "{}",
    }.items():
        (tmp_path / name).write_text(content)
    assert forget_captured(tmp_path, {"hers", "gone"}, Traces("ann@example.net")) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["joann.eml", "joann.json"]
    assert forget_captured(tmp_path / "nowhere", {"hers"}, Traces("ann@example.net")) == 0
