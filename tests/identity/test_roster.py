"""The signed roster: vectors, what may not be signed, and fuzzed bytes that only ever raise our error."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsec.errors import ConfigError, IdentityError
from fedsec.identity.authorities import Authority, make_root
from fedsec.identity.roster import MAX_BYTES, MAX_MEMBERS, Member, Roster, check_current, read, sign
from fedsec.identity.signing import make_signing_key, public_bytes
from tests.identity.make_roster_vectors import ROOT, body, signed

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "roster.json").read_text())
ROOT_PEM = VECTORS["root"].encode()
FEDERATION = "fed.example"
BODY = body()
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def member_of(values: dict[str, Any]) -> Member:
    return Member(values["node_id"], values["spiffe_id"], bytes.fromhex(values["signing_key"]))


def member(node_id: int) -> Member:
    name = f"spiffe://{FEDERATION}/node/{node_id:032x}"
    return Member(node_id, name, public_bytes(make_signing_key()))


@pytest.fixture(scope="module")
def root() -> Authority:
    return make_root(FEDERATION, now=NOW)


@pytest.fixture(scope="module")
def roster() -> Roster:
    return Roster(FEDERATION, 7, NOW + timedelta(days=90), tuple(map(member, (2, 3, 5))))


@pytest.mark.parametrize("vector", VECTORS["read"], ids=lambda vector: str(vector["comment"]))
def test_reading_by_the_vectors(vector: dict[str, Any]) -> None:
    given = bytes.fromhex(vector["roster"]) * vector.get("repeat", 1)
    if "error" in vector:
        with pytest.raises(IdentityError) as caught:
            read(given, root_pem=ROOT_PEM)
        assert caught.value.code == vector["error"]
        return
    got = read(given, root_pem=ROOT_PEM)
    assert (got.serial, got.not_after.timestamp()) == (vector["serial"], vector["not_after"])
    assert list(got.members) == [member_of(each) for each in vector["members"]]
    assert got.keys == {each.node_id: each.signing_key for each in got.members}
    with pytest.raises(IdentityError, match="wrong-issuer"):
        read(given, root_pem=VECTORS["other_root"].encode())


@pytest.mark.parametrize("vector", VECTORS["current"], ids=lambda vector: str(vector["comment"]))
def test_going_by_a_roster_by_the_vectors(vector: dict[str, Any]) -> None:
    offered = read(bytes.fromhex(vector["roster"]), root_pem=ROOT_PEM)
    held = read(bytes.fromhex(vector["held"]), root_pem=ROOT_PEM) if vector["held"] else None
    own, now = member_of(vector["own"]), datetime.fromtimestamp(vector["now"], UTC)
    if "error" not in vector:
        check_current(offered, held=held, own=own, now=now)
        return
    with pytest.raises(IdentityError) as caught:
        check_current(offered, held=held, own=own, now=now)
    assert caught.value.code == vector["error"]


def test_every_code_is_shown_by_a_vector() -> None:
    shown = {vector.get("error") for kind in ("read", "current") for vector in VECTORS[kind]}
    assert shown == {
        None, "too-large", "malformed", "wrong-issuer", "wrong-federation",
        "rolled-back", "equivocation", "expired", "not-on-roster", "wrong-entry",
    }  # fmt: skip


def test_what_is_signed_reads_as_what_it_was(root: Authority, roster: Roster) -> None:
    assert read(sign(roster, root), root_pem=root.certificate_pem) == roster


def test_the_longest_roster_fits() -> None:
    federation = "a" * 56 + ".example"
    key, longest = public_bytes(make_signing_key()), f"spiffe://{federation}/node/{'f' * 32}"
    each = 8 + 1 + len(longest) + len(key)
    assert len(federation) == 64
    assert MAX_MEMBERS * each + 16 + 65 + 20 + 96 <= MAX_BYTES


def test_a_root_signs_for_its_own_federation_and_while_it_lives(
    root: Authority, roster: Roster
) -> None:
    with pytest.raises(ConfigError, match=r"the root is that of other.example"):
        sign(roster, make_root("other.example", now=NOW))
    late = replace(roster, not_after=NOW + timedelta(days=3651))
    with pytest.raises(ConfigError, match="the root only until 2036"):
        sign(late, root)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"federation": "Fed"}, "must look like a lower-case DNS name"),
        ({"serial": -1}, "serial of a roster must be in"),
        ({"not_after": NOW.replace(microsecond=1)}, "whole seconds"),
        ({"not_after": NOW.replace(tzinfo=None)}, "has no zone"),
        ({"members": ()}, "1 to 20000 members, got 0"),
        ({"federation": "other.example"}, "is no node of other.example"),
    ],
)
def test_what_is_no_roster(roster: Roster, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(roster, **change)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(place=st.integers(0, 10_000), junk=st.binary(max_size=64), cut=st.integers(0, 64))
def test_no_other_bytes_are_a_roster(place: int, junk: bytes, cut: int) -> None:
    good = bytes.fromhex(VECTORS["read"][0]["roster"])
    at = place % len(good)
    changed = good[:at] + junk + good[at + cut :]
    if changed == good:
        return
    with pytest.raises(IdentityError):
        read(changed, root_pem=ROOT_PEM)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(place=st.integers(0, 10_000), junk=st.binary(max_size=64), cut=st.integers(0, 64))
def test_bytes_signed_by_mistake_are_refused_or_mean_one_roster(
    place: int, junk: bytes, cut: int
) -> None:
    at = place % len(BODY)
    given = signed(BODY[:at] + junk + BODY[at + cut :], by=ROOT)
    try:
        got = read(given, root_pem=ROOT.certificate_pem)
    except IdentityError:
        return
    assert sign(got, ROOT)[:-96] == given[:-96]  # one spelling
