"""Who is shut out although the certificate is still valid: serials and identities, in memory.

One list per process; all methods belong to the event loop's thread.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from fedsec.errors import IdentityError
from fedsec.identity.names import Principal


class Denylist:
    """Denied serials and SPIFFE ids; tells live streams at once when theirs is added."""

    def __init__(self) -> None:
        self._serials: set[int] = set()
        self._identities: dict[str, str] = {}  # with the name that people know
        self._watched: dict[asyncio.Event, Principal] = {}

    def deny_serial(self, serial: int) -> None:
        """Denies one certificate. Its holder may go on with another one."""
        self._serials.add(serial)
        self._tell()

    def deny_identity(self, spiffe_id: str, name: str = "") -> None:
        """Denies every certificate of an identity, present and future.

        `name` is what its operator calls it; a node's SPIFFE id holds a random number alone.
        """
        self._identities[spiffe_id] = name
        self._tell()

    def is_denied(self, principal: Principal) -> bool:
        """Says whether this certificate or its identity is denied."""
        return principal.serial in self._serials or principal.spiffe_id in self._identities

    def check(self, principal: Principal) -> None:
        """Lets a principal pass that is not denied.

        Raises:
            IdentityError: ``revoked``: the certificate or its identity is denied.
        """
        if self.is_denied(principal):
            name = self._identities.get(principal.spiffe_id, "")
            who = f"{principal.kind} {name}" if name else principal.label
            raise IdentityError("revoked", f"{who} was revoked by the federation")

    @contextmanager
    def watch(self, principal: Principal | None) -> Iterator[asyncio.Event]:
        """Gives an event that is set as soon as `principal` is denied, or is so already.

        Nobody denies an anonymous caller (None): the event is never set then.
        """
        event = asyncio.Event()
        if principal is None:
            yield event
            return
        if self.is_denied(principal):
            event.set()
        self._watched[event] = principal
        try:
            yield event
        finally:
            del self._watched[event]

    def _tell(self) -> None:
        for event, principal in self._watched.items():
            if self.is_denied(principal):
                event.set()
