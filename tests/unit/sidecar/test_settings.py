"""The settings: what is read, in which order, and everything that is refused with its name."""

import os
from collections.abc import Mapping
from pathlib import Path

import hypothesis
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.settings import RelaySettings
from sidecar.catalogue import by_path, catalogue
from sidecar.loading import CommandLine, Loaded, load
from sidecar.settings import (
    InjectSettings,
    Settings,
    SettingsError,
    default_data_dir,
    injector_options,
    public_url,
    relay_workers,
)

KEYS = {"OUTRIDER_KEYS__SIGNING": "newest,older", "OUTRIDER_KEYS__IDENTITY": "for ever"}


def loaded(
    environment: Mapping[str, str] | None = None, *assignments: str, toml: str = "", directory: Path = Path("/nowhere")
) -> Loaded:
    """Load settings from an environment, a file and a command line, and from nothing of this machine."""
    if toml:
        (directory / "outrider.toml").write_text(toml, encoding="utf-8")
    return load(
        CommandLine(assignments=assignments),
        environment=environment or {},
        directory=directory,
        launcher=Path("/nowhere"),
    )


def problems(environment: Mapping[str, str] | None = None, *assignments: str) -> tuple[str, ...]:
    """Return the lines that the operator is shown."""
    with pytest.raises(SettingsError) as refused:
        loaded(environment, *assignments)
    return refused.value.problems


