"""Who may call what: every RPC of the schema has a row, and every row is kept, over real sockets."""

from pathlib import Path

import grpc
import pytest

from fedsec.identity.names import Role
from fedsec.wire.generated import admin_pb2, enrol_pb2, fleet_pb2
from fedsec_server.roles import ROLES
from tests.pki import make_pki
from tests.server.deskrig import desk
from tests.wire.gated import refused, run, unary

PEOPLE = (Role.ADMIN, Role.OPERATOR, Role.AUDITOR)
FILES = (admin_pb2.DESCRIPTOR, fleet_pb2.DESCRIPTOR, enrol_pb2.DESCRIPTOR)
RPCS = [
    f"/{service.full_name}/{method.name}"
    for file in FILES
    for service in file.services_by_name.values()
    for method in service.methods
]
CHANGES = {
    "ReloadAuthorities",
    "InviteNode",
    "RevokeNode",
    "AddPerson",
    "RevokePerson",
    "SubmitRun",
    "StopRun",
}


def test_every_rpc_of_the_schema_has_a_row_and_no_row_is_left_over() -> None:
    assert len(RPCS) >= 20
    assert sorted(ROLES) == sorted(RPCS)


def test_an_rpc_without_a_row_would_be_noticed() -> None:
    """The test above has power: it reads the descriptors that the code generator wrote."""
    missing = dict(ROLES)
    del missing["/fedsec.v1.Admin/RevokeNode"]
    assert sorted(missing) != sorted(RPCS)


def test_nodes_reach_the_fleet_service_alone() -> None:
    for path, roles in ROLES.items():
        assert (Role.NODE in roles) == path.startswith("/fedsec.v1.Fleet/")
        assert Role.SERVER not in roles
        assert (not roles) == path.startswith("/fedsec.v1.Enrolment/")


def test_an_auditor_changes_nothing_and_an_admin_may_all() -> None:
    for path, roles in ROLES.items():
        if not path.startswith("/fedsec.v1.Admin/"):
            continue
        assert Role.ADMIN in roles
        if path.rpartition("/")[2] in CHANGES | {"FetchModel"}:
            assert Role.AUDITOR not in roles


@pytest.mark.parametrize("role", PEOPLE)
def test_people_get_through_exactly_where_the_table_says(tmp_path: Path, role: Role) -> None:
    """An empty request: whoever gets through is answered, or told what is wrong with it."""

    async def main() -> None:
        async with (
            desk(tmp_path) as here,
            here.admin.channel(here.pki.person("x", role)) as channel,
        ):
            for path in RPCS:
                if not path.startswith("/fedsec.v1.Admin/"):
                    continue
                try:
                    await unary(channel, path, b"")
                    status = grpc.StatusCode.OK
                except grpc.aio.AioRpcError as error:
                    status = error.code()
                denied = status is grpc.StatusCode.PERMISSION_DENIED
                assert denied == (role not in ROLES[path]), (path, role, status)
                assert status is not grpc.StatusCode.INTERNAL
                assert status is not grpc.StatusCode.UNIMPLEMENTED

    run(main())


@pytest.mark.parametrize("path", RPCS)
def test_a_node_gets_nothing_at_the_admin_port(tmp_path: Path, path: str) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here, here.admin.channel(here.pki.node()) as channel:
            status, _ = await refused(unary(channel, path, b""))
            assert status is grpc.StatusCode.UNAVAILABLE  # TLS itself refuses that CA

    run(main())


def test_without_a_certificate_nobody_gets_in(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here, here.admin.anonymous() as channel:
            status, _ = await refused(unary(channel, "/fedsec.v1.Admin/Status", b""))
            assert status is grpc.StatusCode.UNAVAILABLE

    run(main())


def test_what_is_not_in_the_table_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here, here.admin.channel(here.pki.person()) as channel:
            for path in ("/fedsec.v1.Admin/Nothing", "/fedsec.v1.Fleet/Session", "/x"):
                status, _ = await refused(unary(channel, path, b""))
                assert status is grpc.StatusCode.UNIMPLEMENTED

    run(main())


def test_a_refusal_is_recorded_with_who_and_what(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            bob = here.pki.person("bob", Role.AUDITOR)
            async with here.admin.channel(bob) as channel:
                await refused(unary(channel, "/fedsec.v1.Admin/StopRun", b""))
            (refusal,) = here.admin.refusals
            here.recorder.refused(refusal)
            await here.recorder.settle()
            (event,) = here.store.events()
            assert (event.kind, event.subject) == (
                "rpc-refused",
                "spiffe://fed.example/person/auditor/bob",
            )
            assert event.detail["code"] == "role"
            assert event.detail["method"] == "/fedsec.v1.Admin/StopRun"

    run(main())


def test_every_other_pki_is_foreign(tmp_path: Path) -> None:
    """A person of a federation of the same name but another root."""

    async def main() -> None:
        stranger = make_pki().person("ann", Role.ADMIN)
        async with desk(tmp_path) as here, here.admin.channel(stranger) as channel:
            status, _ = await refused(unary(channel, "/fedsec.v1.Admin/Status", b""))
            assert status is grpc.StatusCode.UNAVAILABLE

    run(main())
