"""Limits, lanes and weights: defaults, variables, and the settings file, which wins."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from app.devstack.errors import StackError
from app.devstack.state import read
from app.settings import PROVIDER_NAMES, SHIPPED_LIMITS, Settings, SettingsError, load_settings
from app.settings.file import PricePart
from app.topics import build_topology
from streams.dispatch.quota import Limits
from streams.topology import LaneGroup

Load = Callable[..., Settings]

FULL = """
[providers.claude]
rpm = 60
unlimited = ["tph"]
shards = 2
[providers.claude.groups.opus]
models = ["claude-opus-*"]
rpm = 10
[providers.claude.groups.haiku]
models = ["claude-haiku-*", "claude-3-haiku"]
tpm = 1000
shards = 3
[workspaces.acme]
weight = 4
[workspaces."team@search"]
"""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Settings with a settings file of this text."""

    def made(text: str, **values: object) -> Settings:
        file = tmp_path / "spillway.toml"
        file.write_text(text)
        return load_settings(settings_file=file, **values)

    return made


def mistakes(load: Load, text: str) -> list[str]:
    """What is wrong with a file, by line, without what each line starts with."""
    with pytest.raises(SettingsError) as caught:
        load(text)
    lines = str(caught.value).splitlines()
    for line in lines:
        variable, file, _ = line.split(": ", 2)
        assert variable == "AI_SETTINGS_FILE"
        assert file.endswith("spillway.toml")
    return [line.split(": ", 2)[2] for line in lines]


def test_without_settings_each_provider_has_its_shipped_limits_and_one_lane() -> None:
    settings = load_settings()
    assert settings.quota_limits() == SHIPPED_LIMITS
    assert settings.lane_groups() == {name: (LaneGroup(),) for name in PROVIDER_NAMES}
    assert settings.workspace_weights() == {}


def test_a_limit_per_minute_is_for_every_provider_and_drops_the_shipped_one_per_hour() -> None:
    assert load_settings(requests_per_minute=9).quota_limits() == {
        "claude": Limits(rpm=9, tpm=100_000, tph=2_000_000),
        "openai": Limits(rpm=9, tpm=150_000, tph=3_000_000),
        "perplexity": Limits(rpm=9),
    }
    assert load_settings(tokens_per_minute=9).quota_limits()["perplexity"] == Limits(rpm=20, rph=300, tpm=9)


def test_the_file_wins_over_the_variables(load: Load) -> None:
    limits = load(FULL, requests_per_minute=9, tokens_per_minute=8).quota_limits()
    assert limits["claude"] == Limits(rpm=60, tpm=8)
    assert limits["openai"] == Limits(rpm=9, tpm=8)


def test_the_file_changes_only_what_it_names_and_a_group_has_only_what_it_names(load: Load) -> None:
    limits = load(FULL).quota_limits()
    assert limits["claude"] == Limits(rpm=60, rph=1_000, tpm=100_000)
    assert (limits["claude:opus"], limits["claude:haiku"]) == (Limits(rpm=10), Limits(tpm=1_000))
    assert limits["openai"] == SHIPPED_LIMITS["openai"]


def test_switched_off_means_no_limits_for_the_same_quotas(load: Load) -> None:
    limits = load(FULL, rate_limit_enabled=False, requests_per_minute=9).quota_limits()
    assert limits == dict.fromkeys(load(FULL).quota_limits(), Limits())


def test_lane_groups_are_in_the_order_of_the_file_and_the_nameless_is_last(load: Load) -> None:
    groups = load(FULL, lane_shards=4).lane_groups()
    assert groups["claude"] == (
        LaneGroup("opus", ("claude-opus-*",), 1),
        LaneGroup("haiku", ("claude-haiku-*", "claude-3-haiku"), 3),
        LaneGroup(shards=2),
    )
    assert groups["openai"] == (LaneGroup(shards=4),)