class TestPrecedence:
    """Command line, environment, file, default: the first that speaks decides."""

    def test_nothing_given_is_all_defaults(self) -> None:
        assert loaded().settings == Settings()
        assert loaded().spelt == {}

    def test_each_layer_stands_before_the_next(self, tmp_path: Path) -> None:
        toml = '[relay]\nlisten = "127.0.0.1:1"\nmax_recipients = 1\nmax_bytes = 1024\n'
        environment = {"OUTRIDER_RELAY__LISTEN": "127.0.0.1:2", "OUTRIDER_RELAY__MAX_RECIPIENTS": "2"}
        found = loaded(environment, "relay.listen=127.0.0.1:3", toml=toml, directory=tmp_path)
        relay = found.settings.relay
        assert (relay.listen, relay.max_recipients, relay.max_bytes) == ("127.0.0.1:3", 2, 1024)
        assert found.spelt == {
            "relay.listen": "--set relay.listen",
            "relay.max_recipients": "OUTRIDER_RELAY__MAX_RECIPIENTS",
            "relay.max_bytes": f"relay.max_bytes in {tmp_path / 'outrider.toml'}",
        }

    def test_the_file_of_the_current_directory_stands_before_the_launchers(self, tmp_path: Path) -> None:
        here, launcher = tmp_path / "here", tmp_path / "launcher"
        for place, port in ((here, 1), (launcher, 2)):
            place.mkdir()
            (place / "outrider.toml").write_text(f'tracker.listen = "127.0.0.1:{port}"')
        first = load(environment={}, directory=here, launcher=launcher)
        second = load(environment={}, directory=tmp_path, launcher=launcher)
        assert first.settings.tracker.listen == "127.0.0.1:1"
        assert second.settings.tracker.listen == "127.0.0.1:2"

    def test_a_named_file_stands_instead_of_both(self, tmp_path: Path) -> None:
        (tmp_path / "outrider.toml").write_text("nonsense = 1")
        named = tmp_path / "other.toml"
        named.write_text("[inject]\nopens = false\n")
        found = load(CommandLine(config=str(named)), environment={}, directory=tmp_path, launcher=tmp_path)
        assert not found.settings.inject.opens

    def test_this_processs_environment_is_the_default(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("OUTRIDER_DATA_DIR", str(tmp_path))
        assert load(directory=tmp_path, launcher=tmp_path).settings.data_dir == tmp_path

    def test_data_dir_has_an_option_of_its_own(self, tmp_path: Path) -> None:
        found = load(CommandLine(data_dir=str(tmp_path)), environment={"OUTRIDER_DATA_DIR": "/else"}, launcher=tmp_path)
        assert found.settings.data_dir == tmp_path

    def test_a_relative_data_dir_is_made_absolute(self) -> None:
        assert loaded({"OUTRIDER_DATA_DIR": "here"}).settings.data_dir == Path.cwd() / "here"


class TestValues:
    """How each kind of value is spelt."""

    @pytest.mark.parametrize("text", ["true", "1", "yes", "YES", " True "])
    def test_true(self, text: str) -> None:
        assert loaded({"OUTRIDER_INJECT__TEXT_LINKS": text}).settings.inject.text_links is True

    @pytest.mark.parametrize("text", ["false", "0", "no", "No"])
    def test_false(self, text: str) -> None:
        assert loaded({"OUTRIDER_INJECT__OPENS": text}).settings.inject.opens is False

    def test_lists_are_trimmed(self) -> None:
        found = loaded({"OUTRIDER_RELAY__ALLOW": " 10.0.0.0/8 ,::1", "OUTRIDER_RELAY__REPEAT_WINDOW": "60, 5"}).settings
        assert found.relay.allow == ("10.0.0.0/8", "::1")
        assert found.relay.repeat_window == (60, 5)

    def test_an_empty_text_is_an_empty_list(self) -> None:
        assert loaded({"OUTRIDER_INJECT__SKIP": ""}).settings.inject.skip == ()

    def test_keys_are_a_comma_list_newest_first(self) -> None:
        assert loaded(KEYS).settings.keys.signing == ("newest", "older")

    def test_toml_takes_arrays_and_comma_lists(self, tmp_path: Path) -> None:
        toml = '[relay]\nallow = ["10.0.0.0/8"]\nrepeat_window = [60, 5]\ncampaign_headers = "X-A, X-B"\n'
        relay = loaded(toml=toml, directory=tmp_path).settings.relay
        assert relay.allow == ("10.0.0.0/8",)
        assert relay.repeat_window == (60, 5)
        assert relay.campaign_headers == ("X-A", "X-B")

    def test_a_whole_number_is_a_number(self, tmp_path: Path) -> None:
        assert loaded(toml="[ams]\ninterval = 5\n", directory=tmp_path).settings.ams.interval == 5.0

    def test_a_comma_in_a_text_is_a_comma(self) -> None:
        action = "Unsubscribe_Click:DC,AE{|;"
        assert loaded({"OUTRIDER_AMS__UNSUBSCRIBE_ACTION": action}).settings.ams.unsubscribe_action == action

    @pytest.mark.parametrize("name", ["DATABASE_URL", "OUTRIDER_DATABASE_URL"])
    def test_the_urls_work_bare(self, name: str) -> None:
        assert loaded({name: "postgresql://db.example.com/x", **KEYS}).settings.database_url

    def test_every_setting_takes_its_own_default_from_the_environment(self) -> None:
        environment = {}
        for setting in catalogue():
            default = setting.default
            text = ",".join(str(item) for item in default) if isinstance(default, tuple) else str(default)
            environment[setting.environment] = text
        assert loaded(environment).settings == Settings()


class TestRefusals:
    """What is not clear stops the start, by the name that the operator wrote."""

    @pytest.mark.parametrize(
        ("name", "text", "expected"),
        [
            ("OUTRIDER_RELAY__MAX_BYTES", "lots", "an integer of at least 1024"),
            ("OUTRIDER_RELAY__MAX_BYTES", "1_000_000", "an integer of at least 1024"),
            ("OUTRIDER_RELAY__MAX_BYTES", "5", "an integer of at least 1024"),
            ("OUTRIDER_RELAY__MAX_BYTES", "", "an integer of at least 1024"),
            ("OUTRIDER_AMS__MAX_BATCH", "20001", "an integer of at least 1 and of at most 20000"),
            ("OUTRIDER_RELAY__VERDICT_WAIT", "nan", "a number greater than 0"),
            ("OUTRIDER_RELAY__VERDICT_WAIT", "inf", "a number greater than 0"),
            ("OUTRIDER_RELAY__VERDICT_WAIT", "0", "a number greater than 0"),
            ("OUTRIDER_INJECT__OPENS", "on", "true or false"),
            ("OUTRIDER_INJECT__OPENS", "", "true or false"),
            ("OUTRIDER_RELAY__ON_TROUBLE", "drop", "one of queue, defer"),
            ("OUTRIDER_RELAY__REPEAT_WINDOW", "5", "2 integers, separated by commas"),
            ("OUTRIDER_RELAY__REPEAT_WINDOW", "5,x", "2 integers, separated by commas"),
            ("OUTRIDER_DATA_DIR", "", "a path"),
        ],
    )
    def test_a_wrong_value(self, name: str, text: str, expected: str) -> None:
        assert problems({name: text}) == (f"{name}: expected {expected}",)

    def test_an_empty_item_is_not_a_key(self) -> None:
        assert problems({"OUTRIDER_KEYS__SIGNING": "a,,b"}) == ("OUTRIDER_KEYS__SIGNING: an item of the list is empty",)

    def test_a_line_end_inside_a_value(self) -> None:
        (problem,) = problems({"OUTRIDER_AMS__API_KEY": "a\nb"})
        assert problem == "OUTRIDER_AMS__API_KEY: expected no control character, such as a line end"

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("OUTRIDER_RELAY_LISTEN", "; did you mean OUTRIDER_RELAY__LISTEN?"),
            ("OUTRIDER_RELAY__LISTN", "; did you mean OUTRIDER_RELAY__LISTEN?"),
            ("outrider_relay__listen", "; did you mean OUTRIDER_RELAY__LISTEN?"),
            ("OUTRIDER_QQQQQQQQQQQQ", ""),
        ],
    )
    def test_an_unknown_variable(self, name: str, hint: str) -> None:
        assert problems({name: "x"}) == (f"{name}: no such setting{hint}",)

    @pytest.mark.parametrize("name", ["OUTRIDER_SERVICE_HOST", "OUTRIDER_PORT", "OUTRIDER_RELAY_PORT_2525_TCP_ADDR"])
    def test_what_kubernetes_sets_is_explained(self, name: str) -> None:
        (problem,) = problems({name: "x"})
        assert "enableServiceLinks" in problem

    def test_other_peoples_variables_are_not_ours(self) -> None:
        assert loaded({"OUTRIDER_TEST_SOAK": "1", "OUTRIDERS": "x", "RELAY__LISTEN": "x"}).settings == Settings()

    def test_an_unknown_name_on_the_command_line(self) -> None:
        assert problems(None, "relay.listn=x") == ("--set relay.listn: no such setting; did you mean relay.listen?",)

    def test_an_assignment_without_a_value_is_not_shown(self) -> None:
        assert problems(None, "smtp://user:hunter2@mail.example.com") == ("--set: expected section.key=value",)

    def test_twice_with_different_values(self) -> None:
        assert problems(None, "relay.workers=1", "relay.workers=2") == (
            "--set relay.workers: given twice, with different values",
        )
        assert problems({"REDIS_URL": "redis://a.example", "OUTRIDER_REDIS_URL": "redis://b.example"}) == (
            "OUTRIDER_REDIS_URL and REDIS_URL: given twice, with different values",
        )
        assert loaded(None, "relay.workers=1", "relay.workers=1").settings.relay.workers == 1

    def test_everything_is_reported_at_once(self) -> None:
        found = problems(
            {
                "OUTRIDER_RELAY__MAX_BYTES": "x",
                "OUTRIDER_TRACKER__PUBLIC_URL": "nowhere",
                "OUTRIDER_NONSENSE": "1",
                "OUTRIDER_RELAY__USERS": "/nowhere/users",
            },
            "inject.opens=perhaps",
        )
        named = [problem.partition(":")[0] for problem in found]
        assert named == [
            "OUTRIDER_NONSENSE",
            "OUTRIDER_RELAY__MAX_BYTES",
            "--set inject.opens",
            "OUTRIDER_TRACKER__PUBLIC_URL",
            "OUTRIDER_RELAY__USERS",
        ]

    def test_a_refused_value_is_not_reported_as_missing_too(self) -> None:
        found = problems({"DATABASE_URL": "postgresql://x", **KEYS, "OUTRIDER_KEYS__SIGNING": ","})
        assert found == ("OUTRIDER_KEYS__SIGNING: an item of the list is empty",)

    def test_resign_is_not_offered_yet_and_says_so(self) -> None:
        assert problems({"OUTRIDER_INJECT__DKIM": "resign"}) == (
            "OUTRIDER_INJECT__DKIM: `resign` is not offered yet; this version offers keep and strip",
        )

    @hypothesis.settings(deadline=None)
    @given(st.dictionaries(st.sampled_from([setting.path for setting in catalogue()]), st.text(), min_size=1))
    def test_no_secret_is_ever_shown(self, values: dict[str, str]) -> None:
        """Invariant: whatever is given, loading returns or raises SettingsError, and no line shows a value."""
        mark = "Zq7!hunter2"
        try:
            loaded(None, *(f"{path}={value}{mark}" for path, value in values.items()))
        except SettingsError as error:
            shown = [line for line in error.problems if "data_dir" not in line and "readable file" not in line]
            assert mark not in "\n".join(shown)


