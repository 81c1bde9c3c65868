"""Each usual cause, brought about over real sockets, is named by `fedsec doctor`."""

import asyncio
import json
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import grpc.aio
import pytest

from fedsec.cli import run as fedsec
from fedsec.identity.invites import Invite, make_token
from fedsec_client.diagnosis import diagnose
from fedsec_client.doctor import examine
from fedsec_client.enrolment import Enrolment
from fedsec_client.findings import Finding, State, report
from fedsec_client.invite_checks import examine_invite
from fedsec_client.link import LinkLostError
from fedsec_client.lock import locked
from tests.clients.coordinator import FakeCoordinator, make_node
from tests.pki import HOUR, Leaf, Pki, forge, forge_server, make_pki, node_uri

SETTINGS = 'schema = 1\n[data.digits]\nconnector = "digits"\n'


def now() -> datetime:
    return datetime.now(UTC)


async def look(directory: Path, at: datetime | None = None, seconds: float = 5.0) -> list[Finding]:
    """Examines as the command does: in a thread without an event loop."""

    def examined() -> list[Finding]:
        return examine(directory, now=at or now(), timeout_s=seconds)

    return await asyncio.to_thread(examined)


def cause(found: list[Finding]) -> tuple[str, str]:
    """Returns the first check that failed, and its cause; a failure always says what to do."""
    first = next(each for each in found if each.state is State.FAILED)
    assert first.advice or ". " in first.detail, first
    return first.check, first.cause


def examined(
    tmp_path: Path,
    *,
    pki: Pki | None = None,
    server: Leaf | None = None,
    leaf: Leaf | None = None,
    at: datetime | None = None,
    prepare: Callable[[FakeCoordinator, Enrolment], None] = lambda _fake, _node: None,
) -> list[Finding]:
    """Examines a node of a federation; `prepare` brings the cause about."""
    pki = pki or make_pki()

    async def main() -> list[Finding]:
        async with FakeCoordinator(pki, server=server) as fake:
            node = make_node(tmp_path / "node", pki, fake.fleet, leaf=leaf, settings=SETTINGS)
            prepare(fake, node)
            return await look(node.directory, at)

    return asyncio.run(main())


def test_all_is_well(tmp_path: Path) -> None:
    found = examined(tmp_path)
    assert {each.check: each.state for each in found} == {
        "settings": State.OK,
        "data digits": State.OK,
        "identity": State.OK,
        "certificate": State.OK,
        "coordinator": State.OK,
        "certificates": State.OK,
        "admission": State.OK,
        "version": State.OK,
        "agent": State.NOTE,  # it is not running
        "clock": State.OK,
    }


def test_the_node_s_certificate_has_expired(tmp_path: Path) -> None:
    pki = make_pki(now=now() - 20 * HOUR)
    server = forge_server(pki, not_after=now() + HOUR)
    found = examined(tmp_path, pki=pki, server=server, leaf=pki.node())
    assert cause(found) == ("certificates", "expired")


def test_this_machine_s_clock_is_ahead(tmp_path: Path) -> None:
    """By it the certificate is over; that the coordinator lets it in tells the difference."""
    found = examined(tmp_path, at=now() + 10 * HOUR)
    assert cause(found) == ("certificates", "clock")
    assert "ahead" in str(found)


def test_this_machine_s_clock_is_far_ahead(tmp_path: Path) -> None:
    found = examined(tmp_path, at=now() + 30 * HOUR)
    assert cause(found) == ("certificates", "clock")


def test_this_machine_s_clock_is_behind(tmp_path: Path) -> None:
    found = examined(tmp_path, at=now() - HOUR)
    assert cause(found) == ("certificates", "clock")
    assert "behind" in str(found)


def test_the_coordinator_s_certificate_has_expired(tmp_path: Path) -> None:
    pki = make_pki(now=now() - 40 * HOUR)
    server = forge_server(pki, not_after=now() - HOUR)
    leaf = forge(pki.nodes, [node_uri()], now=now())
    found = examined(tmp_path, pki=pki, server=server, leaf=leaf)
    assert cause(found) == ("certificates", "server-expired")


