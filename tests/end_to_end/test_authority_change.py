"""The issuing CAs of a running federation are replaced: nobody falls out, or all whom it is to."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.hashes import SHA256

from fedsec.identity.certificates import load_certificates
from fedsec.identity.leaves import Lifetimes
from fedsec.identity.names import Kind, Role
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_client.enrolment import Enrolment
from fedsec_server.change_issuers import change_issuers
from fedsec_server.coordinator import coordinate
from fedsec_server.generations import load_authorities
from fedsec_server.state.store import Store
from fedsec_sim.loopback import LoopbackFederation
from fedsec_sim.processes import wait_until
from tests.end_to_end import pulls
from tests.server.commandrig import MAIN
from tests.server.coordinatorrig import PASSPHRASE, Place, make_place
from tests.server.fleetrig import ScriptedNode
from tests.timing import at_once
from tests.wire.gated import refused, run, unary

RENEW = "/fedsec.v1.Fleet/Renew"
BRIEF = timedelta(seconds=20)  # time for a program to start on a busy machine
SECRET = "four words of a test"


def set_lifetimes(settings: Path, brief: timedelta) -> None:
    text = settings.read_text()
    for kind in ("node", "person"):
        text = text.replace(f"# {kind}_h = ", f"{kind}_h = {brief / timedelta(hours=1)}  # ")
    settings.write_text(text)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_ca_is_replaced_under_a_round_and_nobody_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One round lasts from before the change until after its end; real programs, one command."""
    monkeypatch.setattr("fedsec_sim.loopback.secrets.token_urlsafe", lambda _: SECRET)
    monkeypatch.setenv("FEDSEC_CA_PASSPHRASE", SECRET)
    gate = tmp_path / "gate"
    gate.mkdir()
    federation = LoopbackFederation(tmp_path / "federation", environment=pulls.ENVIRONMENT)
    make = federation.make
    monkeypatch.setattr(
        federation, "make", lambda: (make(), set_lifetimes(federation.layout.settings, BRIEF))
    )
    with federation:
        nodes = federation.add_nodes(2, lambda index, _: pulls.settings(index, gate))
        before = {each.name: Enrolment.load(each.directory) for each in nodes}
        pulls.hold(gate, [1])
        run_id = federation.submit(pulls.plan(rounds=3, nodes=2, quorum=2))
        wait_until(lambda: pulls.is_held(gate, 1), 60, "node-1 to train")
        root, here = federation.directory / "root", str(federation.layout.directory)
        told = command("server", "renew-ca", here, "--root", str(root))
        assert "the running coordinator has taken them up" in told
        lives = Lifetimes(node=BRIEF, person=BRIEF)
        new = load_authorities(federation.layout, lives, now=datetime.now(UTC))
        moved(federation, lambda each: issuer_of(each) == new.nodes.fingerprint, "to the new CA")
        status = federation.admin.ask("Status", pb.StatusRequest(), pb.StatusReply)
        assert {each.name for each in status.authority if each.change_ends_at} >= {"servers"}
        over = federation.layout.issuer_certificate(Kind.SERVER, ".former")
        wait_until(lambda: not over.exists(), 60, "the end of the change", step=0.2)
        after = load_authorities(federation.layout, lives, now=datetime.now(UTC))
        assert after.ends == {}
        assert after.servers.fingerprint != fingerprint_of(
            before["node-0"].credentials.servers_ca_pem
        )
        moved(
            federation, lambda each: anchors_of(each) == [after.servers.fingerprint], "to it alone"
        )
        pulls.let_go(gate)
        federation.wait_for_run(run_id, 60)
        found = pulls.outcome(federation, run_id)
        for number in (1, 2, 3):
            assert found.answered(number) == {"node-0", "node-1"}
            assert found.reasons(number) == {}
        found.check_means({"node-0": 0, "node-1": 1})
        late = federation.add_nodes(1, lambda *_: pulls.settings(2, gate))
        assert anchors_of(Enrolment.load(late[0].directory)) == [after.servers.fingerprint]
    kinds = [event.kind for event in events(federation.layout.database)]
    assert kinds.count("node-disconnected") == 3  # all at the very end
    assert kinds.index("node-disconnected") > kinds.index("run-finished")