class TestFile:
    """outrider.toml, and everything that can be wrong with it."""

    @pytest.mark.parametrize(
        ("toml", "problem"),
        [
            ("[relay]\nlistn = 1\n", "relay.listn in {}: no such setting; did you mean relay.listen?"),
            ("[rely]\nlisten = 1\n", "rely in {}: no such section; did you mean relay?"),
            ("data_dri = 1\n", "data_dri in {}: no such setting; did you mean data_dir?"),
            ("relay = 1\n", "relay in {}: expected a section, [relay]"),
            ("[relay]\nmax_bytes = '5000'\n", "relay.max_bytes in {}: expected an integer of at least 1024"),
            ("[relay]\nmax_bytes = true\n", "relay.max_bytes in {}: expected an integer of at least 1024"),
            ("[relay]\nlisten = 2525\n", "relay.listen in {}: expected a text"),
            ("[relay]\nallow = [1]\n", "relay.allow in {}: expected a list of texts, separated by commas"),
            ("[inject]\nopens = 1\n", "inject.opens in {}: expected true or false"),
            ("[ams]\ninterval = nan\n", "ams.interval in {}: expected a number greater than 0"),
            ("data_dir = 1\n", "data_dir in {}: expected a path"),
            ("[relay\n", "{}: not TOML: "),
        ],
    )
    def test_a_problem_names_the_key_and_the_file(self, tmp_path: Path, toml: str, problem: str) -> None:
        with pytest.raises(SettingsError) as refused:
            loaded(toml=toml, directory=tmp_path)
        (line,) = refused.value.problems
        assert line.startswith(problem.format(tmp_path / "outrider.toml"))

    def test_a_named_file_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError) as refused:
            load(CommandLine(config=str(tmp_path / "none.toml")), environment={})
        assert refused.value.problems == (f"--config {tmp_path / 'none.toml'}: there is no such file",)

    def test_not_utf_8(self, tmp_path: Path) -> None:
        (tmp_path / "outrider.toml").write_bytes(b"data_dir = '\xff'")
        with pytest.raises(SettingsError, match="expected UTF-8"):
            load(environment={}, directory=tmp_path)


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
    @pytest.mark.parametrize("name", ["OUTRIDER_RELAY__ALLOW", "OUTRIDER_TRACKER__TRUSTED_PROXIES"])
    def test_a_network_that_is_none(self, name: str, network: str, words: str) -> None:
        (problem,) = problems({name: network})
        assert problem.startswith(f"{name}: ")
        assert words in problem

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


