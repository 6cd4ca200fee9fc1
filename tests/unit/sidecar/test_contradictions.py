"""Settings that cannot be meant: each is refused by the names that the operator wrote."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sidecar.effective import effective
from sidecar.loading import Loaded, load
from sidecar.settings import Settings, SettingsError
from sidecar.wiring.upstreams import upstream_of
from tests.vendors import known

NOWHERE = Path("/nowhere")
KEYS = {"OUTRIDER_KEYS__SIGNING": "newest,older", "OUTRIDER_KEYS__IDENTITY": "for ever"}


def loaded(environment: Mapping[str, str] | None = None) -> Loaded:
    """Load settings from an environment, and from nothing of this machine."""
    return load(environment=environment or {}, directory=NOWHERE, launcher=NOWHERE)


def problems(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the lines that the operator is shown."""
    with pytest.raises(SettingsError) as refused:
        loaded(environment)
    return refused.value.problems


class TestContradictions:
    """Values that cannot be meant together."""

    @pytest.mark.parametrize(
        "listen", ["2525", ":2525", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "::1:25", "[::1", "[x]:1", "a b:1"]
    )
    def test_a_listen_address_that_is_none(self, listen: str) -> None:
        (problem,) = problems({"OUTRIDER_RELAY__LISTEN": listen})
        assert problem.startswith("OUTRIDER_RELAY__LISTEN: ")

    @pytest.mark.parametrize("listen", ["127.0.0.1:25", "[::1]:2525", "localhost:2525", "0.0.0.0:2525", "[::]:2525"])
    def test_a_listen_address(self, listen: str) -> None:
        assert loaded({"OUTRIDER_RELAY__LISTEN": listen}).settings.relay.listen == listen

    def test_one_address_for_two(self) -> None:
        (problem,) = problems({"OUTRIDER_CONSOLE__LISTEN": "127.0.0.1:8080"})
        assert problem.startswith(
            "OUTRIDER_TRACKER__LISTEN and OUTRIDER_CONSOLE__LISTEN: 127.0.0.1:8080 cannot be both"
        )

    @pytest.mark.parametrize(
        "allow", ["0.0.0.0/0", "::/0", "0.0.0.0/1,128.0.0.0/1", "::ffff:0:0/96", "::/1", "10.0.0.0/8,0.0.0.0/0"]
    )
    @pytest.mark.parametrize("listen", ["0.0.0.0:25", "[::]:25", "192.0.2.1:25"])
    def test_an_open_relay(self, listen: str, allow: str) -> None:
        (problem,) = problems({"OUTRIDER_RELAY__LISTEN": listen, "OUTRIDER_RELAY__ALLOW": allow})
        assert problem.startswith("OUTRIDER_RELAY__ALLOW: ")
        assert "open relay" in problem

    def test_anybody_on_loopback_may_be_allowed(self) -> None:
        assert loaded({"OUTRIDER_RELAY__ALLOW": "0.0.0.0/0"}).settings.relay.allow == ("0.0.0.0/0",)

    def test_private_networks_may_be_allowed(self) -> None:
        allow = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7,::1,::ffff:10.0.0.0/104"
        assert loaded({"OUTRIDER_RELAY__LISTEN": "0.0.0.0:25", "OUTRIDER_RELAY__ALLOW": allow})

    @pytest.mark.parametrize(("network", "words"), [("10.0.0.1/8", "write 10.0.0.0/8"), ("ten", "expected an address")])
    @pytest.mark.parametrize(
        "name", ["OUTRIDER_RELAY__ALLOW", "OUTRIDER_TRACKER__TRUSTED_PROXIES", "OUTRIDER_COURIER__OWN_NETWORKS"]
    )
    def test_a_network_that_is_none(self, name: str, network: str, words: str) -> None:
        (problem,) = problems({name: network})
        assert problem.startswith(f"{name}: ")
        assert words in problem

    @pytest.mark.parametrize(
        ("network", "kept"),
        [("192.0.2.7", 24), ("192.0.2.0/25", 24), ("2001:db8::/64", 48), ("::1", 48), ("::ffff:10.0.0.0/104", 48)],
    )
    def test_an_own_network_that_hits_cannot_be_told_to_come_from(self, network: str, kept: int) -> None:
        (problem,) = problems({"OUTRIDER_COURIER__OWN_NETWORKS": f"10.0.0.0/8,{network}"})
        assert problem.startswith("OUTRIDER_COURIER__OWN_NETWORKS: ")
        assert f"is narrower than the /{kept} that a hit keeps of its address" in problem

    def test_own_networks_as_wide_as_what_hits_keep(self) -> None:
        own = "10.0.0.0/8,192.0.2.0/24,2001:db8::/48,2001:db8::/32"
        assert loaded({"OUTRIDER_COURIER__OWN_NETWORKS": own}).settings.courier.own_networks == tuple(own.split(","))

    def test_a_burst_of_one_click(self) -> None:
        (problem,) = problems({"OUTRIDER_COURIER__BURST_LINKS": "1"})
        assert problem.startswith("OUTRIDER_COURIER__BURST_LINKS: 1 would make every click a burst")

    @pytest.mark.parametrize(
        "url",
        [
            "track.example.com",
            "ftp://track.example.com",
            "https://track.example.com/mail",
            "https://track.example.com?x=1",
            "https://track.example.com#x",
            "https://user@track.example.com",
            "https://track.example.com:port",
            "https://track.example.com:99999",
            "https://",
            "https://tr\u00e4ck.example.com",
            "https://0.0.0.0:8080",
            "https://[::]",
        ],
    )
    def test_a_public_url_that_is_none(self, url: str) -> None:
        (problem,) = problems({"OUTRIDER_TRACKER__PUBLIC_URL": url})
        assert problem.startswith("OUTRIDER_TRACKER__PUBLIC_URL: ")
        assert "expected scheme://host[:port]" in problem

    def test_half_a_certificate(self, tmp_path: Path) -> None:
        (tmp_path / "cert.pem").touch()
        assert problems({"OUTRIDER_RELAY__TLS_CERT": str(tmp_path / "cert.pem")}) == (
            "OUTRIDER_RELAY__TLS_CERT is set, so OUTRIDER_RELAY__TLS_KEY must be too: expected a PEM file",
        )

    def test_a_tls_port_without_a_certificate(self) -> None:
        (problem,) = problems({"OUTRIDER_RELAY__LISTEN_TLS": "127.0.0.1:4650"})
        assert problem.startswith("OUTRIDER_RELAY__LISTEN_TLS is set, so OUTRIDER_RELAY__TLS_CERT")

    def test_a_database_without_keys(self) -> None:
        found = problems({"DATABASE_URL": "postgresql://db.example.com/x"})
        assert [line.partition(" must")[0] for line in found] == [
            "DATABASE_URL is set, so OUTRIDER_KEYS__SIGNING",
            "DATABASE_URL is set, so OUTRIDER_KEYS__IDENTITY",
        ]

    @pytest.mark.parametrize(
        ("environment", "name"),
        [
            ({"DATABASE_URL": "mysql://x", **KEYS}, "DATABASE_URL"),
            ({"REDIS_URL": "http://x"}, "REDIS_URL"),
            ({"OUTRIDER_AMS__URL": "ams.example.com"}, "OUTRIDER_AMS__URL"),
            ({"OUTRIDER_KEYS__SIGNING": "a,a"}, "OUTRIDER_KEYS__SIGNING"),
            ({"OUTRIDER_CONSOLE__TOKEN": "a b"}, "OUTRIDER_CONSOLE__TOKEN"),
            ({"OUTRIDER_RELAY__STRIP": "X-A:"}, "OUTRIDER_RELAY__STRIP"),
            ({"OUTRIDER_RELAY__CAMPAIGN_HEADERS": "X A"}, "OUTRIDER_RELAY__CAMPAIGN_HEADERS"),
            ({"OUTRIDER_RELAY__HOSTNAME": "a/b"}, "OUTRIDER_RELAY__HOSTNAME"),
            ({"OUTRIDER_RELAY__MESSAGE_ID_DOMAIN": "@example.com"}, "OUTRIDER_RELAY__MESSAGE_ID_DOMAIN"),
            ({"OUTRIDER_RELAY__REPEAT_WINDOW": "5,-1"}, "OUTRIDER_RELAY__REPEAT_WINDOW"),
            ({"OUTRIDER_RELAY__RETRY_FIRST": "600000"}, "OUTRIDER_RELAY__RETRY_FIRST"),
        ],
    )
    def test_a_value_of_no_such_kind(self, environment: dict[str, str], name: str) -> None:
        (problem,) = problems(environment)
        assert problem.startswith(f"{name}: ")

    def test_ams_without_any_of_its_headers(self) -> None:
        environment = {"OUTRIDER_AMS__URL": "https://ams.example.com/rpc", "OUTRIDER_RELAY__CAMPAIGN_HEADERS": "X-Mine"}
        (problem,) = problems(environment)
        assert problem.startswith("OUTRIDER_AMS__HEADERS: none of them is among OUTRIDER_RELAY__CAMPAIGN_HEADERS")
        assert loaded({**environment, "OUTRIDER_AMS__HEADERS": "x-mine"})

    def test_ams_is_believed_by_a_whole_fingerprint_or_by_a_certificate(self) -> None:
        ams = {"OUTRIDER_AMS__URL": "https://ams.example.com/rpc"}
        for wrong in ("AB:CD", "g" * 64, "a" * 40, "a" * 65, "a" * 64 + ":"):
            (problem,) = problems({**ams, "OUTRIDER_AMS__FINGERPRINT": wrong})
            assert problem.startswith("OUTRIDER_AMS__FINGERPRINT: expected a SHA-256")
        assert loaded({**ams, "OUTRIDER_AMS__FINGERPRINT": ":".join(["AB"] * 32)})
        both = problems({**ams, "OUTRIDER_AMS__FINGERPRINT": "ab" * 32, "OUTRIDER_AMS__CA_FILE": "/nonexistent"})
        assert any(problem.startswith("OUTRIDER_AMS__FINGERPRINT and OUTRIDER_AMS__CA_FILE") for problem in both)


