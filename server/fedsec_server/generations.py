"""How an issuing authority takes the place of another, without a node or a person falling out.

    nodes, people   the new CA issues from the start; the former one is trusted until all that it
                    issued has expired, its key is gone at once
    servers         the former CA issues on, the new one is announced with each certificate that a
                    node or person gets; when all of them know it, it issues

    |-- change --|------- both are trusted -------|-- the former one is forgotten --
                 made                             ends = made + 1.1 * the longest certificate

The rule needs the files and the time alone, so that a coordinator that was down meanwhile comes to
the same result. A change is made by `fedsec_server.change_issuers`. Spec: docs/spec/enrolment.md.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fedsec.errors import IdentityError
from fedsec.files import read_private, read_public
from fedsec.identity.authorities import (
    Authority,
    check_issuer,
    load_authority,
    load_certificate,
)
from fedsec.identity.leaves import Lifetimes
from fedsec.identity.names import Kind
from fedsec.identity.times import BACKDATE
from fedsec_server.authorities import Authorities
from fedsec_server.layout import Layout, Which

_SPARE = 1.1  # for what the former CA issued while the change came through
RENEW_COMMAND = "fedsec server renew-ca"


@dataclass(frozen=True, slots=True)
class Generation:
    """An issuing authority and, for a while, the one before it.

    Args:
        current: The newest one.
        former: The one before; None where there is none.
        former_authority: With its key; of the servers' CA alone.
    """

    current: Authority
    former: x509.Certificate | None = None
    former_authority: Authority | None = None

    def ends(self, kind: Kind, lifetimes: Lifetimes) -> datetime | None:
        """Returns until when both are trusted; None where there is only one."""
        if self.former is None:
            return None
        made = self.current.certificate.not_valid_before_utc + BACKDATE
        return min(made + overlap(kind, lifetimes), self.former.not_valid_after_utc)


@dataclass(frozen=True, slots=True)
class Generations:
    """What lies in a coordinator's `ca` directory."""

    root_pem: bytes
    of: Mapping[Kind, Generation]

    def at(self, now: datetime, lifetimes: Lifetimes) -> Authorities:
        """Returns the authorities as they count at `now`."""
        issuing: dict[Kind, Authority] = {}
        beside: dict[Kind, bytes] = {}
        ends: dict[Kind, datetime] = {}
        for kind, each in self.of.items():
            issuing[kind] = each.current
            end = each.ends(kind, lifetimes)
            if each.former is None or end is None or now >= end:
                continue
            ends[kind] = end
            if each.former_authority is None:
                beside[kind] = each.former.public_bytes(Encoding.PEM)
            else:
                issuing[kind] = each.former_authority
                beside[kind] = each.current.certificate_pem
        return Authorities(
            servers=issuing[Kind.SERVER],
            nodes=issuing[Kind.NODE],
            people=issuing[Kind.PERSON],
            root_pem=self.root_pem,
            beside=beside,
            ends=ends,
        )


def overlap(kind: Kind, lifetimes: Lifetimes) -> timedelta:
    """Returns for how long two authorities for `kind` are trusted.

    A node renews before the end of its certificate's life and is told the servers' CAs then; a
    person is told them with each certificate.
    """
    longest = {
        Kind.SERVER: max(lifetimes.node, lifetimes.person),
        Kind.NODE: lifetimes.node,
        Kind.PERSON: lifetimes.person,
    }
    return longest[kind] * _SPARE


def load_generations(layout: Layout, *, now: datetime) -> Generations:
    """Returns what lies in a coordinator's `ca` directory, after checking it.

    Raises:
        ConfigError: A file is missing, or open to others.
        IdentityError: A certificate and its key do not fit, the root did not sign it, or it is
            not valid at `now`; the sentence names the file.
    """
    root_pem = read_public(layout.root_certificate)
    return Generations(root_pem, {kind: _generation(layout, kind, root_pem, now) for kind in Kind})


def load_authorities(layout: Layout, lifetimes: Lifetimes, *, now: datetime) -> Authorities:
    """Returns the authorities as they count at `now`; raises as `load_generations` does."""
    return load_generations(layout, now=now).at(now, lifetimes)


def load_issuer(layout: Layout, kind: Kind, *, now: datetime) -> Authority:
    """Returns the newest authority for `kind`; raises as `load_generations` does."""
    finish_change(layout, kind)
    return _load(layout, kind, read_public(layout.root_certificate), now)


def servers_anchors(layout: Layout) -> bytes:
    """Returns, as PEM, every CA by which the coordinator of this directory may be certified now."""
    former = layout.issuer_certificate(Kind.SERVER, ".former")
    newest = read_public(layout.issuer_certificate(Kind.SERVER))
    return (read_public(former) if former.exists() else b"") + newest


def finish_change(layout: Layout, kind: Kind) -> None:
    """Completes a change that a crash cut short after its last file was written."""
    if layout.issuer_certificate(kind, ".next").exists():
        for path in (layout.issuer_key, layout.issuer_certificate):
            with suppress(FileNotFoundError):  # the crash came between the two
                path(kind, ".next").replace(path(kind))


def forget_former(layout: Layout, kind: Kind) -> None:
    """Removes the former authority's files, the key first. Harmless where there are none."""
    layout.issuer_key(kind, ".former").unlink(missing_ok=True)
    layout.issuer_certificate(kind, ".former").unlink(missing_ok=True)


def _generation(layout: Layout, kind: Kind, root_pem: bytes, now: datetime) -> Generation:
    finish_change(layout, kind)
    current = _load(layout, kind, root_pem, now)
    path = layout.issuer_certificate(kind, ".former")
    if not path.exists():
        return Generation(current)
    try:
        former = load_certificate(read_public(path))
        if now <= former.not_valid_after_utc:
            check_issuer(read_public(path), kind=kind, root_pem=root_pem, now=now)
    except IdentityError as error:
        raise IdentityError(error.code, f"{path}: {error.detail}") from error
    if former == current.certificate:  # a change that had only begun when a crash came
        return Generation(current)
    if now > former.not_valid_after_utc:
        return Generation(current, former)
    if kind is Kind.SERVER:
        return Generation(current, former, _load(layout, kind, root_pem, now, ".former"))
    return Generation(current, former)


def _load(
    layout: Layout, kind: Kind, root_pem: bytes, now: datetime, which: Which = ""
) -> Authority:
    path = layout.issuer_certificate(kind, which)
    certificate_pem = read_public(path)
    key_pem = read_private(layout.issuer_key(kind, which))
    try:
        check_issuer(certificate_pem, kind=kind, root_pem=root_pem, now=now)
        return load_authority(certificate_pem, key_pem)
    except IdentityError as error:
        advice = f"; `{RENEW_COMMAND}` makes a new one" if error.code == "expired" else ""
        raise IdentityError(error.code, f"{path}: {error.detail}{advice}") from error