class TestDerived:
    """What follows from the settings."""

    @pytest.mark.parametrize(
        ("environment", "expected"),
        [
            ({}, "http://127.0.0.1:8080"),
            ({"OUTRIDER_TRACKER__LISTEN": "[::1]:81"}, "http://[::1]:81"),
            ({"OUTRIDER_TRACKER__PUBLIC_URL": "https://track.example.com"}, "https://track.example.com"),
            ({"OUTRIDER_TRACKER__PUBLIC_URL": "https://track.example.com:8443/"}, "https://track.example.com:8443"),
        ],
    )
    def test_public_url(self, environment: dict[str, str], expected: str) -> None:
        assert public_url(loaded(environment).settings) == expected

    def test_workers(self) -> None:
        assert relay_workers(Settings(relay=RelaySettings(workers=3))) == 3
        assert relay_workers(Settings()) == len(os.sched_getaffinity(0))

    def test_injector_options(self) -> None:
        inject = InjectSettings(opens=False, text_links=True, dkim="strip", skip=("*/private/*",))
        options = injector_options(Settings(inject=inject))
        assert not options.opens
        assert options.text_links
        assert (options.dkim, options.skip) == ("strip", ("*/private/*",))
        assert options.public_url == "http://127.0.0.1:8080"

    def test_data_dir(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert default_data_dir() == Path("/var/lib/outrider")
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert default_data_dir() == Path(__file__).parents[3] / "data"


class TestTree:
    """The tree itself."""

    def test_every_setting_is_described(self) -> None:
        assert [setting.path for setting in catalogue() if not setting.meta.description] == []

    def test_secrets_are_known_as_such(self) -> None:
        secret = {path for path, setting in by_path().items() if setting.is_secret}
        assert secret == {"keys.signing", "keys.identity", "ams.api_key", "console.token"}

    def test_a_tree_in_a_traceback_shows_no_secret(self) -> None:
        settings = loaded({**KEYS, "OUTRIDER_CONSOLE__TOKEN": "hunter2"}).settings
        shown = repr(settings) + repr(settings.keys)
        assert not any(secret in shown for secret in ("newest", "older", "for ever", "hunter2"))

    def test_it_is_frozen(self) -> None:
        with pytest.raises(AttributeError):
            Settings().database_url = "x"  # type: ignore[misc]  # what is tried here

    def test_it_survives_a_pipe(self) -> None:
        """The fleet hands its settings to its processes as JSON."""
        settings = loaded(KEYS).settings
        line = msgspec.json.encode(settings, enc_hook=str)
        assert msgspec.json.decode(line, type=Settings, dec_hook=lambda kind, value: kind(value)) == settings
