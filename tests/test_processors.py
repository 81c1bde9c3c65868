"""Processors are those that this process may use, not all that there are."""

import os

import pytest

from fedsec.processors import processors, threads_allowed


def test_processors_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {1, 3, 5}, raising=False)
    assert processors() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert processors() == 7


@pytest.mark.parametrize(
    ("said", "allowed"), [("1", 1), ("1,4", 1), ("100000", None), ("0", None), ("two", None)]
)
def test_the_number_of_threads_that_a_process_was_told_is_kept(
    said: str, allowed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert threads_allowed() == (allowed or processors())
