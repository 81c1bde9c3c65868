"""The soak of `make soak`, for as long as CI can wait."""

from pathlib import Path

import pytest

from tests.end_to_end.soaking import soak


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_thirty_nodes_come_and_go_and_nothing_is_lost_or_left(tmp_path: Path) -> None:
    told = soak(tmp_path, seconds=45, seed=20_261_127)
    assert "rounds with 30 nodes" in told
