"""docs/architecture.md names files that are there, and every package has a room on it."""

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
PAGE = (CHECKOUT / "docs" / "architecture.md").read_text("utf-8")
SHORT = {
    "flower": "fedsec/flower",
    "server": "server/fedsec_server",
    "client": "clients/fedsec_client",
}
PATH = re.compile(r"[a-z_]+(?:/[a-z_]+)*/(?:\{[a-z_,]+\}|[a-z_]+)\.py")


def files() -> set[str]:
    """What the page names, with braces expanded."""
    found = set()
    for path in PATH.findall(PAGE):
        folder, _, name = path.rpartition("/")
        for each in name.removesuffix(".py").strip("{}").split(","):
            found.add(f"{folder}/{each}.py")
    return found


@pytest.mark.parametrize("path", sorted(files()))
def test_the_page_names_files_that_are_there(path: str) -> None:
    first, _, rest = path.partition("/")
    places = [
        CHECKOUT / path,
        CHECKOUT / "fedsec" / path,
        CHECKOUT / SHORT.get(first, first) / rest,
    ]
    assert any(place.is_file() for place in places)


def test_every_package_of_the_library_has_a_room() -> None:
    packages = {each.parent.name for each in (CHECKOUT / "fedsec").glob("*/__init__.py")}
    assert not {each for each in packages if f"fedsec/{each}/" not in PAGE}


def test_it_looks_at_more_than_a_few() -> None:
    assert len(files()) > 40
