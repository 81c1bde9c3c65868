"""One spelling per identity; what operators may write."""

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import ConfigError, IdentityError
from fedsec.identity.names import (
    ROLES_OF_KIND,
    Kind,
    Principal,
    Role,
    check_federation,
    check_name,
    check_node_id,
    is_dns_name,
    is_federation,
    parse_spiffe,
)

UUID = "0123456789abcdef0123456789abcdef"

names = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)
federations = st.from_regex(
    r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z]([a-z0-9-]{0,8}[a-z0-9])?){0,3}", fullmatch=True
).filter(is_federation)


def principal(kind: Kind, role: Role, name: str, federation: str = "fed.example") -> Principal:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return Principal(federation, kind, role, name, 1, moment, moment)


@given(federation=federations, role=st.sampled_from(Role), name=names)
def test_what_is_made_is_read_back(federation: str, role: Role, name: str) -> None:
    (kind,) = [kind for kind, roles in ROLES_OF_KIND.items() if role in roles]
    name = UUID if kind is Kind.NODE else name
    uri = principal(kind, role, name, federation).spiffe_id
    assert parse_spiffe(uri) == (federation, kind, role, name)


@given(st.text(max_size=300))
def test_any_text_is_refused_or_is_the_one_spelling_of_what_is_read(text: str) -> None:
    for uri in (text, f"spiffe://{text}", f"spiffe://fed.example/{text}"):
        with suppress(IdentityError):
            federation, kind, role, name = parse_spiffe(uri)
            assert principal(kind, role, name, federation).spiffe_id == uri


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://",
        "spiffe://fed.example",
        "spiffe://fed.example/",
        "spiffe://fed.example/node",
        "spiffe://fed.example/node/",
        f"SPIFFE://fed.example/node/{UUID}",
        f"https://fed.example/node/{UUID}",
        f"spiffe:fed.example/node/{UUID}",
        f"spiffe:///node/{UUID}",
        f"spiffe://Fed.example/node/{UUID}",
        f"spiffe://fed.example:443/node/{UUID}",
        f"spiffe://ann@fed.example/node/{UUID}",
        f"spiffe://fed..example/node/{UUID}",
        f"spiffe://-fed.example/node/{UUID}",
        f"spiffe://10.0.0.1/node/{UUID}",
        f"spiffe://{'a' * 65}/node/{UUID}",
        f"spiffe://fed.example//node/{UUID}",
        f"spiffe://fed.example/node/{UUID}/",
        f"spiffe://fed.example/node/{UUID}?a=b",
        f"spiffe://fed.example/node/{UUID}#a",
        f"spiffe://fed.example/node/{UUID}\n",
        f"spiffe://fed.example/node/{UUID.upper()}",
        f"spiffe://fed.example/node/{UUID[:-1]}",
        f"spiffe://fed.example/node/{UUID}0",
        "spiffe://fed.example/node/01234567-89ab-cdef-0123-456789abcdef",
        f"spiffe://fed.example/%6eode/{UUID}",
        f"spiffe://fed.example/./node/{UUID}",
        f"spiffe://fed.example/server/../node/{UUID}",
        f"spiffe://fed.example/user/{UUID}",
        f"spiffe://fed.example/Node/{UUID}",
        "spiffe://fed.example/server/Fleet",
        "spiffe://fed.example/server/-fleet",
        f"spiffe://fed.example/server/{'a' * 64}",
        "spiffe://fed.example/person/ann",
        "spiffe://fed.example/person/node/ann",
        "spiffe://fed.example/person/root/ann",
        "spiffe://fed.example/person/admin/ann/x",
        "spiffe://fed.example/person/admin/änn",
        "spiffe://fed.example/person/admin/" + "a" * 300,
    ],
)
def test_other_spellings_are_refused(uri: str) -> None:
    with pytest.raises(IdentityError) as caught:
        parse_spiffe(uri)
    assert caught.value.code == "bad-spiffe"


@pytest.mark.parametrize(
    ("kind", "role", "name", "label"),
    [
        (Kind.NODE, Role.NODE, UUID, "node 01234567"),
        (Kind.SERVER, Role.SERVER, "fleet", "server fleet"),
        (Kind.PERSON, Role.AUDITOR, "ann", "auditor ann"),
    ],
)
def test_labels_are_short(kind: Kind, role: Role, name: str, label: str) -> None:
    assert principal(kind, role, name).label == label


@pytest.mark.parametrize("kind", Kind)
def test_a_principal_has_a_role_of_its_kind(kind: Kind) -> None:
    for role in Role:
        if role in ROLES_OF_KIND[kind]:
            assert principal(kind, role, "x").role is role
        else:
            with pytest.raises(ConfigError, match=f"role {role} does not fit a {kind}"):
                principal(kind, role, "x")


@pytest.mark.parametrize("text", ["a", "0", "site-a", "a" * 63, "a-"])
def test_good_names(text: str) -> None:
    assert check_name(text) == text


@pytest.mark.parametrize("text", ["", "-a", "A", "a" * 64, "a b", "a\n", "a_b", "a/b", "ä", "\x1b"])
def test_bad_names(text: str) -> None:
    with pytest.raises(ConfigError, match="must be 1 to 63 characters"):
        check_name(text)


def test_the_refusal_of_a_name_cannot_forge_a_log_line() -> None:
    with pytest.raises(ConfigError) as caught:
        check_name("ann\nnode revoked \x1b[2J" + "x" * 1000)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("text", ["demo", "fed.example", "a-b.c", "0a.1b", "a" * 63, "9.b2"])
def test_good_federations(text: str) -> None:
    assert check_federation(text) == text


@pytest.mark.parametrize(
    "text", ["", ".", "a.", ".a", "a..b", "-a", "a-", "A", "a b", "127.0.0.1", "7", "a" * 64, "a\n"]
)
def test_bad_federations(text: str) -> None:
    with pytest.raises(ConfigError, match="must look like a lower-case DNS name"):
        check_federation(text)


def test_the_longest_federation_has_64_characters_and_host_253() -> None:
    assert is_federation("a" * 31 + "." + "b" * 32)
    assert not is_federation("a" * 32 + "." + "b" * 32)
    host = ".".join(["a" * 62] * 4) + ".b"
    assert is_dns_name(host)
    assert not is_dns_name("a" + host)


@pytest.mark.parametrize("text", ["", UUID[:-1], UUID + "0", UUID.upper(), UUID + "\n", "g" * 32])
def test_bad_node_ids(text: str) -> None:
    assert check_node_id(UUID) == UUID
    with pytest.raises(ConfigError, match="must be 32 lower-case hex digits"):
        check_node_id(text)
