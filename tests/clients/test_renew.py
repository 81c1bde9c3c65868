"""When a certificate is renewed, and what a node takes as a renewal."""

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import FedsecError
from fedsec.identity.leaves import make_key, make_request
from fedsec.wire.channels import open_channel
from fedsec.wire.credentials import node_credentials
from fedsec.wire.generated.fleet_pb2 import RenewReply
from fedsec_client.enrolment import Enrolment
from fedsec_client.renew import due_at, renew
from tests.clients.coordinator import FakeCoordinator, make_node
from tests.pki import make_pki

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@given(st.integers(0, 2**32), st.integers(2, 10_000))
def test_it_is_due_at_half_its_life_give_or_take_a_tenth(seed: int, minutes: int) -> None:
    ends = NOW + minutes * MINUTE
    due = due_at(NOW - MINUTE, ends, random.Random(seed))
    share = (due - NOW) / (ends - NOW)
    assert 0.45 - 1e-9 <= share <= 0.55 + 1e-9


def test_nodes_of_one_age_are_due_at_different_times() -> None:
    assert len({due_at(NOW, NOW + 100 * MINUTE) for _ in range(20)}) == 20


def test_a_life_shorter_than_the_backdating_is_halved_too() -> None:
    due = due_at(NOW, NOW + timedelta(seconds=10), random.Random(1))
    assert timedelta(seconds=4.5) <= due - NOW <= timedelta(seconds=5.5)


def renewal(
    tmp_path: Path, spoil: Callable[[FakeCoordinator, RenewReply], None] = lambda _f, _r: None
) -> tuple[Enrolment, Enrolment]:
    async def main() -> tuple[Enrolment, Enrolment]:
        async with FakeCoordinator() as fake:
            before = make_node(tmp_path / "node", fake.pki, fake.fleet)
            fake.spoil_renewal = lambda reply: spoil(fake, reply)
            own = before.credentials
            credentials = node_credentials(own.servers_ca_pem, own.chain_pem, own.key_pem)
            async with open_channel(fake.fleet, credentials) as channel:
                return before, await renew(channel, before, now=datetime.now(UTC))

    return asyncio.run(asyncio.wait_for(main(), 60))


def test_a_renewal_has_a_new_key_and_the_same_name(tmp_path: Path) -> None:
    before, after = renewal(tmp_path)
    assert after.credentials.key_pem != before.credentials.key_pem
    assert after.principal.serial != before.principal.serial
    assert after.principal.spiffe_id == before.principal.spiffe_id
    assert Enrolment.load(tmp_path / "node") == before  # nothing is stored yet
    after.check(now=datetime.now(UTC))


def _for_another_key(fake: FakeCoordinator, reply: RenewReply) -> None:
    reply.chain_pem = fake._issue(make_request(make_key()), "a" * 32)


def _from_another_root(_: FakeCoordinator, reply: RenewReply) -> None:
    reply.servers_ca_pem = make_pki().servers.certificate_pem


def _empty(_: FakeCoordinator, reply: RenewReply) -> None:
    reply.Clear()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_for_another_key, "wrong-key"),
        (_from_another_root, "wrong-issuer"),
        (_empty, "malformed"),
    ],
)
def test_what_does_not_fit_is_not_taken(
    tmp_path: Path, spoil: Callable[[FakeCoordinator, RenewReply], None], code: str
) -> None:
    with pytest.raises(FedsecError, match=code):
        renewal(tmp_path, spoil)


def test_a_refused_renewal_says_why(tmp_path: Path) -> None:
    def revoke(fake: FakeCoordinator, _: RenewReply) -> None:
        fake.denylist.deny_identity(Enrolment.load(tmp_path / "node").principal.spiffe_id)

    with pytest.raises(FedsecError, match="revoked"):
        renewal(tmp_path, revoke)
