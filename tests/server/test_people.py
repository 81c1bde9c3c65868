"""Credentials: made for minutes on the coordinator's machine, kept privately elsewhere."""

import os
import shutil
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedsec.errors import ConfigError, IdentityError
from fedsec.identity.names import Role, check_name
from fedsec_server.init import create_root, create_server
from fedsec_server.layout import Layout, Listening, NotRunningError
from fedsec_server.people import (
    Credentials,
    check_person,
    local_credentials,
    local_name,
    reachable,
    read_credentials,
)
from tests.pki import Pki, make_pki

NOW = datetime.now(UTC)
PASSPHRASE = b"correct horse battery"


@pytest.fixture(scope="module")
def pki() -> Pki:
    return make_pki(now=NOW)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("made")
    create_root(base / "root", federation="fed.example", passphrase=PASSPHRASE, now=NOW)
    create_server(
        base / "server",
        root_directory=base / "root",
        passphrase=PASSPHRASE,
        host="localhost",
        now=NOW,
    )
    return base / "server"


@pytest.fixture
def layout(made: Path, tmp_path: Path) -> Layout:
    return Layout(Path(shutil.copytree(made, tmp_path / "server")))


def credentials(pki: Pki, role: Role = Role.OPERATOR) -> Credentials:
    leaf = pki.person("ann", role)
    return Credentials(
        "fed.example:7445", pki.servers.certificate_pem, leaf.chain_pem, leaf.key_pem
    )


# --- the file ----------------------------------------------------------------------------------


def test_credentials_survive_a_file_that_only_its_owner_reads(pki: Pki, tmp_path: Path) -> None:
    held = credentials(pki)
    held.write(tmp_path / "ann.json")
    assert stat.S_IMODE((tmp_path / "ann.json").stat().st_mode) == 0o600
    assert read_credentials(tmp_path / "ann.json") == held
    held.write(tmp_path / "ann.json")  # again, as after twelve hours


def test_a_file_that_others_read_is_refused(pki: Pki, tmp_path: Path) -> None:
    credentials(pki).write(tmp_path / "ann.json")
    (tmp_path / "ann.json").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_credentials(tmp_path / "ann.json")


def test_nothing_else_is_overwritten(pki: Pki, tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_text("years of work")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"thesis\.txt, in the way, is no credentials file"):
        credentials(pki).write(path)
    assert path.read_text() == "years of work"


def test_the_key_is_not_in_the_repr(pki: Pki) -> None:
    held = credentials(pki)
    assert "PRIVATE KEY" in held.key_pem.decode()
    assert "PRIVATE" not in repr(held)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"[" * 5000,
        b'"x"',
        b"\xff",
        b'{"form": "fedsec-credentials-1"}',
        b'{"form": "1", "address": "x", "servers_ca_pem": "", "chain_pem": "", "key_pem": ""}',
    ],
)
def test_another_file_is_told_apart(content: bytes) -> None:
    with pytest.raises(ConfigError, match=r"ann\.json is no credentials file; `fedsec person add"):
        Credentials.decode(content, what="ann.json")


def test_a_later_form_is_named(pki: Pki) -> None:
    content = credentials(pki).encode().replace(b"credentials-1", b"credentials-2")
    with pytest.raises(ConfigError, match="is of form 'fedsec-credentials-2', this program reads"):
        Credentials.decode(content, what="ann.json")


def test_an_expired_certificate_says_whom_to_ask(pki: Pki) -> None:
    held = credentials(pki)
    held.check(now=NOW)
    with pytest.raises(IdentityError, match="ask an admin for `fedsec person add ann --role oper"):
        held.check(now=NOW + timedelta(hours=13))
    with pytest.raises(IdentityError, match=r"not-yet-valid: .*clocks? is wrong"):
        held.check(now=NOW - timedelta(hours=1))


def test_a_nodes_certificate_is_no_persons(pki: Pki) -> None:
    leaf = pki.node()
    held = Credentials("h:1", pki.servers.certificate_pem, leaf.chain_pem, leaf.key_pem)
    with pytest.raises(IdentityError, match="wrong-kind"):
        held.check(now=NOW)


# --- on the coordinator's machine --------------------------------------------------------------


def test_local_credentials_are_an_admins_for_five_minutes(layout: Layout) -> None:
    addresses = {"enrol": "0.0.0.0:1", "fleet": "0.0.0.0:2", "admin": "0.0.0.0:3"}
    Listening(os.getpid(), addresses).write(layout)  # type: ignore[arg-type]
    held = local_credentials(layout, now=NOW)
    who = held.principal()
    assert held.address == "127.0.0.1:3"
    assert who.role is Role.ADMIN
    assert who.name.startswith("local-")
    assert who.not_after <= NOW + timedelta(minutes=5)
    held.check(now=NOW + timedelta(minutes=4))
    before = sorted(path.name for path in layout.directory.rglob("*"))
    local_credentials(layout, now=NOW)
    assert sorted(path.name for path in layout.directory.rglob("*")) == before  # none on disk


def test_without_a_running_coordinator_there_is_nothing_to_reach(layout: Layout) -> None:
    with pytest.raises(NotRunningError, match="is not running; start it with `fedsec server start"):
        local_credentials(layout, now=NOW)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"process": 1, "addresses": {}}', b"[1]"])
def test_a_damaged_note_of_where_it_listens_is_named(layout: Layout, content: bytes) -> None:
    layout.listening.write_bytes(content)
    layout.listening.chmod(0o600)
    with pytest.raises(ConfigError, match=r"listening\.json is damaged"):
        local_credentials(layout, now=NOW)


@pytest.mark.parametrize(
    ("login", "name"),
    [
        ("root", "local-root"),
        ("Ann.Smith", "local-ann-smith"),
        ("x" * 100, "local-" + "x" * 57),
        ("\x1b[2J\nevil", "local--2j-evil"),
        ("ünï", "local--n-"),
    ],
)
def test_any_login_makes_a_name(monkeypatch: pytest.MonkeyPatch, login: str, name: str) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: login)
    assert check_name(local_name()) == name


def test_a_user_without_a_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert local_name() == "local-unknown"


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        ("0.0.0.0:1", "127.0.0.1:1"),
        ("[::]:1", "127.0.0.1:1"),
        ("10.0.0.5:1", "10.0.0.5:1"),
        ("[::1]:1", "[::1]:1"),
    ],
)
def test_all_interfaces_are_reached_by_loopback(address: str, reached: str) -> None:
    assert reachable(address) == reached


def test_people_are_named_and_have_a_role() -> None:
    assert check_person("ann", "auditor") == ("ann", Role.AUDITOR)
    for name, role in [("ann", "root"), ("local-ann", "admin"), ("An n", "admin"), ("", "admin")]:
        with pytest.raises(ConfigError):
            check_person(name, role)
