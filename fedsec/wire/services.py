"""The names of all RPCs, read from the schema, so that none can be forgotten."""

from collections.abc import Iterable

from google.protobuf.descriptor import ServiceDescriptor

from fedsec.errors import ConfigError
from fedsec.wire.call import Method
from fedsec.wire.generated import admin_pb2, enrol_pb2, fleet_pb2

FLEET: ServiceDescriptor = fleet_pb2.DESCRIPTOR.services_by_name["Fleet"]
ADMIN: ServiceDescriptor = admin_pb2.DESCRIPTOR.services_by_name["Admin"]
ENROLMENT: ServiceDescriptor = enrol_pb2.DESCRIPTOR.services_by_name["Enrolment"]


def methods_of(service: ServiceDescriptor) -> list[str]:
    """Returns the paths of a service's RPCs, as gRPC writes them, in the schema's order.

    >>> methods_of(ENROLMENT)
    ['/fedsec.v1.Enrolment/Enrol']
    """
    return [f"/{service.full_name}/{method.name}" for method in service.methods]


def check_complete(service: ServiceDescriptor, methods: Iterable[Method]) -> None:
    """Checks that a table of methods has a row for each RPC of `service`, and no other.

    Raises:
        ConfigError: A row is missing or too many; the message names it.
    """
    want, have = set(methods_of(service)), {method.name for method in methods}
    if missing := sorted(want - have):
        raise ConfigError(f"{service.full_name}: no row for {', '.join(missing)}")
    if extra := sorted(have - want):
        raise ConfigError(f"{service.full_name}: not in the schema: {', '.join(extra)}")
