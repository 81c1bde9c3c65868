"""What a scene allocates each time is told, and what came beside it once is not."""

from tests.memory import peak_of

LARGE = 1_000_000


def test_what_each_play_allocates_is_its_peak() -> None:
    assert LARGE <= peak_of(lambda: bytes(LARGE)) < 2 * LARGE


def test_what_came_beside_one_play_is_not() -> None:
    sizes = iter([10, LARGE, LARGE])
    assert peak_of(lambda: bytes(next(sizes))) < LARGE / 10