def test_another_federation_answers(tmp_path: Path) -> None:
    other = make_pki()
    found = examined(tmp_path, server=other.server())
    assert cause(found) == ("coordinator", "wrong-ca")


def test_the_coordinator_s_certificate_is_for_another_host(tmp_path: Path) -> None:
    pki = make_pki()
    found = examined(tmp_path, pki=pki, server=pki.server(hosts=["fed.example"]))
    assert cause(found) == ("certificates", "wrong-host")
    assert "for fed.example, not for localhost" in str(found)


def test_the_coordinator_s_ca_for_nodes_was_replaced(tmp_path: Path) -> None:
    pki, other = make_pki(), make_pki()
    leaf = other.node()

    async def main() -> list[Finding]:
        async with FakeCoordinator(pki) as fake:
            node = make_node(tmp_path / "node", other, fake.fleet, leaf=leaf, settings=SETTINGS)
            (node.directory / "identity" / "servers-ca.pem").write_bytes(
                pki.servers.certificate_pem
            )
            loaded = Enrolment.load(node.directory)
            error = await asyncio.to_thread(diagnose, loaded, now=now())
            assert error is not None
            assert error.code == "refused"
            return await look(node.directory)

    found = asyncio.run(main())
    # the files do not fit each other either, which is what must be looked at first
    assert cause(found) == ("identity", "identity")
    assert ("certificates", "refused") in [(each.check, each.cause) for each in found]


def test_the_node_was_revoked(tmp_path: Path) -> None:
    def prepare(fake: FakeCoordinator, node: Enrolment) -> None:
        fake.denylist.deny_identity(node.principal.spiffe_id)

    found = examined(tmp_path, prepare=prepare)
    assert cause(found) == ("admission", "revoked")


def test_the_coordinator_speaks_another_version(tmp_path: Path) -> None:
    def prepare(fake: FakeCoordinator, node: Enrolment) -> None:
        fake.refuse_next = ("version", "the coordinator speaks protocol 2.0: upgrade the node")

    found = examined(tmp_path, prepare=prepare)
    assert cause(found) == ("version", "version")
    assert "upgrade the node" in str(found)


