"""A certificate is renewed at half its life, for a new key; the other half is spare time."""

import random
from datetime import datetime

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from fedsec.errors import ProtocolError
from fedsec.identity.bundles import check_renewal
from fedsec.identity.leaves import key_pem, make_key, make_request
from fedsec.identity.times import BACKDATE
from fedsec.wire.answers import error_of
from fedsec.wire.generated.fleet_pb2 import RenewReply, RenewRequest
from fedsec_client.enrolment import Credentials, Enrolment

RENEW = "/fedsec.v1.Fleet/Renew"
TIMEOUT_S = 30.0
_JITTER = random.SystemRandom()


def due_at(not_before: datetime, not_after: datetime, rng: random.Random = _JITTER) -> datetime:
    """Returns when to renew: at half the life, give or take a tenth of that, drawn evenly.

    Nodes that enrolled together do not come back together. The life begins when the certificate
    was made, which is a while after `not_before`.
    """
    made = not_before + BACKDATE
    begin = made if made < not_after else not_before
    return begin + (not_after - begin) * 0.5 * rng.uniform(0.9, 1.1)


async def renew(channel: grpc.aio.Channel, enrolment: Enrolment, *, now: datetime) -> Enrolment:
    """Returns the identity with a new key and a certificate for it. Nothing is stored yet.

    Args:
        channel: Over which the present certificate was shown.
        enrolment: The present one.
        now: Aware time.

    Raises:
        FedsecError: The coordinator refused, cannot be reached, or sent what does not fit.
    """
    key = make_key()
    request = RenewRequest(csr_der=make_request(key))
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(RENEW)
    try:
        answer = await method(request.SerializeToString(), timeout=TIMEOUT_S)
        reply = RenewReply.FromString(answer)
    except grpc.aio.AioRpcError as error:
        raise error_of(error) from error
    except DecodeError:
        raise ProtocolError("coordinator", "malformed", "its answer is no RenewReply") from None
    credentials = Credentials(reply.chain_pem, key_pem(key), reply.servers_ca_pem)
    bundle = credentials.bundle(enrolment.root_pem)
    check_renewal(bundle, key=key, before=enrolment.principal, now=now)
    return enrolment.renewed(credentials, now=now)
