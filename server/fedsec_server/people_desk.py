"""What admins command about people: who gets a certificate, who has one, whose is void.

A person's identity is name and role. To revoke one is to deny the certificates that are out, not
the identity: whoever lost a laptop is added again, with a new key, and goes on under the same name.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from fedsec.errors import StateError
from fedsec.identity.names import ROLES_OF_KIND, Kind, Role, make_spiffe, parse_spiffe
from fedsec.wire.call import Call
from fedsec.wire.denylist import Denylist
from fedsec.wire.gate import utc_now
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.authorities import Authorities, Issued
from fedsec_server.events import Recorder
from fedsec_server.people import check_person
from fedsec_server.settings import Listener, ServerSettings
from fedsec_server.state.store import Store
from fedsec_server.state.values import PersonRecord

MAX_REASON = 500  # characters of a reason that a person gives


@dataclass(frozen=True, slots=True)
class PeopleDesk:
    """Answers the admin listener, where people are concerned.

    Args:
        store: The coordinator's memory.
        authorities: Issue people's certificates.
        settings: Of the coordinator.
        recorder: Gets what was changed.
        denylist: The live one, shared with the gates.
        addresses: What others are told, ``host:port`` by listener; read at each call.
        clock: Aware UTC.
    """

    store: Store
    authorities: Authorities
    settings: ServerSettings
    recorder: Recorder
    denylist: Denylist
    addresses: Mapping[Listener, str]
    clock: Callable[[], datetime] = utc_now

    async def add(self, call: Call, request: pb.AddPersonRequest) -> pb.AddPersonReply:
        """Gives a person a certificate, for the key that is in the request."""
        issued = await asyncio.to_thread(self._issue, call.caller().spiffe_id, request)
        return pb.AddPersonReply(
            chain_pem=issued.chain_pem,
            servers_ca_pem=self.authorities.anchors(Kind.SERVER),
            address=self.addresses["admin"],
            expires_at=issued.record.not_after,
        )

    async def list(self, _call: Call, _request: pb.ListPeopleRequest) -> pb.ListPeopleReply:
        """Returns the certificates of people that have not expired."""
        found = await asyncio.to_thread(self.store.people, self.clock().timestamp())
        return pb.ListPeopleReply(person=[_view(person) for person in found])

    async def revoke(self, call: Call, request: pb.RevokePersonRequest) -> pb.RevokePersonReply:
        """Voids every certificate of a person, in every role or in one."""
        loop = asyncio.get_running_loop()
        by = call.caller().spiffe_id
        return await asyncio.to_thread(self._revoke, by, request, loop)

    def _issue(self, by: str, request: pb.AddPersonRequest) -> Issued:
        name, role = check_person(request.name, request.role)
        issued = self.authorities.issue(
            Kind.PERSON,
            request.csr_der,
            name=name,
            role=role,
            lifetimes=self.settings.certificate_lifetimes,
            now=self.clock(),
        )
        self.store.add_certificate(issued.record)
        detail = {
            "name": name,
            "role": role,
            "by": by,
            "serial": f"{issued.record.serial:x}",
            "expires_at": issued.record.not_after,
        }
        self.recorder.record("person-added", issued.record.spiffe_id, detail)
        return issued

    def _revoke(
        self, by: str, request: pb.RevokePersonRequest, loop: asyncio.AbstractEventLoop
    ) -> pb.RevokePersonReply:
        """Revokes in the database, then in memory. In a thread: nothing can end it half-way."""
        roles = sorted(ROLES_OF_KIND[Kind.PERSON])
        name, _ = check_person(request.name, request.role or roles[0])
        wanted = [Role(request.role)] if request.role else roles
        identities = [
            make_spiffe(self.authorities.federation, Kind.PERSON, role, name) for role in wanted
        ]
        reason = request.reason[:MAX_REASON]
        serials = self.store.revoke_certificates(identities, reason, self.clock().timestamp())
        if not serials:
            as_what = f" as {request.role}" if request.role else ""
            raise StateError(
                f"there is no certificate of {name!r}{as_what} that is still good; "
                "`fedsec person list` shows who does"
            )
        detail = {"name": name, "by": by, "reason": reason, "serials": [f"{s:x}" for s in serials]}
        try:
            self.recorder.record("person-revoked", identities[0], detail)
        finally:
            loop.call_soon_threadsafe(self._deny, serials)
        return pb.RevokePersonReply(certificates=len(serials))

    def _deny(self, serials: Iterable[int]) -> None:
        for serial in serials:
            self.denylist.deny_serial(serial)


def _view(person: PersonRecord) -> pb.Person:
    _, _, role, name = parse_spiffe(person.certificate.spiffe_id)
    return pb.Person(
        name=name,
        role=role,
        serial=f"{person.certificate.serial:x}",
        certificate_expires_at=person.certificate.not_after,
        revoked=person.revoked,
    )