class TestUpstream:
    """Where mail goes."""

    @pytest.mark.parametrize(
        "upstream",
        [
            "mail.example.com:25",
            "http://mail.example.com",
            "smtp://mail.example.com/x",
            "smtp://m\u00e4il:pw@example.com",
        ],
    )
    def test_an_upstream_that_is_none(self, upstream: str) -> None:
        (problem,) = problems({"OUTRIDER_RELAY__UPSTREAM": upstream})
        assert problem.startswith("OUTRIDER_RELAY__UPSTREAM: ")

    @pytest.mark.parametrize("listen", ["127.0.0.1:2525", "0.0.0.0:2525", "localhost:2525"])
    def test_an_upstream_that_is_ourselves(self, listen: str) -> None:
        (problem,) = problems({"OUTRIDER_RELAY__UPSTREAM": "smtp://127.0.0.1:2525", "OUTRIDER_RELAY__LISTEN": listen})
        assert problem.startswith("OUTRIDER_RELAY__UPSTREAM is OUTRIDER_RELAY__LISTEN: ")

    @pytest.mark.parametrize(
        ("environment", "problem"),
        [
            ({"UPSTREAM": "smtp://h1, smtp://u@h2"}, "UPSTREAM: item 2: a user needs a password"),
            ({"UPSTREAM": "smtp://h1, capture"}, "UPSTREAM: capture stands alone"),
            ({"UPSTREAM": "capture", "ROUTES": "from:example.com=smtp://h1"}, "UPSTREAM: capture stands alone"),
            ({"UPSTREAM": "smtp://h1", "ROUTES": "from:example.com=capture"}, "ROUTES: capture stands alone"),
            ({"UPSTREAM": "smtp://h1, smtp://h1:25"}, "UPSTREAM: the same server stands twice"),
            ({"UPSTREAM": "smtp://h1, smtp://127.0.0.1:2525"}, "UPSTREAM is OUTRIDER_RELAY__LISTEN: mail would"),
            ({"UPSTREAM": "smtp://h1", "ROUTES": "from:a.example=smtp://127.0.0.1:2525"}, "ROUTES is OUTRIDER_RELAY__"),
            ({"UPSTREAM": "smtp://h1", "ROUTES": "from:a.example"}, "ROUTES: item 1: expected from:DOMAIN=URL"),
            (
                {"UPSTREAM": "smtp://h1", "ROUTES": "from:a.example=smtp://h2, from:A.example=smtp://h3"},
                "ROUTES: the same mail is routed twice",
            ),
            (
                {"UPSTREAM": "smtp://u:hunter2@h1", "ROUTES": "campaign:x=smtp://u:hunter3@h1"},
                "ROUTES: h1:25 is spelt in two ways",
            ),
            ({"UPSTREAM": "smtp://u:hunter2@h1?starttls=off"}, "UPSTREAM: a password leaves in clear text"),
            ({"UPSTREAM": "smtp://h1?rate=50"}, "UPSTREAM: expected a rate such as 50/s"),
            ({"UPSTREAM": "smtp://h1?profile=nobody"}, "UPSTREAM: unknown profile 'nobody'; known: "),
            ({"UPSTREAM": "smtp://h1", "DSN": "on"}, "DSN: expected upstream, off, smtp://host:port"),
            ({"UPSTREAM": "smtp://h1", "DSN": "smtp://u:hunter2@"}, "DSN: expected smtp://[user:password@]host:port"),
            ({"UPSTREAM": "smtp://h1", "DSN": "smtp://127.0.0.1:2525"}, "DSN is OUTRIDER_RELAY__LISTEN: mail would"),
            ({"UPSTREAM": "capture", "DSN": "smtp://h1"}, "UPSTREAM: capture stands alone"),
            ({"UPSTREAM": "smtp://h1", "DSN": "smtp://h1?rate=5/s"}, "DSN: h1:25 is spelt in two ways"),
            ({"CAMPAIGN_RATE": "spring*=10/m, autumn"}, "CAMPAIGN_RATE: item 2: expected a campaign and its rate"),
            ({"CAMPAIGN_RATE": "spring*=10"}, "CAMPAIGN_RATE: item 1: expected a rate such as 50/s"),
            ({"DOMAIN_RATE": "example.net=10/m, example.com"}, "DOMAIN_RATE: item 2: expected a recipient domain"),
            ({"DOMAIN_RATE": "example.net=10/m, Example.net=1/s"}, "DOMAIN_RATE: example.net stands twice"),
        ],
    )
    def test_several_that_cannot_be_meant(self, environment: dict[str, str], problem: str) -> None:
        (found,) = problems({f"OUTRIDER_RELAY__{name}": value for name, value in environment.items()})
        assert found.startswith(f"OUTRIDER_RELAY__{problem}")
        assert "hunter" not in found

    def test_several_that_can(self) -> None:
        environment = {
            "OUTRIDER_RELAY__UPSTREAM": "smtp://u:p@h1:587?rate=50/s, smtps://h2",
            "OUTRIDER_RELAY__ROUTES": "campaign:spring*=smtps://h2 smtp://u:p@h1:587?rate=50/s, from:a.example=smtp://v:p@h1:587",
            "OUTRIDER_RELAY__DOMAIN_RATE": "example.net=10/m",
            "OUTRIDER_RELAY__CAMPAIGN_RATE": "spring*=100/m, *=10/s",
            "OUTRIDER_RELAY__DSN": "smtps://h2",
        }
        assert len(loaded(environment).settings.relay.routes) == 2

    def test_a_guessed_profile_is_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        known(monkeypatch)
        environment = {
            "OUTRIDER_RELAY__UPSTREAM": "smtp://u:hunter2@tags.example.com:587, smtp://json.example.com?profile=json",
            "OUTRIDER_RELAY__DSN": "smtp://u:hunter2@eu.json.example.com",
        }
        shown = effective(loaded(environment))
        assert "# upstream tags.example.com:587: profile=tags, by the host's name\n" in shown
        assert "# upstream eu.json.example.com:25: profile=json, by the host's name\n" in shown
        assert shown.count("by the host's name") == 2
        assert "hunter2" not in shown

    def test_a_guessed_profile_is_said_at_the_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        known(monkeypatch)
        settings = loaded({"OUTRIDER_RELAY__UPSTREAM": "smtp://tags.example.com, smtp://mail.example.com"}).settings
        with capture_logs() as logs:
            upstream_of(settings, "relay.example.com")
        assert logs == [
            {
                "event": "upstream_profile_guessed",
                "log_level": "info",
                "upstream": "tags.example.com:25",
                "profile": "tags",
            }
        ]

    def test_an_upstream_beside_us(self) -> None:
        assert loaded({"OUTRIDER_RELAY__UPSTREAM": "smtp://127.0.0.1:2526"})

    @pytest.mark.parametrize("role", ["run", "relay"])
    def test_no_mail_without_an_upstream(self, role: str) -> None:
        with pytest.raises(SettingsError, match=r"OUTRIDER_RELAY__UPSTREAM: no upstream is set; expected .*smtp://"):
            loaded().for_role(role)
        assert loaded({"OUTRIDER_RELAY__UPSTREAM": "capture"}).for_role(role)

    @pytest.mark.parametrize("role", ["tracker", "courier", "console"])
    def test_other_roles_need_none(self, role: str) -> None:
        assert loaded().for_role(role) == Settings()


