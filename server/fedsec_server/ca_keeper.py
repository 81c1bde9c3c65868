"""Keeps a running coordinator at the authorities that count now."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

from fedsec.errors import FedsecError
from fedsec.files import read_public
from fedsec.identity.authorities import load_certificate
from fedsec.identity.leaves import Lifetimes
from fedsec.identity.names import Kind
from fedsec.wire.gate import utc_now
from fedsec_server.authorities import Authorities
from fedsec_server.generations import (
    RENEW_COMMAND,
    Generation,
    Generations,
    forget_former,
    load_generations,
)
from fedsec_server.journal import Journal
from fedsec_server.layout import PLURALS, Layout

WARN_BEFORE = timedelta(days=60)
_WARN_EVERY = timedelta(days=1)
_LONGEST_SLEEP_S = 60.0  # the machine may sleep, or its clock be set, meanwhile

_LOG = logging.getLogger(__name__)


class AuthorityKeeper:
    """Belongs to the event loop; only the reading of files is done elsewhere.

    Args:
        layout: Of the coordinator's directory.
        generations: As loaded at the start.
        authorities: What all parts of the coordinator share.
        lifetimes: From the settings.
        apply: Lets listeners and gates see the authorities as they are now.
        journal: Takes events.
        clock: Aware UTC.
    """

    def __init__(
        self,
        layout: Layout,
        generations: Generations,
        authorities: Authorities,
        *,
        lifetimes: Lifetimes,
        apply: Callable[[], None],
        journal: Journal,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._layout = layout
        self._generations = generations
        self._authorities = authorities
        self._lifetimes = lifetimes
        self._apply = apply
        self._journal = journal
        self._clock = clock
        self._reloading = asyncio.Lock()
        self._applied = {kind: authorities.anchors(kind) for kind in Kind}
        self._reloaded = asyncio.Event()
        self._warned_at: datetime | None = None

    async def reload(self) -> None:
        """Reads the files again, and goes by them from now on.

        Raises:
            ConfigError: A file is missing, or open to others. Everything stays as it was.
            IdentityError: A file is not what it should be. Everything stays as it was.
        """
        async with self._reloading:
            now = self._clock()
            self._generations = await asyncio.to_thread(load_generations, self._layout, now=now)
            self.settle()
            self._reloaded.set()

    def settle(self) -> None:
        """Brings everything to what counts now. Does nothing where that has not changed."""
        now = self._clock()
        self._authorities.become(self._generations.at(now, self._lifetimes))
        anchors = {kind: self._authorities.anchors(kind) for kind in Kind}
        changed = [kind for kind in Kind if anchors[kind] != self._applied[kind]]
        if changed:
            self._apply()  # where it fails, the next look tries again
            self._applied = anchors
        for kind in changed:
            self._note(kind)
        for kind, each in tuple(self._generations.of.items()):
            if each.former is not None and kind not in self._authorities.ends:
                self._forget(kind, each)
        self._warn(now)

    async def keep(self) -> None:
        """Follows the time, for ever."""
        while True:
            try:
                self.settle()
            except FedsecError as error:
                _LOG.error("the authorities cannot be brought up to date: %s", error)
            now = self._clock()
            due = [(end - now).total_seconds() for end in self._authorities.ends.values()]
            self._reloaded.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.01, min([*due, _LONGEST_SLEEP_S]))):
                    await self._reloaded.wait()

    def _forget(self, kind: Kind, over: Generation) -> None:
        of = {**self._generations.of, kind: Generation(over.current)}
        self._generations = Generations(self._generations.root_pem, of)
        try:
            # A command may have begun the next change meanwhile: its files are not ours.
            path = self._layout.issuer_certificate(kind, ".former")
            if path.exists() and load_certificate(read_public(path)) == over.former:
                forget_former(self._layout, kind)
        except (OSError, FedsecError) as error:
            _LOG.error("the former CA for %s stays on the disk: %s", PLURALS[kind], error)

    def _note(self, kind: Kind) -> None:
        end = self._authorities.ends.get(kind)
        detail = {
            "issuing": self._authorities.of(kind).fingerprint,
            "both_until": end.timestamp() if end else None,
        }
        self._journal.note("authority-changed", f"CA for {PLURALS[kind]}", detail)

    def _warn(self, now: datetime) -> None:
        if self._warned_at is not None and now - self._warned_at < _WARN_EVERY:
            return
        for kind, each in self._generations.of.items():
            left = each.current.certificate.not_valid_after_utc - now
            if left < WARN_BEFORE:
                self._warned_at = now
                _LOG.warning(
                    "the CA for %s ends in %d days; replace it with `%s`",
                    PLURALS[kind],
                    left.days,
                    RENEW_COMMAND,
                )
