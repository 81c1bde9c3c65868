"""A coordinator that lies to a real node, program against program over mutual TLS.

`tests/end_to_end/liar.py` is that coordinator. Every lie must be refused with its reason, no second
share may leave, and after all of them an honest sum must still come about.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsec_sim.processes import Family, Process, wait_until
from tests.end_to_end import lies

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SECONDS = 600.0
ROOT = Path(__file__).parents[2]
NODE = (sys.executable, "-P", "-c", "from fedsec.cli import main; main()", "node", "start")

OFFERS = {
    "no secure sum": 'the plan has no [secure_aggregation]; this node\'s policy.secure_aggregation = "malicious"',
    "trust in the coordinator": 'secure_aggregation.mode = "semi-honest" is less than this node\'s policy',
    "short words": "words of 16 bits are less than this node's policy.min_word_bits = 32",
    "a wide clip": "L2 norm of 11, more than this node's policy.max_clip = 10",
    "small rounds": "6 nodes, less than this node's policy.min_cohort = 7",
    "small groups": "5 nodes in a group, less than this node's policy.min_group = 6",
    "no roster": "not-on-roster: none came, and this node has never had one",
    "a roster of another root": "wrong-issuer: the roster is not signed by this federation's root",
    "a roster without the node": "not-on-roster: node 7 is not on the roster of serial 9",
    "an older roster": "rolled-back: the roster has serial 4, this node has seen 5 already",
}
LIES = {
    "foreign_keys": "not-on-roster: node 23",
    "invented_member": "not-on-roster: node 99",
    "few_members": "too-few-nodes: 4 members, the plan's quorum is 5",
    "fewer_than_the_site_wants": "6 nodes, less than this node's policy.min_cohort = 7",
    "replayed_keys": "bad-signature",
    "another_roster_than_shown": "equivocation",
    "chosen_nonce": "bad-nonce",
    "lower_threshold": "too-few-shares: good shares of 4 nodes, the threshold is 5",
    "replayed_shares": "too-few-shares: good shares of 1 nodes, the threshold is 5",
    "invented_neighbour": "not-a-neighbour",
    "neighbours_of_its_choice": "not-a-neighbour",
    "cut_off_in_a_ring": "too-few-shares: good shares of 13 nodes, the threshold is 14",
    "second_vector": "stage vector of train of round 15, attempt 1, was asked for before",
    "without_the_victim": "bad-survivors",
    "few_survivors": "too-few-nodes: 4 survivors, at least 5 are needed",
    "alive_twice": "malformed",
    "two_lists": "equivocation: other survivors than those that this node signed",
    "few_signatures": "too-few-signatures: 4 signatures of holders, the threshold is 5",
    "forged_signature": "bad-signature",
    "second_request": "stage reveal of train of round 22, attempt 1, was asked for before",
    "another_round": "stage signature of round 23, attempt 1: this node is not in it",
    "the_same_attempt_again": "stage offer of train of round 25, attempt 1, was asked for before",
    "an_earlier_attempt": "a secure sum is made once",
    "more_attempts": "attempt 4 at round 27; the plan has 3 (round.attempts)",
    "another_run": "does not take part in the run",
    "another_plan": "the message belongs to plan",
    "in_plain": "would have the update leave in plain",
    "evaluation": "no figure of one node leaves it",
    "malformed": "malformed",
    "unknown_stage": "bad-instruction: there is no such stage",
    "another_model_than_to_others": "bad-signature",
}

RESTARTED = {
    "an older roster after a restart": "rolled-back: the roster has serial 4, this node has seen 5",
    "the same attempt after a restart": "a secure sum is made once",
    "a later stage after a restart": "this node is not in it",
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What the node answered to every lie, by its name."""
    directory = tmp_path_factory.mktemp("liar")
    family = Family()
    program = [sys.executable, "-m", "tests.end_to_end.liar", str(directory)]
    coordinator = family.add(
        Process("liar", program, directory / "liar.log", {"PYTHONPATH": str(ROOT)})
    )
    node = family.add(Process("node", [*NODE, str(directory / "node")], directory / "node.log"))
    try:
        coordinator.start()
        wait_until((directory / "listening").exists, SECONDS, "the liar to listen", [coordinator])
        node.start()
        done = directory / "results.json"
        restart = (directory / "restart").exists
        wait_until(restart, SECONDS, "most lies to be told", [coordinator, node])
        node.kill()
        node.start()
        wait_until(done.exists, SECONDS, "the lies to be told", [coordinator, node])
        wait_until(lambda: coordinator.exit_code == 0, SECONDS, "the liar to end", [node])
        told: dict[str, str] = json.loads(done.read_text())
        log = next((directory / "node" / "runs").glob("*/worker.log"))
        yield told | {
            "node.log": (directory / "node.log").read_text(),
            "worker.log": log.read_text(),
        }
    finally:
        family.end()


@pytest.mark.parametrize("lie", OFFERS)
def test_a_run_that_asks_for_less_is_refused(lie: str, results: dict[str, str]) -> None:
    assert OFFERS[lie] in results[lie]


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused_with_the_reason(lie: str, results: dict[str, str]) -> None:
    assert LIES[lie] in results[lie]


@pytest.mark.parametrize("lie", RESTARTED)
def test_what_a_node_knows_it_knows_after_it_was_killed(lie: str, results: dict[str, str]) -> None:
    assert RESTARTED[lie] in results[lie]


def test_every_lie_is_told_here() -> None:
    assert {lie.__name__ for lie in lies.LIES} == LIES.keys()


def test_after_all_lies_an_honest_sum_comes_about(results: dict[str, str]) -> None:
    assert results["honest"] == "tuple"


def test_the_node_s_own_operator_is_told(results: dict[str, str]) -> None:
    for reason in OFFERS.values():
        assert reason in results["node.log"]
    for lie, reason in LIES.items():
        if lie != "another_run":  # which reaches no worker
            assert reason in results["worker.log"]