class TestRoles:
    """What a role needs beyond its values."""

    def test_a_wildcard_is_nowhere_to_send_people(self) -> None:
        environment = {"OUTRIDER_TRACKER__LISTEN": "0.0.0.0:8080", "OUTRIDER_RELAY__UPSTREAM": "capture"}
        with pytest.raises(SettingsError, match="OUTRIDER_TRACKER__PUBLIC_URL must say"):
            loaded(environment).for_role("run")
        assert loaded(environment).for_role("tracker")
        assert loaded({**environment, "OUTRIDER_TRACKER__PUBLIC_URL": "https://track.example.com"}).for_role("run")

    @pytest.mark.parametrize("role", ["tracker", "courier"])
    def test_a_role_alone_shares_both_or_neither(self, role: str) -> None:
        with pytest.raises(SettingsError, match="REDIS_URL is set, so DATABASE_URL must be too"):
            loaded({"REDIS_URL": "redis://redis.example.com"}).for_role(role)
        assert loaded({"REDIS_URL": "redis://redis.example.com"}).for_role("console")


class TestPlaces:
    """Files and directories that cannot serve."""

    def test_a_data_dir_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        (problem,) = problems({"OUTRIDER_DATA_DIR": str(tmp_path / "file" / "below")})
        assert problem == f"OUTRIDER_DATA_DIR: expected a directory, {tmp_path / 'file'} is none"

    def test_a_data_dir_that_does_not_exist_yet(self, tmp_path: Path) -> None:
        assert loaded({"OUTRIDER_DATA_DIR": str(tmp_path / "a" / "b")}).settings.data_dir == tmp_path / "a" / "b"
        assert not (tmp_path / "a").exists()

    @pytest.mark.parametrize(
        "name",
        ["OUTRIDER_RELAY__USERS", "OUTRIDER_AMS__CA_FILE", "OUTRIDER_RELAY__TLS_CERT", "OUTRIDER_RELAY__TLS_KEY"],
    )
    def test_a_file_that_is_missing(self, tmp_path: Path, name: str) -> None:
        found = problems({name: str(tmp_path / "none")})
        assert f"{name}: expected a readable file, {tmp_path / 'none'}: No such file or directory" in found

    def test_a_users_file_with_a_clear_password(self, tmp_path: Path) -> None:
        (tmp_path / "users").write_text("ann:hunter2\n")
        (problem,) = problems({"OUTRIDER_RELAY__USERS": str(tmp_path / "users")})
        assert problem.startswith(f"OUTRIDER_RELAY__USERS: {tmp_path / 'users'}: line 1: ")
        assert "hunter2" not in problem

    def test_a_certificate_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "pem").write_text("no PEM")
        both = {name: str(tmp_path / "pem") for name in ("OUTRIDER_RELAY__TLS_CERT", "OUTRIDER_RELAY__TLS_KEY")}
        (problem,) = problems(both)
        assert problem.startswith("OUTRIDER_RELAY__TLS_CERT and OUTRIDER_RELAY__TLS_KEY: expected a PEM chain")
        (problem,) = problems({"OUTRIDER_AMS__CA_FILE": str(tmp_path / "pem")})
        assert problem.startswith("OUTRIDER_AMS__CA_FILE: expected certificates in PEM")
