"""Records of nodes as a person is told them: whatever an app wrote, the answer can be made."""

import math

from fedsec_server.node_records import Found, reply


def test_what_is_no_record_of_a_node_is_left_out() -> None:
    wild = {"nodes": [7, -1, 1 << 64, True, "8"], "weight": 10**400, "rank": -1, "norm": "long"}
    told = reply(Found(3, False, [wild, 5, None, {"nodes": 7, "cosine": math.nan}]))
    assert (told.round, len(told.row)) == (3, 2)
    first, second = told.row
    assert list(first.node_id) == [7]
    assert not any(first.HasField(key) for key in ("weight", "rank", "norm", "cosine"))
    assert not second.node_id
    assert math.isnan(second.cosine)
