"""Chunks are worked on beside each other; the result is the one of a loop."""

import threading

import pytest

from fedsec.wire import parallel
from fedsec.wire.parallel import for_each


@pytest.fixture(params=[1, 2, 64])
def _processors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "processors", lambda: request.param)


@pytest.mark.usefixtures("_processors")
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 100])
def test_the_order_is_that_of_the_chunks(count: int) -> None:
    assert for_each(lambda number: number * number, range(count)) == [n * n for n in range(count)]


@pytest.mark.usefixtures("_processors")
def test_the_first_error_is_raised() -> None:
    def work(number: int) -> int:
        if number % 10 == 3:
            raise ValueError(f"chunk {number}")
        return number

    with pytest.raises(ValueError, match=r"chunk 3$"):
        for_each(work, range(40))


def test_two_threads_are_at_work_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "processors", lambda: 2)
    both = threading.Barrier(2, timeout=60)  # whom nobody joins breaks it
    assert len(for_each(lambda _: both.wait(), range(4))) == 4


def test_without_further_threads_it_is_done_by_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(parallel, "processors", lambda: 2)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert for_each(str, range(8)) == list("01234567")


def test_an_error_of_the_work_is_not_taken_for_a_lack_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_number: int) -> None:
        raise RuntimeError("of its own")

    monkeypatch.setattr(parallel, "processors", lambda: 2)
    with pytest.raises(RuntimeError, match="of its own"):
        for_each(fail, range(8))
