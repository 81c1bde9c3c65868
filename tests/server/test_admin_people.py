"""What admins command about people, over real mutual TLS."""

import asyncio
from pathlib import Path

import grpc
import pytest

from fedsec.identity.bundles import split_chain
from fedsec.identity.leaves import key_pem, make_key, make_request
from fedsec.identity.names import Kind, Principal
from fedsec.identity.principals import principal_of
from fedsec.wire.channels import open_channel
from fedsec.wire.credentials import node_credentials
from fedsec.wire.generated import admin_pb2 as pb
from tests.server.deskrig import ANN, Desk, desk
from tests.wire.gated import refused, run, unary

CONFIG = grpc.StatusCode.INVALID_ARGUMENT
STATE = grpc.StatusCode.FAILED_PRECONDITION


def test_a_person_gets_a_certificate_of_that_role(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            request = pb.AddPersonRequest(
                name="bob", role="operator", csr_der=make_request(make_key(), "admin")
            )
            reply = await here.ask("AddPerson", request, pb.AddPersonReply)
            leaf, issuer = split_chain(reply.chain_pem)
            who = principal_of(leaf, issuer=issuer, kind=Kind.PERSON)
            assert who.spiffe_id == "spiffe://fed.example/person/operator/bob"
            assert reply.expires_at == who.not_after.timestamp()
            assert reply.address == here.admin.address
            assert reply.servers_ca_pem == here.pki.servers.certificate_pem
            detail = await here.detail_of("person-added")
            assert (detail["role"], detail["by"]) == ("operator", ANN)

    run(main())


@pytest.mark.parametrize(
    ("name", "role", "sentence"),
    [
        ("bob", "node", "role 'node' must be one of admin, auditor, operator"),
        ("bob", "server", "role 'server' must be one of"),
        ("bob", "", "role '' must be one of"),
        ("bob", "ADMIN", "role 'ADMIN' must be one of"),
        ("../bob", "admin", "name '../bob' must be"),
        ("local-bob", "admin", "begins with 'local-'"),
    ],
)
def test_a_bad_person_is_refused(tmp_path: Path, name: str, role: str, sentence: str) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            request = pb.AddPersonRequest(name=name, role=role, csr_der=make_request(make_key()))
            status, told = await refused(here.ask("AddPerson", request, pb.AddPersonReply))
            assert status is CONFIG
            assert sentence in told
            assert "person-added" not in await here.kinds()

    run(main())


# --- revocation --------------------------------------------------------------------------------


async def added(here: Desk, name: str, role: str) -> tuple[Principal, grpc.aio.Channel]:
    """Adds a person; returns who that is, and a channel that shows the new certificate."""
    key = make_key()
    request = pb.AddPersonRequest(name=name, role=role, csr_der=make_request(key))
    reply = await here.ask("AddPerson", request, pb.AddPersonReply)
    leaf, issuer = split_chain(reply.chain_pem)
    credentials = node_credentials(reply.servers_ca_pem, reply.chain_pem, key_pem(key))
    who = principal_of(leaf, issuer=issuer, kind=Kind.PERSON)
    return who, open_channel(reply.address, credentials)


async def status(channel: grpc.aio.Channel) -> None:
    await unary(channel, "/fedsec.v1.Admin/Status", b"")


def test_a_revoked_person_is_out_at_once_and_may_be_added_anew(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            (who, bob), (_, eve) = (
                await added(here, "bob", "admin"),
                await added(here, "eve", "admin"),
            )
            other, bob_too = await added(here, "bob", "operator")
            async with bob, eve, bob_too:
                await status(bob)
                request = pb.RevokePersonRequest(name="bob", reason="laptop lost")
                with here.denylist.watch(who) as cut:
                    reply = await here.ask("RevokePerson", request, pb.RevokePersonReply)
                    async with asyncio.timeout(1):
                        await cut.wait()
                assert reply.certificates == 2
                for channel in (bob, bob_too):
                    refusal, told = await refused(status(channel))
                    assert refusal is grpc.StatusCode.UNAUTHENTICATED
                    assert "bob was revoked by the federation" in told
                await status(eve)
            assert here.store.denied(here.clock.unix).serials == {who.serial, other.serial}
            detail = await here.detail_of("person-revoked")
            assert (detail["name"], detail["by"], detail["reason"]) == ("bob", ANN, "laptop lost")
            _, anew = await added(here, "bob", "admin")
            async with anew:
                await status(anew)

    run(main())


def test_one_role_of_a_person_can_be_revoked(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            (_, admin), (_, auditor) = (
                await added(here, "bob", "admin"),
                await added(here, "bob", "auditor"),
            )
            async with admin, auditor:
                request = pb.RevokePersonRequest(name="bob", role="admin")
                await here.ask("RevokePerson", request, pb.RevokePersonReply)
                await refused(status(admin))
                await status(auditor)
            listed = await here.ask("ListPeople", pb.ListPeopleRequest(), pb.ListPeopleReply)
            assert [(each.name, each.role, each.revoked) for each in listed.person] == [
                ("bob", "admin", True),
                ("bob", "auditor", False),
            ]

    run(main())


@pytest.mark.parametrize(
    ("request_", "refusal", "sentence"),
    [
        (
            pb.RevokePersonRequest(name="bob"),
            STATE,
            "there is no certificate of 'bob' that is still good",
        ),
        (
            pb.RevokePersonRequest(name="bob", role="admin"),
            STATE,
            "no certificate of 'bob' as admin",
        ),
        (pb.RevokePersonRequest(name="bob", role="node"), CONFIG, "role 'node' must be one of"),
        (pb.RevokePersonRequest(name="%"), CONFIG, "name '%' must be"),
        (pb.RevokePersonRequest(name="local-root"), CONFIG, "begins with 'local-'"),
    ],
)
def test_a_revocation_that_would_do_nothing_is_refused(
    tmp_path: Path, request_: pb.RevokePersonRequest, refusal: grpc.StatusCode, sentence: str
) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            got, told = await refused(here.ask("RevokePerson", request_, pb.RevokePersonReply))
            assert got is refusal
            assert sentence in told

    run(main())
