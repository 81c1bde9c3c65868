"""The coordinator's memory: what is decided once, and what is refused."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from fedsec.errors import IdentityError, StateError
from fedsec_server.state.models import Invite
from fedsec_server.state.store import Store
from fedsec_server.state.values import CertificateRecord, NodeRecord, NodeState, RunRecord, RunState

ANN = "spiffe://fed.example/person/admin/ann"
NOW = 1_700_000_000.0
KEY = b"\x07" * 32


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "state.sqlite")
    yield opened
    opened.close()


def invite(
    store: Store,
    name: str = "clinic-1",
    *,
    token: bytes = b"t" * 32,
    spiffe: str = "",
    now: float = NOW,
    valid: float = 100.0,
    max_nodes: int = 10,
) -> NodeRecord:
    return store.add_invite(
        name,
        token,
        spiffe_id=spiffe or f"spiffe://fed.example/node/{name}-{token.hex()}",
        created_by=ANN,
        now=now,
        expires_at=now + valid,
        max_nodes=max_nodes,
    )


def certificate(
    node: NodeRecord, serial: int = 1 << 127, until: float = NOW + 50
) -> CertificateRecord:
    return CertificateRecord(serial, node.spiffe_id, NOW, until)


def enrol(
    store: Store,
    token: bytes = b"t" * 32,
    *,
    now: float = NOW + 1,
    issue: Callable[[NodeRecord], CertificateRecord] = certificate,
) -> NodeRecord:
    return store.enrol_node(
        token,
        signing_key=KEY,
        root_pinned=True,
        now=now,
        issue=issue,
    )


# --- invites and tokens ------------------------------------------------------------------------


def test_an_invited_node_enrols_once(store: Store) -> None:
    invited = invite(store)
    assert (invited.state, invited.signing_key) == (NodeState.INVITED, None)
    assert 1 < invited.node_id < 2**63
    node = enrol(store)
    assert node.state is NodeState.ENROLLED
    assert (node.node_id, node.spiffe_id) == (invited.node_id, invited.spiffe_id)
    assert (node.signing_key, node.root_pinned, node.enrolled_at) == (KEY, True, NOW + 1)
    assert node.certificate_expires_at == NOW + 50
    with pytest.raises(IdentityError, match="token-used: this invite was used at 2023-11-14"):
        enrol(store)


def test_of_a_hundred_at_once_exactly_one_wins(store: Store) -> None:
    """Real threads on a real file; they are let go together."""
    invite(store)
    ready = threading.Barrier(100)
    issued: list[int] = []

    def spend(number: int) -> str:
        def issue(node: NodeRecord) -> CertificateRecord:
            issued.append(number)
            return certificate(node, serial=number + 1)

        ready.wait()
        try:
            enrol(store, issue=issue)
        except IdentityError as error:
            return error.code
        return "won"

    with ThreadPoolExecutor(100) as pool:
        outcomes = list(pool.map(spend, range(100)))
    assert sorted(outcomes) == ["token-used"] * 99 + ["won"]
    assert [outcomes[number] for number in issued] == ["won"]
    assert store.node_by_name("clinic-1").state is NodeState.ENROLLED


@pytest.mark.parametrize(
    ("token", "now", "code"),
    [
        (b"x" * 32, NOW, "unknown-token"),
        (b"t" * 32, NOW + 100, "token-expired"),
        (b"t" * 32, NOW + 10**6, "token-expired"),
    ],
)
def test_a_bad_token_is_refused(store: Store, token: bytes, now: float, code: str) -> None:
    invite(store)
    with pytest.raises(IdentityError) as caught:
        enrol(store, token, now=now)
    assert caught.value.code == code
    assert store.node_by_name("clinic-1").state is NodeState.INVITED


def test_a_token_for_something_else_is_refused(store: Store) -> None:
    node = invite(store)
    with store._write() as session:
        session.add(
            Invite(
                token_hash=b"p" * 32,
                purpose="person",
                node_id=node.node_id,
                created_at=NOW,
                created_by=ANN,
                expires_at=NOW + 100,
            )
        )
    with pytest.raises(IdentityError, match="wrong-kind"):
        enrol(store, b"p" * 32)
    assert store.node_by_name("clinic-1").state is NodeState.INVITED


def test_a_certificate_that_cannot_be_issued_leaves_the_token_unspent(store: Store) -> None:
    invite(store)

    def fail(node: NodeRecord) -> CertificateRecord:
        raise IdentityError("bad-request", "signing request is unreadable")

    with pytest.raises(IdentityError, match="bad-request"):
        enrol(store, issue=fail)
    assert enrol(store).state is NodeState.ENROLLED


def test_the_token_itself_is_nowhere_in_the_database(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    store = Store.open(path)
    invite(store, token=b"h" * 32)
    store.close()
    assert b"h" * 32 in path.read_bytes()  # the hash is, so the search below would find a token
    assert b"t" * 32 not in path.read_bytes()


# --- names -------------------------------------------------------------------------------------


def test_a_name_is_taken_while_its_node_lives(store: Store) -> None:
    invite(store)
    with pytest.raises(StateError, match=r"good until .*node revoke clinic-1` withdraws it"):
        invite(store, token=b"u" * 32)
    enrol(store)
    with pytest.raises(StateError, match=r"is enrolled since .*node revoke clinic-1` comes first"):
        invite(store, token=b"v" * 32, now=NOW + 10**6)


def test_an_invite_in_vain_can_be_repeated_for_the_same_node(store: Store) -> None:
    first = invite(store)
    again = invite(store, token=b"u" * 32, now=NOW + 101)
    assert again.node_id == first.node_id
    with pytest.raises(IdentityError, match="token-expired"):
        enrol(store, now=NOW + 102)
    assert enrol(store, b"u" * 32, now=NOW + 102).spiffe_id == first.spiffe_id


def test_a_revoked_name_starts_anew(store: Store) -> None:
    old = invite(store)
    enrol(store)
    store.revoke_node("clinic-1", "", NOW + 2)
    new = invite(store, token=b"u" * 32, now=NOW + 3)
    assert new.node_id != old.node_id
    assert new.spiffe_id != old.spiffe_id
    assert store.node_by_name("clinic-1") == new
    assert [node.state for node in store.nodes()] == [NodeState.REVOKED, NodeState.INVITED]


def test_the_database_itself_keeps_live_names_apart(store: Store) -> None:
    invite(store)
    with pytest.raises(IntegrityError, match="claim"), store._write() as session:
        session.execute(
            sa.text(
                "INSERT INTO nodes (node_id, name, claim, state, spiffe_id, root_pinned, "
                "invited_at, revoked_reason) "
                "VALUES (7, 'clinic-1', 'clinic-1', 'invited', 'x', false, 0, '')"
            )
        )


def test_there_is_room_for_so_many_nodes(store: Store) -> None:
    invite(store, "a", token=b"a" * 32, max_nodes=2)
    invite(store, "b", token=b"b" * 32, max_nodes=2)
    with pytest.raises(StateError, match=r"there are 2 nodes and limits\.max_nodes is 2"):
        invite(store, "c", token=b"c" * 32, max_nodes=2)
    store.revoke_node("a", "", NOW)
    assert invite(store, "c", token=b"c" * 32, max_nodes=2).name == "c"


def test_unknown_nodes_are_named(store: Store) -> None:
    with pytest.raises(StateError, match="no node is called 'nobody'"):
        store.node_by_name("nobody")
    with pytest.raises(IdentityError, match="unknown-node"):
        store.node_by_spiffe("spiffe://fed.example/node/0")
    with pytest.raises(StateError, match="no node is called 'nobody'"):
        store.revoke_node("nobody", "", NOW)


# --- revocation --------------------------------------------------------------------------------


def test_revocation_denies_identity_and_live_serials(store: Store) -> None:
    node = invite(store)
    enrol(store)
    store.add_certificate(certificate(node, serial=2, until=NOW + 60))
    store.add_certificate(certificate(node, serial=3, until=NOW + 5))  # expired below
    revoked = store.revoke_node("clinic-1", "lost laptop", NOW + 10)
    assert revoked.node.state is NodeState.REVOKED
    assert (revoked.node.revoked_at, revoked.node.revoked_reason) == (NOW + 10, "lost laptop")
    assert revoked.node.certificate_expires_at is None
    assert set(revoked.serials) == {1 << 127, 2}
    denied = store.denied(NOW + 11)
    assert denied.serials == {1 << 127, 2}
    assert denied.identities == {node.spiffe_id: node.name}
    assert store.denied(NOW + 55).serials == {2}  # the other one has expired
    assert store.denied(NOW + 10**9).identities == {node.spiffe_id: node.name}


def test_a_revoked_node_gets_no_certificate_any_more(store: Store) -> None:
    node = invite(store)
    enrol(store)
    store.revoke_node("clinic-1", "", NOW + 2)
    with pytest.raises(IdentityError, match="revoked"):
        store.add_certificate(certificate(node, serial=9))
    with pytest.raises(
        StateError, match="'clinic-1' is revoked already, since 2023-11-14 22:13:22"
    ):
        store.revoke_node("clinic-1", "", NOW + 3)


def test_an_open_invite_can_be_withdrawn(store: Store) -> None:
    invite(store)
    store.revoke_node("clinic-1", "", NOW)
    with pytest.raises(IdentityError, match="revoked: this invite was withdrawn"):
        enrol(store)
    assert store.node_by_name("clinic-1").state is NodeState.REVOKED


def test_a_failed_revocation_denies_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The denials and the node's state are one transaction."""
    invite(store)
    enrol(store)

    def full(*args: object) -> tuple[int, ...]:
        raise OSError("disk full")

    monkeypatch.setattr("fedsec_server.state.rows.deny", full)
    with pytest.raises(OSError, match="disk full"):
        store.revoke_node("clinic-1", "", NOW)
    assert store.node_by_name("clinic-1").state is NodeState.ENROLLED
    assert store.denied(NOW).identities == {}


