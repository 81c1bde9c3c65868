"""First contact: from an invite to an identity, in one call that either succeeds or leaves nothing.

    decode invite > make keys > look at CA and root, pinned > Enrol > check all > write identity/

The invite is spent by the call to the coordinator, and not before the keys lie on the disk.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import grpc
import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import DecodeError

from fedsec.console import format_duration
from fedsec.errors import ConfigError, FedsecError, IdentityError, ProtocolError, StateError
from fedsec.files import make_private_directory, write_public
from fedsec.identity.authorities import read_fingerprint
from fedsec.identity.bundles import Bundle, check_enrolment
from fedsec.identity.certificates import load_certificate
from fedsec.identity.invites import Invite, split_address, token_hash
from fedsec.identity.leaves import key_pem, make_key, make_request
from fedsec.identity.names import Principal
from fedsec.identity.signing import (
    enrolment_transcript,
    make_signing_key,
    prove,
    public_bytes,
    signing_key_pem,
)
from fedsec.wire.answers import error_of
from fedsec.wire.channels import fetch_pinned_chain, open_channel
from fedsec.wire.credentials import anonymous_credentials
from fedsec.wire.generated.enrol_pb2 import EnrolReply, EnrolRequest
from fedsec_client.diagnosis import ADVICE
from fedsec_client.enrolment import (
    Draft,
    Enrolment,
    Record,
    clock_offset,
    is_joined,
)
from fedsec_client.probes import judge_names, judge_times, look
from fedsec_client.settings import FILE_NAME, example
from fedsec_client.versions import protocol_version

ENROL = "/fedsec.v1.Enrolment/Enrol"
TIMEOUT_S = 30.0
ROUNDED_S = 300
_NEW_INVITE = "ask the coordinator's operator for a new one (`fedsec node invite`)"
_ADVICE = {
    **ADVICE,
    "not-tls": "Is the port in the invite the coordinator's port for enrolment?",
    "pin-mismatch": "Ask the coordinator's operator which. Nothing was sent, so the invite can "
    "still be used.",
    "token-used": "An invite works once (`fedsec node invite`).",
    "token-expired": "The coordinator's operator makes one with `fedsec node invite`.",
    "wrong-fingerprint": "Do not go on: another federation's coordinator answered, or the "
    "fingerprint is of another one. Nothing was sent, so the invite can still be used.",
    "unknown-token": f"Is it an old one, or another coordinator's? Then {_NEW_INVITE}.",
}


@dataclass(frozen=True, slots=True)
class _Keys:
    tls: EllipticCurvePrivateKey = field(default_factory=make_key)
    signing: Ed25519PrivateKey = field(default_factory=make_signing_key)


def join(invite_text: str, directory: Path, root_fingerprint: str | None = None) -> Enrolment:
    """Makes the node that lives in `directory` a member of a federation.

    Writes ``identity/`` and, where there is none, a commented ``node.toml``. Must not be called
    where an event loop runs.

    Args:
        invite_text: From `fedsec node invite`; spent by this call.
        directory: The node's own; made if missing, with mode 0700.
        root_fingerprint: SHA-256 of the federation's root, which the operator got by another way
            than the invite. Without it the node is recorded as "root not pinned".

    Returns:
        The node's identity.

    Raises:
        ConfigError: The invite is mistyped, the fingerprint is none, or the directory is not fit.
        StateError: The directory has joined before, or the coordinator cannot be reached.
        IdentityError: The coordinator refused, or is not who the invite says. The code tells which.
    """
    invite = Invite.decode(invite_text)
    pin = read_fingerprint(root_fingerprint) if root_fingerprint is not None else None
    if is_joined(directory):
        raise StateError(
            f"{directory} has joined already; take another directory, or move "
            f"{directory}/identity away first"
        )
    if (directory / "server.toml").exists():
        raise ConfigError(f"{directory} is a coordinator's directory; a node gets one of its own")
    keys = _Keys()
    with _directory(directory), Draft(directory) as draft:
        draft.write_keys(key_pem(keys.tls), signing_key_pem(keys.signing))
        reply = _with_advice(invite, keys, pin)
        received_at = datetime.now(UTC)
        bundle = Bundle(reply.chain_pem, reply.servers_ca_pem, reply.root_pem)
        principal = _check(bundle, keys, invite, pin, received_at)
        record = _record(reply, principal, pinned=pin is not None, now=received_at)
        draft.commit(record, bundle)
    _write_settings(directory)
    return Enrolment.load(directory)


@contextmanager
def _directory(path: Path) -> Iterator[None]:
    """Makes the directory; removes it again if nothing came of it and it was made here."""
    existed = path.exists()
    make_private_directory(path)
    try:
        yield
    except BaseException:
        if not existed:
            with suppress(OSError):
                path.rmdir()
        raise


def _with_advice(invite: Invite, keys: _Keys, pin: str | None) -> EnrolReply:
    """Enrols; whatever goes wrong also says what to do. A wrong root spends nothing."""
    try:
        servers_ca = fetch_pinned_chain(
            invite.address, invite.servers_ca_fingerprint, root_fingerprint=pin
        )
        csr_der = make_request(keys.tls)
        return asyncio.run(enrol(invite, servers_ca, csr_der, keys.signing, pinned=pin is not None))
    except IdentityError as error:
        raise advised(error) from error


def advised(error: IdentityError) -> IdentityError:
    """Returns the error with what one who wants to join can do about it."""
    advice = _ADVICE.get(error.code)
    if advice is None:
        return error
    return IdentityError(error.code, f"{error.detail.rstrip('.')}. {advice}")


async def enrol(
    invite: Invite,
    servers_ca: bytes,
    csr_der: bytes,
    signing: Ed25519PrivateKey,
    *,
    pinned: bool,
) -> EnrolReply:
    """Asks for a certificate; the token is spent if and only if one is issued.

    Args:
        invite: Names the coordinator, and has the token.
        servers_ca: PEM of the only CA that the coordinator is believed by.
        csr_der: The signing request.
        signing: Of the node, whose possession is proved.
        pinned: What is told of the root.

    Raises:
        FedsecError: The coordinator refused or cannot be reached; the code tells why.
    """
    request = _request(invite, csr_der, signing, pinned=pinned)
    channel = open_channel(invite.address, anonymous_credentials(servers_ca))
    async with channel:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ENROL)
        try:
            answer = await method(request.SerializeToString(), timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise _failure(error, invite.address, servers_ca) from error
    try:
        return EnrolReply.FromString(answer)
    except DecodeError:
        raise ProtocolError("coordinator", "malformed", "its answer is no EnrolReply") from None


def _request(
    invite: Invite, csr_der: bytes, signing: Ed25519PrivateKey, *, pinned: bool
) -> EnrolRequest:
    public = public_bytes(signing)
    transcript = enrolment_transcript(token_hash(invite.token), csr_der, public)
    return EnrolRequest(
        version=protocol_version(),
        token=invite.token,
        csr_der=csr_der,
        signing_key=public,
        signing_proof=prove(signing, transcript),
        root_pinned=pinned,
    )


def _failure(error: grpc.aio.AioRpcError, address: str, servers_ca: bytes) -> FedsecError:
    """Returns why the call failed; where gRPC does not know, the server is looked at."""
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        host, _ = split_address(address)
        try:
            seen = look(address)
            judge_names(seen.leaf, host, servers_ca)
            judge_times(seen, None, now=datetime.now(UTC))
        except IdentityError as cause:
            return cause
    return error_of(error)


def _check(
    bundle: Bundle, keys: _Keys, invite: Invite, pin: str | None, now: datetime
) -> Principal:
    try:
        return check_enrolment(
            bundle,
            key=keys.tls,
            servers_ca_fingerprint=invite.servers_ca_fingerprint,
            root_fingerprint=pin,
            now=now,
        )
    except IdentityError as error:
        if error.code not in {"expired", "not-yet-valid"}:
            raise IdentityError(
                error.code,
                f"{error.detail}. This invite is spent: once it is clear what went "
                "wrong, the coordinator's operator revokes the node (`fedsec node revoke`) and "
                "invites it anew",
            ) from error
        begins = load_certificate(bundle.chain_pem).not_valid_before_utc
        raise IdentityError(
            "clock",
            f"this machine's clock is about {_lag(clock_offset(begins, now))} the coordinator's; "
            f"set it, and then {_NEW_INVITE}: this one is spent",
        ) from error


def _lag(offset_s: float) -> str:
    """Returns how far this clock is off, to the minute where it is off by more than that.

    >>> _lag(10_799), _lag(-108_001), _lag(70)
    ('3 h 0 min behind', '1 d 6 h ahead of', '1 min 10 s behind')
    """
    length = abs(offset_s)
    if length > ROUNDED_S:
        length = 60 * round(length / 60)
    return f"{format_duration(length)} {'behind' if offset_s > 0 else 'ahead of'}"


def _record(reply: EnrolReply, principal: Principal, *, pinned: bool, now: datetime) -> Record:
    if reply.spiffe_id != principal.spiffe_id:
        raise IdentityError(
            "wrong-identity",
            f"the certificate is for {principal.spiffe_id}, the answer says {reply.spiffe_id!r}",
        )
    try:
        split_address(reply.fleet_address)
    except ConfigError as error:
        raise ProtocolError("coordinator", "bad-address", str(error)) from error
    begins = load_certificate(reply.chain_pem).not_valid_before_utc
    return Record(
        node_id=reply.node_id,
        name=reply.name,
        spiffe_id=reply.spiffe_id,
        fleet_address=reply.fleet_address,
        root_pinned=pinned,
        joined_at=now.timestamp(),
        clock_offset_s=clock_offset(begins, now),
    )


def _write_settings(directory: Path) -> None:
    """Writes `node.toml` unless there is one: the operator's own is never touched."""
    path = directory / FILE_NAME
    if not path.exists():
        threads = max(1, (os.cpu_count() or 2) // 2)
        write_public(path, example(threads=threads).encode())
