"""First contact of a node: its token is spent, its keys are bound to a new identity.

Spec: docs/spec/enrolment.md. The caller has no certificate yet; the token is all that it has, and
nothing that it says about itself ends up in a name.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime

from fedsec.errors import IdentityError, ProtocolError, StateError
from fedsec.identity.invites import TOKEN_BYTES, token_hash
from fedsec.identity.names import Kind, parse_spiffe
from fedsec.identity.signing import check_proof, enrolment_transcript, signing_fingerprint
from fedsec.wire.call import Call, Method, unary
from fedsec.wire.gate import utc_now
from fedsec.wire.generated.enrol_pb2 import EnrolReply, EnrolRequest
from fedsec_server.authorities import Authorities, Issued
from fedsec_server.events import Recorder
from fedsec_server.roles import ROLES
from fedsec_server.settings import Listener, ServerSettings
from fedsec_server.state.store import Store
from fedsec_server.state.values import CertificateRecord, NodeRecord
from fedsec_server.versions import speaks

MAX_MESSAGE = 32 << 10  # bytes; a signing request is at most 16 KiB, the rest is small
_ENROL = "/fedsec.v1.Enrolment/Enrol"


class EnrolmentService:
    """Answers the one RPC of the enrol listener.

    Args:
        store: Knows the invites.
        authorities: Issue the node's certificate.
        settings: Lifetimes.
        recorder: Gets ``node-enrolled``.
        addresses: What others are told, ``host:port`` by listener; read at each call, so it may
            be filled after this service is made.
        clock: Aware UTC.
    """

    def __init__(
        self,
        store: Store,
        authorities: Authorities,
        settings: ServerSettings,
        recorder: Recorder,
        addresses: Mapping[Listener, str],
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._authorities = authorities
        self._settings = settings
        self._recorder = recorder
        self._addresses = addresses
        self._clock = clock

    def methods(self) -> list[Method]:
        """Returns the rows for the enrol listener's gate."""
        return [Method(_ENROL, ROLES[_ENROL], unary(EnrolRequest, self._enrol))]

    async def _enrol(self, call: Call, request: EnrolRequest) -> EnrolReply:
        _check_form(call, request)
        fleet_address = self._addresses.get("fleet")
        if fleet_address is None:
            raise StateError("the coordinator is still starting; try again in a moment")
        hashed = token_hash(request.token)
        transcript = enrolment_transcript(hashed, request.csr_der, request.signing_key)
        check_proof(request.signing_key, transcript, request.signing_proof)
        node, issued = await asyncio.to_thread(self._spend, call.peer, hashed, request)
        authorities = self._authorities
        return EnrolReply(
            node_id=node.node_id,
            name=node.name,
            spiffe_id=node.spiffe_id,
            chain_pem=issued.chain_pem,
            servers_ca_pem=authorities.anchors(Kind.SERVER),
            root_pem=authorities.root_pem,
            fleet_address=fleet_address,
        )

    def _spend(self, peer: str, hashed: bytes, request: EnrolRequest) -> tuple[NodeRecord, Issued]:
        """Spends the token and issues the certificate, both or neither.

        Runs in a thread, so that no hanging up of the peer can end it half-way.
        """
        now = self._clock()
        made: list[Issued] = []

        def issue(node: NodeRecord) -> CertificateRecord:
            *_, name = parse_spiffe(node.spiffe_id)
            issued = self._authorities.issue(
                Kind.NODE,
                request.csr_der,
                name=name,
                lifetimes=self._settings.certificate_lifetimes,
                now=now,
            )
            made.append(issued)
            return issued.record

        node = self._store.enrol_node(
            hashed,
            signing_key=request.signing_key,
            root_pinned=request.root_pinned,
            now=now.timestamp(),
            issue=issue,
        )
        detail = {
            "name": node.name,
            "node_id": str(node.node_id),
            "signing_fingerprint": signing_fingerprint(request.signing_key),
            "root_pinned": node.root_pinned,
            "peer": peer,
        }
        self._recorder.record("node-enrolled", node.spiffe_id, detail)
        return node, made[0]


def _check_form(call: Call, request: EnrolRequest) -> None:
    if too_different := speaks(request.version):
        raise ProtocolError(call.peer, "version", too_different)
    if len(request.token) != TOKEN_BYTES:
        raise IdentityError(
            "unknown-token", f"a token has {TOKEN_BYTES} bytes, got {len(request.token)}"
        )
