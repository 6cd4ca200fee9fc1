"""The settings: what is read, in which order, and everything that is refused with its name."""

import os
from collections.abc import Mapping
from pathlib import Path

import hypothesis
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from courier.settings import SinkSettings
from relay.settings import RelaySettings
from sidecar.catalogue import by_path, catalogue, families
from sidecar.effective import effective
from sidecar.loading import CommandLine, Loaded, load
from sidecar.settings import (
    InjectSettings,
    Settings,
    SettingsError,
    default_data_dir,
    injector_options,
    public_url,
    relay_workers,
    tracker_workers,
)
from tracker.settings import TrackerSettings

KEYS = {"OUTRIDER_KEYS__SIGNING": "newest,older", "OUTRIDER_KEYS__IDENTITY": "for ever"}


CRM = {
    "OUTRIDER_SINKS__CRM__URL": "https://crm.example.com/hooks?from=outrider",
    "OUTRIDER_SINKS__CRM__SECRET": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    "OUTRIDER_SINKS__CRM__EVENTS": "bounced, opened",
}


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
        assert tracker_workers(Settings()) == 1
        assert tracker_workers(Settings(tracker=TrackerSettings(workers=3))) == 3
        assert tracker_workers(Settings(tracker=TrackerSettings(workers=0))) == len(os.sched_getaffinity(0))

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
        every = [*catalogue(), *families()["sinks"].settings]
        assert [setting.path for setting in every if not setting.meta.description] == []

    def test_secrets_are_known_as_such(self) -> None:
        secret = {path for path, setting in by_path().items() if setting.is_secret}
        providers = ["azure", "brevo", "mailgun", "mailjet", "postal", "postmark", "resend", "sendgrid", "sparkpost"]
        webhooks = {f"webhooks.{name}_secret" for name in providers}
        keys = {"keys.signing", "keys.identity", "keys.addresses"}
        assert secret == {*keys, "ams.api_key", "listmonk.token", "console.token", *webhooks}
        assert [one.path for one in families()["sinks"].settings if one.is_secret] == ["sinks.NAME.secret"]

    def test_a_tree_in_a_traceback_shows_no_secret(self) -> None:
        settings = loaded({**KEYS, "OUTRIDER_CONSOLE__TOKEN": "hunter2"}).settings
        shown = repr(settings) + repr(settings.keys)
        assert not any(secret in shown for secret in ("newest", "older", "for ever", "hunter2"))

    def test_it_is_frozen(self) -> None:
        with pytest.raises(AttributeError):
            Settings().database_url = "x"  # type: ignore[misc]  # what is tried here

    def test_it_survives_a_pipe(self) -> None:
        """The fleet hands its settings to its processes as JSON."""
        settings = loaded({**KEYS, **CRM}).settings
        assert settings.sinks["crm"].events == ("bounced", "opened")
        line = msgspec.json.encode(settings, enc_hook=str)
        assert msgspec.json.decode(line, type=Settings, dec_hook=lambda kind, value: kind(value)) == settings