def test_every_lane_has_a_quota_and_every_quota_a_lane(load: Load) -> None:
    settings = load(FULL)
    topology = build_topology(settings)
    lanes = {lane.quota for provider in PROVIDER_NAMES for lane in topology.lanes_of(provider)}
    assert lanes == settings.quota_limits().keys()


def test_workspaces_have_weights(load: Load) -> None:
    assert load(FULL).workspace_weights() == {"acme": 4.0, "team@search": 1.0}


@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute", "settings_file", "claude_api_key_file"])
def test_an_empty_variable_is_one_that_is_not_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"AI_{name.upper()}", "")
    assert getattr(load_settings(), name) is None


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[providers.claude]\nrpm = \n", "is not TOML: Invalid value (at line 2, column 7)"),
        ("colour = 1", "colour: there is no such setting"),
        ("[providers.claude]\nrps = 1", "providers.claude.rps: there is no such setting"),
        (
            "[providers.gemini]",
            "providers.gemini: there is no such provider; known are claude, openai, perplexity, and one of your own "
            'needs kind = "openai_compatible"',
        ),
        ("[providers.claude]\nrpm = 0", "providers.claude.rpm: Input should be greater than or equal to 1"),
        ('[providers.claude]\ntph = "unlimited"', "providers.claude.tph: Input should be a valid integer"),
        ("[providers.claude]\nrpm = true", "providers.claude.rpm: Input should be a valid integer"),
        ("[providers.claude]\nshards = 1.5", "providers.claude.shards: Input should be a valid integer"),
        (
            '[providers.claude]\nunlimited = ["rps"]',
            "providers.claude.unlimited.0: Input should be 'rpm', 'rph', 'tpm' or 'tph'",
        ),
        (
            '[providers.claude]\nrpm = 1\nunlimited = ["rpm"]',
            "providers.claude: rpm has a limit and is in `unlimited`; it can be only one of the two",
        ),
        ("[providers.claude.groups.opus]", "providers.claude.groups.opus.models: is missing"),
        ("[providers.claude.groups.opus]\nmodels = []", "providers.claude.groups.opus.models: must not be empty"),
        ('[providers.claude.groups.opus]\nmodels = "x"', "providers.claude.groups.opus.models: must be an array"),
        ("[workspaces]\nacme = 4", "workspaces.acme: must be a table"),
        ("[workspaces.acme]\nweight = 0", "workspaces.acme.weight: Input should be greater than 0"),
        ("[workspaces.acme]\nweight = inf", "workspaces.acme.weight: Input should be a finite number"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_with_its_place(load: Load, text: str, mistake: str) -> None:
    assert mistakes(load, text) == [mistake]


LOCAL = """
[providers.local]
kind = "openai_compatible"
base_url = "http://127.0.0.1:11434/v1"
models = ["llama-*", "qwen3"]
rpm = 10
price = { input_mtok = "0.10", output_mtok = 1 }
[providers.local.groups.big]
models = ["llama-70b"]
tpm = 1000
[providers.gateway]
kind = "openai_compatible"
base_url = "https://llm.example.com"
api_key_env = "GATEWAY_KEY"
default_model = "a[1]"
embedding_model = "embed"
timeout = 5
shards = 2
"""


def test_named_providers_have_limits_and_lanes_like_the_others_and_none_by_default(load: Load) -> None:
    settings = load(LOCAL)
    assert settings.known_providers() == (*PROVIDER_NAMES, "local", "gateway")
    limits = settings.quota_limits()
    assert (limits["local"], limits["local:big"], limits["gateway"]) == (Limits(rpm=10), Limits(tpm=1000), Limits())
    assert settings.lane_groups()["gateway"] == (LaneGroup(shards=2),)
    assert load(LOCAL, requests_per_minute=9).quota_limits()["gateway"] == Limits(rpm=9)


def test_a_named_providers_table_is_read_with_exact_prices(load: Load) -> None:
    named = load(LOCAL).named_providers()
    assert (named["local"].chat_model, named["local"].claims) == ("qwen3", ("llama-*", "qwen3"))
    assert (named["gateway"].chat_model, named["gateway"].timeout) == ("a[1]", 5.0)
    assert load(LOCAL).price_overrides() == {"local": PricePart(input_mtok=Decimal("0.10"), output_mtok=Decimal(1))}


def test_an_orderly_stop_waits_for_the_slowest_provider_unless_it_is_told_how_long(load: Load) -> None:
    assert load_settings().stop_within() == 65.0
    assert load_settings(drain_timeout="").stop_within() == 65.0
    assert load_settings(drain_timeout=3.0).stop_within() == 3.0
    assert load_settings(openai_timeout=300.0).stop_within() == 305.0
    assert load_settings(openai_timeout=300.0, fallback_providers="").stop_within() == 65.0
    slow = LOCAL.replace("timeout = 5", "timeout = 500")
    assert slow != LOCAL
    assert load(slow).stop_within() == 505.0
    only = load(LOCAL, primary_provider="local", fallback_providers="")
    assert only.stop_within() == max(part.timeout for part in only.named_providers().values()) + 5.0


DATED = """
[[prices."openai/gpt-4o"]]
input_mtok = "2.50"
output_mtok = "10"
[[prices."openai/gpt-4o"]]
from = 2026-11-01
input_mtok = "2"
output_mtok = "8"
"""


def test_prices_may_have_the_days_from_which_they_count(load: Load) -> None:
    first = PricePart(input_mtok=Decimal("2.50"), output_mtok=Decimal(10))
    second = PricePart(since=date(2026, 11, 1), input_mtok=Decimal(2), output_mtok=Decimal(8))
    assert load(DATED).price_overrides() == {"openai/gpt-4o": (first, second)}
    own = named('price = [{ from = 2026-11-01, input_mtok = "2", output_mtok = "8" }]')
    assert load(own).price_overrides() == {"mine": (second,)}


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ('from = "2026-11-01"', "1.from: write it as a date without quotes, such as 2026-11-01"),
        ("from = 2026-11-01T00:00:00Z", "1.from: write it as a date without quotes, such as 2026-11-01"),
        ("from = 20261101", "1.from: write it as a date without quotes, such as 2026-11-01"),
        ("until = 2026-11-01", "1.until: there is no such setting"),
        ("", "entries 0 and 1 are both without a `from`; keep one of them"),
    ],
)
def test_a_price_with_a_wrong_day_is_refused_with_its_place(load: Load, line: str, mistake: str) -> None:
    place = "prices.openai/gpt-4o" + (": " if mistake.startswith("entries") else ".")
    assert mistakes(load, DATED.replace("from = 2026-11-01", line)) == [place + mistake]


