"""The coordinator's own certificate: made at the start, renewed at half its life, never on disk."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from fedsec.errors import FedsecError
from fedsec.identity.leaves import Lifetimes, key_pem, make_key, make_request
from fedsec.identity.names import Kind
from fedsec.wire.credentials import ServerCredentials
from fedsec.wire.gate import utc_now
from fedsec_server.authorities import SERVER_NAME, Authorities
from fedsec_server.journal import Journal

_LOG = logging.getLogger(__name__)
_LONGEST_SLEEP_S = 60.0  # the machine may sleep, or its clock be set, meanwhile
_RETRY_S = 60.0


class OwnCertificate:
    """What the listeners show to those who connect. One key for all, a new one at each renewal.

    Args:
        authorities: The servers' CA issues it.
        hosts: Names and addresses by which the coordinator is reached.
        lifetimes: From the settings.
        journal: Takes events.
        clock: Aware UTC.

    Raises:
        IdentityError: The servers' CA has expired.
    """

    def __init__(
        self,
        authorities: Authorities,
        *,
        hosts: Sequence[str],
        lifetimes: Lifetimes,
        journal: Journal,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._authorities = authorities
        self._hosts = hosts
        self._lifetimes = lifetimes
        self._journal = journal
        self._clock = clock
        self._credentials: list[tuple[Kind | None, ServerCredentials]] = []
        self._issue()

    def listener(self, clients: Kind | None) -> ServerCredentials:
        """Returns credentials of a listener, kept up to date.

        `clients` is the kind of principals whose certificates it asks for. None asks for none, and
        shows the root as well, which who comes for the first time compares with a fingerprint.
        """
        anchors = self._authorities.anchors(clients) if clients else None
        credentials = ServerCredentials(self._chain(clients), self._key_pem, anchors)
        self._credentials.append((clients, credentials))
        return credentials

    def _chain(self, clients: Kind | None) -> bytes:
        return self._chain_pem if clients else self._chain_pem + self._authorities.root_pem

    def expires_at(self) -> float:
        """Returns when it expires, Unix seconds."""
        return self._not_after

    def renew(self) -> None:
        """Makes a new key and certificate; connections from now on see it, open ones stay.

        They also meet the clients' CAs that count now, and no TLS session of before.
        """
        self._issue()
        for clients, credentials in self._credentials:
            anchors = self._authorities.anchors(clients) if clients else None
            credentials.replace(self._chain(clients), self._key_pem, anchors)

    async def keep_fresh(self) -> None:
        """Renews at half of the certificate's life, for ever."""
        while True:
            left = (self._not_before + self._not_after) / 2 - self._clock().timestamp()
            if left > 0:
                await asyncio.sleep(min(left, _LONGEST_SLEEP_S))
                continue
            try:
                self.renew()
            except FedsecError as error:  # the servers' CA itself has expired
                _LOG.error("the coordinator's certificate cannot be renewed: %s", error)
                await asyncio.sleep(_RETRY_S)

    def _issue(self) -> None:
        key = make_key()
        issued = self._authorities.issue(
            Kind.SERVER,
            make_request(key),
            name=SERVER_NAME,
            lifetimes=self._lifetimes,
            now=self._clock(),
            hosts=self._hosts,
        )
        self._chain_pem, self._key_pem = issued.chain_pem, key_pem(key)
        self._not_before, self._not_after = issued.record.not_before, issued.record.not_after
        self._journal.note(
            "certificate-issued",
            issued.record.spiffe_id,
            {"serial": f"{issued.record.serial:x}", "expires_at": issued.record.not_after},
        )
