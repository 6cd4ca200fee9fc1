"""Whatever an operator gets wrong stops the start, and is named as it was spelt.

Exit codes: 0 all well, 1 something failed, 2 a wrong setting or argument. No value that may be a secret is shown.
"""

from collections.abc import Mapping
from pathlib import Path

import asyncpg
import pytest

from ledger.processes import fingerprint
from tests.commands import Ended, command
from tests.running import short_directory

pytestmark = pytest.mark.timeout(120)

SECRET = "hunter2-and-more"
KEYS = {
    "OUTRIDER_KEYS__IDENTITY": "an identity key that is long enough to be one",
    "OUTRIDER_KEYS__SIGNING": "a signing key that is long enough to be one",
}


@pytest.mark.parametrize(
    ("said", "environment", "named"),
    [
        (["--set", "relay.upstreem=capture"], {}, "relay.upstreem: no such setting; did you mean relay.upstream?"),
        ([], {"OUTRIDER_RELAY__LISTENN": "x"}, "OUTRIDER_RELAY__LISTENN: no such setting"),
        (["--set", "relay.workers=many"], {}, "relay.workers"),
        ([], {"OUTRIDER_RELAY__MAX_BYTES": "12"}, "OUTRIDER_RELAY__MAX_BYTES"),
        (["--set", "inject.opens=perhaps"], {}, "inject.opens"),
        (["--set", "relay.on_trouble=panic"], {}, "relay.on_trouble"),
        (["--set", "relay.listen=nowhere"], {}, "relay.listen: expected host:port"),
        (["--set", "tracker.listen=127.0.0.1:99999"], {}, "tracker.listen: expected a port from 1 to 65535"),
        (["--set", "relay.listen=127.0.0.1:8080"], {}, "relay.listen and OUTRIDER_TRACKER__LISTEN"),
        (["--set", "relay.allow=10.0.0.1/8"], {}, "relay.allow: 10.0.0.1/8 has bits beyond its prefix"),
        (["--set", "relay.allow=0.0.0.0/0", "--set", "relay.listen=0.0.0.0:2525"], {}, "relay.allow"),
        (["--set", "tracker.trusted_proxies=proxy"], {}, "tracker.trusted_proxies"),
        (["--set", "relay.listen_tls=127.0.0.1:4650"], {}, "relay.listen_tls is set, so"),
        (["--set", "relay.tls_cert=/nonexistent.pem"], {}, "relay.tls_cert"),
        (
            ["--set", "tracker.page_template=/dev/null"],
            {},
            "tracker.page_template: /dev/null: its page ask (en) has no form",
        ),
        (["--set", "relay.users=/nonexistent"], {}, "relay.users: expected a readable file"),
        (["--set", "tracker.public_url=track.example.com"], {}, "tracker.public_url: expected scheme://host"),
        (["--set", "tracker.public_url=https://0.0.0.0"], {}, "tracker.public_url: nobody can be sent to"),
        (["--set", "ams.url=ftp://ams.example.com"], {}, "ams.url: expected http://"),
        ([], {"DATABASE_URL": f"mysql://u:{SECRET}@h/d"}, "DATABASE_URL: expected postgresql://"),
        ([], {"DATABASE_URL": f"postgresql://u:{SECRET}@h/d"}, "DATABASE_URL is set, so"),
        ([], {"REDIS_URL": f"http://:{SECRET}@h"}, "REDIS_URL: expected redis://"),
        (["--set", f"keys.signing={SECRET},{SECRET}"], {}, "keys.signing: the same key stands twice"),
        (["--set", "relay.repeat_window=5"], {}, "relay.repeat_window"),
        (["--set", "relay.retry_first=99", "--set", "relay.retry_max_age=9"], {}, "relay.retry_first"),
        (["--set", "relay.campaign_headers=X-Id:Mail"], {}, "relay.campaign_headers: expected header names"),
        (["--set", "relay.message_id_domain=not a domain"], {}, "relay.message_id_domain: expected a host name"),
        (["--set", "relay.upstream=http://mail.example.com"], {}, "relay.upstream: expected smtp://"),
        (["--set", "relay.upstream=smtp://mail.example.com:x"], {}, "relay.upstream: its port is not a number"),
        (["--set", f"relay.upstream=smtp://me:{SECRET}@"], {}, "relay.upstream"),
        (["--set", f"relay.upstream=smtp://:{SECRET}@h:25"], {}, "relay.upstream: a user needs a password"),
        (["--set", "relay.upstream=smtp://h:25?tls=on"], {}, "relay.upstream: unknown option 'tls'"),
        (["--set", "relay.upstream=smtp://127.0.0.1:2525"], {}, "mail would go round in circles"),
        (["--set", "console.listen"], {}, "--set: expected section.key=value"),
        (["--config", "/nonexistent.toml"], {}, "--config /nonexistent.toml: there is no such file"),
        (["--data-dir", "/proc/version"], {}, "--data-dir: expected a directory, /proc/version is none"),
    ],
)
async def test_a_wrong_setting_stops_the_start_with_its_name(
    said: list[str], environment: dict[str, str], named: str
) -> None:
    """`check-config` exits 2 with a line that names the setting, and never shows a secret."""
    upstream = [] if any("relay.upstre" in word for word in said) else ["--set", "relay.upstream=capture"]
    ended = await command("check-config", *said, *upstream, environment=environment)
    assert ended.code == 2, ended
    assert named in ended.err
    assert all(line.startswith("outrider: ") for line in ended.err.splitlines())
    assert SECRET not in ended.err + ended.out


