"""Every cell of what may be combined: accepted ones through the round, refused ones by reason.

Guarded nodes and every message of theirs, without processes, which `test_three_defences.py` of
tests/end_to_end has for each accepted cell.
"""

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from fedsec.commands.coupling import coupling_of
from fedsec.errors import ConfigError
from fedsec.flower.mod import guard
from fedsec.flower.node_privacy import NodePrivacy, unchanged
from fedsec.flower.perturb import Perturb
from fedsec.flower.publishing import Trial
from fedsec.flower.reporting import ROUND
from fedsec.flower.rounds import Rounds
from fedsec.flower.secure_node import Identity
from fedsec.flower.strategy import FedAvg, ServerState
from fedsec.flower.table import collection, combination
from fedsec.plan import FederationPlan
from fedsec.plan.terms import terms
from fedsec.privacy.keystream import Keystream
from tests.cells import ACCEPTED, RULES, cell
from tests.flower.fakes import FakeGrid, Waiting, answering
from tests.flower.secure import FIRST, roster, signer

N, SIZE = 12, 64
UPDATES = np.random.default_rng(3).normal(0, 0.05, (N, SIZE)).astype(np.float32)
HEAD = f"""
schema = 1
name = "a cell"
VISIBILITY
[task]
name = "digits"
[training]
rounds = 2
[nodes]
min_available = {N}
[round]
deadline_s = 5
reconnect_s = 1
"""
TRIMMED, MEDIAN, MEAN = RULES["trimmed-mean"], RULES["median"], RULES["mean"]


def text(seen: str, private: str, robust: str) -> str:
    return cell(HEAD, seen, private, robust, SIZE)


def private_of(agreed: FederationPlan) -> NodePrivacy | None:
    if agreed.privacy is None:
        return None
    match agreed.privacy.model:
        case "local":
            perturb = Perturb.of(agreed.privacy)
            publish = Trial(terms(agreed))
            return NodePrivacy(publish, lambda update, _heading: perturb(update, Keystream()))
        case "distributed":
            return NodePrivacy(None, unchanged, pay=lambda _round, _attempt: None)
        case _:
            return NodePrivacy(None, unchanged)


def node(agreed: FederationPlan, place: int) -> ClientAppCallable:
    sums = agreed.secure_aggregation is not None
    identity = Identity(signer(FIRST + place), roster(N)) if sums else None
    mod = guard(agreed, lambda _plan: None, identity, private_of(agreed))
    app = answering(UPDATES[place].tolist())

    def answer(message: Message, context: Context) -> Message:
        return mod(message, context, app)

    return answer


@pytest.mark.parametrize(("seen", "private", "robust"), ACCEPTED)
def test_an_accepted_cell_runs(seen: str, private: str, robust: str) -> None:
    agreed = FederationPlan.parse(text(seen, private, RULES[robust]))
    grid = FakeGrid([node(agreed, place) for place in range(N)])
    publish = Trial(terms(agreed)) if private == "central" else None
    rounds = Rounds(
        agreed,
        grid,
        grid,
        size=SIZE,
        collect=collection(agreed, SIZE, roster(N)),
        combine=combination(agreed, publish=publish),
        clock=Waiting().clock,
    )
    state = ServerState.begin({"w": np.zeros(SIZE, np.float32)}, FedAvg())
    for number in (1, 2):
        state = rounds(state, number)
    assert [event["answered"] for event in grid.of(ROUND)] == [list(range(100, 100 + N))] * 2
    wanted, got = 2 * np.mean(UPDATES, axis=0), state.vector
    far = float(np.linalg.norm(got - wanted))
    spread = float(np.linalg.norm(UPDATES - UPDATES.mean(0)) / np.sqrt(N))
    if private in {"none", "example"}:  # and noise was added by the training itself
        assert far < (1e-4 if robust == "mean" else 2 * spread)
    else:
        assert spread / 4 < far < 400 * spread  # there is noise, and no more than noise


@pytest.mark.parametrize(
    ("seen", "private", "robust", "why"),
    [
        ("sum", "none", MEDIAN, "compares updates, and the coordinator sees their one sum"),
        ("sum", "none", TRIMMED, 'write visibility = "groups"'),
        ("sum", "distributed", MEDIAN, "compares updates"),
        ("each", "distributed", MEAN, "each update carries a share of the noise only"),
        ("each", "central", MEDIAN, '"median" as it stands here has no known sensitivity'),
        ("groups", "central", MEDIAN, '"median" as it stands here has no known sensitivity'),
        ("groups", "central", TRIMMED + 'on_suspect = "exclude"\n', "who is left out would depend"),
        (
            "groups",
            "none",
            '[robust]\nrule = "median"\nbyzantine = 2\n',
            "so with 3 sums of groups of 4",
        ),
        ("groups", "none", '[robust]\nrule = "krum"\nbyzantine = 1\n', "n >= 2f+3"),
    ],
)
def test_a_refused_cell_says_why(seen: str, private: str, robust: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FederationPlan.parse(text(seen, private, robust))
    assert why in str(caught.value)


def test_amplification_is_claimed_for_single_updates_only() -> None:
    for seen in ("groups", "sum"):
        drawn = text(seen, "central", MEAN).replace("clip = 1.0", "clip = 1.0\nsampling = 0.5")
        with pytest.raises(ConfigError, match="nodes of a secure sum know who takes part"):
            FederationPlan.parse(drawn)


def test_the_noise_of_a_group_is_that_of_its_fewest_honest_shares() -> None:
    """Four nodes, one of them corrupt: three shares carry z C, four of them more."""
    agreed = FederationPlan.parse(text("groups", "distributed", MEDIAN))
    found = coupling_of(agreed, 4096)
    assert found is not None
    least = 2.0 * 1.0 / 4 * np.sqrt(4 / 3)
    assert least <= found.std <= 1.01 * least
    assert found.noise_to_signal == pytest.approx(found.std * 64)
    assert (found.rows, found.byzantine, found.robust) == (3, 1, False)
    assert found.sentences()[1].startswith("not at this epsilon: 1 of 3 rows")


def test_the_noise_of_a_group_of_local_privacy_is_that_of_all_its_nodes() -> None:
    found = coupling_of(FederationPlan.parse(text("groups", "local", MEDIAN)), 4096)
    assert found is not None
    assert found.std == pytest.approx(2 * 2.0 * 1.0 / np.sqrt(4), rel=1e-3)
    alone = coupling_of(FederationPlan.parse(text("each", "local", MEDIAN)), 4096)
    assert alone is not None
    assert alone.std == pytest.approx(2 * found.std)
    assert (alone.rows, alone.what) == (12, "one update")
