"""The compose file, the image and the example of settings: what they start exists, and they hold no secret.

No container engine is needed: the file is held against the compose specification, and the settings and probes in it
against the code that will read and answer them.
"""

import asyncio
import re
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from ruamel.yaml import YAML

from injector.tokens import Keyring
from ledger.events import Hit
from sidecar.addresses import parse_listen
from sidecar.catalogue import by_environment
from sidecar.cli_parser import COMMANDS
from sidecar.health import health_routes, serving_health
from sidecar.loading import load
from sidecar.readiness import Readiness
from sidecar.settings import Settings
from sidecar.wiring.process import ROLES
from tracker.app import make_app
from tracker.health import Health
from tracker.settings import TrackerSettings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = YAML(typ="safe").load(ROOT / "docker-compose.yml")
SERVICES: dict[str, Any] = COMPOSE["services"]

#: What the image holds, and nothing else of the checkout.
SHIPPED = {"relay", "tracker", "courier", "injector", "providers", "ledger", "sidecar", "migrations"}

_SUBSTITUTED = re.compile(r"\$\{(\w+)(?::\?[^}]*)?\}")
_PROBED = re.compile(r'open\("([^"]+)"')
#: A run of so many letters and digits, some of each, is a key or a password, or looks like one.
_SECRET = re.compile(r"(?=[A-Za-z_-]*\d)(?=[\d_-]*[A-Za-z])[A-Za-z0-9_-]{20,}")

roles = pytest.mark.parametrize("role", ROLES)


def example() -> dict[str, str]:
    """Return the names and values of env.example."""
    lines = (ROOT / "env.example").read_text(encoding="utf-8").splitlines()
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name: value for name, _, value in pairs}


def filled() -> dict[str, str]:
    """Return env.example as somebody has filled it in."""
    made = ("POSTGRES_PASSWORD", "OUTRIDER_KEYS__SIGNING", "OUTRIDER_KEYS__IDENTITY")
    return example() | {name: secrets.token_hex(32) for name in made}


def settings_of(role: str, data_dir: Path) -> Settings:
    """Return the settings that *role*'s container starts with."""
    given = filled()
    own = {
        name: _SUBSTITUTED.sub(lambda match: given[match[1]], str(value))
        for name, value in SERVICES[role]["environment"].items()
    }
    environment = {**given, **own, "OUTRIDER_DATA_DIR": str(data_dir)}
    return load(environment=environment, directory=data_dir, launcher=data_dir).for_role(role)


def probe(role: str) -> tuple[str, str]:
    """Return the Python text of *role*'s health check, and the URL in it."""
    kind, program, option, text = SERVICES[role]["healthcheck"]["test"]
    assert (kind, program, option) == ("CMD", "python", "-c")
    found = _PROBED.search(text)
    assert found is not None
    return text, found[1]


def ports_of(role: str, data_dir: Path) -> set[int]:
    """Return the ports on which *role*'s container answers for its health."""
    settings = settings_of(role, data_dir)
    listens = {
        "relay": (settings.relay.admin_listen,),
        "tracker": (settings.tracker.listen, settings.tracker.admin_listen),
        "courier": (settings.courier.admin_listen,),
        "console": (settings.console.listen,),
    }
    return {parse_listen(listen).port for listen in listens[role]}


class NoBuffer:
    """A buffer that is never asked."""

    async def append(self, hit: Hit) -> None:
        """Refuse: a health check keeps no hit."""
        raise AssertionError(hit)


def tracker_paths() -> set[str]:
    """Return the fixed paths that the tracker serves."""
    app = make_app(
        keyring=Keyring([b"key"]),
        buffer=NoBuffer(),
        settings=TrackerSettings(),
        public_url="http://127.0.0.1:8080",
        health=lambda: Health(ready=True),
    )
    return {resource.canonical for resource in app.router.resources() if isinstance(resource, web.PlainResource)}


