"""The roster at the coordinator: signed apart from it, published by a command, offered with runs."""

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedsec.errors import IdentityError, StateError
from fedsec.files import make_private_directory, write_public
from fedsec.flower import policy_directory
from fedsec.identity.authorities import Authority, make_root
from fedsec.identity.roster import Member, Roster, read, sign
from fedsec.identity.signing import make_signing_key, public_bytes, signing_fingerprint
from fedsec_server.init import load_root
from fedsec_server.layout import Layout
from fedsec_server.rosters import publish, published, required
from fedsec_server.state.values import NodeRecord, NodeState
from tests.server.commandrig import MAIN, Fedsec, on_terminal
from tests.server.coordinatorrig import PASSPHRASE, Place, Program, make_place
from tests.server.runrig import ANN, coordinator, plan
from tests.wire.gated import run

NOW = datetime.now(UTC).replace(microsecond=0)
FEDERATION = "fed.example"


# --- what is published -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root() -> Authority:
    return make_root(FEDERATION, now=NOW)


@pytest.fixture
def layout(tmp_path: Path, root: Authority) -> Layout:
    made = Layout(tmp_path / "server")
    make_private_directory(made.authorities)
    write_public(made.root_certificate, root.certificate_pem)
    return made


def node(node_id: int, state: NodeState = NodeState.ENROLLED) -> NodeRecord:
    return NodeRecord(
        node_id=node_id, name=f"clinic-{node_id}", state=state,
        spiffe_id=f"spiffe://{FEDERATION}/node/{node_id:032x}",
        signing_key=public_bytes(make_signing_key()), root_pinned=True, invited_at=0.0,
        enrolled_at=1.0, revoked_at=None, revoked_reason="", last_seen_at=None,
        certificate_expires_at=None,
    )  # fmt: skip


def roster(nodes: list[NodeRecord], serial: int = 5, days: float = 1) -> Roster:
    members = tuple(Member(each.node_id, each.spiffe_id, each.signing_key or b"") for each in nodes)
    return Roster(FEDERATION, serial, NOW + timedelta(days=days), members)


def test_a_roster_is_kept_and_required_again(layout: Layout, root: Authority) -> None:
    nodes = [node(2), node(3), node(4)]
    signed = sign(roster(nodes[:2]), root)
    made, missing = publish(layout, signed, nodes, now=NOW)
    assert (made, missing) == (roster(nodes[:2]), ["clinic-4"])
    kept = required(layout, now=NOW)
    assert (kept.signed, kept.roster) == (signed, made)
    publish(layout, sign(roster(nodes, serial=6), root), nodes, now=NOW)
    with pytest.raises(IdentityError, match="rolled-back: the roster has serial 5, 6 is"):
        publish(layout, signed, nodes, now=NOW)
    assert required(layout, now=NOW).roster.serial == 6
    publish(layout, sign(roster(nodes, serial=6), root), nodes, now=NOW)  # the same, signed anew
    with pytest.raises(IdentityError, match="equivocation: another roster of serial 6"):
        publish(layout, sign(roster(nodes[:2], serial=6), root), nodes, now=NOW)


def test_none_is_required_before_one_is_published(layout: Layout) -> None:
    assert published(layout) is None
    with pytest.raises(StateError, match="needs a roster that the root has signed; see `fedsec"):
        required(layout, now=NOW)


def test_a_roster_that_is_over_is_neither_published_nor_offered(
    layout: Layout, root: Authority
) -> None:
    nodes = [node(2)]
    signed = sign(roster(nodes), root)
    publish(layout, signed, nodes, now=NOW)
    late = NOW + timedelta(days=1, seconds=1)
    with pytest.raises(StateError, match="the roster of serial 5 expired at"):
        required(layout, now=late)
    with pytest.raises(StateError, match="expired"):
        publish(layout, signed, nodes, now=late)


def test_what_differs_from_the_coordinator_s_own_records_is_not_published(
    layout: Layout, root: Authority
) -> None:
    known, gone = node(2), node(3, NodeState.REVOKED)
    with pytest.raises(StateError, match=r"node 3 \(spiffe://.*\), which is not enrolled here"):
        publish(layout, sign(roster([known, gone]), root), [known, gone], now=NOW)
    other = replace(known, signing_key=public_bytes(make_signing_key()))
    with pytest.raises(StateError, match="node clinic-2 under another name or signing key"):
        publish(layout, sign(roster([other]), root), [known], now=NOW)
    with pytest.raises(IdentityError, match="wrong-issuer"):
        publish(layout, sign(roster([known]), make_root(FEDERATION, now=NOW)), [known], now=NOW)
    assert published(layout) is None