class TestFamilies:
    """Sections of which there may be any number, each under a name of the operator's."""

    def test_every_layer_reaches_a_section_by_its_name(self, tmp_path: Path) -> None:
        toml = '[sinks.crm]\ncampaigns = ["spring-*"]\nmax_batch = 7\ntimeout = 3\n[sinks.other_one]\n'
        toml += f'url = "http://127.0.0.1:9/"\nsecret = "{CRM["OUTRIDER_SINKS__CRM__SECRET"]}"\n'
        found = loaded(
            {**CRM, "OUTRIDER_SINKS__CRM__MAX_BATCH": "8"}, "sinks.crm.timeout=4", toml=toml, directory=tmp_path
        )
        assert set(found.settings.sinks) == {"crm", "other_one"}
        crm = found.settings.sinks["crm"]
        assert (crm.campaigns, crm.max_batch, crm.timeout) == (("spring-*",), 8, 4.0)
        assert found.spelt["sinks.crm.timeout"] == "--set sinks.crm.timeout"
        assert found.spelt["sinks.crm.max_batch"] == "OUTRIDER_SINKS__CRM__MAX_BATCH"
        assert found.settings.sinks["other_one"].max_batch == SinkSettings().max_batch

    def test_the_effective_settings_show_them_without_their_secrets(self) -> None:
        shown = effective(loaded(CRM))
        assert "[sinks.crm]\n" in shown
        assert 'events = ["bounced", "opened"]  # OUTRIDER_SINKS__CRM__EVENTS' in shown
        assert 'secret = ["[secret]"]' in shown
        assert "whsec_" not in shown

    @pytest.mark.parametrize(
        ("changed", "line"),
        [
            ({"URL": "ftp://crm.example.com"}, "OUTRIDER_SINKS__CRM__URL: expected http:// or https://"),
            ({"URL": ""}, "OUTRIDER_SINKS__CRM__URL: expected http:// or https://"),
            ({"SECRET": ""}, "OUTRIDER_SINKS__CRM__SECRET: must be set"),
            (
                {"SECRET": "whsec_c2hvcnQ="},
                "OUTRIDER_SINKS__CRM__SECRET: expected whsec_ and base64 of 24 to 64 octets",
            ),
            ({"SECRET": "whsec_§"}, "OUTRIDER_SINKS__CRM__SECRET: expected whsec_ and base64 of 24 to 64 octets"),
            ({"EVENTS": "opened, bouncd"}, "OUTRIDER_SINKS__CRM__EVENTS: 1 of them no type of event: expected some of"),
            ({"EVENT": "opened"}, "OUTRIDER_SINKS__CRM__EVENT: no such setting; did you mean"),
            ({"MAX_BATCH": "0"}, "OUTRIDER_SINKS__CRM__MAX_BATCH: expected an integer of at least 1"),
            ({"CA_FILE": "/nowhere/ca.pem"}, "OUTRIDER_SINKS__CRM__CA_FILE: expected a readable file"),
        ],
    )
    def test_what_cannot_be_meant_is_named(self, changed: dict[str, str], line: str) -> None:
        given = CRM | {f"OUTRIDER_SINKS__CRM__{key}": value for key, value in changed.items()}
        (found,) = problems(given)
        assert found.startswith(line)
        assert "MDEyMzQ1Njc4OTAx" not in found

    @pytest.mark.parametrize(
        ("toml", "line"),
        [
            ("[sinks]\nurl = 'http://x/'\n", "sinks in {}: expected sections, [sinks.NAME]"),
            ("[sinks.Crm]\nurl = 'http://x/'\n", "sinks.Crm in {}: expected a name of small letters"),
            ("[sinks.a__b]\nurl = 'http://x/'\n", "sinks.a__b in {}: expected a name of small letters"),
            ("[sinks.crm]\nurll = 'http://x/'\n", "sinks.crm.urll in {}: no such setting"),
            ("[sink.crm]\nurl = 'http://x/'\n", "sink in {}: no such section; did you mean sinks?"),
        ],
    )
    def test_a_file_that_spells_them_wrong(self, tmp_path: Path, toml: str, line: str) -> None:
        with pytest.raises(SettingsError) as refused:
            loaded(toml=toml, directory=tmp_path)
        assert refused.value.problems[0].startswith(line.format(tmp_path / "outrider.toml"))

    @pytest.mark.parametrize("name", ["AMS", "LISTMONK"])
    def test_a_name_that_means_something_else(self, name: str) -> None:
        given = {variable.replace("CRM", name): value for variable, value in CRM.items()}
        assert "means something else" in problems(given)[0]

    def test_listmonk_is_complete_or_off(self) -> None:
        assert problems({"OUTRIDER_LISTMONK__URL": "listmonk.example.com"}) == (
            "OUTRIDER_LISTMONK__URL: expected http:// or https:// and listmonk's host, such as https://listmonk.example.com",
            "OUTRIDER_LISTMONK__USER: must be set, because listmonk takes bounces from an API user alone",
            "OUTRIDER_LISTMONK__TOKEN: must be set, because listmonk takes bounces from an API user alone",
        )
        whole = {"URL": "http://127.0.0.1:9000", "USER": "outrider", "TOKEN": "t"}
        given = {f"OUTRIDER_LISTMONK__{key}": value for key, value in whole.items()}
        assert loaded(given).settings.listmonk.user == "outrider"
