"""Why a node cannot talk to its coordinator, where gRPC says UNAVAILABLE and no more."""

from datetime import datetime

from fedsec.errors import FedsecError, IdentityError
from fedsec.identity.invites import split_address
from fedsec_client.enrolment import CHAIN, DIRECTORY, KEY, Enrolment
from fedsec_client.probes import (
    TIMEOUT_S,
    Presented,
    check_reachable,
    judge_names,
    judge_times,
    look,
)

ADVICE = {
    "host-unknown": "Check the name and this machine's DNS.",
    "nothing-listens": "Is the coordinator running, and does a firewall let this port through?",
    "no-answer": "Is a firewall in between, or the coordinator overloaded or stopped?",
    "not-tls": "Another service answers on this port; the address must be the coordinator's port "
    "for nodes.",
    "wrong-ca": "Another coordinator answers, its CA was replaced, or someone is in between. If "
    "the CA was replaced, ask for a new invite and join again.",
    "wrong-host": "The coordinator's certificate must name the host under which nodes reach it "
    "(`fedsec server init --host`).",
    "clock": "Set this machine's clock (NTP).",
    "server-expired": "If the time here is wrong, set this machine's clock; if it is right, the "
    "coordinator could not renew its certificate, and its log says why.",
    "expired": "Ask the coordinator's operator for a new invite and join again.",
    "refused": "Compare the clocks of both machines. If they agree, the coordinator's CA for nodes "
    "was replaced: ask for a new invite and join again.",
}


def diagnose(
    enrolment: Enrolment, *, now: datetime, timeout_s: float = TIMEOUT_S
) -> IdentityError | None:
    """Returns the first cause that is found, None when a TLS connection comes about.

    Takes up to three connections, one after the other; blocks.

    Args:
        enrolment: Who the node is.
        now: Aware time, by this machine's clock.
        timeout_s: For each connection.
    """
    try:
        seen = look_at(enrolment, timeout_s=timeout_s)
        judge(enrolment, seen, now=now)
    except IdentityError as error:
        return advised(error)
    except FedsecError as error:
        return IdentityError("config", str(error))
    return None


def look_at(enrolment: Enrolment, *, timeout_s: float = TIMEOUT_S) -> Presented:
    """Returns what the coordinator shows this node.

    Raises:
        IdentityError: ``host-unknown``, ``nothing-listens``, ``no-answer``, ``not-tls``,
            ``wrong-ca``.
    """
    address = enrolment.record.fleet_address
    check_reachable(address, enrolment.credentials.servers_ca_pem, timeout_s)
    place = enrolment.directory / DIRECTORY
    return look(address, (place / CHAIN, place / KEY), timeout_s)


def judge(enrolment: Enrolment, seen: Presented, *, now: datetime) -> None:
    """Returns if TLS between the two comes about at `now`.

    Raises:
        IdentityError: ``wrong-ca``, ``wrong-host``, ``clock``, ``expired``, ``server-expired`` or
            ``refused``; see `fedsec_client.probes`.
    """
    host, _ = split_address(enrolment.record.fleet_address)
    judge_names(seen.leaf, host, enrolment.credentials.servers_ca_pem)
    judge_times(seen, enrolment.principal, now=now)


def advised(error: IdentityError) -> IdentityError:
    """Returns the error with what to do about it."""
    advice = ADVICE.get(error.code)
    if advice is None:
        return error
    return IdentityError(error.code, f"{error.detail.rstrip('.')}. {advice}")
