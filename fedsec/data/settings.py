"""The tables ``[data.NAME]`` of `node.toml`, one model per connector. No numpy, no pyarrow.

Every error names the key, its value and what is allowed; the files themselves are looked at later.
"""

import codecs
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fedsec.errors import ConfigError
from fedsec.plan.reading import list_problems, read_mapping

Column: TypeAlias = Annotated[str, Field(min_length=1, max_length=200)]
Text: TypeAlias = Annotated[str, Field(max_length=200)]
FileName: TypeAlias = Annotated[str, Field(min_length=1, max_length=4096)]
Separator: TypeAlias = Annotated[
    str, Field(pattern=r"^([^\r\n\\\"']|whitespace)$", description='one character or "whitespace"')
]
FolderName: TypeAlias = Annotated[
    str, Field(pattern=r"^[^/\x00]{1,255}$", description="the name of a folder, without /")
]
Side: TypeAlias = Annotated[int, Field(ge=1, le=4096)]
DecimalSign: TypeAlias = Annotated[str, Field(pattern=r"^[.,]$", description='"." or ","')]


def _listed(given: object) -> object:
    return [given] if isinstance(given, str) else given


Files: TypeAlias = Annotated[list[FileName], Field(min_length=1), BeforeValidator(_listed)]

MARKERS = ["", "?", "NA", "N/A", "NaN", "nan", "NULL", "null"]
"""What stands for a missing value unless the table says otherwise."""


class Table(BaseModel):
    """A table of `node.toml`: fixed once read, and a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Test(Table):
    """Which records are kept from training, to evaluate on.

    Args:
        fraction: Share of the records, drawn by `seed`; a fifth if nothing else is said.
        seed: The same seed draws the same records.
        stratified: Whether each class gives the same share; not for a target that is a number.
        column: Of the file, instead of a draw; it is no input.
        value: Records with this text in `column` are for tests.
    """

    __test__ = False  # no test of pytest's

    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 1
    stratified: bool = True
    column: Column | None = None
    value: Text | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.column is None) != (self.value is None):
            raise ValueError("`column` and `value` are given together")
        if self.column is not None and self.fraction is not None:
            raise ValueError("give either `fraction` or `column`, not both")
        return self


class Connector(Table):
    """What all connectors have: the test split, and a part of the whole for simulations.

    Args:
        connector: Name of the connector.
        directory: Where relative names of files begin; the node's own directory if left out.
        test: Which records are for tests only; a table of its own.
        partition: Which part of the records this node has, 0..partitions-1.
        partitions: Parts that the records are divided into; 1 for a site's own files.
        split: How parts are made.
        alpha: Of ``"dirichlet"``; small: few classes per part.
        shards_per_node: Of ``"shards"``.
        seed: Of the division.
    """

    connector: str
    directory: FileName = "."
    test: Test = Test()
    partition: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    partitions: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    split: Literal["iid", "dirichlet", "shards"] = "iid"
    alpha: Annotated[float, Field(gt=0, le=1e6)] = 0.5
    shards_per_node: Annotated[int, Field(ge=1, le=1_000)] = 2
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 1

    def contradictions(self) -> Iterator[str]:
        """Yields a sentence for each pair of keys that do not fit."""
        if self.partition >= self.partitions:
            yield f"partition = {self.partition}: allowed: 0..{self.partitions - 1}"


class Columns(Connector):
    """What files of columns have in common.

    Args:
        files: One name or several; ``*`` and ``?`` stand for any letters of a name.
        columns: Names of the columns, in order; instead of those in the file.
        keep: The columns that may become inputs; all if left out.
        drop: Columns that may not.
        missing_markers: Texts that stand for a missing value, in every column.
        column_markers: Further ones, by column.
        missing: What happens to a record with a missing value that `fill` does not cover.
        fill: What stands in for missing values, by column: a number, or one of its categories.
        categories: By column, every text that may stand there; each becomes an input of its own,
            ``column=text``, that is 1 or 0. As a table: from the name that all sites use to the
            text in this site's files, e.g. ``smoker = { no = "nein", yes = "ja" }``.
        label: The column to be learned: numbers as they are, classes 0, 1, ... or what the next
            two keys make of it.
        label_map: From the label's texts to classes, counted from 0.
        label_threshold: The label becomes 1 above this number and 0 elsewhere.
    """

    files: Files
    columns: list[Column] | None = None
    keep: list[Column] | None = None
    drop: list[Column] = []
    missing_markers: list[Text] = MARKERS
    column_markers: dict[Column, list[Text]] = {}
    missing: Literal["refuse", "drop"] = "refuse"
    fill: dict[Column, float | Text] = {}
    categories: dict[Column, list[Text] | dict[Text, Text]] = {}
    label: Column
    label_map: dict[Text, Annotated[int, Field(ge=0, le=100_000)]] | None = None
    label_threshold: float | None = None

    def contradictions(self) -> Iterator[str]:
        """See `Connector`."""
        yield from super().contradictions()
        if self.label_map is not None and self.label_threshold is not None:
            yield "label_threshold: stands beside label_map; give one of the two"
        if self.label in self.drop:
            yield f'drop: holds the label, "{self.label}"'
        if self.label in self.categories:
            yield f"categories.{self.label}: is the label; label_map gives its texts numbers"
        if self.label in self.fill:
            yield f"fill.{self.label}: is the label; a record without it is refused or dropped"
        for name in self.categories:
            _, texts = self.category(name)
            if len(set(texts)) != len(texts) or not texts:
                yield f"categories.{name}: must list every category once, and at least one"
        for name, value in self.fill.items():
            if name in self.categories and str(value) not in self.category(name)[0]:
                yield f"fill.{name}: is none of categories.{name}"
            if name not in self.categories and isinstance(value, str):
                yield f"fill.{name}: must be a number, for categories.{name} is not given"

    def category(self, column: str) -> tuple[list[str], list[str]]:
        """Returns the categories of a column, and the text of each in the files."""
        given = self.categories[column]
        if isinstance(given, dict):
            return list(given), list(given.values())
        return given, given


class Csv(Columns):
    """Text files with one record per line.

    Args:
        separator: Between two fields: one character, or ``"whitespace"`` for any run of blanks.
        decimal: The sign before decimal places.
        quote: Around a field that holds the separator.
        encoding: Of the text.
        header: Whether the first line names the columns; if not, `columns` does.
        skip_rows: Lines before the header, or before the records where there is none.
    """

    connector: Literal["csv"]
    separator: Separator = ","
    decimal: DecimalSign = "."
    quote: Annotated[str, Field(pattern=r"^[\"']$", description="one quotation mark")] = '"'
    encoding: Text = "utf-8"
    header: bool = True
    skip_rows: Annotated[int, Field(ge=0, le=1_000_000)] = 0

    def contradictions(self) -> Iterator[str]:
        """See `Connector`."""
        yield from super().contradictions()
        if not self.header and self.columns is None:
            yield "columns: missing: without a header in the file (header = false) name them here"
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            yield f'encoding = "{self.encoding}": unknown; e.g. "utf-8", "latin-1", "utf-16"'
        if self.decimal == self.separator:
            yield f'decimal: "{self.decimal}" is the separator too'


class Parquet(Columns):
    """Parquet files, as Spark, pandas or DuckDB write them."""

    connector: Literal["parquet"]


class BreastCancer(Connector):
    """scikit-learn's 569 biopsies, to try things out; `partition` says which of them."""

    connector: Literal["breast-cancer"] = "breast-cancer"


