"""Who is denied, and who is told at once."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fedsec.errors import IdentityError
from fedsec.identity.names import Kind, Principal, Role
from fedsec.wire.denylist import Denylist

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ANN = Principal(
    federation="fed.example",
    kind=Kind.NODE,
    role=Role.NODE,
    name="a" * 32,
    serial=1,
    not_before=NOW,
    not_after=NOW + timedelta(hours=8),
)
RENEWED = replace(ANN, serial=2)
OTHER = replace(ANN, name="b" * 32, serial=3)


def test_a_denied_serial_shuts_out_that_certificate_alone() -> None:
    denylist = Denylist()
    denylist.deny_serial(ANN.serial)
    assert denylist.is_denied(ANN)
    assert not denylist.is_denied(RENEWED)
    assert not denylist.is_denied(OTHER)


def test_a_denied_identity_shuts_out_all_its_certificates() -> None:
    denylist = Denylist()
    denylist.deny_identity(ANN.spiffe_id)
    assert denylist.is_denied(ANN)
    assert denylist.is_denied(RENEWED)
    assert not denylist.is_denied(OTHER)


def test_check_raises_with_the_name_and_a_stable_code() -> None:
    denylist = Denylist()
    denylist.check(ANN)
    denylist.deny_identity(ANN.spiffe_id)
    with pytest.raises(IdentityError, match="node aaaaaaaa was revoked") as caught:
        denylist.check(ANN)
    assert caught.value.code == "revoked"


def test_watchers_are_told_at_once_and_only_those_concerned() -> None:
    denylist = Denylist()
    with denylist.watch(ANN) as ann, denylist.watch(OTHER) as other:
        denylist.deny_serial(99)
        assert not ann.is_set()
        denylist.deny_serial(ANN.serial)
        assert ann.is_set()
        assert not other.is_set()
        denylist.deny_identity(OTHER.spiffe_id)
        assert other.is_set()


def test_who_was_denied_before_is_told_when_the_watch_begins() -> None:
    denylist = Denylist()
    denylist.deny_identity(ANN.spiffe_id)
    with denylist.watch(ANN) as event:
        assert event.is_set()


def test_a_watch_that_ended_is_forgotten() -> None:
    denylist = Denylist()
    with denylist.watch(ANN) as event:
        pass
    denylist.deny_identity(ANN.spiffe_id)
    assert not event.is_set()


def test_nobody_denies_an_anonymous_caller() -> None:
    denylist = Denylist()
    with denylist.watch(None) as event:
        denylist.deny_serial(0)
        assert not event.is_set()


def test_a_refusal_says_the_name_that_people_know() -> None:
    denylist = Denylist()
    denylist.deny_identity(ANN.spiffe_id, "clinic-1")
    with pytest.raises(IdentityError, match="node clinic-1 was revoked by the federation"):
        denylist.check(ANN)