def command(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def moved(
    federation: LoopbackFederation, condition: Callable[[Enrolment], bool], where: str
) -> None:
    """Waits until every node's identity on the disk fulfils the condition."""
    for each in federation.nodes.values():
        wait_until(
            lambda directory=each.directory: condition(Enrolment.load(directory)),
            40,
            f"{each.name} to move {where}",
            [each.process, federation.coordinator],
            step=0.2,
        )


def fingerprint_of(pem: bytes) -> str:
    return load_certificates(pem)[0].fingerprint(SHA256()).hex()


def issuer_of(node: Enrolment) -> str:
    return load_certificates(node.credentials.chain_pem)[1].fingerprint(SHA256()).hex()


def anchors_of(node: Enrolment) -> list[str]:
    pem = node.credentials.servers_ca_pem
    return [each.fingerprint(SHA256()).hex() for each in load_certificates(pem)]


def events(database: Path) -> list:
    store = Store.open(database)
    found = store.events()
    store.close()
    return found


def change(place: Place, *kinds: Kind, at_once: bool = False, lives: Lifetimes) -> None:
    change_issuers(
        place.layout,
        place.layout.directory.parent / "root",
        PASSPHRASE,
        kinds=kinds,
        lifetimes=lives,
        now=datetime.now(UTC),
        at_once=at_once,
    )


async def tell(place: Place) -> pb.ReloadAuthoritiesReply:
    person = place.issue(Kind.PERSON, "ann", Role.ADMIN)
    async with place.channel("admin", person) as channel:
        data = await unary(channel, "/fedsec.v1.Admin/ReloadAuthorities", b"", 20)
        return pb.ReloadAuthoritiesReply.FromString(data)


async def ended(node: ScriptedNode) -> tuple[grpc.StatusCode, str]:
    async def read() -> None:
        while await node.call.read() is not grpc.aio.EOF:
            pass

    return await refused(read())


def test_a_stolen_ca_is_out_within_a_second_and_another_kind_is_not_touched(
    tmp_path: Path,
) -> None:
    """14: the nodes' CA goes at once, with every node that it certified; people go on."""

    async def main(attempt: int) -> float:
        place = make_place(tmp_path / f"{attempt}")
        (north, holder), (south, other) = place.enrol("north"), place.enrol("south")
        async with coordinate(place.layout, os.getpid()) as coordinator:
            nodes = [
                ScriptedNode(record, place.channel("fleet", each))
                for record, each in ((north, holder), (south, other))
            ]
            for node in nodes:
                await node.connect()
            change(place, Kind.NODE, at_once=True, lives=Lifetimes())
            assert len(coordinator.exchange.connected()) == 2  # nobody has told it yet
            began = time.monotonic()
            (told,) = [each for each in (await tell(place)).authority if each.name == "nodes"]
            for node in nodes:
                status, details = await ended(node)
                assert status is grpc.StatusCode.UNAUTHENTICATED
                assert details.startswith("wrong-issuer: ")
            took = time.monotonic() - began
            assert told.fingerprint != place.authorities.nodes.fingerprint
            assert not told.change_ends_at
            async with place.channel("fleet", holder) as again:
                assert (await refused(unary(again, RENEW)))[0] is grpc.StatusCode.UNAVAILABLE
            fresh = load_authorities(place.layout, Lifetimes(), now=datetime.now(UTC))
            new = replace(place, authorities=fresh)
            back = ScriptedNode(south, new.channel("fleet", new.issue(Kind.NODE, other.name)))
            assert (await back.connect()).welcome.node_id == south.node_id
            assert (await tell(place)).authority  # a person of before
            for node in (*nodes, back):
                await node.channel.close()
        found = events(place.layout.database)
        refusals = [each.detail["code"] for each in found if each.kind == "rpc-refused"]
        assert refusals.count("wrong-issuer") == 2
        changed = [each.subject for each in found if each.kind == "authority-changed"]
        assert changed == ["CA for nodes"]
        return took

    run(at_once(main, 1.0), 60)


def test_at_the_end_of_a_change_the_former_ca_goes_by_itself(tmp_path: Path) -> None:
    """14: who still shows a certificate of it is cut off, who has a new one is not disturbed."""
    brief = timedelta(seconds=1.8)  # but what the rig issues lives for hours
    lives = Lifetimes(node=brief)

    async def main(attempt: int) -> float:
        place = make_place(tmp_path / f"{attempt}")
        set_lifetimes(place.layout.settings, brief)
        (north, holder), (south, other) = place.enrol("north"), place.enrol("south")
        async with coordinate(place.layout, os.getpid()):
            old = ScriptedNode(north, place.channel("fleet", holder))
            await old.connect()
            change(place, Kind.NODE, lives=lives)
            fresh = load_authorities(place.layout, lives, now=datetime.now(UTC))
            new = replace(place, authorities=fresh)
            young = ScriptedNode(south, new.channel("fleet", new.issue(Kind.NODE, other.name)))
            reply = await tell(place)
            (end,) = [each.change_ends_at for each in reply.authority if each.change_ends_at]
            await young.connect()
            status, details = await ended(old)
            assert status is grpc.StatusCode.UNAUTHENTICATED
            assert details.startswith("wrong-issuer: ")
            late = time.time() - end
            assert late >= 0
            await young.accept(1)
            assert (await refused(unary(young.channel, RENEW)))[1].startswith("malformed: ")
            assert not place.layout.issuer_certificate(Kind.NODE, ".former").exists()
            for node in (old, young):
                await node.channel.close()
        return late

    run(at_once(main, 2.0), 60)


def test_files_that_do_not_fit_leave_everything_as_it_was(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    record, holder = place.enrol("north")
    key = place.layout.issuer_key(Kind.NODE)

    async def main() -> None:
        async with coordinate(place.layout, os.getpid()):
            node = ScriptedNode(record, place.channel("fleet", holder))
            await node.connect()
            good = key.read_bytes()
            key.write_bytes(place.layout.issuer_key(Kind.SERVER).read_bytes())
            status, details = await refused(tell(place))
            assert status is grpc.StatusCode.UNAUTHENTICATED
            assert "wrong-key" in details
            assert "nodes.cert.pem" in details
            key.write_bytes(good)
            assert len((await tell(place)).authority) == 3
            await asyncio.sleep(0)
            await node.accept(1)
            await node.hang_up()
            await node.channel.close()

    run(main())