def test_two_prices_that_begin_on_one_day_are_refused(load: Load) -> None:
    again = '[[prices."openai/gpt-4o"]]\nfrom = 2026-11-01\ninput_mtok = "1"\noutput_mtok = "1"\n'
    assert mistakes(load, DATED + again) == [
        "prices.openai/gpt-4o: entries 1 and 2 are both from 2026-11-01; keep one of them"
    ]


def test_a_price_that_lacks_something_is_refused_with_its_place(load: Load) -> None:
    place = "prices.openai/gpt-4o"
    assert mistakes(load, '[prices."openai/gpt-4o"]\ninput_mtok = "1"') == [f"{place}.output_mtok: is missing"]
    assert mistakes(load, '[[prices."openai/gpt-4o"]]\ninput_mtok = "1"') == [f"{place}.0.output_mtok: is missing"]
    assert mistakes(load, "prices.openai = []") == ["prices.openai: must not be empty"]


def test_named_providers_may_be_first_and_fallbacks(load: Load) -> None:
    settings = load(LOCAL, primary_provider="gateway", fallback_providers="local,claude")
    assert settings.provider_order() == ("gateway", "local", "claude")
    with pytest.raises(SettingsError, match="may name claude, openai, perplexity, local, gateway; not 'locla'"):
        load(LOCAL, primary_provider="locla")