# --- runs ----------------------------------------------------------------------------------------


def test_a_run_that_needs_a_roster_is_not_taken_without_and_offers_it_with(
    tmp_path: Path, root: Authority
) -> None:
    secure = plan(nodes=4) + '[secure_aggregation]\nmode = "malicious"\nclip = 1.0\n'

    async def main() -> None:
        async with coordinator(tmp_path) as rig:
            make_private_directory(rig.layout.authorities)
            write_public(rig.layout.root_certificate, root.certificate_pem)
            with pytest.raises(StateError, match="needs a roster that the root has signed"):
                await rig.runs.submit(secure, ANN)
            nodes = [node(number) for number in (11, 12, 13, 14)]
            signed = sign(roster(nodes), root)
            await asyncio.to_thread(publish, rig.layout, signed, nodes, now=NOW)
            here = [rig.node(each.node_id) for each in nodes]
            run_id = await rig.runs.submit(secure, ANN)
            await rig.until(run_id)
            assert here[0].frames[0].run_offer.roster == signed
            plain = await rig.runs.submit(plan(nodes=4), ANN)
            await rig.until(plain)
            offers = [frame.run_offer for frame in here[0].frames if frame.HasField("run_offer")]
            assert [offer.roster for offer in offers] == [signed, b""]

    run(main(), 60)


# --- commands --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = make_place(tmp_path_factory.mktemp("place"))
    for name in ("clinic-1", "clinic-2", "clinic-3"):
        made.enrol(name)
    return made


@pytest.fixture(scope="module")
def running(enrolled: Place) -> Iterator[Path]:
    with Program(enrolled.layout) as program:
        program.until_listening()
        yield enrolled.layout.directory


def list_of(fedsec: Fedsec, server: Path, path: Path) -> Path:
    path.write_text(fedsec("node", "list", "--json", "--dir", server).out)
    return path