@pytest.mark.parametrize("name", ["run", "relay", "tracker", "courier", "console", "demo", "migrate", "status"])
async def test_no_command_works_on_a_wrong_setting(name: str) -> None:
    """Every command that reads the settings reads all of them, and stops before it does anything."""
    ended = await command(name, "--set", "relay.upstream=capture", "--set", "relay.workers=many")
    assert (ended.code, ended.out) == (2, "")
    assert "relay.workers: expected an integer" in ended.err


async def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    """A file with four mistakes gives four lines, each with the file's name, and not four starts."""
    file = tmp_path / "outrider.toml"
    file.write_text('[relay]\nworkers = "two"\nupstream = 25\nspeed = 1\n[tracker]\nlisten = "x"\n', encoding="utf-8")
    ended = await command("check-config", "--config", str(file))
    assert ended.code == 2
    lines = ended.err.splitlines()
    assert len(lines) == 4
    for name in ("relay.workers", "relay.upstream", "relay.speed", "tracker.listen"):
        assert [line for line in lines if name in line and str(file) in line], name
    file.write_text("[relay\n", encoding="utf-8")
    ended = await command("check-config", "--config", str(file))
    assert (ended.code, "not TOML" in ended.err) == (2, True)


@pytest.mark.parametrize("role", ["run", "relay"])
async def test_without_an_upstream_it_exits_2_and_says_how_to_name_one(role: str, tmp_path: Path) -> None:
    """No mail is taken that could go nowhere, and nothing is made on the disk."""
    ended = await command(role, "--data-dir", str(tmp_path / "data"))
    assert ended.code == 2
    assert "OUTRIDER_RELAY__UPSTREAM" in ended.err
    assert "smtp://user:password@mail.example.com:587" in ended.err
    assert not (tmp_path / "data").exists()


async def test_an_unknown_command_or_argument_exits_2() -> None:
    """What was mistyped is named, and the help is at hand."""
    ended = await command("rum")
    assert (ended.code, "rum" in ended.err) == (2, True)
    ended = await command("status", "--jason")
    assert (ended.code, "--jason" in ended.err) == (2, True)
    ended = await command("explain", "/nonexistent.eml")
    assert (ended.code, "/nonexistent.eml" in ended.err) == (2, True)


async def test_a_data_directory_that_cannot_be_made_is_named() -> None:
    """Not even root can write there; the setting and the place are named."""
    ended = await command("run", "--data-dir", "/proc/outrider/data", "--set", "relay.upstream=capture")
    assert ended.code in {1, 2}
    assert "/proc" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("name", ["migrate", "run", "relay"])
async def test_an_edited_migration_is_named(database_url: str, redis_url: str, name: str) -> None:
    """A file of migrations/ that is not what was applied stops the start; nothing is applied over it."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("UPDATE migration SET checksum = 'another' WHERE number = 1")
        ended = await _on_own_servers(name, database_url, redis_url, KEYS)
        assert ended.code == 1, ended.err
        assert "migrations/0001_ledger.sql was edited after it was applied" in ended.err
        assert "Traceback" not in ended.err
        assert await connection.fetchval("SELECT checksum FROM migration WHERE number = 1") == "another"
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("setting", "role"),
    [
        *(("OUTRIDER_KEYS__IDENTITY", role) for role in ("run", "relay", "courier", "console")),
        *(("OUTRIDER_KEYS__SIGNING", role) for role in ("run", "relay")),
    ],
)
async def test_a_foreign_key_is_named(database_url: str, redis_url: str, setting: str, role: str) -> None:
    """A process whose key this ledger was not written with refuses to start, as with any other wrong setting."""
    await _remember_keys(database_url)
    foreign = "another key, of another Outrider, long enough"
    ended = await _on_own_servers(role, database_url, redis_url, KEYS | {setting: foreign})
    assert setting in ended.err
    assert "Traceback" not in ended.err
    assert foreign not in ended.err + ended.out
    assert ended.code == 2, "a wrong setting exits 2"


async def test_with_servers_of_ones_own_the_embedded_ones_ask_for_nothing(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A data directory that is its owner's alone will do, also for root: no other account has to enter it."""
    await _remember_keys(database_url)
    wrong = KEYS | {"OUTRIDER_KEYS__IDENTITY": "another key, of another Outrider, long enough"}
    ended = await _on_own_servers("run", database_url, redis_url, wrong, data_dir=tmp_path / "data")
    # That the key is wrong is found in the ledger: so far it came.
    assert "OUTRIDER_KEYS__IDENTITY is not the key" in ended.err


async def _on_own_servers(
    name: str, database_url: str, redis_url: str, keys: Mapping[str, str], *, data_dir: Path | None = None
) -> Ended:
    with short_directory() as directory:
        words = ["--set", "relay.upstream=capture", "--data-dir", str(data_dir or directory)]
        return await command(name, *words, environment={"DATABASE_URL": database_url, "REDIS_URL": redis_url, **keys})


async def _remember_keys(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        for purpose in ("identity", "signing"):
            known = fingerprint(KEYS[f"OUTRIDER_KEYS__{purpose.upper()}"].encode())
            await connection.execute("INSERT INTO keyring (purpose, fingerprint) VALUES ($1, $2)", purpose, known)
    finally:
        await connection.close()