def test_the_lanes_of_the_built_in_providers_stay_where_they_are(load: Load) -> None:
    alone, beside = build_topology(load_settings()), build_topology(load(LOCAL))
    for name in PROVIDER_NAMES:
        assert beside.lanes_of(name) == alone.lanes_of(name)
    fewer = build_topology(load(LOCAL.partition("[providers.gateway]")[0]))
    assert fewer.lanes_of("local") == beside.lanes_of("local")
    assert {"ai.dispatch.local", "ai.dispatch.gateway"} <= beside.own_names()


def named(table: str) -> str:
    """A named provider with all that it must have, and this."""
    stated = {"kind": '"openai_compatible"', "base_url": '"http://x.example/v1"', "default_model": '"m"'}
    stated = {name: value for name, value in stated.items() if f"{name} =" not in table}
    return "\n".join(["[providers.mine]", *(f"{name} = {value}" for name, value in stated.items()), table])


@pytest.mark.parametrize(
    ("table", "mistake"),
    [
        ('kind = "magic"', "kind: Input should be 'openai_compatible'"),
        ('base_url = "localhost:11434"', "base_url: is no address; write it as http://host:port/v1"),
        ('base_url = "http://x:y/v1"', "base_url: is no address; write it as http://host:port/v1"),
        (
            'base_url = "http://me:hidden@x/v1"',
            "base_url: holds a user or a password; keys belong into a variable or a file of their own",
        ),
        ('base_url = "http://x/v1?key=hidden"', "base_url: may not have a query or a fragment"),
        ('api_key_env = "sk-hidden"', "api_key_env: String should match pattern '^[A-Za-z_][A-Za-z0-9_]*$'"),
        ("timeout = 0", "timeout: Input should be greater than 0"),
        ("api_key = 'hidden'", "api_key: there is no such setting"),
        (
            'price = { input_mtok = 0.1, output_mtok = "0.4" }',
            'price.input_mtok: write it as text, such as "0.10"',
        ),
        ("groups.big = {}", "groups.big.models: is missing"),
    ],
)
def test_a_mistake_in_a_named_provider_is_one_line_that_shows_no_secret(load: Load, table: str, mistake: str) -> None:
    found = mistakes(load, named(table))
    assert found == [f"providers.mine.{mistake}"]
    assert "hidden" not in found[0]


def test_what_a_named_provider_cannot_do_without_is_named(load: Load) -> None:
    assert mistakes(load, '[providers.mine]\nkind = "openai_compatible"') == ["providers.mine.base_url: is missing"]
    assert mistakes(load, named("default_model = 'm'\nmodels = []\napi_key_env = 'A'\napi_key_file = 'b'")) == [
        "providers.mine: api_key_env and api_key_file are both set; keep one of them"
    ]
    without = named("models = ['m-*']").replace('default_model = "m"\n', "")
    assert mistakes(load, without) == [
        "providers.mine: default_model is missing: the model for requests that name none"
    ]


def test_a_name_that_is_taken_or_is_none_is_refused_beside_the_other_mistakes(load: Load) -> None:
    text = (
        '[providers.openai]\nkind = "openai_compatible"\n[providers."My One"]\nkind = "x"\n[workspaces.a]\nweight = 0'
    )
    assert [line.split(":")[0] for line in mistakes(load, text)] == [
        "providers.openai",
        "providers.My One",
        "workspaces.a.weight",
    ]


def test_names_that_cannot_be_targets_or_workspaces_are_refused(load: Load) -> None:
    found = mistakes(load, '[providers.claude.groups."a:b"]\nmodels = ["*"]\n[workspaces."a b"]')
    assert [line.split(": ")[0] for line in found] == ["providers.claude.groups.a:b", "workspaces.a b"]


def test_several_mistakes_are_told_at_once(load: Load) -> None:
    assert len(mistakes(load, "[providers.claude]\nrpm = 0\nrph = 0\n[workspaces.acme]\nweight = -1")) == 3


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "cannot be read: No such file or directory"), (b"\xff", "is not UTF-8")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "spillway.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load_settings(settings_file=file)
    assert str(caught.value) == f"AI_SETTINGS_FILE: {file}: {reason}"


