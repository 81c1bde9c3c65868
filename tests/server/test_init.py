"""Root and coordinator: made apart, kept apart, and no root key where it may not be."""

import base64
import os
import shutil
import stat
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from fedsec.errors import ConfigError, IdentityError
from fedsec.identity.authorities import Authority, is_root
from fedsec.identity.leaves import Lifetimes, make_key, make_request
from fedsec.identity.names import Kind
from fedsec.identity.principals import principal_of
from fedsec_server import root_keys
from fedsec_server.generations import load_authorities
from fedsec_server.init import (
    check_passphrase,
    create_root,
    create_server,
    load_root,
    refuse_root_key,
)
from fedsec_server.layout import Layout, find_coordinator, load_settings
from fedsec_server.state.store import Store

NOW = datetime.now(UTC)
PASSPHRASE = b"correct horse battery"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root and a coordinator, made once: the passphrase is slow on purpose."""
    base = tmp_path_factory.mktemp("made")
    create_root(base / "root", federation="fed.example", passphrase=PASSPHRASE, now=NOW)
    make_server(base / "server", base / "root")
    return base


@pytest.fixture
def root(tmp_path: Path, made: Path) -> Path:
    return Path(shutil.copytree(made / "root", tmp_path / "root"))


@pytest.fixture
def server(tmp_path: Path, made: Path) -> Layout:
    return Layout(Path(shutil.copytree(made / "server", tmp_path / "server")))


def make_server(directory: Path, root: Path, passphrase: bytes = PASSPHRASE) -> Layout:
    return create_server(
        directory, root_directory=root, passphrase=passphrase, host="localhost", now=NOW
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- the root ----------------------------------------------------------------------------------


def test_the_roots_key_is_encrypted_and_private(root: Path) -> None:
    key = root / "root.key.pem"
    assert (mode(root), mode(key)) == (0o700, 0o600)
    assert b"ENCRYPTED PRIVATE KEY" in key.read_bytes()
    with pytest.raises(TypeError, match="encrypted"):
        serialization.load_pem_private_key(key.read_bytes(), None)
    assert is_root((root / "root.cert.pem").read_bytes())
    assert load_root(root, PASSPHRASE).certificate.subject.rfc4514_string().startswith("CN=fedsec")


def test_another_passphrase_does_not_open_it(root: Path) -> None:
    with pytest.raises(IdentityError, match="bad-passphrase"):
        load_root(root, b"something else entirely")


def test_a_root_is_made_once(root: Path) -> None:
    before = (root / "root.key.pem").read_bytes()
    with pytest.raises(ConfigError, match="is not empty; name a new directory"):
        create_root(root, federation="fed.example", passphrase=PASSPHRASE, now=NOW)
    assert (root / "root.key.pem").read_bytes() == before


def test_a_bad_federation_makes_no_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="federation 'Not A Name'"):
        create_root(tmp_path / "r", federation="Not A Name", passphrase=PASSPHRASE, now=NOW)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("short", ["", "eleven char"])
def test_a_short_passphrase_is_refused_and_not_shown(short: str) -> None:
    with pytest.raises(
        ConfigError, match=f"has {len(short)} characters, want 12 or more"
    ) as caught:
        check_passphrase(short)
    assert not short or short not in str(caught.value)


def test_a_directory_without_a_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no root key .*fedsec ca init"):
        load_root(tmp_path, PASSPHRASE)


# --- the coordinator ---------------------------------------------------------------------------


def test_a_coordinator_receives_three_issuing_authorities_and_no_root_key(
    server: Layout, root: Path
) -> None:
    authorities = load_authorities(server, Lifetimes(), now=NOW)
    assert authorities.federation == "fed.example"
    assert authorities.root_pem == (root / "root.cert.pem").read_bytes()
    for kind in Kind:
        assert mode(server.issuer_key(kind)) == 0o600
        assert authorities.of(kind).certificate.issuer.rfc4514_string().startswith("CN=fedsec root")
    assert mode(server.directory) == mode(server.authorities) == mode(server.runs) == 0o700
    root_key = load_root(root, PASSPHRASE).key
    for path in server.directory.rglob("*.pem"):
        assert b"ENCRYPTED" not in path.read_bytes()
        if "key" in path.name:
            key = serialization.load_pem_private_key(path.read_bytes(), None)
            assert key.public_key() != root_key.public_key()
    refuse_root_key(server.directory)


def test_settings_and_database_are_there(server: Layout) -> None:
    settings = load_settings(server)
    assert (settings.federation, settings.host) == ("fed.example", "localhost")
    store = Store.open(server.database)
    assert store.nodes() == []
    store.close()
    assert find_coordinator(server.directory) == server


def test_an_authority_issues_for_its_kind_alone(server: Layout) -> None:
    authorities = load_authorities(server, Lifetimes(), now=NOW)
    lifetimes = load_settings(server).certificate_lifetimes
    csr = make_request(make_key())
    issued = authorities.issue(Kind.NODE, csr, name="0" * 32, lifetimes=lifetimes, now=NOW)
    nodes = authorities.nodes.certificate
    who = principal_of(issued.chain_pem, issuer=nodes, kind=Kind.NODE)
    assert (issued.record.serial, issued.record.spiffe_id) == (who.serial, who.spiffe_id)
    assert issued.record.not_after == who.not_after.timestamp()
    with pytest.raises(IdentityError):
        principal_of(issued.chain_pem, issuer=authorities.people.certificate, kind=Kind.PERSON)


def test_directories_must_lie_apart(tmp_path: Path, root: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    for directory, where in [
        (root, root),
        (root / "server", root),
        (tmp_path, root),
        (tmp_path / "link" / "server", root),
        (root / "x" / ".." / "server", root),
    ]:
        with pytest.raises(ConfigError, match="must lie apart"):
            make_server(directory, where)
    assert sorted(path.name for path in root.iterdir()) == ["root.cert.pem", "root.key.pem"]


def test_a_directory_that_holds_something_is_refused(tmp_path: Path, root: Path) -> None:
    full = tmp_path / "full"
    full.mkdir(mode=0o700)
    (full / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        make_server(full, root)
    assert [path.name for path in full.iterdir()] == ["notes.txt"]


def test_an_open_directory_is_refused(tmp_path: Path, root: Path) -> None:
    directory = tmp_path / "open"
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        make_server(directory, root)


@pytest.mark.parametrize("host", ["not a host", "*.example", ""])
def test_a_bad_host_leaves_nothing(tmp_path: Path, root: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="host"):
        create_server(
            tmp_path / "s", root_directory=root, passphrase=PASSPHRASE, host=host, now=NOW
        )
    assert not (tmp_path / "s").exists()


def test_a_wrong_passphrase_leaves_nothing(tmp_path: Path, root: Path) -> None:
    with pytest.raises(IdentityError, match="bad-passphrase"):
        make_server(tmp_path / "s", root, b"something else entirely")
    assert not (tmp_path / "s").exists()


def test_a_failure_on_the_way_leaves_an_empty_directory(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> Store:
        raise OSError("disk full")

    monkeypatch.setattr(Store, "open", full)
    with pytest.raises(OSError, match="disk full"):
        make_server(tmp_path / "s", root)
    assert list((tmp_path / "s").iterdir()) == []
    monkeypatch.undo()
    make_server(tmp_path / "s", root)


def test_an_expired_root_makes_no_coordinator(tmp_path: Path, root: Path) -> None:
    with pytest.raises(IdentityError, match="expired"):
        create_server(
            tmp_path / "s",
            root_directory=root,
            passphrase=PASSPHRASE,
            host="localhost",
            now=NOW + timedelta(days=3651),
        )


def test_another_directory_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"holds no server\.toml; make one with `fedsec server init"
    ):
        find_coordinator(tmp_path)


@pytest.mark.parametrize("days", [366])
def test_an_expired_authority_is_named_by_its_file(server: Layout, days: int) -> None:
    with pytest.raises(IdentityError, match=f"expired: {server.authorities}/.*cert.pem"):
        load_authorities(server, Lifetimes(), now=NOW + timedelta(days=days))


def test_an_authority_of_another_root_is_refused(server: Layout, tmp_path: Path) -> None:
    create_root(tmp_path / "r2", federation="fed.example", passphrase=PASSPHRASE, now=NOW)
    other = make_server(tmp_path / "s2", tmp_path / "r2")
    for path in (server.issuer_certificate(Kind.NODE), server.issuer_key(Kind.NODE)):
        path.write_bytes((other.authorities / path.name).read_bytes())
    with pytest.raises(IdentityError, match=r"wrong-issuer: .*nodes\.cert\.pem"):
        load_authorities(server, Lifetimes(), now=NOW)


# --- no root key here --------------------------------------------------------------------------


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, form: str = "PKCS8") -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        getattr(serialization.PrivateFormat, form),
        serialization.NoEncryption(),
    )


def encrypted(authority: Authority, form: str, encoding: str = "PEM") -> bytes:
    return authority.key.private_bytes(
        getattr(serialization.Encoding, encoding),
        getattr(serialization.PrivateFormat, form),
        serialization.BestAvailableEncryption(PASSPHRASE),
    )


def encrypted_openssh() -> bytes:
    """A key file of OpenSSH with a passphrase: the head is all that can be read of it."""
    parts = [b"aes256-ctr", b"bcrypt", b"salt and rounds"]
    body = b"openssh-key-v1\0" + b"".join(struct.pack(">I", len(p)) + p for p in parts)
    body += (
        struct.pack(">I", 1) + struct.pack(">I", 4) + b"publ" + struct.pack(">I", 16) + b"x" * 16
    )
    lines = base64.encodebytes(body)
    name = b"OPENSSH PRIVATE KEY-----\n"
    return b"-----BEGIN " + name + lines + b"-----END " + name


@pytest.fixture(scope="module")
def hidden_keys(made: Path) -> dict[str, bytes]:
    """Every form in which a root key, or what may be one, was ever copied somewhere."""
    root = load_root(made / "root", PASSPHRASE)
    other = ec.generate_private_key(ec.SECP384R1())
    der = serialization.Encoding.DER
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    locked = serialization.BestAvailableEncryption(PASSPHRASE)
    container = pkcs12.serialize_key_and_certificates
    return {
        "encrypted-as-made": (made / "root" / "root.key.pem").read_bytes(),
        "plain": root.key_pem(None),
        "sec1": pem(root.key, "TraditionalOpenSSL"),
        "sec1-encrypted": encrypted(root, "TraditionalOpenSSL"),
        "openssh": pem(root.key, "OpenSSH"),
        "openssh-encrypted": encrypted_openssh(),
        "der": root.key.private_bytes(der, pkcs8, plain),
        "der-encrypted": encrypted(root, "PKCS8", "DER"),
        "pkcs12": container(b"root", root.key, root.certificate, None, plain),
        "pkcs12-encrypted": container(b"root", root.key, root.certificate, None, locked),
        "behind-other-things": root.certificate_pem + b"notes\n" * 1000 + root.key_pem(None),
        "behind-another-key": pem(make_key()) + root.key_pem(None),
        "another-root": pem(other),
        "unreadable": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    }


FORMS = [
    "encrypted-as-made",
    "plain",
    "sec1",
    "sec1-encrypted",
    "openssh",
    "openssh-encrypted",
    "der",
    "der-encrypted",
    "pkcs12",
    "pkcs12-encrypted",
    "behind-other-things",
    "behind-another-key",
    "another-root",
    "unreadable",
]


@pytest.mark.parametrize("where", ["x.pem", "runs/4711/models/.hidden", "ca/root.key.pem"])
@pytest.mark.parametrize("form", FORMS)
def test_a_root_key_is_found_in_every_form(
    server: Layout, hidden_keys: dict[str, bytes], form: str, where: str
) -> None:
    assert sorted(hidden_keys) == sorted(FORMS)
    path = server.directory / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(hidden_keys[form])
    with pytest.raises(ConfigError, match=f"{path} (is|holds) .* must lie apart"):
        refuse_root_key(server.directory)
    path.unlink()
    refuse_root_key(server.directory)


@pytest.mark.parametrize(
    "content",
    [
        pem(make_key()),
        pem(rsa.generate_private_key(65537, 2048)),
        b"-----BEGIN PRIVATE KEY-----\nno end",
        b"-----BEGIN PRIVATE KEY-----" * 9000,
        b"\x30" * 5000,
        b"\x30\x82",
        b"",
        os.urandom(5000),
    ],
)
def test_other_files_are_left_alone(server: Layout, content: bytes) -> None:
    (server.directory / "file").write_bytes(content)
    refuse_root_key(server.directory)


def test_links_are_looked_through(server: Layout, root: Path) -> None:
    link = server.directory / "link.pem"
    link.symlink_to(root / "root.key.pem")
    with pytest.raises(ConfigError, match="must lie apart"):
        refuse_root_key(server.directory)
    link.unlink()
    link.symlink_to(root)
    with pytest.raises(ConfigError, match="must lie apart"):
        refuse_root_key(server.directory)
    link.unlink()
    link.symlink_to(server.directory)  # a circle ends
    (server.directory / "loop").symlink_to("loop")
    (server.directory / "dangling").symlink_to("nowhere")
    os.mkfifo(server.directory / "pipe")  # reading it would wait for ever
    refuse_root_key(server.directory)


def test_the_search_is_bounded(server: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root_keys, "MAX_ENTRIES", 20)
    refuse_root_key(server.directory)
    for number in range(20):
        (server.directory / f"f{number}").touch()
    with pytest.raises(ConfigError, match="holds over 20 files"):
        refuse_root_key(server.directory)
