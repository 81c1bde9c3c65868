"""server.toml: what it accepts, what it says, and that the written file means the defaults."""

import os
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest

from fedsec.errors import ConfigError
from fedsec_server.coordinator import _upload_limits
from fedsec_server.settings import (
    EVERYWHERE,
    AppSettings,
    Limits,
    ServerSettings,
    is_wildcard,
    settings_text,
)

SMALL = 'federation = "fed.example"\nhost = "coordinator.example"\n'


def test_the_written_file_means_the_defaults() -> None:
    text = settings_text("fed.example", "coordinator.example", listen=EVERYWHERE, port=7443)
    assert ServerSettings.parse(text) == ServerSettings.parse(SMALL)


def test_what_the_written_file_comments_out_is_the_default_too() -> None:
    """Every `# key = value` line, put in force, changes nothing; but examples do."""
    text = settings_text("fed.example", "coordinator.example", listen=EVERYWHERE, port=7443)
    examples = (
        *("# also", "# enrol =", "# fleet", "# admin", "# [apps", "# directory", "# server ="),
        *("# epsilon", "# delta", "# [data", "# connector", "# files", "# label"),
    )
    lines = [
        line.removeprefix("# ") if " = " in line and not line.startswith(examples) else line
        for line in text.splitlines()
    ]
    changed = "\n".join(lines)
    assert len(tomllib.loads(changed)["limits"]) == len(Limits.model_fields)
    assert len(tomllib.loads(changed)["lifetimes"]) == 3
    assert ServerSettings.parse(changed) == ServerSettings.parse(SMALL)


def test_the_written_file_names_every_key() -> None:
    text = settings_text("fed.example", "coordinator.example", listen=EVERYWHERE, port=7443)
    for table in (ServerSettings, Limits, AppSettings):
        for name in table.model_fields:
            assert name in text


