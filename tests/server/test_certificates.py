"""Certificates change while connections live: a node's over its old one, the coordinator's own."""

import asyncio
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509

from fedsec.errors import IdentityError
from fedsec.identity.leaves import Lifetimes, key_pem, make_key, make_request
from fedsec.identity.names import Kind, Principal, Role
from fedsec.wire.generated.fleet_pb2 import RenewReply, RenewRequest
from fedsec_server.coordinator import Coordinator, coordinate
from fedsec_server.journal import Journal
from fedsec_server.own_certificate import OwnCertificate
from fedsec_server.renewals import Renewals
from fedsec_server.state.store import Store
from tests.server.coordinatorrig import Holder, Place, make_place
from tests.server.fleetrig import ScriptedNode
from tests.server.test_journal import Recorded
from tests.wire.gated import run, until


def events(place: Place, kind: str) -> list[str]:
    store = Store.open(place.layout.database)
    subjects = [event.subject for event in store.events() if event.kind == kind]
    store.close()
    return subjects


async def renew(channel: grpc.aio.Channel, csr: bytes) -> RenewReply:
    call: Any = channel.unary_unary("/fedsec.v1.Fleet/Renew")
    request = RenewRequest(csr_der=csr).SerializeToString()
    return RenewReply.FromString(await call(request, timeout=60))


def test_a_node_renews_its_certificate_and_nothing_is_lost(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    record, holder = place.enrol("north")

    async def main() -> None:
        async with coordinate(place.layout, 1) as coordinator:
            old = ScriptedNode(record, place.channel("fleet", holder))
            await old.connect()
            key = make_key()
            reply = await renew(old.channel, make_request(key))
            assert reply.servers_ca_pem == place.authorities.servers.certificate_pem
            fresh = Holder(reply.chain_pem, key_pem(key), holder.name)
            leaves = [x509.load_pem_x509_certificate(each.chain_pem) for each in (holder, fresh)]
            assert leaves[0].serial_number != leaves[1].serial_number
            assert leaves[0].public_key() != leaves[1].public_key()
            new = ScriptedNode(record, place.channel("fleet", fresh))
            assert (await new.connect()).welcome.node_id == record.node_id
            assert coordinator.exchange.connected() == {record.node_id}
            for node in (old, new):
                await node.hang_up()
                await node.channel.close()

    run(main())
    assert events(place, "certificate-renewed") == [record.spiffe_id]


def test_who_was_revoked_gets_no_new_certificate(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    record, holder = place.enrol("north")

    async def main() -> None:
        async with coordinate(place.layout, 1) as coordinator:
            channel = place.channel("fleet", holder)
            with pytest.raises(grpc.aio.AioRpcError, match=r"request"):
                await renew(channel, b"no request")
            coordinator.denylist.deny_identity(record.spiffe_id)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await renew(channel, make_request(make_key()))
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            await channel.close()

    run(main())
    assert events(place, "certificate-renewed") == []


def test_a_revocation_that_reached_the_database_alone_is_enough(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    record, holder = place.enrol("north")
    store = Store.open(place.layout.database)
    store.revoke_node("north", "stolen", 5.0)
    now = datetime.now(UTC)
    principal = Principal(
        "fed.example", Kind.NODE, Role.NODE, holder.name, 1, now, now + timedelta(hours=1)
    )
    assert principal.spiffe_id == record.spiffe_id

    async def main() -> None:
        journal = Journal(Recorded())  # type: ignore[arg-type]
        renewals = Renewals(place.authorities, store, journal, Lifetimes())
        with pytest.raises(IdentityError, match="not-enrolled: node north is revoked"):
            await renewals.renew(principal, RenewRequest(csr_der=make_request(make_key())))
        await journal.close()

    run(main())
    store.close()


def shown_serial(place: Place, coordinator: Coordinator, listener: str) -> int:
    """Returns the serial of the certificate that a listener shows in a new handshake."""
    address = coordinator.listening.addresses[listener]  # type: ignore[index]
    host, _, port = address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=place.authorities.servers.certificate_pem.decode())
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, int(port)), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def test_the_coordinators_certificate_changes_without_a_restart(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    record, holder = place.enrol("north")

    async def main() -> None:
        async with coordinate(place.layout, 1) as coordinator:
            node = ScriptedNode(record, place.channel("fleet", holder))
            await node.connect()
            before = {
                each: await asyncio.to_thread(shown_serial, place, coordinator, each)
                for each in ("enrol", "fleet", "admin")
            }
            assert len(set(before.values())) == 1
            expiry = coordinator.certificate.expires_at()
            coordinator.certificate.renew()
            for each, serial in before.items():
                assert await asyncio.to_thread(shown_serial, place, coordinator, each) != serial
            assert coordinator.certificate.expires_at() >= expiry
            await renew(node.channel, make_request(make_key()))  # the open connection goes on
            await node.hang_up()
            await node.channel.close()

    run(main())
    assert len(events(place, "certificate-issued")) == 2


def test_it_is_renewed_at_half_of_its_life(tmp_path: Path) -> None:
    """A clock that the test turns; at 12 of 24 hours, and not before, there is another one."""
    place = make_place(tmp_path)
    start = datetime.now(UTC)
    hours = [0.0]

    async def main() -> None:
        recorded = Recorded()
        journal = Journal(recorded)  # type: ignore[arg-type]
        certificate = OwnCertificate(
            place.authorities,
            hosts=["localhost"],
            lifetimes=Lifetimes(),
            journal=journal,
            clock=lambda: start + timedelta(hours=hours[0]),
        )
        first = certificate.expires_at()
        for hour, renewed in ((11.9, False), (12.1, True)):
            hours[0] = hour
            task = asyncio.create_task(certificate.keep_fresh())
            if renewed:
                await until(lambda: certificate.expires_at() > first)
                assert certificate.expires_at() - first == pytest.approx(12.1 * 3600, abs=2)
            else:
                await asyncio.sleep(0.02)
                assert certificate.expires_at() == first
            task.cancel()
        await journal.close()
        assert recorded.kinds == ["certificate-issued"] * 2

    run(main())


def test_a_renewal_that_fails_keeps_the_old_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = make_place(tmp_path)
    start = datetime.now(UTC)
    days = [0.0]

    async def main() -> None:
        journal = Journal(Recorded())  # type: ignore[arg-type]
        certificate = OwnCertificate(
            place.authorities,
            hosts=["localhost"],
            lifetimes=Lifetimes(),
            journal=journal,
            clock=lambda: start + timedelta(days=days[0]),
        )
        expiry = certificate.expires_at()
        days[0] = 400.0  # beyond the end of the servers' CA
        task = asyncio.create_task(certificate.keep_fresh())
        await until(lambda: "cannot be renewed" in caplog.text)
        assert certificate.expires_at() == expiry
        task.cancel()
        await journal.close()

    run(main())