# --- runs --------------------------------------------------------------------------------------


def new_run(store: Store, now: float = NOW) -> RunRecord:
    return store.create_run(
        name="digits", plan="schema = 1", plan_digest="0" * 64, rounds=30, submitted_by=ANN, now=now
    )


def test_a_run_goes_through_its_states(store: Store) -> None:
    run = new_run(store)
    assert (run.state, run.round, run.started_at, run.ended_at) == (RunState.PENDING, 0, None, None)
    assert 10**9 <= run.run_id < 10**10
    assert store.set_run_state(run.run_id, RunState.RUNNING, now=NOW + 1).started_at == NOW + 1
    store.set_run_round(run.run_id, 12)
    ended = store.set_run_state(run.run_id, RunState.FAILED, now=NOW + 9, reason="no quorum")
    assert (ended.state, ended.ended_at, ended.reason) == (RunState.FAILED, NOW + 9, "no quorum")
    assert store.run(run.run_id).round == 12


def test_any_reason_can_be_kept(store: Store) -> None:
    """It may hold what a peer, a file name or an app brought along."""
    run = new_run(store)
    reason = "a\x00b \udcff \x1b[2J \u00fc" + "x" * 2000
    kept = store.set_run_state(run.run_id, RunState.FAILED, now=NOW, reason=reason).reason
    assert kept.startswith("a\ufffdb ? \x1b[2J \u00fcx")
    assert len(kept) == 1000
    assert store.run(run.run_id).reason == kept
    invite(store)
    assert store.revoke_node("clinic-1", reason, NOW).node.revoked_reason == kept


