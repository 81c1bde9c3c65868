"""Text files with separators and Parquet: the same numbers as pandas reads, and clear refusals."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from fedsec.data.reading import read
from fedsec.data.records import Records
from fedsec.errors import DataError

HEART = """\
age;sex;cp;chol;num
63,5;m;1.0;233;0
67;f;4;-9;2

41;m;2;204;?
"""


def records(directory: Path, **keys: object) -> Records:
    options: Mapping[str, Any] = {"connector": "csv", "directory": str(directory), **keys}
    return read(options)[1]


def refusal(directory: Path, **keys: object) -> str:
    with pytest.raises(DataError) as caught:
        records(directory, **keys)
    return str(caught.value)


@pytest.fixture
def heart(tmp_path: Path) -> dict[str, object]:
    (tmp_path / "heart.csv").write_text(HEART, encoding="utf-8")
    return {
        "directory": tmp_path,
        "files": "heart.csv",
        "separator": ";",
        "decimal": ",",
        "label": "num",
        "label_threshold": 0.0,
        "categories": {"sex": ["f", "m"], "cp": ["1", "2", "3", "4"]},
    }


def test_a_messy_file_becomes_the_numbers_that_its_table_says(heart: dict[str, Any]) -> None:
    read = records(**heart, column_markers={"chol": ["-9"]}, fill={"chol": 246.5}, missing="drop")
    assert read.names == ("age", "sex=f", "sex=m", "cp=1", "cp=2", "cp=3", "cp=4", "chol")
    np.testing.assert_array_equal(
        read.inputs,
        np.array([[63.5, 0, 1, 1, 0, 0, 0, 233], [67, 1, 0, 0, 0, 0, 1, 246.5]], np.float32),
    )
    np.testing.assert_array_equal(read.targets, [0, 1])
    assert (read.read, read.dropped, read.missing) == (3, 1, {"num": 1, "chol": 1})


def test_a_category_can_be_what_stands_in(heart: dict[str, Any]) -> None:
    filled = records(
        **heart, column_markers={"sex": ["m"]}, fill={"sex": "f"}, missing="drop", keep=["sex"]
    )
    np.testing.assert_array_equal(filled.inputs, [[1, 0], [1, 0]])


def test_a_site_may_have_its_own_words_for_categories(heart: dict[str, Any]) -> None:
    heart["categories"] = {"sex": {"male": "m", "female": "f"}, "cp": ["1", "2", "4"]}
    named = records(**heart, missing="drop", keep=["sex"])
    assert named.names == ("sex=male", "sex=female")
    np.testing.assert_array_equal(named.inputs, [[1, 0], [0, 1]])


def test_columns_are_kept_and_dropped(heart: dict[str, Any]) -> None:
    kept = records(**heart, keep=["age", "chol", "sex"], drop=["chol"], missing="drop")
    assert kept.names == ("age", "sex=f", "sex=m")


def test_a_missing_value_is_refused_unless_the_table_says_otherwise(heart: dict[str, Any]) -> None:
    told = refusal(**heart)
    assert told.startswith('heart.csv, row 5, column "num": missing; missing = "drop" leaves')


def test_a_problem_names_file_row_and_column_and_no_value(tmp_path: Path) -> None:
    lines = ["age,sex", *["50,1"] * 5, "secret-1,1", "51,1", "1e999,1", "secret-2,1"]
    (tmp_path / "a.csv").write_text("\n".join(lines), encoding="utf-8")
    told = refusal(tmp_path, files="a.csv", label="sex")
    assert told.splitlines()[0] == "2 problems:"
    assert 'a.csv, row 7, column "age": a number is expected' in told
    assert "(and 1 more rows)" in told
    assert 'a.csv, row 9, column "age": a finite number is expected' in told
    assert "secret" not in told
    assert "1e999" not in told


def test_a_text_that_is_no_category_is_a_problem_with_its_row(heart: dict[str, Any]) -> None:
    heart["categories"] = {"sex": ["f", "male"], "cp": ["1", "2", "4"]}
    told = refusal(**heart, missing="drop")
    assert told == (
        'heart.csv, row 2, column "sex": none of the texts in categories.sex (and 1 more rows)'
    )


def test_rows_of_a_wrong_length_are_counted_as_a_spreadsheet_does(tmp_path: Path) -> None:
    rows = ["a note", "x,y,z", "1,2,3", "4,5", "", "7,8,9,10", *["1"] * 5]
    (tmp_path / "r.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    told = refusal(tmp_path, files="r.csv", label="z", skip_rows=1)
    assert "r.csv, row 4: 2 fields, expected 3" in told
    assert "r.csv, row 6: 4 fields, expected 3" in told
    assert "r.csv: 2 more rows of a wrong length" in told


def test_blanks_between_fields(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("a b  c\n1 2\t3\n 4  5 6 \n\n", encoding="utf-8")
    read = records(tmp_path, files="b.txt", separator="whitespace", label="c")
    np.testing.assert_array_equal(read.inputs, [[1, 2], [4, 5]])
    (tmp_path / "b.txt").write_text("a b  c\n1 2 3\n4  5\n", encoding="utf-8")
    told = refusal(tmp_path, files="b.txt", separator="whitespace", label="c")
    assert told == "b.txt, row 3: too few fields, expected 3"
    (tmp_path / "b.txt").write_text("a b  c\n1 2 3 7\n", encoding="utf-8")
    told = refusal(tmp_path, files="b.txt", separator="whitespace", label="c")
    assert told == "b.txt: Expected 3 fields in line 2, saw 4"
    (tmp_path / "b.txt").write_text("", encoding="utf-8")
    assert "No columns" in refusal(tmp_path, files="b.txt", separator="whitespace", label="c")


def test_without_a_header_the_table_names_the_columns(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("1,2\n3,4\n", encoding="utf-8")
    named = {"files": "n.csv", "header": False, "label": "b"}
    assert records(tmp_path, **named, columns=["a", "b"]).names == ("a",)
    assert "n.csv has 2 columns, the key `columns` names 3" in refusal(
        tmp_path, **named, columns=["a", "b", "c"]
    )
    told = refusal(tmp_path, files="n.csv", label="b")
    assert "has the file no header (header = false)?" in told
    assert '"1"' not in told  # what would be the names are values


def test_names_in_the_table_replace_those_of_the_header(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("x,x\n3,4\n", encoding="utf-8")
    assert 'two columns named "x"' in refusal(tmp_path, files="n.csv", label="x")
    read = records(tmp_path, files="n.csv", columns=["a", "b"], label="b")
    np.testing.assert_array_equal(read.inputs, [[3]])


def test_a_wrong_separator_is_guessed_at(heart: dict[str, Any]) -> None:
    heart |= {"separator": ",", "decimal": "."}
    assert 'is separator = "," the right one?' in refusal(**heart)


def test_several_files_are_one_data_set_whatever_the_order_of_their_columns(tmp_path: Path) -> None:
    (tmp_path / "2023.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    (tmp_path / "2024.csv").write_text("b,a\n4,3\n", encoding="utf-8")
    read = records(tmp_path, files="20*.csv", label="b")
    np.testing.assert_array_equal(read.inputs, [[1], [3]])
    np.testing.assert_array_equal(read.targets, [2, 4])
    (tmp_path / "2025.csv").write_text("b,c\n4,3\n", encoding="utf-8")
    told = refusal(tmp_path, files=["2023.csv", "2025.csv"], label="b")
    assert told == '2025.csv has other columns than 2023.csv: the columns are "b", "c"'


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ("heart.cvs", "did you mean heart.csv?"),
        ("gone/heart.csv", "there is no directory"),
        (".", "is a directory; name the files in it"),
        ("*.tsv", "nothing matches"),
        (["heart.csv", "heart.csv"], "is named twice"),
    ],
)
def test_files_that_are_not_there(heart: dict[str, Any], files: object, sentence: str) -> None:
    assert sentence in refusal(**{**heart, "files": files})


def test_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_bytes("größe,b\n1,ß\n".encode("latin-1"))
    assert 'is not text in encoding = "utf-8"' in refusal(tmp_path, files="l.csv", label="b")
    latin = records(
        tmp_path, files="l.csv", label="b", encoding="latin-1", label_map={"ß": 1, "s": 0}
    )
    assert latin.names == ("größe",)
    (tmp_path / "e.csv").write_bytes(b"")
    assert refusal(tmp_path, files="e.csv", label="b") == "e.csv is empty"
    (tmp_path / "h.csv").write_bytes(b"a,b\n")
    assert refusal(tmp_path, files="h.csv", label="b") == "the files hold no record"
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\r\n")
    assert records(tmp_path, files="bom.csv", label="b").names == ("a",)


def test_labels_are_mapped(heart: dict[str, Any]) -> None:
    del heart["label_threshold"]
    mapped = records(**heart, label_map={"2": 0, "0.0": 1}, missing="drop")
    np.testing.assert_array_equal(mapped.targets, [1, 0])
    told = refusal(**heart, label_map={"2": 0}, missing="drop")
    assert told == 'heart.csv, row 2, column "num": none of the texts in label_map'


def test_a_column_may_say_which_records_are_for_tests(heart: dict[str, Any]) -> None:
    split = records(**heart, test={"column": "sex", "value": "f"}, missing="drop")
    assert split.test is not None
    assert split.test.tolist() == [False, True]
    assert "sex=f" not in split.names


def test_parquet_holds_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "age": pa.array([63, 41, None], pa.int32()),
            "weight": pa.array([Decimal("70.5"), Decimal("60.0"), Decimal("1.5")]),
            "smokes": pa.array([True, False, True]),
            "site": pa.array(["a", "b", "a"]).dictionary_encode(),
            "figure": pa.array([1.5, float("nan"), 3.0]),
            "day": pa.array([1, 2, 3], pa.timestamp("s")),
            "ill": pa.array([0, 1, 1]),
        }
    )
    parquet.write_table(table, tmp_path / "p.parquet")
    options = {
        "connector": "parquet",
        "files": "p.parquet",
        "label": "ill",
        "categories": {"site": ["a", "b"]},
        "fill": {"age": 50.0, "figure": 0.0},
    }
    read = records(tmp_path, **options, drop=["day"])
    assert read.names == ("age", "weight", "smokes", "site=a", "site=b", "figure")
    np.testing.assert_array_equal(
        read.inputs,
        np.array([[63, 70.5, 1, 1, 0, 1.5], [41, 60, 0, 0, 1, 0], [50, 1.5, 1, 1, 0, 3]]),
    )
    assert 'column "day" holds timestamp[ms]; numbers are expected' in refusal(tmp_path, **options)
    (tmp_path / "p.parquet").write_bytes(b"no parquet at all")
    assert "p.parquet cannot be read: " in refusal(tmp_path, **options)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(-(2.0**99), 2.0**99, width=32),
            st.sampled_from(["a", "b, c", 'd"e']),
            st.integers(0, 3),
        ),
        min_size=1,
        max_size=20,
    ),
    st.sampled_from([",", ";", "\t", "|"]),
)
def test_what_pandas_writes_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, str, int]], separator: str
) -> None:
    directory = tmp_path_factory.mktemp("pandas")
    frame = pd.DataFrame(rows, columns=["x", "kind", "y"])
    frame.to_csv(directory / "f.csv", sep=separator, index=False)
    kinds = ["a", "b, c", 'd"e']
    read = records(
        directory, files="f.csv", separator=separator, label="y", categories={"kind": kinds}
    )
    dummies = [(frame["kind"] == kind).to_numpy(np.float32) for kind in kinds]
    expected = np.stack([frame["x"].to_numpy(np.float32), *dummies], axis=1)
    np.testing.assert_array_equal(read.inputs, expected)
    np.testing.assert_array_equal(read.targets, frame["y"])


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"connector": "excel"}, 'connector = "excel": allowed: "csv", "parquet"'),
        ({"seperator": ";"}, "seperator: unknown key; did you mean separator?"),
        ({"separator": ";;"}, 'separator = ";;": allowed: one character or "whitespace"'),
        ({"label": None}, "label"),
        ({"missing": "ignore"}, 'missing = "ignore": allowed: "refuse", "drop"'),
        ({"drop": ["b"]}, 'drop: holds the label, "b"'),
        ({"categories": {"b": ["x"]}}, "categories.b: is the label"),
        ({"categories": {"a": ["x", "x"]}}, "categories.a: must list every category once"),
        ({"categories": {"a": ["x"]}, "fill": {"a": "y"}}, "fill.a: is none of categories.a"),
        ({"fill": {"a": "y"}}, "fill.a: must be a number, for categories.a is not given"),
        ({"fill": {"b": 1.0}}, "fill.b: is the label; a record without it is refused or dropped"),
        ({"fill": {"zz": 1.0}}, 'fill: the files have no column "zz"; the columns are "a", "b"'),
        ({"label_map": {"x": 0}, "label_threshold": 1.0}, "label_threshold: stands beside"),
        ({"header": False}, "columns: missing: without a header"),
        ({"decimal": ","}, 'decimal: "," is the separator too'),
        ({"encoding": "klingon"}, 'encoding = "klingon": unknown'),
        ({"test": {"fraction": 1.0}}, "test.fraction = 1.0: allowed: a number > 0 and < 1"),
        ({"test": {"column": "a"}}, "`column` and `value` are given together"),
        ({"test": {"column": "a", "value": "1", "fraction": 0.5}}, "give either `fraction` or"),
        ({"partition": 2, "partitions": 2}, "partition = 2: allowed: 0..1"),
        ({"drop": ["a"]}, "no column is left for inputs"),
    ],
)
def test_a_wrong_table_is_refused_in_a_sentence(
    tmp_path: Path, changed: dict[str, object], sentence: str
) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,0\n2,1\n", encoding="utf-8")
    assert sentence in refusal(tmp_path, **{"files": "t.csv", "label": "b", **changed})


def test_names_of_parquets_columns_are_replaced(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"c0": [1.0, 2.0], "c1": [0, 1]}), tmp_path / "p.parquet")
    options = {"connector": "parquet", "files": "p.parquet", "label": "y"}
    assert records(tmp_path, **options, columns=["x", "y"]).names == ("x",)
    told = refusal(tmp_path, **options, columns=["x"])
    assert told == "p.parquet has 2 columns, the key `columns` names 1"


def test_files_whose_types_differ_are_refused(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"x": [1.0], "y": [0]}), tmp_path / "1.parquet")
    parquet.write_table(pa.table({"x": [1], "y": [1]}), tmp_path / "2.parquet")
    options = {"connector": "parquet", "files": "*.parquet", "label": "y"}
    np.testing.assert_array_equal(records(tmp_path, **options).inputs, [[1], [1]])
    parquet.write_table(pa.table({"x": ["one"], "y": [1]}), tmp_path / "2.parquet")
    assert "the files' columns are of different types" in refusal(tmp_path, **options)