class Idx(Connector):
    """Images and labels in the form of MNIST's files, plain or gzipped.

    Args:
        images: File with the images.
        labels: File with their classes.
        test_images: File with images for tests; `test` draws some of `images` if left out.
        test_labels: File with their classes.
    """

    connector: Literal["idx"]
    images: FileName
    labels: FileName
    test_images: FileName | None = None
    test_labels: FileName | None = None

    def contradictions(self) -> Iterator[str]:
        """See `Connector`."""
        yield from super().contradictions()
        if (self.test_images is None) != (self.test_labels is None):
            yield "test_images: is given together with test_labels"


class Npz(Connector):
    """Arrays that numpy saved.

    Args:
        file: Name of the file.
        images: Name of the array (n, height, width) or (n, height, width, channels).
        labels: Name of the array (n,) of classes.
        test_images: Name of the array of images for tests; `test` draws some if left out.
        test_labels: Name of the array of their classes.
        channels: Where the channels of a 4-dimensional array stand.
    """

    connector: Literal["npz"]
    file: FileName
    images: Text = "x"
    labels: Text = "y"
    test_images: Text | None = None
    test_labels: Text | None = None
    channels: Literal["last", "first"] = "last"

    def contradictions(self) -> Iterator[str]:
        """See `Connector`."""
        yield from super().contradictions()
        if (self.test_images is None) != (self.test_labels is None):
            yield "test_images: is given together with test_labels"


class Folder(Connector):
    """A folder with a folder of images for each class.

    Args:
        folder: Holds them.
        classes: Names of the folders, in the order of the classes: 0, 1, ... The same order at
            every site, so it is written down and not read from the disk.
        colour: What the images are turned into.
        size: Height and width that they are brought to; left out: all must have one size.
    """

    connector: Literal["folder"]
    folder: FileName
    classes: Annotated[list[FolderName], Field(min_length=1)]
    colour: Literal["grey", "rgb"] = "grey"
    size: Annotated[list[Side], Field(min_length=2, max_length=2)] | None = None

    def contradictions(self) -> Iterator[str]:
        """See `Connector`."""
        yield from super().contradictions()
        if len(set(self.classes)) != len(self.classes):
            yield "classes: names a folder twice"


CONNECTORS: Mapping[str, type[Connector]] = MappingProxyType(
    {
        "csv": Csv,
        "parquet": Parquet,
        "idx": Idx,
        "npz": Npz,
        "folder": Folder,
        "breast-cancer": BreastCancer,
    }
)
"""The connectors of the built-in tasks, by name."""

READERS: Mapping[str, str] = MappingProxyType(
    {
        "digits": "digits",
        "csv": "table",
        "parquet": "table",
        "idx": "images",
        "npz": "images",
        "folder": "images",
        "breast-cancer": "breast-cancer",
    }
)
"""The built-in task that reads each connector."""


def read_settings(options: Mapping[str, Any]) -> Connector:
    """Returns the checked form of a table ``[data.NAME]``.

    Raises:
        ConfigError: The connector is unknown, or keys or values are wrong; lists all of them.
    """
    name = options.get("connector")
    kind = CONNECTORS.get(name) if isinstance(name, str) else None
    if kind is None:
        known = ", ".join(f'"{each}"' for each in CONNECTORS)
        given = ": missing" if name is None else f' = "{str(name)[:80]}"'
        raise ConfigError(f"connector{given}: allowed: {known}")
    settings = read_mapping(kind, options, what="the table")
    problems = list(settings.contradictions())
    if problems:
        raise ConfigError(list_problems("the table", problems))
    return settings
