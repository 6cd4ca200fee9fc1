"""The demo shows what it says on any machine: whatever is set there, whoever has the ports, and it never lies."""

import asyncio
import io
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import aiohttp
import pytest

from relay.settings import RelaySettings
from sidecar.demo.acts import Stage
from sidecar.demo.recipients import Browser
from sidecar.demo.scene import INTERRUPTED, _acts
from sidecar.demo.story import Story
from sidecar.settings import Settings
from sidecar.standin_ams import StandinAms
from sidecar.wiring.ports import claimed
from tests.commands import command
from tests.conftest import Eventually
from tests.running import ENVIRONMENT, descendants, is_running, short_directory

pytestmark = pytest.mark.timeout(180)

# What an operator may have set, each of which would be seen in the story.
OPERATOR = {
    "OUTRIDER_INJECT__CLICKS": "false",
    "OUTRIDER_INJECT__OPENS": "false",
    "OUTRIDER_INJECT__UNSUBSCRIBE": "false",
    "OUTRIDER_INJECT__SKIP": "*",
    "OUTRIDER_RELAY__ALLOW": "192.0.2.0/24",
    "OUTRIDER_RELAY__MAX_RECIPIENTS": "1",
    "OUTRIDER_RELAY__UPSTREAM": "smtp://192.0.2.1:25",
    "OUTRIDER_AMS__HEADERS": "strip",
    "OUTRIDER_KEYS__IDENTITY": "an operator's identity key, which is no demo's",
    "OUTRIDER_KEYS__SIGNING": "an operator's signing key, which is no demo's",
    "OUTRIDER_CONSOLE__TOKEN": "a-token-of-an-operator",
}
DOORS = ("relay.listen", "tracker.listen", "console.listen")


def listens(free_port: Callable[[], int]) -> dict[str, str]:
    """Return an address for each door."""
    return {name: f"127.0.0.1:{free_port()}" for name in DOORS}


def words(addresses: dict[str, str]) -> list[str]:
    """Return the options that name the doors' addresses."""
    return [word for name, value in addresses.items() for word in ("--set", f"{name}={value}")]


async def test_every_step_holds_beside_an_operator_s_settings_and_fleet(free_port: Callable[[], int]) -> None:
    """Neither what is set for the real thing nor a port that somebody keeps is in its way."""
    addresses = listens(free_port)
    # As a fleet keeps it while its relay is being started again.
    kept = {"relay.listen": addresses["relay.listen"]}
    with short_directory() as data_dir:
        async with claimed(kept):
            ended = await command(
                "demo", "--exit", "--data-dir", str(data_dir), *words(addresses), environment=OPERATOR
            )
    assert ended.code == 0, ended.out + ended.err
    assert "FAIL" not in ended.out
    assert "Stopped; nothing of it runs any more." in ended.out
    assert f"SMTP to {addresses['relay.listen']}" not in ended.out
    assert f"tracked URLs    http://{addresses['tracker.listen']}" in ended.out
    assert "a-token-of-an-operator" not in ended.out


@pytest.mark.parametrize("option", [["--exit"], []], ids=["--exit", "staying"])
@pytest.mark.parametrize("moment", [None, "A mailer submits"], ids=["starting", "playing"])
async def test_an_interrupted_demo_showed_nothing(
    free_port: Callable[[], int], eventually: Eventually, moment: str | None, option: list[str]
) -> None:
    """Its exit code is no success, and nothing of it stays behind."""
    with short_directory() as data_dir:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sidecar",
            "demo",
            *option,
            "--data-dir",
            str(data_dir),
            *words(listens(free_port)),
            env=ENVIRONMENT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        if moment is None:
            await eventually(lambda: descendants(process.pid), timeout=30)
        else:
            while moment.encode() not in (line := await process.stdout.readline()):
                assert line
        below = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
        assert process.returncode == INTERRUPTED, out + err
        assert b"Traceback" not in err
        await eventually(lambda: not any(map(is_running, below)))


async def test_a_demo_that_was_played_may_be_stopped(free_port: Callable[[], int]) -> None:
    """Ctrl-C is how the one that stays up ends well."""
    with short_directory() as data_dir:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sidecar", "demo", "--data-dir", str(data_dir), *words(listens(free_port))),
            env=ENVIRONMENT,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        while b"It stays up until Ctrl-C" not in (line := await process.stdout.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        out, _ = await process.communicate()
        assert process.returncode == 0
        assert out.decode().splitlines()[-1] == "Stopped; nothing of it runs any more."


async def test_an_act_that_raises_is_a_step_that_failed(free_port: Callable[[], int]) -> None:
    """Nobody listens: the story says so in its own words and goes to its end."""
    out = io.StringIO()
    story = Story(out)
    relay = RelaySettings(listen=f"127.0.0.1:{free_port()}")
    async with StandinAms(api_key="a key") as ams, aiohttp.ClientSession() as session:
        stage = Stage(
            settings=Settings(relay=relay),
            ams=ams,
            browser=Browser(session),
            session=session,
            token="a token",
            mailing=1,
            now=datetime.now(UTC),
        )
        await _acts(stage, story)
    assert story.failures == 1
    assert out.getvalue().splitlines()[-1] == "FAIL the act could not go on: ConnectionRefusedError"
