"""A node's state survives as bytes at every stage, in both modes; rubbish is not read."""

import pytest

from fedsec.errors import StateError
from fedsec.secagg import node
from fedsec.secagg.coordinator import Opened
from fedsec.secagg.keeping import read_state, write_state
from tests.secagg.rig import Rig, Sent, make_setting, silent

IDS = tuple(range(10, 20))


@pytest.mark.parametrize("malicious", [False, True])
def test_a_session_goes_on_from_bytes_at_every_stage(malicious: bool) -> None:
    setting = make_setting(malicious=malicious)
    seen = set()

    def restore(_stage: str, i: int, sent: Sent) -> Sent:
        state = rig.states[i]
        kept = read_state(setting, write_state(state))
        assert kept == state
        rig.states[i] = kept
        seen.add(type(state))
        return sent

    gone = {12: "vector", 13: "revealed"} | ({14: "nonce"} if malicious else {})
    rig = Rig(setting, IDS, tamper=silent(gone), twist=restore)
    end = rig.run()
    assert isinstance(end, Opened)
    assert end.total.tolist() == rig.expected(set(IDS) - ({12, 14} if malicious else {12}))
    assert seen == {node.Offered, node.Shared, node.Masked} | (
        {node.Revealing} if malicious else set()
    )


def test_a_state_in_a_ring_survives() -> None:
    ids = tuple(range(100, 166))
    rig = Rig(make_setting(), ids, tamper=silent({101: "revealed"}))
    rig.run()
    state = rig.states[101]
    assert read_state(rig.setting, write_state(state)) == state


def test_a_finished_state_holds_nothing() -> None:
    assert write_state(node.Finished()) == {"finished": b""}
    assert read_state(make_setting(), {"finished": b""}) == node.Finished()


@pytest.mark.parametrize(
    "kept",
    [{"offered": b""}, {"shared": b"\xff" * 9, "secrets": b""}, {"masked": bytes(8)}],
)
def test_rubbish_is_not_read(kept: dict[str, bytes]) -> None:
    with pytest.raises(StateError, match="cannot be read"):
        read_state(make_setting(), kept)
