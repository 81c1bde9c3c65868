"""Where events go."""

import logging

import pytest

from fedsec.flower.reporting import LogReporter, Reporter, name_of, reporter_of
from tests.flower.fakes import FakeGrid


def test_a_grid_that_takes_events_gets_them() -> None:
    grid = FakeGrid([])
    assert reporter_of(grid) is grid
    assert isinstance(grid, Reporter)
    assert name_of(grid, 5) == "node 5"


def test_elsewhere_they_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    reporter = reporter_of(object())
    assert isinstance(reporter, LogReporter)
    with caplog.at_level(logging.INFO, "fedsec.run"):
        reporter.report("round", {"round": 1, "failed": {"7": "lost"}})
    assert caplog.messages == ['round {"round": 1, "failed": {"7": "lost"}}']