def test_a_running_agent_is_not_disturbed(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeCoordinator() as fake:
            node = make_node(tmp_path / "node", fake.pki, fake.fleet, settings=SETTINGS)
            with locked(node.directory):
                found = await look(node.directory)
            states = {each.check: each.state for each in found}
            assert (states["admission"], states["version"]) == (State.OK, State.SKIPPED)
            with pytest.raises(TimeoutError):
                await fake.session(0.1)

    asyncio.run(main())


def unreachable(tmp_path: Path, address: str, seconds: float = 5.0) -> list[Finding]:
    node = make_node(tmp_path / "node", make_pki(), address, settings=SETTINGS)
    return asyncio.run(look(node.directory, seconds=seconds))


def test_nothing_listens(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = unreachable(tmp_path, f"localhost:{port}")
    assert cause(found) == ("coordinator", "nothing-listens")
    assert [each.check for each in found if each.state is State.SKIPPED] == [
        "certificates",
        "admission",
        "version",
    ]


def test_the_name_is_not_known(tmp_path: Path) -> None:
    found = unreachable(tmp_path, "nowhere.invalid:7443")
    assert cause(found) == ("coordinator", "host-unknown")


def test_nobody_answers(tmp_path: Path) -> None:
    """As behind a firewall, or with a coordinator that is stopped."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        found = unreachable(tmp_path, f"localhost:{silent.getsockname()[1]}", seconds=0.3)
    assert cause(found) == ("coordinator", "no-answer")


def test_the_port_speaks_no_tls(tmp_path: Path) -> None:
    async def main() -> list[Finding]:
        server = grpc.aio.server()
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            address = f"localhost:{port}"
            node = make_node(tmp_path / "node", make_pki(), address, settings=SETTINGS)
            return await look(node.directory)
        finally:
            await server.stop(0)

    assert cause(asyncio.run(main())) == ("coordinator", "not-tls")


def test_the_clock_was_off_when_the_certificate_came(tmp_path: Path) -> None:
    def prepare(fake: FakeCoordinator, node: Enrolment) -> None:
        path = node.directory / "identity" / "enrolment.json"
        path.write_text(path.read_text().replace('offset_s": 0.0', 'offset_s": 120.0'))

    (clock,) = [each for each in examined(tmp_path, prepare=prepare) if each.check == "clock"]
    assert (clock.state, clock.detail.split(" the ")[0]) == (State.NOTE, "was 120 s behind")


def test_a_directory_that_is_no_node_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fedsec(["doctor", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path} is not the directory of a node: it holds neither node.toml nor" in told
    assert "name it: fedsec node doctor DIR" in told


@pytest.mark.parametrize("command", ["check", "doctor"])
def test_a_directory_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert fedsec(["node", command, str(tmp_path / "nope")]) == 2
    told = capsys.readouterr()
    assert told.err == f"Error: there is no directory {tmp_path}/nope; is it mistyped?\n"
    assert told.out == ""


def test_a_node_that_has_not_joined(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(SETTINGS)
    assert cause(asyncio.run(look(tmp_path)))[0] == "identity"


def test_the_commands_print_a_table_or_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    node = make_node(tmp_path / "node", make_pki(), address, settings=SETTINGS)
    assert fedsec(["node", "doctor", str(node.directory), "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["cause"] == "nothing-listens"
    assert fedsec(["doctor", str(node.directory)]) == 1
    shown = capsys.readouterr().out
    assert "nothing listens at localhost:" in shown
    assert "coordinator" in shown


async def invited(invite: str, at: datetime | None = None) -> list[Finding]:
    """Looks at an invite as the command does: in a thread without an event loop."""
    return await asyncio.to_thread(lambda: examine_invite(invite, now=at or now()))


@pytest.mark.parametrize("state", ["fresh", "used", "expired"])
def test_an_invite_is_looked_at_and_not_spent(state: str) -> None:
    async def main() -> None:
        async with FakeCoordinator() as fake:
            found = await invited(fake.invite(state))
            checks = {each.check: each.state for each in found}
            assert list(checks) == ["coordinator", "certificates", "token"]
            if state == "fresh":
                assert set(checks.values()) == {State.OK}
            else:
                assert cause(found) == ("token", f"token-{state}")
            assert list(fake.tokens.values()) == [state]
            assert fake.enrolled == []

    asyncio.run(main())


def test_what_lies_before_the_token_is_named_first() -> None:
    async def main() -> None:
        pki = make_pki()
        async with FakeCoordinator(pki) as fake:
            address = Invite.decode(fake.invite()).address
            other = Invite(address, make_token(), bytes(32)).encode()
            assert cause(await invited(other)) == ("coordinator", "pin-mismatch")
            found = await invited(fake.invite(), now() - HOUR)
            assert cause(found) == ("certificates", "clock")
        async with FakeCoordinator(pki, server=pki.server(hosts=["fed.example"])) as fake:
            invite = fake.invite()
            assert cause(await invited(invite)) == ("certificates", "wrong-host")
        assert cause(await invited(invite)) == ("coordinator", "nothing-listens")

    asyncio.run(main())


def test_an_invite_and_a_directory_are_two_questions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fedsec(["doctor", str(tmp_path), "--invite", "x"]) == 2
    assert "or --invite, not both" in capsys.readouterr().err
    assert fedsec(["doctor", "--invite", "x"]) == 2
    assert "this is no invite" in capsys.readouterr().err


def test_what_peers_say_cannot_draw_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert not report([Finding("a", State.FAILED, "c", "x\x1b[2Jy", "do\x1b[1m")], json=False)
    assert "\x1b" not in capsys.readouterr().out


def test_a_lost_link_says_code_and_sentence() -> None:
    error = LinkLostError("revoked", "the node was revoked")
    assert (str(error), error.code) == ("revoked: the node was revoked", "revoked")
