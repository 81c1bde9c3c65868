"""Attacks of who wants to get in: with one-time tokens and signing requests, over real sockets.

Each is refused, the log of events has the reason, and a good node that works all the time does its
round trip afterwards (`siege` sees to that).
"""

import asyncio
import sqlite3
import time
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from fedsec.identity.invites import token_hash
from fedsec.identity.leaves import make_key
from fedsec_server.state.models import Invite as InviteRow
from fedsec_server.state.values import NodeState
from tests.end_to_end.attackrig import (
    MANY_ENROLMENTS,
    siege,
)
from tests.pki import hostile_request
from tests.server.deskrig import ENROL, enrolment
from tests.wire.gated import refused, run, unary

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def test_a_hundred_nodes_spend_one_token_at_once(tmp_path: Path) -> None:
    """15: one gets in, whoever it is, and its keys are the ones that are enrolled."""

    async def main() -> None:
        async with siege(tmp_path, limits=MANY_ENROLMENTS) as here:
            invite = await here.invite("north")
            requests = [enrolment(invite.token) for _ in range(100)]
            channels = [here.anonymous() for _ in range(10)]
            outcomes = await asyncio.gather(
                *(
                    unary(channel, ENROL, request.SerializeToString(), 30)
                    for channel, request in zip(channels * 10, requests, strict=True)
                ),
                return_exceptions=True,
            )
            won = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, bytes)]
            assert len(won) == 1
            codes = [
                (outcome.details() or "").partition(":")[0]
                for outcome in outcomes
                if isinstance(outcome, grpc.aio.AioRpcError)
            ]
            assert len(codes) == 99
            assert set(codes) <= {"token-used", "too-many-open"}
            assert "token-used" in codes
            node = here.store.node_by_name("north")
            assert node.signing_key == requests[won[0]].signing_key
            assert len(await here.events("node-enrolled")) == 1
            await here.refused_for("token-used", method=ENROL)

    run(main(), 60)


@pytest.mark.parametrize(
    ("what", "code"),
    [("expired", "token-expired"), ("for a person", "wrong-kind"), ("guessed", "unknown-token")],
)
def test_a_token_that_is_not_good(tmp_path: Path, what: str, code: str) -> None:
    """15: each is refused, and the log names the reason and never the token."""

    async def main() -> None:
        async with siege(tmp_path) as here:
            token = (await here.invite("north")).token
            with here.store._write() as session:
                row = session.get_one(InviteRow, token_hash(token))
                if what == "expired":
                    row.expires_at = time.time() - 1
                elif what == "for a person":
                    row.purpose = "person"
                else:
                    token = b"g" * 32
            status, details = await refused(here.enrol(enrolment(token)))
            assert status is UNAUTHENTICATED
            assert details.startswith(f"{code}: ")
            event = await here.refused_for(code, method=ENROL)
            assert token.hex() not in str(event)
            assert here.store.node_by_name("north").state is NodeState.INVITED

    run(main())


def test_tokens_cannot_be_guessed_fast(tmp_path: Path) -> None:
    """15: after a burst an address gets a few attempts per second; nodes at work feel nothing."""

    async def main() -> None:
        async with siege(tmp_path, limits="enrolments_burst = 5\n") as here:
            codes = []
            for _ in range(12):
                _, details = await refused(here.enrol(enrolment(b"g" * 32)))
                codes.append(details.partition(":")[0])
            assert set(codes) == {"unknown-token", "rate"}
            assert codes[:5] == ["unknown-token"] * 5
            assert "rate" in codes[5:7]  # three per second come back
            await here.refused_for("rate", method=ENROL)

    run(main())


@pytest.mark.parametrize("by", ["Enrol", "Renew"])
def test_a_request_asks_for_more_than_it_gets(tmp_path: Path, by: str) -> None:
    """16: another's id, to be an authority, to be a server; none of it is in the certificate."""

    async def main() -> None:
        async with siege(tmp_path) as here:
            csr = hostile_request(make_key())
            if by == "Enrol":
                token = (await here.invite("north")).token
                reply = await here.enrol(enrolment(token, csr_der=csr))
                chain, own = reply.chain_pem, here.store.node_by_name("north").spiffe_id
            else:
                channel = here.channel("fleet", here.holders["evil"])
                chain = (await here.renew(channel, csr)).chain_pem
                own = here.records["evil"].spiffe_id
            leaf = x509.load_pem_x509_certificate(chain)
            found = leaf.extensions
            names = found.get_extension_for_class(x509.SubjectAlternativeName).value
            assert [name.value for name in names] == [own]
            assert not found.get_extension_for_class(x509.BasicConstraints).value.ca
            usage = found.get_extension_for_class(x509.KeyUsage).value
            assert not usage.key_cert_sign
            assert not usage.crl_sign
            purposes = found.get_extension_for_class(x509.ExtendedKeyUsage).value
            assert list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH]
            assert "admin" not in leaf.subject.rfc4514_string()

    run(main())


def test_the_database_keeps_no_token(tmp_path: Path) -> None:
    """What is stolen with the database invites nobody."""

    async def main() -> bytes:
        async with siege(tmp_path) as here:
            token = (await here.invite("north")).token
            await here.enrol(enrolment((await here.invite("south")).token))
        return token

    token = run(main())
    dump = "\n".join(sqlite3.connect(tmp_path / "server" / "state.sqlite").iterdump())
    assert token_hash(token).hex().upper() in dump.upper()
    assert token.hex().upper() not in dump.upper()
    assert repr(token) not in dump
