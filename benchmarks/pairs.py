"""Certificates of the two ends of a benchmark: of a coordinator and of a node."""

from dataclasses import dataclass
from datetime import UTC, datetime

from fedsec.identity.authorities import Authority, make_issuer, make_root
from fedsec.identity.leaves import Lifetimes, issue, key_pem, make_key, make_request
from fedsec.identity.names import Kind


@dataclass(frozen=True)
class Pairs:
    """PEM: what each end believes, and each end's chain and key.

    Attributes:
        servers_ca: Believed by the client.
        nodes_ca: Believed by the server.
        server: Its chain and key, for localhost.
        client: Its chain and key.
    """

    servers_ca: bytes
    nodes_ca: bytes
    server: tuple[bytes, bytes]
    client: tuple[bytes, bytes]


def make_pairs(federation: str) -> Pairs:
    """Returns two ends under one root."""
    now = datetime.now(UTC)
    root = make_root(federation, now=now)
    servers, nodes = (make_issuer(root, kind, now=now) for kind in (Kind.SERVER, Kind.NODE))
    return Pairs(
        servers.certificate_pem,
        nodes.certificate_pem,
        _pair(servers, Kind.SERVER, "benchmark", ("localhost", "127.0.0.1"), now),
        _pair(nodes, Kind.NODE, "0" * 32, (), now),
    )


def _pair(
    authority: Authority, kind: Kind, name: str, hosts: tuple[str, ...], now: datetime
) -> tuple[bytes, bytes]:
    key = make_key()
    chain = issue(
        authority,
        make_request(key),
        kind=kind,
        name=name,
        role=None,
        hosts=hosts,
        lifetime=Lifetimes().of(kind),
        now=now,
    )
    return chain, key_pem(key)
