"""From an invite to an identity, over real TLS: what works, and every way in which it fails."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc.aio
import pytest

from fedsec.errors import ConfigError, FedsecError, IdentityError, StateError
from fedsec.identity.authorities import show_fingerprint
from fedsec.identity.invites import Invite, make_token
from fedsec.identity.leaves import make_key, make_request
from fedsec.wire.generated.enrol_pb2 import EnrolReply
from fedsec_client.enrolment import Enrolment, is_joined
from fedsec_client.join import join
from fedsec_client.settings import NodeSettings
from tests.clients.coordinator import FakeCoordinator
from tests.pki import HOUR, Pki, forge_server, make_pki


async def joining(invite: str, directory: Path, pin: str | None = None) -> Enrolment:
    """Joins as the command does: in a thread without an event loop."""
    return await asyncio.wait_for(asyncio.to_thread(join, invite, directory, pin), 60)


def refused(
    make: Callable[[FakeCoordinator], str | None],
    directory: Path,
    coordinator: Callable[[], FakeCoordinator] = FakeCoordinator,
    pin: str | None = None,
) -> FedsecError:
    """Returns why a join failed; checks that it left nothing that looks joined.

    `make` prepares the coordinator and returns the invite, or None for a fresh one.
    """

    async def main() -> FedsecError:
        async with coordinator() as fake:
            invite = make(fake) or fake.invite()
            with pytest.raises(FedsecError) as caught:
                await joining(invite, directory, pin)
        return caught.value

    error = asyncio.run(main())
    assert not is_joined(directory)
    assert not directory.exists()
    return error


def code(error: FedsecError) -> str:
    assert isinstance(error, IdentityError), error
    return error.code


def test_a_node_joins_with_the_root_pinned(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "node"

    async def main() -> None:
        async with FakeCoordinator() as fake:
            pin = fake.pki.root.fingerprint
            spaced = ":".join(pin[i : i + 2] for i in range(0, 64, 2)).upper()
            enrolment = await joining(fake.invite(), directory, spaced)
            assert enrolment.record.root_pinned
            assert enrolment.record.fleet_address == fake.fleet
            assert abs(enrolment.record.clock_offset_s) <= 2
            (request,) = fake.enrolled
            assert request.root_pinned
            assert (request.version.major, request.version.minor) == (1, 0)

    asyncio.run(main())
    assert directory.stat().st_mode & 0o777 == 0o700
    Enrolment.load(directory).check(now=datetime.now(UTC))
    assert NodeSettings.load(directory).policy.allowed_apps == ["fedsec"]
    assert sorted(path.name for path in directory.iterdir()) == ["identity", "node.toml"]


def test_without_a_pin_it_is_recorded_so_and_one_s_own_settings_are_kept(tmp_path: Path) -> None:
    directory = tmp_path / "node"
    directory.mkdir(mode=0o700)
    (directory / "node.toml").write_text("schema = 1\n# mine\n")

    async def main() -> None:
        async with FakeCoordinator() as fake:
            enrolment = await joining(fake.invite(), directory)
            assert not enrolment.record.root_pinned
            assert not fake.enrolled[0].root_pinned

    asyncio.run(main())
    assert (directory / "node.toml").read_text() == "schema = 1\n# mine\n"


def test_a_second_join_is_refused_and_spends_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeCoordinator() as fake:
            first = await joining(fake.invite(), tmp_path / "node")
            with pytest.raises(StateError, match="has joined already"):
                await joining(fake.invite(), tmp_path / "node")
            assert Enrolment.load(tmp_path / "node") == first
            assert len(fake.enrolled) == 1

    asyncio.run(main())


@pytest.mark.parametrize("state", ["used", "expired", "unknown"])
def test_an_invite_that_cannot_be_used(tmp_path: Path, state: str) -> None:
    error = refused(lambda fake: fake.invite(state), tmp_path / "node")
    assert code(error) == f"token-{state}"


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda text: text[:-1], "the invite is cut short"),
        (lambda text: text.replace("invite-1", "invite-9"), "version 9, this program reads"),
        (lambda _: "ssh-ed25519 AAAA", "this is no invite"),
    ],
)
def test_a_mistyped_invite(tmp_path: Path, spoil: Callable[[str], str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        join(spoil(Invite("localhost:1", make_token(), bytes(32)).encode()), tmp_path / "node")
    assert not (tmp_path / "node").exists()


def test_a_mistyped_fingerprint_spends_nothing(tmp_path: Path) -> None:
    def make(fake: FakeCoordinator) -> None:
        fake.spoil = lambda _: pytest.fail("the invite was spent")

    error = refused(make, tmp_path / "node", pin="abcd")
    assert "fingerprint must be 64 hex digits, got 4 characters" in str(error)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def invite_to(address: str, pki: Pki) -> str:
    return Invite(address, make_token(), bytes.fromhex(pki.servers.fingerprint)).encode()


def test_nothing_listens_at_the_address(tmp_path: Path) -> None:
    error = refused(lambda fake: invite_to(f"localhost:{free_port()}", fake.pki), tmp_path / "node")
    assert code(error) == "nothing-listens"
    assert "Is the coordinator running" in str(error)


def test_the_name_is_not_known(tmp_path: Path) -> None:
    error = refused(lambda fake: invite_to("nowhere.invalid:7443", fake.pki), tmp_path / "node")
    assert code(error) == "host-unknown"


def test_the_port_speaks_no_tls(tmp_path: Path) -> None:
    async def main() -> str:
        server = grpc.aio.server()
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            with pytest.raises(IdentityError) as caught:
                await joining(invite_to(f"localhost:{port}", make_pki()), tmp_path / "node")
        finally:
            await server.stop(0)
        return caught.value.code

    assert asyncio.run(main()) == "not-tls"


def test_another_federation_answers(tmp_path: Path) -> None:
    def make(fake: FakeCoordinator) -> str:
        address = Invite.decode(fake.invite()).address
        return invite_to(address, make_pki())

    error = refused(make, tmp_path / "node")
    assert code(error) == "pin-mismatch"


def test_another_root_than_the_one_that_was_told_spends_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeCoordinator() as fake:
            invite = fake.invite()
            with pytest.raises(IdentityError) as caught:
                await joining(invite, tmp_path / "node", "ab" * 32)
            assert caught.value.code == "wrong-fingerprint"
            assert show_fingerprint(fake.pki.root.fingerprint) in caught.value.detail
            assert "the invite can still be used" in caught.value.detail
            assert (fake.enrolled, set(fake.tokens.values())) == ([], {"fresh"})
            assert not (tmp_path / "node").exists()
            await joining(invite, tmp_path / "node", fake.pki.root.fingerprint)

    asyncio.run(main())


def test_a_root_that_is_shown_but_signed_nothing_here_spends_nothing(tmp_path: Path) -> None:
    """Someone in between shows the true root beside a CA of his own."""
    mine, other = make_pki(), make_pki()
    server = mine.server()
    shown = replace(server, issuers_pem=server.issuers_pem + other.root.certificate_pem)

    async def main() -> None:
        async with FakeCoordinator(mine, server=shown) as fake:
            with pytest.raises(IdentityError, match="did not sign the coordinator's CA"):
                await joining(fake.invite(), tmp_path / "node", other.root.fingerprint)
            assert fake.enrolled == []

    asyncio.run(main())


def test_a_root_that_is_another_one_after_all_is_found_at_the_end(tmp_path: Path) -> None:
    other = make_pki()

    def spoil(reply: EnrolReply) -> None:
        reply.root_pem = other.root.certificate_pem

    async def main() -> None:
        async with FakeCoordinator() as fake:
            fake.spoil = spoil
            with pytest.raises(IdentityError, match="This invite is spent"):
                await joining(fake.invite(), tmp_path / "node", fake.pki.root.fingerprint)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("ahead", "sentence"),
    [
        (timedelta(hours=3), "this machine's clock is about 3 h 0 min behind the coordinator's"),
        (timedelta(hours=-30), "this machine's clock is about 1 d 6 h ahead of the coordinator's"),
    ],
)
def test_the_clocks_differ(tmp_path: Path, ahead: timedelta, sentence: str) -> None:
    """The coordinator issues by its own clock; its certificates are old enough to hold."""
    pki = make_pki(now=datetime.now(UTC) - 40 * HOUR)
    server = forge_server(pki, not_after=datetime.now(UTC) + HOUR)

    def coordinator() -> FakeCoordinator:
        return FakeCoordinator(pki, server=server, issued_at=lambda: datetime.now(UTC) + ahead)

    error = refused(lambda _: None, tmp_path / "node", coordinator)
    assert code(error) == "clock"
    assert sentence in str(error)
    assert "this one is spent" in str(error)


def test_this_clock_is_behind_the_coordinator_s_own_certificate(tmp_path: Path) -> None:
    pki = make_pki()
    server = forge_server(pki, not_before=datetime.now(UTC) + HOUR)
    error = refused(lambda _: None, tmp_path / "node", lambda: FakeCoordinator(pki, server=server))
    assert code(error) == "clock"
    assert "this machine's clock is behind" in str(error)


def test_the_coordinator_s_certificate_has_expired(tmp_path: Path) -> None:
    pki = make_pki(now=datetime.now(UTC) - 40 * HOUR)
    server = forge_server(pki, not_after=datetime.now(UTC) - HOUR)
    error = refused(lambda _: None, tmp_path / "node", lambda: FakeCoordinator(pki, server=server))
    assert code(error) == "server-expired"


def test_the_coordinator_s_certificate_is_for_another_host(tmp_path: Path) -> None:
    pki = make_pki()
    server = pki.server(hosts=["fed.example"])
    error = refused(lambda _: None, tmp_path / "node", lambda: FakeCoordinator(pki, server=server))
    assert code(error) == "wrong-host"
    assert "is for fed.example, not for localhost" in str(error)


def _of_another_key(fake: FakeCoordinator) -> Callable[[EnrolReply], None]:
    def spoil(reply: EnrolReply) -> None:
        reply.chain_pem = fake._issue(make_request(make_key()), "0" * 31 + "1")

    return spoil


def _of_another_nodes_ca(_: FakeCoordinator) -> Callable[[EnrolReply], None]:
    other = make_pki()

    def spoil(reply: EnrolReply) -> None:
        reply.chain_pem = other.node().chain_pem

    return spoil


def _of_another_root(_: FakeCoordinator) -> Callable[[EnrolReply], None]:
    other = make_pki()

    def spoil(reply: EnrolReply) -> None:
        reply.root_pem = other.root.certificate_pem

    return spoil


def _of_another_servers_ca(_: FakeCoordinator) -> Callable[[EnrolReply], None]:
    other = make_pki()

    def spoil(reply: EnrolReply) -> None:
        reply.servers_ca_pem = other.servers.certificate_pem

    return spoil


def _of_another_name(_: FakeCoordinator) -> Callable[[EnrolReply], None]:
    def spoil(reply: EnrolReply) -> None:
        reply.spiffe_id = "spiffe://fed.example/node/" + "f" * 32

    return spoil


def _with_no_address(_: FakeCoordinator) -> Callable[[EnrolReply], None]:
    def spoil(reply: EnrolReply) -> None:
        reply.fleet_address = "fleet"

    return spoil


def _with_nothing(_: FakeCoordinator) -> Callable[[EnrolReply], None]:
    return lambda reply: reply.Clear()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_of_another_key, "wrong-key"),
        (_of_another_nodes_ca, "wrong-issuer"),
        (_of_another_root, "wrong-issuer"),
        (_of_another_servers_ca, "wrong-fingerprint"),
        (_of_another_name, "wrong-identity"),
        (_with_no_address, "bad-address"),
        (_with_nothing, "malformed"),
    ],
)
def test_what_the_coordinator_sends_is_checked(
    tmp_path: Path,
    make: Callable[[FakeCoordinator], Callable[[EnrolReply], None]],
    sentence: str,
) -> None:
    def prepare(fake: FakeCoordinator) -> None:
        fake.spoil = make(fake)

    assert sentence in str(refused(prepare, tmp_path / "node"))


def test_a_directory_that_others_can_read_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "node"
    directory.mkdir(mode=0o755)
    with pytest.raises(ConfigError, match="open to other users"):
        join(invite_to("localhost:1", make_pki()), directory)


def test_a_coordinators_directory_is_refused_and_nothing_is_spent(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text("schema = 1\n")

    async def main() -> None:
        async with FakeCoordinator() as fake:
            with pytest.raises(ConfigError, match="a coordinator's directory"):
                await joining(fake.invite(), tmp_path)
            assert set(fake.tokens.values()) == {"fresh"}

    asyncio.run(main())
    assert [path.name for path in tmp_path.iterdir()] == ["server.toml"]
