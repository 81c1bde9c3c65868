"""What the threat model and the sharp edges point to is there: every test, by file and by name."""

import re
from pathlib import Path

import pytest

from tests.end_to_end import lies

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
EDGES = {path.name: path.read_text("utf-8") for path in (ROOT / "docs/sharp-edges").glob("*.md")}
PAGES = "\n".join((TEXT, *EDGES.values()))
NAMED = sorted(set(re.findall(r"(tests/[a-z_/]+\.py)(?:::(\w+))?", PAGES)))


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_test_that_is_named_is_there(path: str, name: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert f"def {name}(" in text if name else "def " in text


def test_every_row_of_a_table_with_tests_names_one_or_says_that_there_is_none() -> None:
    rows = [row for table in tables(TEXT) if table[0].endswith("| test |") for row in table[2:]]
    assert len(rows) > 80
    for row in rows:
        last = row.rstrip("| ").rpartition("|")[2]
        assert "`" in last or last.strip() == "no test", row


def tables(page: str) -> list[list[str]]:
    """Returns the lines of each table."""
    blocks = [block.strip().splitlines() for block in page.split("\n\n")]
    return [block for block in blocks if all(line.startswith("|") for line in block)]


def test_every_lie_of_the_coordinator_is_in_the_table() -> None:
    table = TEXT.partition("### What a lying coordinator tries")[2].partition("###")[0]
    assert {lie.__name__ for lie in lies.LIES} <= set(re.findall(r"`(\w+)`", table))


def test_every_trap_has_a_page_that_names_a_test_and_stands_in_the_index() -> None:
    listed = re.findall(r"\]\(([a-z-]+\.md)\)", EDGES["privacy.md"])
    assert {*listed, "README.md", "privacy.md"} == set(EDGES)
    assert all("tests/" in EDGES[page] for page in listed)
