"""`node.toml`: what is accepted, what is refused, and that the example is safe."""

from pathlib import Path

import pytest

from fedsec.errors import ConfigError
from fedsec_client.settings import MEBIBYTE, NodeSettings, example


def test_the_example_is_valid_and_allows_the_harmless_only() -> None:
    settings = NodeSettings.parse(example(threads=3))
    assert settings.policy.allowed_apps == ["fedsec"]
    assert settings.policy.allowed_tasks == ["digits"]
    assert settings.policy.min_nodes == 2
    assert settings.limits.threads == 3
    assert (settings.data, settings.apps, settings.node_config) == ({}, {}, {})


def test_the_example_shows_the_defaults() -> None:
    assert NodeSettings.parse(example(threads=2)) == NodeSettings.parse("schema = 1")


def test_the_example_takes_tables_of_data() -> None:
    table = '[data.digits]\nconnector = "digits"\npartition = 3\n'
    settings = NodeSettings.parse(example(data=table))
    assert settings.data["digits"].options == {"connector": "digits", "partition": 3}


def test_content_is_bounded_in_bytes() -> None:
    limits = NodeSettings.parse("schema = 1\n[limits]\nmax_content_mb = 3").limits
    assert (limits.max_content_bytes, limits.content_total_bytes) == (3 * MEBIBYTE, 1024 * MEBIBYTE)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "node.toml: schema: missing"),
        ("schema = 2", "node.toml: schema = 2: allowed: 1"),
        ("schema = ", "node.toml is not TOML"),
        (
            "schema = 1\n[limits]\nmemory_mb = -1",
            "node.toml: limits.memory_mb = -1: allowed: an integer in 0..16777216",
        ),
        ("schema = 1\n[limit]\n", "limit: unknown key; did you mean limits?"),
        ("schema = 1\n[limits]\ntask_s = 0", "limits.task_s = 0"),
        ("schema = 1\n[limits]\nthreads = '2'", 'limits.threads = "2"'),
        (
            "schema = 1\n[limits]\ncontent_total_mb = 5",
            "limits.content_total_mb = 5: holds not even one message of limits.max_content_mb",
        ),
        ("schema = 1\n[data.x]\npath = 'a'", "data.x.connector: missing"),
        ("schema = 1\n[data.x]\nconnector = 'csv'\nday = 2026-01-01", "data.x: holds a date"),
        ("schema = 1\n[data.x]\nconnector = 'csv'\nbound = inf", "data.x: holds a date"),
        ("schema = 1\n[apps.x]\n", "apps.x: needs either `directory` or `client`, and not both"),
        ("schema = 1\n[apps.fedsec]\nclient = 'a:b'", "apps.fedsec: the name is taken"),
        ("schema = 1\n[apps.x]\nclient = 'a b'", 'apps.x.client = "a b": allowed: text'),
        (
            "schema = 1\n[policy]\nallowed_apps = ['x']",
            'policy.allowed_apps: "x" has no table [apps.x]',
        ),
        ("schema = 1\n[limits]\nenvironment = ['A=B']", "limits.environment"),
    ],
)
def test_what_is_wrong_is_named(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        NodeSettings.parse(text)
    assert sentence in str(caught.value)


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"(?s)2 errors.*limits.threads.*policy.min_nodes"):
        NodeSettings.parse("schema = 1\n[limits]\nthreads = 0\n[policy]\nmin_nodes = 0")


def test_load_reads_the_file_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text("schema = 1\n[policy]\nmin_nodes = 5\n")
    assert NodeSettings.load(tmp_path).policy.min_nodes == 5


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read: No such file or directory; `fedsec node join` writes it"),
        (b"\xff", "is not UTF-8 text"),
        (b"#" * ((1 << 20) + 1), "longer than 1048576 bytes"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / "node.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=sentence):
        NodeSettings.load(tmp_path)