class TestCompose:
    """`docker compose up` starts what there is."""

    def test_it_keeps_the_compose_specification(self) -> None:
        checker = Path(sys.executable).with_name("check-jsonschema")
        command = [str(checker), "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=50)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_every_role_has_a_container_and_nothing_else_has(self) -> None:
        assert SERVICES.keys() == {*ROLES, "postgres", "valkey"}
        assert {SERVICES[role]["image"] for role in ROLES} == {"outrider:0.1.0"}

    @roles
    def test_a_container_runs_its_role(self, role: str) -> None:
        assert SERVICES[role]["command"] == [role]
        assert role in {command.name for command in COMMANDS}

    @roles
    def test_a_role_starts_with_its_settings(self, role: str, tmp_path: Path) -> None:
        settings = settings_of(role, tmp_path)
        assert urlsplit(settings.database_url).hostname == "postgres"
        assert urlsplit(settings.redis_url).hostname == "valkey"
        assert SERVICES[role]["env_file"] == ".env"

    @roles
    def test_a_role_keeps_its_data_in_the_volume(self, role: str) -> None:
        (volume,) = SERVICES[role]["volumes"]
        assert volume == f"outrider:{SERVICES[role]['environment']['OUTRIDER_DATA_DIR']}"
        assert COMPOSE["volumes"].keys() == {"outrider", "postgres", "valkey"}

    @roles
    def test_a_health_check_asks_where_the_role_answers(self, role: str, tmp_path: Path) -> None:
        _, url = probe(role)
        asked = urlsplit(url)
        assert asked.hostname == "127.0.0.1"
        assert asked.port in ports_of(role, tmp_path)
        paths = {route.path for route in health_routes(Readiness())}
        assert asked.path in (tracker_paths() if asked.port == 8080 else paths)

    @roles
    async def test_a_health_check_is_a_program_that_tells_ready_from_not(
        self, role: str, tmp_path: Path, free_port: Any
    ) -> None:
        text, url = probe(role)
        listen = parse_listen(f"127.0.0.1:{free_port()}")
        here = text.replace(urlsplit(url).netloc, str(listen))
        readiness = Readiness("postgresql")

        async def code() -> int:
            # A proxy in the container's environment must not be asked about its own loopback.
            environment = {"http_proxy": "http://127.0.0.1:9", "HOME": str(tmp_path)}
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", here, env=environment, stderr=asyncio.subprocess.DEVNULL
            )
            return await process.wait()

        assert await code() != 0, "nobody listens"
        async with serving_health(listen, readiness):
            assert await code() != 0, "not ready"
            readiness.have("postgresql")
            assert await code() == 0

    @roles
    def test_published_ports_are_loopbacks_and_are_served(self, role: str, tmp_path: Path) -> None:
        settings = settings_of(role, tmp_path)
        served = {
            "relay": settings.relay.listen,
            "tracker": settings.tracker.listen,
            "console": settings.console.listen,
        }
        for port in SERVICES[role].get("ports", []):
            address, _, inside = port.rpartition(":")
            assert address.startswith("127.0.0.1:")
            assert int(inside) == parse_listen(served[role]).port

    def test_stores_are_not_published(self) -> None:
        assert not [name for name in ("postgres", "valkey") if "ports" in SERVICES[name]]

    def test_nobody_but_this_machine_and_this_network_may_submit(self, tmp_path: Path) -> None:
        (network,) = COMPOSE["networks"]["outrider"]["ipam"]["config"]
        assert settings_of("relay", tmp_path).relay.allow == ("127.0.0.0/8", "::1", network["subnet"])

    def test_valkey_is_what_the_tracker_trusts(self) -> None:
        command = SERVICES["valkey"]["command"]
        given = dict(zip(command[1::2], command[2::2], strict=True))
        assert given == {"--appendonly": "yes", "--appendfsync": "always", "--maxmemory-policy": "noeviction"}

    def test_postgresql_is_of_a_named_major_version(self) -> None:
        assert re.fullmatch(r"postgres:(1[5-9]|[2-9]\d)", SERVICES["postgres"]["image"])

    @pytest.mark.parametrize("name", SERVICES)
    def test_a_container_comes_back_and_is_watched(self, name: str) -> None:
        service = SERVICES[name]
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"]
        for other, condition in service.get("depends_on", {}).items():
            assert other in SERVICES
            assert condition["condition"] in {"service_healthy", "service_started"}


class TestSecrets:
    """Nothing that is published can open anything."""

    @pytest.mark.parametrize("name", ["docker-compose.yml", "env.example", "Dockerfile"])
    def test_nothing_looks_like_a_key(self, name: str) -> None:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert _SECRET.findall(text) == []
        assert _SECRET.findall(f"{text}\nKEY={secrets.token_urlsafe(32)}0a") != []

    def test_the_example_leaves_every_secret_empty(self) -> None:
        known = by_environment()
        given = example()
        assert {name for name in given if name not in known} == {"POSTGRES_PASSWORD"}
        hidden = {name for name in given if name not in known or known[name].is_secret}
        assert hidden >= {"POSTGRES_PASSWORD", "OUTRIDER_KEYS__SIGNING", "OUTRIDER_KEYS__IDENTITY"}
        assert {given[name] for name in hidden} == {""}

    def test_no_service_has_a_secret_of_its_own(self) -> None:
        known = by_environment()
        for service in SERVICES.values():
            for name, value in service.get("environment", {}).items():
                assert name not in known or not known[name].is_secret
                if "PASSWORD" in name:
                    assert _SUBSTITUTED.fullmatch(value)

    def test_the_filled_in_file_is_not_committed(self) -> None:
        assert ".env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


class TestImage:
    """The image holds the packages, the locked wheels, and nobody's rights."""

    def lines(self) -> list[str]:
        text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
        return [line for line in text.splitlines() if line and not line.startswith("#")]

    def test_it_holds_the_packages_and_nothing_else(self) -> None:
        copied = [line.split()[1:] for line in self.lines() if line.startswith("COPY") and "--from" not in line]
        assert copied.pop(0) == ["requirements.lock", "/tmp/requirements.lock"]  # noqa: S108 - inside the image
        assert {source for source, _ in copied} == {f"{name}/" for name in SHIPPED}
        assert all(source == target for source, target in copied)
        assert all((ROOT / name).is_dir() for name in SHIPPED)

    def test_the_build_sees_no_more_than_that(self) -> None:
        lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        rules = [line for line in lines if line and not line.startswith("#")]
        assert rules[0] == "*"
        assert {rule for rule in rules if rule.startswith("!")} == {
            "!requirements.lock",
            *(f"!{name}/" for name in SHIPPED),
        }

    def test_only_locked_wheels_are_installed(self) -> None:
        (install,) = [line for line in self.lines() if "pip install" in line]
        for option in ("--require-hashes", "--no-deps", "--only-binary :all:", "-r /tmp/requirements.lock"):
            assert option in " ".join(install.split())

    def test_it_runs_the_command_line_as_nobody_in_particular(self) -> None:
        lines = self.lines()
        users = [line.split()[1] for line in lines if line.startswith("USER ")]
        assert users == ["outrider"]
        assert 'ENTRYPOINT ["python", "-m", "sidecar"]' in lines
        (environment,) = [line for line in lines if line.startswith("ENV ")]
        assert "PYTHONPATH=/app" in environment.split()
