"""A study at four sites, as raw files of the kind that exist, to train on in docs/quickstart.md.

    python examples/four_sites.py study

writes study/north, study/south, study/east and study/west: each a node's directory with the site's
own files and its node.toml. Behind all records stands one logistic model, so what can be learned is
known; each site alone has too few of them to find it.

    north   one file with a header and commas; missing values are "?"
    south   no header, semicolons, decimal commas, missing values are -9, answers "ja" and "nein"
    east    three yearly files, separated by tabs, text in Latin-1; the outcome is a score
    west    Parquet, with other columns beside
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

SEED = 20
MARKERS = [f"m{number}" for number in range(1, 11)]
SIZES = {"north": 320, "south": 260, "east": 400, "west": 300}
TEST = "test = { fraction = 0.75 }  # many tests, so that the comparison is no accident"

TABLES = {
    "north": f"""
connector = "csv"
files = "records.csv"
label = "ill"
missing = "drop"                    # records that lack a value are left out
categories = {{ smoker = ["no", "yes"], stage = ["1", "2", "3"] }}
{TEST}
""",
    "south": f"""
connector = "csv"
files = "export.txt"
separator = ";"
decimal = ","
header = false
columns = ["ill", "stage", "smoker", "bmi", "age", {", ".join(f'"{name}"' for name in MARKERS)}]
column_markers = {{ bmi = ["-9"] }}
fill = {{ bmi = 27.0 }}               # what stands in for a missing value
categories = {{ smoker = {{ no = "nein", yes = "ja" }}, stage = ["1", "2", "3"] }}
label = "ill"
label_map = {{ gesund = 0, krank = 1 }}
{TEST}
""",
    "east": f"""
connector = "csv"
files = "20*.tsv"
separator = "\\t"
encoding = "latin-1"
drop = ["clinic"]                   # never leaves the file
categories = {{ smoker = ["no", "yes"], stage = ["1", "2", "3"] }}
label = "score"
label_threshold = 0.5               # ill above it
{TEST}
""",
    "west": f"""
connector = "parquet"
files = "records.parquet"
keep = ["age", "bmi", "smoker", "stage", {", ".join(f'"{name}"' for name in MARKERS)}]
categories = {{ smoker = ["no", "yes"], stage = ["1", "2", "3"] }}
label = "ill"
{TEST}
""",
}

NODE = """\
schema = 1

[limits]
threads = 1

[policy]
allowed_tasks = ["table"]

[data.trial]
"""


def records(count: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draws records and their outcomes from the model that all sites share."""
    frame = pd.DataFrame(rng.normal(0, 1, (count, len(MARKERS))).round(3), columns=MARKERS)
    frame.insert(0, "age", rng.normal(62, 11, count).round(1))
    frame.insert(1, "bmi", rng.normal(27, 4, count).round(1))
    frame.insert(2, "smoker", rng.choice(["no", "yes"], count, p=[0.6, 0.4]))
    frame.insert(3, "stage", rng.integers(1, 4, count))
    weights = np.array([1.2, -1.1, 1.0, -0.9, 0.9, 0.8, -0.8, 0.7, -0.7, 0.6])
    signal = frame[MARKERS].to_numpy() @ weights
    signal += 0.06 * (frame["age"] - 62) + 0.10 * (frame["bmi"] - 27)
    signal += 1.0 * (frame["smoker"] == "yes") + 0.6 * (frame["stage"] - 2) - 0.4
    frame["ill"] = (signal + rng.logistic(0, 0.6, count) > 0).astype(int)
    return frame


def write_north(place: Path, frame: pd.DataFrame) -> None:
    """One file as everybody would like it, but for a few question marks."""
    text = frame.astype(str)
    text.loc[np.arange(7, len(frame), 41), "m3"] = "?"
    text.to_csv(place / "records.csv", index=False)


def write_south(place: Path, frame: pd.DataFrame) -> None:
    """An export: no header, semicolons, decimal commas, words of another language."""
    frame = frame[["ill", "stage", "smoker", "bmi", "age", *MARKERS]].copy()
    frame.loc[np.arange(3, len(frame), 29), "bmi"] = -9
    frame["smoker"] = frame["smoker"].map({"no": "nein", "yes": "ja"})
    frame["ill"] = frame["ill"].map({0: "gesund", 1: "krank"})
    text = frame.to_csv(None, sep=";", decimal=",", header=False, index=False)
    (place / "export.txt").write_text(text.replace(";-9,0;", ";-9;"), encoding="utf-8")


def write_east(place: Path, frame: pd.DataFrame) -> None:
    """A file per year; the outcome is a score, and one column is nobody's business."""
    frame = frame.assign(clinic="Universitätsklinik", score=frame["ill"] * 0.6 + 0.2)
    for number, part in enumerate(np.array_split(np.arange(len(frame)), 3)):
        table = frame.iloc[part].drop(columns="ill")
        table.to_csv(place / f"{2022 + number}.tsv", sep="\t", index=False, encoding="latin-1")


def write_west(place: Path, frame: pd.DataFrame) -> None:
    """A table of a database, with its types and a key."""
    frame.assign(key=range(len(frame))).to_parquet(place / "records.parquet", index=False)


WRITERS = {"north": write_north, "south": write_south, "east": write_east, "west": write_west}


def write_study(directory: Path) -> None:
    """Writes the four sites; the same files each time."""
    rng = np.random.default_rng(SEED)
    for name, count in SIZES.items():
        place = directory / name
        place.mkdir(parents=True, mode=0o700)
        WRITERS[name](place, records(count, rng))
        (place / "node.toml").write_text(NODE + TABLES[name].lstrip(), encoding="utf-8")


def main() -> None:
    """Writes the study where the command line says; without a place, only to look at it."""
    if len(sys.argv) > 1:
        write_study(Path(sys.argv[1]))
        print(f"Written: {', '.join(f'{sys.argv[1]}/{name}' for name in SIZES)}")
        return
    with tempfile.TemporaryDirectory() as place:
        write_study(Path(place))
        for path in sorted(Path(place).rglob("*.*")):
            print(f"{path.relative_to(place)!s:24} {path.stat().st_size:>7} bytes")


if __name__ == "__main__":
    main()
