"""The tables of RPCs are checked against the schema that is on the wire."""

import pytest

from fedsec.errors import ConfigError
from fedsec.identity.names import Role
from fedsec.wire.call import Call, Method
from fedsec.wire.services import ADMIN, ENROLMENT, FLEET, check_complete, methods_of
from fedsec.wire.streams import FETCH, STORE


async def nothing(call: Call) -> None:
    raise AssertionError("never called")


def rows(names: list[str]) -> list[Method]:
    return [Method(name, frozenset({Role.NODE}), nothing) for name in names]


def test_names_are_read_from_the_schema() -> None:
    assert methods_of(FLEET) == [
        f"/fedsec.v1.Fleet/{name}" for name in ("Session", "Fetch", "Store", "Renew")
    ]
    assert methods_of(ENROLMENT) == ["/fedsec.v1.Enrolment/Enrol"]
    assert "/fedsec.v1.Admin/RevokeNode" in methods_of(ADMIN)


def test_the_names_written_out_in_streams_are_those_of_the_schema() -> None:
    assert {FETCH, STORE} <= set(methods_of(FLEET))


def test_a_complete_table_passes() -> None:
    check_complete(FLEET, rows(methods_of(FLEET)))


def test_a_missing_row_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no row for /fedsec\.v1\.Fleet/Renew"):
        check_complete(FLEET, rows(methods_of(FLEET)[:-1]))


def test_a_row_too_many_is_named() -> None:
    with pytest.raises(ConfigError, match=r"not in the schema: /fedsec\.v1\.Fleet/Shell"):
        check_complete(FLEET, rows([*methods_of(FLEET), "/fedsec.v1.Fleet/Shell"]))
