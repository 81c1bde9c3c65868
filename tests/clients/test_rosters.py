"""By which roster a node goes: what it refuses, what it keeps, and what its worker is given."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedsec.errors import ConfigError, PolicyRefusal
from fedsec.files import write_public
from fedsec.identity.roster import Member, Roster, sign
from fedsec.identity.signing import load_signing_key, make_signing_key, public_bytes
from fedsec.plan import FederationPlan
from fedsec_client.checks import check_identity
from fedsec_client.enrolment import Enrolment
from fedsec_client.findings import State
from fedsec_client.rosters import ROSTER, Keys, keys_of_run
from tests.clients.coordinator import make_node
from tests.pki import FEDERATION, Pki, make_pki

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
END = NOW + timedelta(days=90)
PLAN = """
schema = 1
name = "p"
[task]
name = "digits"
[training]
rounds = 10
[nodes]
min_available = 5
"""
SECTION = '[secure_aggregation]\nmode = "{}"\nclip = 1.0\n'
MALICIOUS = FederationPlan.parse(PLAN + SECTION.format("malicious"))


@pytest.fixture(scope="module")
def pki() -> Pki:
    return make_pki(now=NOW)


@pytest.fixture
def node(tmp_path: Path, pki: Pki) -> Enrolment:
    return make_node(tmp_path / "node", pki, "localhost:1")


def private_key(node: Enrolment) -> bytes:
    pem = (node.directory / "identity" / "signing.key.pem").read_bytes()
    return load_signing_key(pem).private_bytes_raw()


def own_entry(node: Enrolment) -> Member:
    key = load_signing_key((node.directory / "identity" / "signing.key.pem").read_bytes())
    return Member(node.record.node_id, node.record.spiffe_id, public_bytes(key))


def roster(node: Enrolment, serial: int = 1) -> Roster:
    own = own_entry(node)
    others = (
        Member(
            number, f"spiffe://{FEDERATION}/node/{number:032x}", public_bytes(make_signing_key())
        )
        for number in (own.node_id + 1, own.node_id + 2)
    )
    return Roster(FEDERATION, serial, END, (own, *others))


def go_by(node: Enrolment, offered: bytes, now: datetime = NOW) -> Keys:
    return keys_of_run(MALICIOUS, node.directory, offered, now=now)


def test_a_plan_without_a_secure_sum_needs_no_keys(tmp_path: Path) -> None:
    plain = FederationPlan.parse(PLAN)
    assert keys_of_run(plain, tmp_path, b"", now=NOW) == Keys()  # not even an identity


def test_who_trusts_the_coordinator_needs_its_own_key_alone(node: Enrolment) -> None:
    semi = FederationPlan.parse(PLAN + SECTION.format("semi-honest"))
    keys = keys_of_run(semi, node.directory, b"never looked at", now=NOW)
    assert keys == Keys(private_key(node))
    assert not (node.directory / ROSTER).exists()


def test_a_good_roster_is_kept_and_gone_by(node: Enrolment, pki: Pki) -> None:
    made = roster(node)
    signed = sign(made, pki.root)
    keys = go_by(node, signed)
    assert keys == Keys(private_key(node), made.keys, END)
    assert (node.directory / ROSTER).read_bytes() == signed
    assert go_by(node, b"") == keys  # none came: the one that is held


def test_the_key_is_not_shown(node: Enrolment, pki: Pki) -> None:
    assert private_key(node).hex() not in repr(go_by(node, sign(roster(node), pki.root)))


def test_a_newer_roster_takes_its_place_and_no_older_one_does(node: Enrolment, pki: Pki) -> None:
    old, new = (sign(roster(node, serial), pki.root) for serial in (1, 2))
    go_by(node, old)
    go_by(node, new)
    with pytest.raises(PolicyRefusal, match="rolled-back: the roster has serial 1"):
        go_by(node, old)
    assert (node.directory / ROSTER).read_bytes() == new


def test_two_rosters_of_one_serial_are_not_believed(node: Enrolment, pki: Pki) -> None:
    first, second = sign(roster(node), pki.root), sign(roster(node), pki.root)  # other peers' keys
    go_by(node, first)
    with pytest.raises(PolicyRefusal, match="equivocation"):
        go_by(node, second)
    assert (node.directory / ROSTER).read_bytes() == first


BAD: dict[str, Callable[[Enrolment, Pki], bytes]] = {
    "wrong-issuer": lambda node, _: sign(roster(node), make_pki(now=NOW).root),
    "not-on-roster: node": lambda node, pki: sign(
        replace(roster(node), members=roster(node).members[1:]), pki.root
    ),
    "wrong-entry": lambda node, pki: sign(
        replace(
            roster(node),
            members=(
                replace(own_entry(node), signing_key=public_bytes(make_signing_key())),
                *roster(node).members[1:],
            ),
        ),
        pki.root,
    ),
    "malformed": lambda *_: b"a roster",
    "not-on-roster: none came": lambda *_: b"",
}


@pytest.mark.parametrize("code", BAD)
def test_a_bad_roster_is_refused_and_not_kept(code: str, node: Enrolment, pki: Pki) -> None:
    with pytest.raises(PolicyRefusal, match=f"the roster that the run came with: {code}"):
        go_by(node, BAD[code](node, pki))
    assert not (node.directory / ROSTER).exists()


def test_a_roster_ends(node: Enrolment, pki: Pki) -> None:
    signed = sign(roster(node), pki.root)
    go_by(node, signed, END)
    for offered in (signed, b""):
        with pytest.raises(PolicyRefusal, match="expired"):
            go_by(node, offered, END + timedelta(seconds=1))


def test_a_root_that_came_from_the_coordinator_vouches_for_nobody(
    node: Enrolment, pki: Pki
) -> None:
    record = node.directory / "identity" / "enrolment.json"
    write_public(
        record, record.read_bytes().replace(b'"root_pinned": true', b'"root_pinned": false')
    )
    with pytest.raises(PolicyRefusal, match="did not pin the root when it joined"):
        go_by(node, sign(roster(node), pki.root))


def test_a_damaged_roster_on_the_disk_is_no_reason_to_believe_another(
    node: Enrolment, pki: Pki
) -> None:
    write_public(node.directory / ROSTER, b"damaged")
    with pytest.raises(PolicyRefusal, match="malformed"):
        go_by(node, sign(roster(node), pki.root))


def test_the_operator_sees_by_which_roster_the_node_goes(node: Enrolment, pki: Pki) -> None:
    def finding(now: datetime = NOW) -> str:
        return " ".join(
            f"{each.state} {each.detail} {each.advice}"
            for each in check_identity(node.directory, now=now)
            if each.check == "roster"
        )

    assert finding() == ""
    go_by(node, sign(roster(node), pki.root))
    assert "serial 1, 3 nodes, until 2026-05-30 12:00:00 UTC" in finding()
    assert State.NOTE in finding(END + timedelta(days=1))
    write_public(node.directory / ROSTER, b"damaged")
    assert State.FAILED in finding()
    assert "the node believes the next roster, even an old one" in finding()


def test_a_node_that_has_not_joined_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has not joined"):
        keys_of_run(MALICIOUS, tmp_path, b"", now=NOW)