def test_an_ended_run_stays_as_it_ended(store: Store) -> None:
    run = new_run(store)
    stopped = store.set_run_state(run.run_id, RunState.STOPPED, now=NOW + 1, reason="by ann")
    assert store.set_run_state(run.run_id, RunState.FINISHED, now=NOW + 2) == stopped


def test_unknown_runs_are_named(store: Store) -> None:
    for run_id in (7, 2**64 - 1):
        with pytest.raises(StateError, match=f"there is no run {run_id}; `fedsec run list`"):
            store.run(run_id)


def test_runs_come_oldest_first(store: Store) -> None:
    late, early = new_run(store, NOW + 5), new_run(store, NOW)
    assert [run.run_id for run in store.runs()] == [early.run_id, late.run_id]


# --- events ------------------------------------------------------------------------------------


def test_events_are_numbered_and_found(store: Store) -> None:
    for number in range(5):
        store.append_event("round", "run 1", {"round": number}, at=NOW, run_id=1)
    other = store.append_event("node-enrolled", ANN, {}, at=NOW)
    assert [event.detail["round"] for event in store.events(run_id=1)] == [0, 1, 2, 3, 4]
    assert [event.detail["round"] for event in store.events(run_id=1, limit=2)] == [3, 4]
    assert store.events(subject=ANN) == [other]
    assert store.events(after=other.sequence) == []
    first = store.events_of_run(1, after=0, limit=2)
    assert [event.detail["round"] for event in first] == [0, 1]
    rest = store.events_of_run(1, after=first[-1].sequence, limit=99)
    assert [event.detail["round"] for event in rest] == [2, 3, 4]


def test_there_is_no_way_to_change_an_event() -> None:
    """Append-only by what the store offers: no method but one mentions events and writes."""
    names = [name for name in vars(Store) if "event" in name]
    assert sorted(names) == ["append_event", "events", "events_of_run"]


def test_many_threads_write_at_once(store: Store) -> None:
    with ThreadPoolExecutor(20) as pool:
        events = list(
            pool.map(lambda n: store.append_event("k", "s", {"n": n}, at=NOW), range(200))
        )
    assert sorted(event.sequence for event in events) == list(range(1, 201))
