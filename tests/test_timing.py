"""A scene that is late each time fails, and one that was held up once does not."""

import asyncio

import pytest

from tests.timing import at_once


def play(took: list[float]) -> list[int]:
    played = []

    async def scene(attempt: int) -> float:
        played.append(attempt)
        return took[attempt]

    asyncio.run(at_once(scene, 1.0))
    return played


def test_the_first_in_time_is_the_last() -> None:
    assert play([0.9]) == [0]
    assert play([1.2, 0.9]) == [0, 1]


def test_late_each_time() -> None:
    with pytest.raises(AssertionError, match=r"took \[1\.0, 1\.2, 1\.1\] s; less than 1\.0 s"):
        play([1.0, 1.2, 1.1, 0.1])