def test_a_provider_has_at_most_as_many_lanes_as_there_are_partitions(load: Load) -> None:
    assert load("[providers.claude]\nshards = 5\n[providers.claude.groups.opus]\nmodels = ['*']").lane_groups()
    assert mistakes(load, "[providers.claude]\nshards = 6\n[providers.claude.groups.opus]\nmodels = ['*']") == [
        "providers.claude: its groups have 7 shards together, and may not have more than AI_PARTITIONS (6)"
    ]
    with pytest.raises(SettingsError, match=r"^AI_LANE_SHARDS may not be more than AI_PARTITIONS$"):
        load_settings(lane_shards=7)


@pytest.mark.parametrize("url", ["http://me:secret@ch:8123", "https://me@ch"])
def test_an_address_with_a_password_in_it_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(SettingsError, match="AI_CLICKHOUSE_URL: must not hold a login") as raised:
        load_settings(clickhouse_url=url)
    assert "secret" not in str(raised.value)


# What is refused at start, and not found out by the first request


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("default_deadline", "http_timeout", "drain_timeout") for value in ("inf", "1e15")),
        *((name, "inf") for name in ("claude_timeout", "retry_delay", "availability_interval")),
        ("clickhouse_flush_seconds", "inf"),
        ("monthly_budget_usd", "0.0000000001"),
        ("monthly_budget_usd", "1e30"),
        ("ledger_retention_months", "1200"),
        ("content_retention_days", "40000"),
        ("replication_factor", "40000"),
        ("clickhouse_url", "http://clickhouse:99999"),
        ("kafka_application_id", ""),
        ("kafka_application_id", "two words"),
        *(("kafka_bootstrap_servers", value) for value in ("", ",", "kafka:port", "kafka:99999", "kafka:9092/x", ":1")),
    ],
)
def test_a_value_with_which_nothing_could_work_is_refused_by_its_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^AI_{name.upper()}: "):
        load_settings(**{name: value})


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[prices.openai]\ninput_mtok = "1e30"\noutput_mtok = "1"', "prices.openai.input_mtok"),
        (
            '[providers.x]\nkind = "openai_compatible"\nbase_url = "http://h"\nmodels = ["m"]\ntimeout = 1e300',
            "providers.x.timeout",
        ),
        (
            '[providers.x]\nkind = "openai_compatible"\nbase_url = "http://h"\nmodels = ["m"]\ntimeout = inf',
            "providers.x.timeout",
        ),
    ],
)
def test_in_the_file_as_well(load: Load, text: str, place: str) -> None:
    [mistake] = mistakes(load, text)
    assert mistake.startswith(f"{place}: ")


def test_brokers_are_listed_with_and_without_ports_and_spaces() -> None:
    settings = load_settings(kafka_bootstrap_servers=" kafka-1:9092, kafka-2 ,[::1]:9093,")
    assert settings.kafka_bootstrap_servers == "kafka-1:9092,kafka-2,[::1]:9093"


def test_a_token_from_a_file_has_no_end_of_line() -> None:
    token = load_settings(web_token="a-token-that-nobody-knows\n").web_token  # noqa: S106 - of this test
    assert token is not None
    assert token.get_secret_value() == "a-token-that-nobody-knows"
    with pytest.raises(SettingsError, match="AI_WEB_TOKEN"):
        load_settings(web_token="short" + 20 * " ")


def test_a_file_env_that_is_no_text_is_told_of_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_bytes(b"AI_LOG_LEVEL=\xff\n")
    monkeypatch.chdir(tmp_path)
    # The tests' own settings read no file.
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")
    with pytest.raises(SettingsError, match=r"\.env is not UTF-8"):
        load_settings()


def test_a_folder_of_a_stack_that_is_a_file_is_told_of_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(StackError, match="cannot be read: Not a directory"):
        read(file)
