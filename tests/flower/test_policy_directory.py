"""Malicious mode in a plain Flower app: each node goes by a directory that its site made."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message
from flwr.serverapp.strategy import FedAvg

from fedsec.errors import ConfigError, PolicyRefusal, StateError
from fedsec.flower import SecureStrategy, policy_directory
from fedsec.flower.app_mod import SIGNER, TURN
from fedsec.flower.policy_directory import POLICY, Held, make, read
from fedsec.identity.authorities import make_root
from fedsec.identity.roster import Member, Roster, sign
from fedsec.secagg.parameters import Minima
from tests.flower.test_secure_strategy import BEGIN, Fleet, make_plan

FEDERATION = "fed.example"
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
ROOT = make_root(FEDERATION, now=NOW - DAY)
PLAN = make_plan('mode = "malicious"\nclip = 100.0\n')
FIRST = 100  # a fleet's first node


class Sites:
    """The directories of nodes 100, 101, ..., and the root that signs for them."""

    def __init__(self, where: Path, nodes: int = 5) -> None:
        self.directories = {FIRST + place: where / f"site-{place}" for place in range(nodes)}
        self.keys = {
            node: make(directory, ROOT.certificate_pem)
            for node, directory in self.directories.items()
        }
        self.hand_out(self.signed())

    def signed(self, serial: int = 2, end: datetime = NOW + DAY, **keys: bytes) -> bytes:
        members = tuple(
            Member(node, f"spiffe://{FEDERATION}/node/{node:032x}", keys.get(f"n{node}", key))
            for node, key in self.keys.items()
        )
        return sign(Roster(FEDERATION, serial, end, members), ROOT)

    def hand_out(self, roster: bytes) -> None:
        for directory in self.directories.values():
            (directory / policy_directory.ROSTER).write_bytes(roster)

    def read(self, node: int = FIRST, now: datetime = NOW) -> Held:
        return read(self.directories[node], node, now=now)

    def fleet(self) -> Fleet:
        fleet = Fleet(PLAN)
        for node, context in fleet.contexts.items():
            context.node_config[POLICY] = str(self.directories[node])
        return fleet


@pytest.fixture
def sites(tmp_path: Path) -> Sites:
    return Sites(tmp_path)


def train(fleet: Fleet) -> np.ndarray:
    strategy = SecureStrategy(FedAvg(fraction_evaluate=0.0), PLAN)
    result = strategy.start(fleet, ArrayRecord([BEGIN]), num_rounds=1)
    array: np.ndarray = result.arrays.to_numpy_ndarrays()[0]
    return array


def test_a_sum_comes_about_and_no_long_term_key_gets_into_the_state(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet, pull, kept = sites.fleet(), Fleet.pull_messages, set[str]()

    def watched(self: Fleet, message_ids: object) -> list[Message]:
        kept.update(*(context.state for context in self.contexts.values()))
        return pull(self, message_ids)

    monkeypatch.setattr(Fleet, "pull_messages", watched)
    np.testing.assert_allclose(train(fleet), BEGIN + 2, atol=1e-4)  # parts 0..4: the mean is 2
    stages = [each.content.config_records["fedsec.secagg"]["stage"] for each in fleet.came]
    assert [stages.count(each) for each in ("nonce", "signature", "reveal")] == [5, 5, 5]
    assert TURN in kept
    assert SIGNER not in kept


def test_a_node_without_a_directory_refuses(sites: Sites) -> None:
    fleet = sites.fleet()
    for context in fleet.contexts.values():
        del context.node_config[POLICY]
    with pytest.raises(StateError, match="this node's node_config names no directory with them"):
        train(fleet)
    assert all(each.has_error() for each in fleet.came)


def test_a_coordinator_cannot_put_its_own_key_in_a_node_s_place(sites: Sites) -> None:
    """The root signed another key for node 101 than that by which the one there signs."""
    stranger = Sites(sites.directories[FIRST].parent / "elsewhere")
    sites.hand_out(sites.signed(n101=stranger.keys[FIRST + 1]))
    impostor = sites.directories[FIRST + 1]
    honest = sites.signed()
    (impostor / policy_directory.ROSTER).write_bytes(honest)  # it plays along
    fleet = sites.fleet()
    with pytest.raises(StateError, match="not-on-roster"):
        train(fleet)
    stages = {
        str(each.content.config_records["fedsec.secagg"]["stage"])
        for each in fleet.came
        if not each.has_error()
    }
    assert stages <= {"offer", "nonce"}  # the impostor's nonce; no share and no vector


def test_a_newer_roster_is_kept_and_none_before_it_is_gone_by(sites: Sites) -> None:
    sites.read()
    sites.hand_out(sites.signed(serial=3))
    assert sites.read().trusted == sites.keys
    sites.hand_out(sites.signed(serial=2))
    with pytest.raises(PolicyRefusal, match="rolled-back: the roster has serial 2, this node has"):
        sites.read()


def test_what_a_node_does_not_go_by(sites: Sites, tmp_path: Path) -> None:
    with pytest.raises(PolicyRefusal, match="expired"):
        sites.read(now=NOW + 2 * DAY)
    with pytest.raises(PolicyRefusal, match="not-on-roster: node 7 is not on the roster"):
        read(sites.directories[FIRST], 7, now=NOW)
    with pytest.raises(PolicyRefusal, match="wrong-entry"):
        read(sites.directories[FIRST], FIRST + 1, now=NOW)
    stranger = Sites(tmp_path / "elsewhere", 1)
    sites.hand_out(stranger.signed())
    with pytest.raises(PolicyRefusal, match=r"signing key SHA256:.* is not on the roster"):
        sites.read()
    sites.hand_out(sites.signed()[:-1] + b"\0")
    with pytest.raises(PolicyRefusal, match="wrong-issuer"):
        sites.read()


def test_a_directory_that_others_can_read_is_not_used(sites: Sites) -> None:
    sites.directories[FIRST].chmod(0o755)
    with pytest.raises(ConfigError, match="open to other users"):
        sites.read()


def test_a_key_is_not_made_twice(sites: Sites) -> None:
    with pytest.raises(ConfigError, match="a node keeps its key"):
        make(sites.directories[FIRST], ROOT.certificate_pem)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("min_cohort = [", "is no TOML"),
        ("min_cohorts = 5", "unknown key 'min_cohorts'; there are min_cohort"),
        ("min_cohort = -1", "min_cohort must be a whole number >= 0, got -1"),
        ("min_cohort = true", "min_cohort must be a whole number >= 0, got True"),
    ],
)
def test_bad_minima(sites: Sites, text: str, message: str) -> None:
    (sites.directories[FIRST] / policy_directory.MINIMA).write_text(text)
    with pytest.raises(ConfigError, match=message):
        sites.read()


@pytest.mark.parametrize("name", [policy_directory.MINIMA, policy_directory.NEWEST])
def test_a_link_to_nowhere_is_not_taken_for_a_file_that_is_left_out(
    sites: Sites, name: str
) -> None:
    (sites.directories[FIRST] / name).symlink_to("gone")
    with pytest.raises(ConfigError, match=f"cannot read .*{name}"):
        sites.read()


def test_minima_bind(sites: Sites) -> None:
    text = "min_cohort = 6\nmin_threshold = 2\n"
    for directory in sites.directories.values():
        (directory / policy_directory.MINIMA).write_text(text)
    assert sites.read().minima == Minima(cohort=6, threshold=2)
    with pytest.raises(StateError, match=r"5 nodes, less than this node's policy.min_cohort = 6"):
        train(sites.fleet())


def test_a_site_s_most_attempts_bind(sites: Sites) -> None:
    for directory in sites.directories.values():
        (directory / policy_directory.MINIMA).write_text("max_attempts = 2\n")
    with pytest.raises(
        StateError, match=r"round\.attempts = 3 is more than .*policy\.max_attempts = 2"
    ):
        train(sites.fleet())
