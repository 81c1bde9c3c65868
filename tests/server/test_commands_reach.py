"""Which coordinator a command reaches, as whom, and why it does not: as typed, against one in its own process."""

import socket
import stat
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedsec.identity.leaves import issue, key_pem, make_key, make_request
from fedsec.identity.names import Kind, Role
from fedsec_server.layout import Listening
from fedsec_server.people import Credentials, read_credentials
from tests.server.commandrig import Fedsec
from tests.server.coordinatorrig import Place, make_place


def test_the_directory_comes_from_option_environment_or_place(
    fedsec: Fedsec, server: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nowhere = fedsec("node", "list")
    assert nowhere.code == 2
    assert "which coordinator? On its own machine name its directory with --dir" in nowhere.err
    assert "holds no server.toml" in fedsec("node", "list", "--dir", tmp_path).err
    monkeypatch.setenv("FEDSEC_SERVER_DIR", str(server))
    assert fedsec("node", "list", "--json").code == 0
    monkeypatch.delenv("FEDSEC_SERVER_DIR")
    monkeypatch.chdir(server)
    assert fedsec("node", "list", "--json").code == 0


def test_a_person_acts_from_a_credentials_file(
    fedsec: Fedsec, server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ola.json"
    added = fedsec("person", "add", "ola", "--role", "operator", "-o", file, "--dir", server)
    assert added.code == 0
    assert "ola may act as operator until" in added.out
    assert read_credentials(file).principal().role is Role.OPERATOR
    assert fedsec("node", "list", "--credentials", file, "--json").code == 0
    refused = fedsec("node", "invite", "clinic-1", "--credentials", file)
    assert refused.code == 2
    assert '"invite node" is for admin, not for operator ola' in refused.err
    both = fedsec("node", "list", "--credentials", file, "--dir", server)
    assert "give either --dir or --credentials, not both" in both.err
    monkeypatch.setenv("FEDSEC_CREDENTIALS", str(file))
    assert fedsec("node", "invite", "clinic-1").code == 2
    monkeypatch.setenv("FEDSEC_SERVER_DIR", str(server))  # an admin there
    assert fedsec("node", "invite", "by-directory").code == 0
    assert fedsec("node", "invite", "clinic-1", "--credentials", file).code == 2
    log = (server / "server.log").read_text()
    assert "spiffe://fed.example/person/operator/ola" in log


def test_a_person_is_listed_and_revoked(fedsec: Fedsec, server: Path, tmp_path: Path) -> None:
    file = tmp_path / "ida.json"
    fedsec("person", "add", "ida", "--role", "operator", "-o", file, "--dir", server)
    here = ("--dir", server)
    listed = fedsec("person", "list", *here, "--json").json
    assert ("ida", "operator", False) in [(p["name"], p["role"], p["revoked"]) for p in listed]
    revoked = fedsec("person", "revoke", "ida", "--reason", "left", *here)
    assert (revoked.code, revoked.out) == (0, "1 certificate is void that ida held.\n")
    refused = fedsec("run", "list", "--credentials", file)
    assert refused.code == 2
    assert "operator ida was revoked by the federation" in refused.err
    again = fedsec("person", "revoke", "ida", *here)
    assert again.code == 2
    assert "there is no certificate of 'ida' that is still good" in again.err
    table = fedsec("person", "list", *here).out
    assert "ida" in table
    assert "revoked" in table


def test_a_person_is_named_by_default_after_the_file(fedsec: Fedsec, server: Path) -> None:
    result = fedsec("person", "add", "eve", "--role", "auditor", "--dir", server, "--json")
    assert isinstance(result.json, dict)
    assert (result.json["file"], result.json["role"]) == ("eve.json", "auditor")
    assert stat.S_IMODE(Path("eve.json").stat().st_mode) == 0o600
    assert "BEGIN PRIVATE KEY" in Path("eve.json").read_text()
    assert "PRIVATE KEY" not in result.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("add", "bob", "--role", "king"), "role 'king' must be one of admin, auditor, operator"),
        (("add", "B ob", "--role", "admin"), "must be 1 to 63 characters"),
        (("add", "local-bob", "--role", "admin"), "kept for commands on the coordinator's own"),
    ],
)
def test_a_bad_person_is_refused(
    fedsec: Fedsec, server: Path, words: tuple[str, ...], sentence: str
) -> None:
    result = fedsec("person", *words, "--dir", server)
    assert result.code == 2
    assert sentence in result.err
    assert list(Path().iterdir()) == []


def held(place: Place, *, now: datetime, lifetime: timedelta) -> Credentials:
    key = make_key()
    chain = issue(
        place.authorities.people,
        make_request(key),
        kind=Kind.PERSON,
        name="ann",
        role=Role.ADMIN,
        lifetime=lifetime,
        now=now,
    )
    address = Listening.read(place.layout).addresses["admin"]
    servers_ca = place.authorities.servers.certificate_pem
    return Credentials(address, servers_ca, chain, key_pem(key))


@pytest.mark.usefixtures("server")
def test_an_expired_certificate_is_told_before_any_connection(
    fedsec: Fedsec, place: Place, tmp_path: Path
) -> None:
    a_while_ago = datetime.now(UTC) - timedelta(seconds=30)
    old = held(place, now=a_while_ago, lifetime=timedelta(seconds=10))
    old.write(tmp_path / "old.json")
    result = fedsec("node", "list", "--credentials", tmp_path / "old.json")
    assert result.code == 2
    assert "expired" in result.err
    assert "ask an admin for `fedsec person add ann --role admin`" in result.err


@pytest.mark.usefixtures("server")
def test_why_it_cannot_be_reached_is_found_out(
    fedsec: Fedsec, place: Place, tmp_path: Path
) -> None:
    good = held(place, now=datetime.now(UTC), lifetime=timedelta(hours=1))
    (tmp_path / "other").mkdir(mode=0o700)
    foreign = make_place(tmp_path / "other").authorities
    foreign_ca = foreign.servers.certificate_pem
    cases = {
        "is not the coordinator that these": replace(good, servers_ca_pem=foreign_ca),
        "nothing listens at 127.0.0.1:9": replace(good, address="127.0.0.1:9"),
        "cannot be resolved": replace(good, address="nowhere.invalid:9"),
    }
    for sentence, credentials in cases.items():
        credentials.write(tmp_path / "ann.json")
        result = fedsec("node", "list", "--credentials", tmp_path / "ann.json")
        assert result.code == 2
        assert sentence in result.err


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_who_accepts_and_says_nothing_is_given_up(
    fedsec: Fedsec, place: Place, tmp_path: Path
) -> None:
    good = held(place, now=datetime.now(UTC), lifetime=timedelta(hours=1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        replace(good, address=address).write(tmp_path / "ann.json")
        began = time.monotonic()
        result = fedsec("node", "list", "--credentials", tmp_path / "ann.json")
    assert time.monotonic() - began < 15
    assert result.code == 2
    assert "did not answer a TLS greeting" in result.err
