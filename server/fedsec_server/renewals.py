"""Another certificate for a node, over the connection that the present one still opens."""

from collections.abc import Callable
from datetime import datetime

from fedsec.errors import IdentityError
from fedsec.identity.leaves import Lifetimes
from fedsec.identity.names import Kind, Principal
from fedsec.wire.gate import utc_now
from fedsec.wire.generated.fleet_pb2 import RenewReply, RenewRequest
from fedsec.wire.rates import RateLimiter
from fedsec_server.authorities import Authorities
from fedsec_server.journal import Journal
from fedsec_server.state.store import Store
from fedsec_server.state.values import CertificateRecord, NodeState

# Of one node in the life of a certificate; one is needed. Each is a row, and one more when the
# node is revoked: a hoard would make the revocation slow.
PER_LIFE = 20


class Renewals:
    """Renews nodes' certificates.

    The former one stays valid until it expires: a node that lost the answer can ask again, and a
    round that runs over the old connection goes on.

    Args:
        authorities: Of the federation.
        store: Knows who is enrolled, and keeps what was issued.
        journal: Takes events.
        lifetimes: From the settings.
        clock: Aware UTC.
    """

    def __init__(
        self,
        authorities: Authorities,
        store: Store,
        journal: Journal,
        lifetimes: Lifetimes,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._authorities = authorities
        self._store = store
        self._journal = journal
        self._lifetimes = lifetimes
        self._clock = clock
        self._budget = RateLimiter(PER_LIFE / lifetimes.node.total_seconds(), PER_LIFE)

    async def renew(self, principal: Principal, request: RenewRequest) -> RenewReply:
        """Returns a certificate for the key of the request, to the identity that asks.

        Args:
            principal: From the certificate that the gate let pass.
            request: Its signing request; names in it are ignored.

        Raises:
            IdentityError: The node is not enrolled (any more), or the request was refused.
            ProtocolError: ``rate``: it renewed too often.
        """
        self._budget.take(principal.spiffe_id)
        chain_pem, record = await self._journal.write(self._issue, principal, request.csr_der)
        detail = {"serial": f"{record.serial:x}", "expires_at": record.not_after}
        self._journal.note("certificate-renewed", principal.spiffe_id, detail)
        anchors = self._authorities.anchors(Kind.SERVER)
        return RenewReply(chain_pem=chain_pem, servers_ca_pem=anchors)

    def _issue(self, principal: Principal, csr_der: bytes) -> tuple[bytes, CertificateRecord]:
        node = self._store.node_by_spiffe(principal.spiffe_id)
        if node.state is not NodeState.ENROLLED:
            raise IdentityError("not-enrolled", f"node {node.name} is {node.state}")
        issued = self._authorities.issue(
            Kind.NODE,
            csr_der,
            name=principal.name,
            lifetimes=self._lifetimes,
            now=self._clock(),
        )
        self._store.add_certificate(issued.record)
        return issued.chain_pem, issued.record
