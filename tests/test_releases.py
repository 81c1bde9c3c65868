"""A release is one vector for ever, and paid for before anybody sees it."""

from pathlib import Path

import numpy as np
import pytest

from fedsec.errors import BudgetExhausted, ConfigError, StateError
from fedsec.releases import Releases
from fedsec.vectors import Vector


def noised(seed: int) -> Vector:
    return np.random.default_rng(seed).standard_normal(1000).astype(np.float32)


def free() -> None:
    """Costs nothing."""


def never() -> Vector:
    raise AssertionError("it was made again")


def test_the_same_release_is_the_same_vector_for_ever(tmp_path: Path) -> None:
    first = Releases(tmp_path / "r").once("round 1", lambda: noised(1), free)
    again = Releases(tmp_path / "r").once("round 1", never, free)
    np.testing.assert_array_equal(first, noised(1))
    np.testing.assert_array_equal(again, noised(1))


def test_releases_have_names_of_any_form(tmp_path: Path) -> None:
    releases = Releases(tmp_path / "r")
    for number, key in enumerate(("round 1", "round 2", "../../etc/passwd", "a" * 1000, "")):
        np.testing.assert_array_equal(
            releases.once(key, lambda n=number: noised(n), free), noised(number)
        )
    assert {path.parent for path in tmp_path.rglob("*.release")} == {tmp_path / "r"}


def test_what_cannot_be_paid_is_not_published_and_stays_the_same(tmp_path: Path) -> None:
    def broke() -> None:
        raise BudgetExhausted("nothing left")

    releases = Releases(tmp_path / "r")
    with pytest.raises(BudgetExhausted):
        releases.once("round 1", lambda: noised(1), broke)
    np.testing.assert_array_equal(releases.once("round 1", never, free), noised(1))


def test_it_is_stored_before_it_is_paid_and_paid_each_time(tmp_path: Path) -> None:
    seen: list[int] = []
    releases = Releases(tmp_path / "r")

    def pay() -> None:
        seen.append(len(list((tmp_path / "r").glob("*.release"))))

    for _ in range(2):
        releases.once("round 1", lambda: noised(1), pay)
    assert seen == [1, 1]


@pytest.mark.parametrize("damage", [b"", b"x", b"fedsec-release-1\n"])
def test_a_damaged_release_is_never_replaced(tmp_path: Path, damage: bytes) -> None:
    releases = Releases(tmp_path / "r")
    releases.once("round 1", lambda: noised(1), free)
    (path,) = (tmp_path / "r").glob("*.release")
    path.write_bytes(damage or path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(StateError, match="another one must not be made"):
        releases.once("round 1", never, free)


def test_the_directory_is_private(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir(mode=0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        Releases(tmp_path / "r")


def test_old_releases_are_emptied_and_never_made_again(tmp_path: Path) -> None:
    releases = Releases(tmp_path / "r")
    for number in range(5):
        releases.once(f"round {number}", lambda n=number: noised(n), free)
    sizes = sorted(path.stat().st_size for path in (tmp_path / "r").glob("*.release"))
    assert sizes[:3] == [0, 0, 0]
    assert sizes[3] > 4000
    np.testing.assert_array_equal(releases.once("round 3", never, free), noised(3))
    with pytest.raises(StateError, match="an older round"):
        releases.once("round 0", never, free)


def test_a_directory_has_a_name_of_its_own_that_stays(tmp_path: Path) -> None:
    names = {Releases(tmp_path / str(number)).name for number in range(10)}
    assert len(names) == 10
    assert {len(name) for name in names} == {32}
    assert Releases(tmp_path / "3").name in names