def test_nodes_of_plain_flower_get_onto_a_roster(
    fedsec: Fedsec, enrolled: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDSEC_CA_PASSPHRASE", PASSPHRASE.decode())
    root = enrolled.layout.directory.parent / "root"
    lists, file, ids = [], tmp_path / "roster", [4711, 2**64 - 1]
    for node_id in ids:
        directory, name = tmp_path / f"policy-{node_id}", f"clinic-{node_id}"
        words = ("roster", "entry", directory, "--root", root / "root.cert.pem")
        made = fedsec(*words, "--node-id", str(node_id), "--name", name)
        assert (made.code, made.err) == (0, "")
        lists.append(tmp_path / f"{name}.json")
        lists[-1].write_text(made.out)
    signed = fedsec("roster", "sign", *lists, "--root", root, "-o", file, "--yes")
    assert "Signed: 2 nodes of fed.example" in signed.out
    (tmp_path / "policy-4711" / "roster").write_bytes(file.read_bytes())
    held = policy_directory.read(tmp_path / "policy-4711", 4711, now=datetime.now(UTC))
    assert sorted(held.trusted) == ids
    again = fedsec(*words, "--node-id", "1", "--name", "clinic-1")
    assert again.code == 2
    assert "a node keeps its key" in again.err


def test_a_roster_is_signed_shown_and_published(
    fedsec: Fedsec, running: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDSEC_CA_PASSPHRASE", PASSPHRASE.decode())
    nodes = list_of(fedsec, running, tmp_path / "nodes.json")
    root, file = running.parent / "root", tmp_path / "roster"
    words = ("roster", "sign", nodes, "--root", root, "-o", file, "--leave-out", "clinic-3")
    signed = fedsec(*words, "--yes")
    assert (signed.code, signed.err) == (0, "")
    assert "Signed: 2 nodes of fed.example, serial " in signed.out
    assert (
        f"Next, on the coordinator: fedsec roster publish {file} --dir DIR"
        in signed.out.replace("\n", " ").replace("  ", " ")
    )
    shown = fedsec("roster", "show", file, "--root", root)
    assert "Signed by the root of fed.example; serial" in shown.out
    machine = fedsec("roster", "show", file, "--root", root / "root.cert.pem", "--json")
    fingerprints = {
        each["name"]: each["signing_fingerprint"] for each in json.loads(nodes.read_text())
    }
    assert isinstance(machine.json, dict)
    told = [each["signing_fingerprint"] for each in machine.json["members"]]
    assert sorted(told) == sorted(fingerprints[name] for name in ("clinic-1", "clinic-2"))
    published = fedsec("roster", "publish", file, "--dir", running)
    assert "Published: 2 nodes, serial" in published.out
    assert "of no use where a plan asks for a signed roster: clinic-3" in published.out.replace(
        "\n", " "
    )
    assert (running / "roster").read_bytes() == file.read_bytes()
    again = fedsec(
        "roster", "sign", nodes, "--root", root, "-o", file, "--yes", "--serial", "7", "--json"
    )
    assert isinstance(again.json, dict)
    assert (again.json["serial"], again.json["members"]) == (7, 3)
    refused = fedsec("roster", "publish", file, "--dir", running)
    assert refused.code == 2
    assert "rolled-back: the roster has serial 7" in refused.err
    later = fedsec(
        "roster", "sign", nodes, "--root", root, "-o", file, "--yes", "--serial", str(2**40)
    )
    assert later.code == 0
    assert fedsec("roster", "publish", file, "--dir", running, "--json").json == {
        "serial": 2**40, "members": 3, "ends_at": read(file.read_bytes(), root_pem=(root / "root.cert.pem").read_bytes()).not_after.timestamp(), "missing": [],
    }  # fmt: skip


def test_what_is_signed_is_shown_and_asked_first(
    fedsec: Fedsec, running: Path, tmp_path: Path
) -> None:
    nodes = list_of(fedsec, running, tmp_path / "nodes.json")
    root, file = running.parent / "root", tmp_path / "roster"
    command = ["roster", "sign", str(nodes), "--root", str(root), "-o", str(file)]
    piped = fedsec(*command)
    assert (piped.code, file.exists()) == (2, False)
    assert "compare them, then give --yes" in piped.err.replace("\n", " ")
    key = json.loads(nodes.read_text())[0]["signing_fingerprint"]
    typed = [sys.executable, "-c", MAIN, *command]
    declined = on_terminal(typed, [(b"operators read?", "n")])
    assert key.encode() in declined
    assert not file.exists()
    done = on_terminal(typed, [(b"operators read?", "y"), (b"Passphrase of", PASSPHRASE.decode())])
    assert b"Signed: 3 nodes" in done
    pem = (root / "root.cert.pem").read_bytes()
    members = read(file.read_bytes(), root_pem=pem).members
    assert key in {signing_fingerprint(member.signing_key) for member in members}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not the output of `fedsec node list --json`"),
        ('[{"name": "a"}]', "0.state: Field required"),
        ("[]", "holds no enrolled node"),
    ],
)
def test_what_is_no_list_of_nodes(fedsec: Fedsec, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "nodes.json").write_text(text)
    got = fedsec("roster", "sign", tmp_path / "nodes.json", "--root", tmp_path, "--yes")
    assert got.code == 2
    assert said in got.err.replace("\n", " ")


def test_values_out_of_range(fedsec: Fedsec, running: Path, tmp_path: Path) -> None:
    nodes = list_of(fedsec, running, tmp_path / "nodes.json")
    days = fedsec("roster", "sign", nodes, "--root", tmp_path, "--days", "0")
    assert "--days must be more than 0 and at most 366, got 0" in days.err
    unknown = fedsec("roster", "sign", nodes, "--root", tmp_path, "--leave-out", "nobody")
    assert "there is no node nobody in" in unknown.err
    listed = json.loads(nodes.read_text())
    listed[0]["signing_key"] = "!"
    nodes.write_text(json.dumps(listed))
    broken = fedsec("roster", "sign", nodes, "--root", tmp_path, "--yes")
    assert "its signing_key is no base64" in broken.err


def test_a_roster_never_outlives_its_root(
    fedsec: Fedsec, running: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDSEC_CA_PASSPHRASE", PASSPHRASE.decode())
    nodes = list_of(fedsec, running, tmp_path / "nodes.json")
    root = load_root(running.parent / "root", PASSPHRASE)
    file = tmp_path / "roster"
    fedsec(
        "roster",
        "sign",
        nodes,
        "--root",
        running.parent / "root",
        "-o",
        file,
        "--yes",
        "--days",
        "366",
    )
    end = read(file.read_bytes(), root_pem=root.certificate_pem).not_after
    assert end <= root.certificate.not_valid_after_utc
    assert end - datetime.now(UTC) > timedelta(days=365)
