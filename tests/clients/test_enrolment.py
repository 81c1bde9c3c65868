"""The identity on the disk: whole or not at all, through renewals and crashes."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedsec.errors import ConfigError, FedsecError, IdentityError
from fedsec.files import write_private, write_public
from fedsec.identity.bundles import Bundle
from fedsec_client import enrolment as module
from fedsec_client.enrolment import Credentials, Draft, Enrolment, Record, clock_offset, is_joined
from tests.clients.coordinator import make_node
from tests.pki import Leaf, Pki, lookalike, make_pki

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def pki() -> Pki:
    return make_pki(now=NOW)


@pytest.fixture
def node(tmp_path: Path, pki: Pki) -> Enrolment:
    return make_node(tmp_path / "node", pki, "localhost:1")


def credentials(pki: Pki, leaf: Leaf) -> Credentials:
    return Credentials(leaf.chain_pem, leaf.key_pem, pki.servers.certificate_pem)


def test_it_is_read_as_it_was_written(node: Enrolment, pki: Pki) -> None:
    assert Enrolment.load(node.directory) == node
    assert node.record.name == "clinic-1"
    assert node.principal.spiffe_id == node.record.spiffe_id
    assert node.signing_fingerprint.startswith("SHA256:")
    node.check(now=NOW)
    modes = {
        path.name: path.stat().st_mode & 0o777 for path in (node.directory / "identity").iterdir()
    }
    assert modes.pop("node.key.pem") == modes.pop("signing.key.pem") == 0o600
    assert (node.directory / "identity").stat().st_mode & 0o777 == 0o700


def test_nothing_secret_is_shown(node: Enrolment) -> None:
    assert "PRIVATE" not in repr(node)


def test_what_holds_now_may_be_over_later(node: Enrolment) -> None:
    with pytest.raises(IdentityError, match="expired"):
        node.check(now=NOW + timedelta(hours=9))
    with pytest.raises(IdentityError, match="not-yet-valid"):
        node.check(now=NOW - timedelta(hours=1))


def test_a_directory_that_never_joined(tmp_path: Path) -> None:
    assert not is_joined(tmp_path)
    with pytest.raises(ConfigError, match="has not joined; run `fedsec node join INVITE` first"):
        Enrolment.load(tmp_path)


def _open_key(place: Path) -> None:
    (place / "node.key.pem").chmod(0o644)


def _open_directory(place: Path) -> None:
    place.chmod(0o755)


def _lose_key(place: Path) -> None:
    (place / "signing.key.pem").unlink()


def _swap_key(place: Path) -> None:
    (place / "node.key.pem").write_bytes(make_pki(now=NOW).node().key_pem)


def _spoil_record(place: Path) -> None:
    (place / "enrolment.json").write_text('{"node_id": "7"}')


def _rename(place: Path) -> None:
    text = (place / "enrolment.json").read_text()
    text = text.replace("/node/", "/node/0")
    (place / "enrolment.json").write_text(text)


def _half_a_renewal(place: Path) -> None:
    write_private(place / "renewed.pem", b"-----BEGIN CERTIFICATE-----\n")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_open_key, "node.key.pem can be read by other users .mode 0644.: chmod 600"),
        (_open_directory, "identity is open to other users .mode 0755.: chmod 700"),
        (_lose_key, "cannot read .*signing.key.pem: No such file"),
        (_swap_key, "wrong-key: node.key.pem is not the key of the certificate in node.cert.pem"),
        (_spoil_record, r"enrolment.json is damaged \(.*node_id.*name"),
        (_rename, "wrong-name: node.cert.pem is for spiffe://"),
        (_half_a_renewal, "renewed.pem is not a stored renewal"),
    ],
)
def test_damage_is_named(node: Enrolment, damage: Callable[[Path], None], sentence: str) -> None:
    damage(node.directory / "identity")
    with pytest.raises(FedsecError, match=sentence):
        Enrolment.load(node.directory)


def test_a_foreign_root_does_not_pass_the_check(node: Enrolment, pki: Pki) -> None:
    foreign = lookalike(pki.root)
    (node.directory / "identity" / "root.pem").write_bytes(foreign.certificate_pem)
    with pytest.raises(IdentityError, match="wrong-issuer"):
        Enrolment.load(node.directory).check(now=NOW)


# --- renewal ------------------------------------------------------------------------------------


def renewed(node: Enrolment, pki: Pki) -> Enrolment:
    leaf = pki.node(node.principal.name, lifetime=timedelta(hours=16))
    return node.renewed(credentials(pki, leaf), now=NOW + timedelta(seconds=90))


def test_a_renewal_replaces_key_and_certificate(node: Enrolment, pki: Pki) -> None:
    fresh = renewed(node, pki)
    assert fresh.principal.not_after == node.principal.not_after + timedelta(hours=8)
    assert fresh.record.clock_offset_s == -90
    fresh.store_renewal()
    assert Enrolment.load(node.directory) == fresh
    assert not (node.directory / "identity" / "renewed.pem").exists()


@pytest.mark.parametrize("writes", range(1, 5))
def test_a_crash_during_a_renewal_is_made_good(
    node: Enrolment, pki: Pki, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """The disk fails at each write in turn; what is loaded afterwards fits together."""
    left = [writes]

    def failing(write: Callable[[Path, bytes], None]) -> Callable[[Path, bytes], None]:
        def wrapped(path: Path, content: bytes) -> None:
            left[0] -= 1
            if not left[0]:
                raise ConfigError("the disk failed")
            write(path, content)

        return wrapped

    fresh = renewed(node, pki)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_private", failing(write_private))
        patch.setattr(module, "write_public", failing(write_public))
        with pytest.raises(ConfigError, match="the disk failed"):
            fresh.store_renewal()
    found = Enrolment.load(node.directory)
    expected = node if writes == 1 else fresh
    assert found.credentials == expected.credentials
    found.check(now=NOW)


def test_the_clock_offset_is_what_the_certificate_tells() -> None:
    begins = NOW - timedelta(seconds=60)  # backdated, made at NOW by the coordinator's clock
    assert clock_offset(begins, NOW) == 0
    assert clock_offset(begins, NOW - timedelta(minutes=10)) == 600  # we are behind


# --- drafts -------------------------------------------------------------------------------------


def draft_parts(pki: Pki) -> tuple[Leaf, Record, Bundle]:
    leaf = pki.node()
    record = Record(
        node_id=1,
        name="a",
        spiffe_id=leaf.spiffe_id,
        fleet_address="localhost:1",
        root_pinned=False,
        joined_at=0.0,
    )
    bundle = Bundle(leaf.chain_pem, pki.servers.certificate_pem, pki.root.certificate_pem)
    return leaf, record, bundle


def test_a_draft_that_is_not_committed_leaves_nothing(tmp_path: Path, pki: Pki) -> None:
    leaf, _, _ = draft_parts(pki)
    with Draft(tmp_path) as draft:
        draft.write_keys(leaf.key_pem, b"key")
        assert not is_joined(tmp_path)
        (made,) = tmp_path.iterdir()
        assert made.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


def test_of_two_joins_at_a_time_one_wins_and_stays_whole(tmp_path: Path, pki: Pki) -> None:
    first_leaf, first_record, first_bundle = draft_parts(pki)
    second_leaf, second_record, second_bundle = draft_parts(pki)
    with Draft(tmp_path) as first, Draft(tmp_path) as second:
        first.write_keys(first_leaf.key_pem, b"first")
        second.write_keys(second_leaf.key_pem, b"second")
        first.commit(first_record, first_bundle)
        with pytest.raises(ConfigError, match="has it joined meanwhile"):
            second.commit(second_record, second_bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["identity"]
    assert (tmp_path / "identity" / "signing.key.pem").read_bytes() == b"first"
    shutil.rmtree(tmp_path / "identity")
