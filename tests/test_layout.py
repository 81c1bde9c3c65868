"""Rooms stay livable: no file, function or nesting of folders in the product outgrows its limit."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
PACKAGES = ("fedsec", "server/fedsec_server", "clients/fedsec_client", "simulations/fedsec_sim")
GENERATED = CHECKOUT / "fedsec" / "wire" / "generated"
FILES = sorted(
    path
    for package in PACKAGES
    for path in (CHECKOUT / package).rglob("*.py")
    if GENERATED not in path.parents
)
MOST_LINES = 400
MOST_LINES_OF_A_FUNCTION = 40  # its parameters, however many lines they take, count as one
DEEPEST = 3  # folders inside a package


def functions_that_are_too_long(source: str) -> Iterator[str]:
    for each in ast.walk(ast.parse(source)):
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (each.end_lineno or 0) - each.body[0].lineno + 2
            if lines > MOST_LINES_OF_A_FUNCTION:
                yield f"{each.name}, line {each.lineno}: {lines} lines"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_files_and_functions_are_short(path: Path) -> None:
    source = path.read_text("utf-8")
    assert len(source.splitlines()) <= MOST_LINES
    assert not list(functions_that_are_too_long(source))


def test_tests_are_short_files_too() -> None:
    tests = (CHECKOUT / "tests").rglob("*.py")
    assert not [path for path in tests if len(path.read_text("utf-8").splitlines()) > MOST_LINES]


def test_folders_are_flat() -> None:
    for package in PACKAGES:
        root = CHECKOUT / package
        deep = [path for path in FILES if root in path.parents]
        assert max(len(path.relative_to(root).parts) - 1 for path in deep) <= DEEPEST


@pytest.mark.parametrize(("lines", "found"), [(38, []), (39, ["f, line 1: 41 lines"])])
def test_a_function_one_line_too_long_is_found(lines: int, found: list[str]) -> None:
    parameters = "".join(f"    p{index},\n" for index in range(20))
    source = f'def f(\n{parameters}):\n    """Says."""\n' + "    pass\n" * lines
    assert list(functions_that_are_too_long(source)) == found


def test_the_product_is_looked_at() -> None:
    assert len(FILES) > 300
