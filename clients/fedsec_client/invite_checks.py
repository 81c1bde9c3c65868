"""`fedsec doctor --invite`: would a machine get in by this invite? Nothing is spent.

An error at any step of an enrolment leaves the invite unspent (docs/spec/enrolment.md), and the
token is looked at before the signing request. So a request without one tells whether it is good.
"""

import asyncio
from datetime import datetime

from fedsec.errors import FedsecError, IdentityError
from fedsec.identity.invites import Invite, split_address
from fedsec.identity.signing import make_signing_key
from fedsec.wire.channels import fetch_pinned_chain
from fedsec_client.findings import Finding, State
from fedsec_client.join import advised, enrol
from fedsec_client.probes import judge_names, judge_times, look

NO_REQUEST = b""
_ONLY_THE_REQUEST_IS_BAD = "bad-request"


def examine_invite(text: str, *, now: datetime) -> list[Finding]:
    """Returns what would keep a machine from joining, each thing after what it depends on.

    Blocks; must not be called where an event loop runs.

    Args:
        text: From `fedsec node invite`.
        now: Aware time, by this machine's clock.

    Raises:
        ConfigError: The invite is mistyped.
    """
    invite = Invite.decode(text)
    try:
        servers_ca = fetch_pinned_chain(invite.address, invite.servers_ca_fingerprint)
    except FedsecError as error:
        return [_failed("coordinator", error), *_skipped("certificates", "token")]
    detail = f"{invite.address} answers, under the CA that the invite names"
    there = Finding("coordinator", State.OK, detail=detail)
    try:
        seen = look(invite.address)
        judge_names(seen.leaf, split_address(invite.address)[0], servers_ca)
        judge_times(seen, None, now=now)
    except FedsecError as error:
        return [there, _failed("certificates", error), *_skipped("token")]
    agreed = Finding("certificates", State.OK, detail="the coordinator's is for this host and time")
    return [there, agreed, _token(invite, servers_ca)]


def _token(invite: Invite, servers_ca: bytes) -> Finding:
    try:
        asyncio.run(enrol(invite, servers_ca, NO_REQUEST, make_signing_key(), pinned=False))
    except FedsecError as error:
        if isinstance(error, IdentityError) and error.code == _ONLY_THE_REQUEST_IS_BAD:
            return Finding("token", State.OK, detail="good, and still unused")
        return _failed("token", error)
    wrong = IdentityError("malformed", "the coordinator certified a node that asked for nothing")
    return _failed("token", wrong)


def _failed(check: str, error: FedsecError) -> Finding:
    if not isinstance(error, IdentityError):
        return Finding(check, State.FAILED, "config", str(error))
    return Finding(check, State.FAILED, error.code, advised(error).detail)


def _skipped(*checks: str) -> list[Finding]:
    return [Finding(check, State.SKIPPED) for check in checks]
