"""Errors of any settings file: path, value, what is allowed."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from fedsec.errors import ConfigError
from fedsec.plan.allowed import allowed_keys, allowed_values
from fedsec.plan.reading import list_problems, read_mapping, read_toml


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    port: Annotated[int, Field(ge=1, le=65535)] = 1
    name: Annotated[str, Field(min_length=1, max_length=5)] = "x"
    code: Annotated[str, Field(pattern="^[a-z]+$")] = "a"
    even: int = 0

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"{value} is odd; choose an even number")
        return value


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["a", "b"] = Field(default="a", alias="type")
    inner: Inner = Inner()
    maybe: Inner | None = None
    rates: list[Annotated[float, Field(gt=0)]] = []
    tables: dict[str, Inner] = {}
    either: Annotated[int, Field(ge=2)] | bool = False
    count: Annotated[int, Field(ge=3)] = 3


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('type = "c"', 'type = "c": allowed: "a", "b"'),
        ("[inner]\nport = 0", "inner.port = 0: allowed: an integer in 1..65535"),
        ("[inner]\nprot = 1", "inner.prot: unknown key; did you mean inner.port?"),
        ('[inner]\nname = ""', 'inner.name = "": allowed: text of 1..5 characters'),
        ('[inner]\ncode = "A"', 'inner.code = "A": allowed: text that matches ^[a-z]+$'),
        ("[inner]\neven = 3", "inner.even = 3: 3 is odd; choose an even number"),
        ("[maybe]\nport = 0", "maybe.port = 0: allowed: an integer in 1..65535"),
        ("maybe = 3", "maybe = 3: allowed: a table"),
        ("rates = [1.0, 0.0]", "rates.1 = 0.0: allowed: a number > 0"),
        ("rates = 1.0", "rates = 1.0: allowed: a list"),
        ("tables = 1", "tables = 1: allowed: a table"),
        ("[tables.x]\nport = 0", "tables.x.port = 0: allowed: an integer in 1..65535"),
        ("[tables.x]\nprot = 0", "tables.x.prot: unknown key; did you mean tables.x.port?"),
        ("either = 1", "either = 1: allowed: an integer >= 2 or true or false"),
        ("count = 2", "count = 2: allowed: an integer >= 3"),
        ("zzzzzz = 1", "zzzzzz: unknown key; known here: count, either, inner, maybe, rates, "),
    ],
)
def test_each_error_names_path_value_and_range(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_toml(Outer, text, what="file.toml")
    assert str(caught.value).startswith(f"file.toml: {sentence}")


def test_a_sound_file_is_read() -> None:
    read = read_toml(Outer, 'type = "b"\nrates = [0.5]\n[tables.x]\nport = 8\n', what="file")
    assert (read.kind, read.rates, read.tables["x"].port) == ("b", [0.5], 8)
    assert read_mapping(Outer, {"type": "b"}, what="file").kind == "b"


def test_lists_of_problems() -> None:
    assert list_problems("it", ["a is wrong"]) == "it: a is wrong"
    assert list_problems("it", ["a", "b"]) == "it has 2 errors:\n  a\n  b"


def test_a_file_made_to_fill_the_log_does_not() -> None:
    text = "\n".join(f'"\\u001b{i}{"x" * 500}" = 1' for i in range(3000))
    with pytest.raises(ConfigError) as caught:
        read_toml(Outer, text, what="file", max_bytes=1 << 22)
    lines = str(caught.value).splitlines()
    assert lines[0] == "file has 3000 errors:"
    assert lines[-1] == "  and 2950 more"
    assert len(lines) == 52
    assert max(map(len, lines)) < 250
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("count = 3\n" + ".".join("a" * 100_000) + " = 1", "line 2: more than 256 dots"),
        ("[" + ".".join("a" * 300) + "]", "line 1: more than 256 dots"),
        ("count = " + "9" * 5000, "is not TOML: Exceeds the limit"),
        ("count = " + "[" * 100_000, "is not TOML: "),
    ],
    ids=["a deep key", "a deep table", "a long number", "a deep list"],
)
def test_a_text_made_to_eat_time_or_memory_is_refused_at_once(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_toml(Outer, text, what="the plan")


def test_a_path_that_leads_nowhere_allows_nothing() -> None:
    assert allowed_values(Outer, ("nothing",)) == ""
    assert allowed_values(Outer, ("count", "deeper")) == ""
    assert allowed_keys(Outer, ("count",)) is None
    assert allowed_keys(Outer, ()) == [
        "type", "inner", "maybe", "rates", "tables", "either", "count",
    ]  # fmt: skip