def test_the_examples_in_the_written_file_are_good() -> None:
    text = settings_text("fed.example", "coordinator.example", listen=EVERYWHERE, port=7443)
    lines = []
    for line in text.splitlines():
        code = line.removeprefix("# ")
        lines.append(code if " = " in code or code.startswith("[") else line)
    settings = ServerSettings.parse("\n".join(lines))
    assert settings.advertise.fleet == "fed.example:444"
    assert settings.apps["other"].server == "my_package.server_app:app"
    assert settings.data["clean"].options == {
        "connector": "csv", "files": ["clean.csv"], "label": "outcome"
    }  # fmt: skip
    assert settings.certificate_hosts[:2] == ("coordinator.example", "10.0.0.5")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('host = "h"', "federation: missing"),
        (SMALL + "hosts = 1", "hosts: unknown key; did you mean host?"),
        (SMALL.replace("fed.example", "Fed Example"), "federation 'Fed Example' must look like"),
        (SMALL.replace("coordinator.example", "*.example"), "host '*.example' must be a DNS name"),
        (SMALL + '[listen]\nfleet = "0.0.0.0"', "listen.fleet = \"0.0.0.0\": address '0.0.0.0'"),
        (SMALL + '[listen]\nfleet = ":1"', "listen.fleet"),
        (SMALL + '[listen]\nfleet = "0.0.0.0:70000"', "port from 1 to 65535"),
        (SMALL + '[advertise]\nfleet = "fed.example:0"', "port from 1 to 65535"),
        (SMALL + "[lifetimes]\nnode_h = 0", "lifetimes.node_h = 0"),
        (SMALL + "[lifetimes]\nnode_h = 9000", "lifetimes.node_h = 9000"),
        (SMALL + "[lifetimes]\nnode_h = inf", "lifetimes.node_h = inf"),
        (SMALL + "[limits]\nmax_nodes = 0", "limits.max_nodes = 0"),
        (SMALL + "[limits]\nmax_uploads_mb = 9", "must be at least max_content_mb 4096"),
        (SMALL + "[limits]\nmax_all_uploads_mb = -1", "limits.max_all_uploads_mb = -1"),
        (SMALL + "[limits]\nmax_nodes = 2.5", "limits.max_nodes = 2.5"),
        (SMALL + "[limits]\nmax_nodes = true", "limits.max_nodes = true"),
        (SMALL + "invite_valid_h = 169", "invite_valid_h = 169"),
        (SMALL + "[apps.a]", "give either directory or server"),
        (SMALL + '[apps.a]\ndirectory = "x"\nserver = "m:a"', "give either directory or server"),
        (SMALL + '[apps.a]\nserver = "m"', "apps.a.server"),
        (SMALL + '[apps."A b"]\ndirectory = "x"', "apps.A b"),
        (SMALL + "[data.a]", "data.a.connector: missing"),
        (
            SMALL + '[data.a]\nconnector = "csv"\nday = 2026-01-01',
            "holds a date, a time or a number",
        ),
        (SMALL + '[data."A b"]\nconnector = "csv"', "data.A b"),
        ("federation = ", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ServerSettings.parse(text)
    assert sentence in str(caught.value)


def test_all_that_is_wrong_is_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        ServerSettings.parse(SMALL + "invite_valid_h = 0\n[limits]\nmax_runs = 0")
    message = str(caught.value)
    assert "2 errors" in message
    assert "invite_valid_h" in message
    assert "limits.max_runs" in message


def test_all_uploads_together_may_take_half_of_the_memory_unless_it_says_more_or_less() -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert _upload_limits(Limits()).max_total == memory // 2
    assert _upload_limits(Limits(max_all_uploads_mb=7)).max_total == 7 << 20


def test_the_path_is_named(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text("x = 1")
    with pytest.raises(ConfigError, match=f"{path} has 3 errors"):
        ServerSettings.load(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        ServerSettings.load(path)
    with pytest.raises(ConfigError, match="cannot read"):
        ServerSettings.load(tmp_path / "nowhere.toml")


def test_what_others_are_told() -> None:
    plain = ServerSettings.parse(SMALL)
    assert plain.advertised("fleet", 4711) == "coordinator.example:4711"
    six = ServerSettings.parse(SMALL.replace("coordinator.example", "2001:db8::1"))
    assert six.advertised("fleet", 4711) == "[2001:db8::1]:4711"
    mapped = ServerSettings.parse(SMALL + '[advertise]\nfleet = "fed.example:444"')
    assert mapped.advertised("fleet", 4711) == "fed.example:444"
    assert mapped.advertised("enrol", 1) == "coordinator.example:1"


def test_the_certificate_names_every_way_and_no_wildcard() -> None:
    settings = ServerSettings.parse(
        SMALL.replace("\nhost", '\nalso = ["10.0.0.5"]\nhost')
        + '[listen]\nenrol = "0.0.0.0:1"\nfleet = "[::]:2"\nadmin = "10.1.1.1:3"\n'
        '[advertise]\nfleet = "fed.example:444"'
    )
    assert settings.certificate_hosts == (
        "coordinator.example",
        "10.0.0.5",
        "fed.example",
        "10.1.1.1",
        "localhost",
        "127.0.0.1",
        "::1",
    )
    assert is_wildcard(EVERYWHERE)
    assert is_wildcard("::")


def test_lifetimes_are_hours() -> None:
    settings = ServerSettings.parse(SMALL + "[lifetimes]\nnode_h = 0.5\n")
    assert settings.certificate_lifetimes.node == timedelta(minutes=30)
    assert settings.certificate_lifetimes.person == timedelta(hours=12)


@pytest.mark.parametrize(
    ("listen", "port", "fleet"),
    [
        ("127.0.0.1", 0, "127.0.0.1:0"),
        ("127.0.0.1", 9000, "127.0.0.1:9001"),
        ("::", 9000, "[::]:9001"),
    ],
)
def test_listeners_follow_each_other(listen: str, port: int, fleet: str) -> None:
    text = settings_text("fed.example", "h.example", listen=listen, port=port)
    settings = ServerSettings.parse(text)
    assert settings.listen.fleet == fleet
    assert settings.listen.admin == f"127.0.0.1:{port + 2 if port else 0}"


@pytest.mark.parametrize("host", ['a"\nx = 1', "a b", ""])
def test_a_host_cannot_smuggle_toml(host: str) -> None:
    with pytest.raises(ConfigError):
        settings_text("fed.example", host, listen=EVERYWHERE, port=1)


@pytest.mark.parametrize("key", ["epsilon = 1.0", "delta = 1e-6"])
def test_a_privacy_budget_is_a_pair(key: str) -> None:
    text = settings_text("f.example", "h.example", listen="127.0.0.1", port=0)
    with pytest.raises(ConfigError, match="both epsilon and delta"):
        ServerSettings.parse(text.replace("[privacy]", f"[privacy]\n{key}"))
    both = text.replace("[privacy]", "[privacy]\nepsilon = 1.0\ndelta = 1e-6")
    assert ServerSettings.parse(both).privacy.epsilon == 1.0
