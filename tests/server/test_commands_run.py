"""People and runs: commands as typed, against a coordinator in its own process."""

import json
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from typer.main import get_command

from fedsec import cli
from fedsec.identity.leaves import issue, key_pem, make_key, make_request
from fedsec.identity.names import Kind, Role
from fedsec.plan import FederationPlan
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.commands.reach import Reach
from fedsec_server.commands.run import warn_of_few
from fedsec_server.layout import Listening
from fedsec_server.people import Credentials, read_credentials
from fedsec_server.state.store import Store
from fedsec_server.state.values import RunState
from tests.server.commandrig import MAIN, POINTS, Fedsec, on_terminal
from tests.server.coordinatorrig import PASSPHRASE, Place, make_place

SECRET = PASSPHRASE.decode()


# --- which coordinator, and as whom ------------------------------------------------------------


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


# --- run ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ended(place: Place, server: Path) -> int:
    """A run that has ended, put into the database of the running coordinator."""
    store = Store.open(place.layout.database)
    run = store.create_run(
        name="digits", plan="schema = 1", plan_digest="ab" * 32, rounds=2, submitted_by="x", now=1.0
    )
    models = place.layout.run(run.run_id) / "models"
    models.mkdir(parents=True)
    (models / "round-00002.safetensors").write_bytes(b"weights" * 100_000)
    details: list[tuple[str, dict[str, object]]] = [
        ("round", {"round": 1, "answered": [5, 6], "train_loss": 2.0, "seconds": 0.5}),
        ("round", {"round": 2, "answered": [5], "failed": {"6": "gone\x1b[2J"}, "loss": 0.25}),
        ("nodes", {"round": 2, "nodes": [{"nodes": [5], "weight": 1.0, "rank": 1, "norm": 2.0},
                                         {"nodes": [6], "excluded": "bad\x1b[2J"}]}),
        ("model", {"round": 2, "path": "models/round-00002.safetensors"}),
    ]  # fmt: skip
    for kind, detail in details:
        store.append_event(kind, f"run {run.run_id}", detail, at=2.0, run_id=run.run_id)
    store.set_run_round(run.run_id, 2)
    store.set_run_state(run.run_id, RunState.FINISHED, now=9.0)
    store.close()
    return run.run_id


def test_a_run_is_listed_shown_and_watched(fedsec: Fedsec, server: Path, ended: int) -> None:
    at = ("--dir", server)
    assert f"{ended}  digits  finished     2/2" in fedsec("run", "list", *at).out
    shown = fedsec("run", "show", ended, *at)
    assert shown.code == 0
    for part in ("finished", "2/2", "abab", "2.0000", "0.2500", f"runs/{ended}"):
        assert part in shown.out
    watched = fedsec("run", "watch", ended, *at)
    assert watched.code == 0
    assert "round 1, nodes 2, train loss 2.0000, time 500.0 ms" in watched.out
    assert r"round 2, nodes 1/2, loss 0.2500, missing 6: gone\x1b[2J" in watched.out
    assert f"fedsec run model {ended} -o FILE.safetensors" in watched.out
    assert "\x1b" not in watched.out + shown.out
    lines = [
        json.loads(line) for line in fedsec("run", "watch", ended, *at, "--json").out.splitlines()
    ]
    assert [next(iter(line)) for line in lines] == ["run", "event", "event", "event", "event"]
    assert lines[2]["event"]["detail"]["failed"] == {"6": "gone\x1b[2J"}
    assert lines[0]["run"]["run_id"] == ended
    assert fedsec("run", "show", ended, "--all", *at).out == shown.out
    as_json = fedsec("run", "show", ended, *at, "--json").json
    assert isinstance(as_json, dict)
    assert (as_json["state"], as_json["ended_at"], len(as_json["event"])) == ("finished", 9.0, 4)


def test_a_live_table_is_shown_on_a_terminal(server: Path, ended: int) -> None:
    words = "run", "watch", str(ended), "--dir", str(server)
    shown = on_terminal([sys.executable, "-c", MAIN, *words], [])
    assert b"accuracy" in shown
    assert f"Run {ended} digits".encode() in shown
    assert b"take the model away" in shown
    assert b"gone\\x1b[2J" in shown


def test_records_of_nodes_are_shown(fedsec: Fedsec, server: Path, ended: int) -> None:
    at = ("--dir", server)
    shown = fedsec("run", "records", ended, *at)
    assert shown.code == 0
    assert "Round 2" in shown.out
    assert re.search(r"^5 +1 +1 +2 +- ", shown.out, re.MULTILINE)
    assert r"bad\x1b[2J" in shown.out
    assert fedsec("run", "records", ended, "--round", 2, *at, "--json").json == {
        "round": 2,
        "withheld": False,
        "rows": [
            {"nodes": ["5"], "weight": 1.0, "rank": 1, "norm": 2.0},
            {"nodes": ["6"], "excluded": "bad\x1b[2J"},
        ],
    }
    missing = fedsec("run", "records", ended, "--round", 1, *at)
    assert missing.code == 2
    assert "has no records of nodes of round 1 (yet); plans with [robust] make them" in missing.err


def test_a_model_is_taken_away(fedsec: Fedsec, server: Path, ended: int) -> None:
    at = ("--dir", server)
    file = Path("model.safetensors")
    result = fedsec("run", "model", ended, "-o", file, *at, "--json")
    assert isinstance(result.json, dict)
    assert result.json["bytes"] == 700_000
    assert file.read_bytes() == b"weights" * 100_000
    again = fedsec("run", "model", ended, "-o", file, *at)
    assert again.code == 2
    assert "model.safetensors exists; --force replaces it" in again.err
    assert fedsec("run", "model", ended, "-o", file, "--force", *at).code == 0
    missing = fedsec("run", "model", ended, "--round", "1", "-o", "other", *at)
    assert missing.code == 2
    assert "has stored no model of round 1" in missing.err
    nowhere = fedsec("run", "model", ended, "-o", "no/such/place", *at)
    assert nowhere.code == 2
    assert "cannot write no/such/place" in nowhere.err
    assert [path.name for path in Path().iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("show", "77"), "there is no run 77; `fedsec run list` shows all"),
        (("watch", "77"), "there is no run 77; `fedsec run list` shows all"),
        (("stop", "77"), "there is no run 77; `fedsec run list` shows all"),
        (("model", "77", "-o", "x"), "there is no run 77; `fedsec run list` shows all"),
        (("show", "digits"), "'digits' is no run's id; `fedsec run list` shows all, or say last"),
        (("show", "-5"), "No such option"),
        (("show", "99999999999999999999999"), "is no run's id"),
        (("submit", "nowhere.toml"), "cannot read nowhere.toml"),
    ],
)
def test_a_bad_run_is_named(
    fedsec: Fedsec, server: Path, words: tuple[str, ...], sentence: str
) -> None:
    result = fedsec("run", *words, "--dir", server)
    assert result.code == 2
    assert sentence in result.err


def test_all_errors_of_a_plan_are_listed_without_a_coordinator(fedsec: Fedsec) -> None:
    Path("plan.toml").write_text('schema = 1\nname = "x"\n[training]\nrounds = 0\nseed = -1\n')
    result = fedsec("run", "submit", "plan.toml", "--dir", "/nowhere")
    assert result.code == 2
    assert "training.rounds = 0" in result.err
    assert "training.seed = -1" in result.err
    Path("plan.toml").write_bytes(b"\xff\xfe")
    assert "is not UTF-8 text" in fedsec("run", "submit", "plan.toml").err


@pytest.mark.parametrize(
    ("enrolled", "connected", "told"),
    [(1, 1, "1 are enrolled and 1 connected: invite more"), (4, 2, "`fedsec node list` says"),
     (3, 3, ""), (9, 4, "")],
)  # fmt: skip
def test_it_is_told_when_a_run_will_wait_for_nodes(
    capsys: pytest.CaptureFixture[str], enrolled: int, connected: int, told: str
) -> None:
    class Way:
        def ask(self, method: str, *_kinds: object) -> pb.StatusReply:
            assert method == "Status"
            return pb.StatusReply(nodes_enrolled=enrolled, nodes_connected=connected)

    plan = FederationPlan.parse(
        'schema = 1\nname = "x"\n[app]\nname = "tiny"\n[nodes]\nmin_available = 3\n'
    )
    warn_of_few(cast("Reach", Way()), plan)
    said = capsys.readouterr()
    assert told in said.err
    assert bool(said.err) == bool(told)
    assert said.out == ""


@pytest.mark.slow
def test_a_run_is_submitted_and_stopped(fedsec: Fedsec, server: Path) -> None:
    """No node ever comes: the run waits until it is stopped."""
    Path("plan.toml").write_text(
        'schema = 1\nname = "waits"\n[app]\nname = "tiny"\n[app.config]\nmode = "wait"\n'
        "[nodes]\nmin_available = 1\nwait_s = 60.0\n"
    )
    submitted = fedsec("run", "submit", "plan.toml", "--dir", server, "--json")
    assert submitted.code == 0, submitted.err
    assert "waits for nodes.min_available = 1 nodes, at most nodes.wait_s = 60 s" in submitted.err
    assert "Now 0 are enrolled and 0 connected: invite more" in submitted.err
    assert isinstance(submitted.json, dict)
    run_id = submitted.json["run_id"]
    stopped = fedsec("run", "stop", "last", "--dir", server)
    assert stopped.out == f"Run {run_id} is stopped.\n"
    assert fedsec("run", "watch", run_id, "--dir", server).code == 1
    again = fedsec("run", "stop", run_id, "--dir", server, "--json")
    assert again.json == {"run_id": run_id, "state": "stopped"}


# --- help --------------------------------------------------------------------------------------


def commands() -> list[tuple[str, ...]]:
    tree = cli.collect(POINTS)
    tree.fill(["ca", "server", "node", "run", "person"])
    root = get_command(tree.root)
    return [
        (group, name)
        for group in ("ca", "server", "node", "run", "person")
        for name in root.commands[group].commands  # type: ignore[attr-defined]
    ]


@pytest.mark.parametrize("words", commands())
def test_every_command_and_every_option_has_a_help_text(words: tuple[str, ...]) -> None:
    tree = cli.collect(POINTS)
    tree.fill(words)
    command = get_command(tree.root).commands[words[0]].commands[words[1]]  # type: ignore[attr-defined]
    assert command.help
    assert command.help[0].isupper()
    for parameter in command.params:
        assert getattr(parameter, "help", None), (words, parameter.name)


def test_ctrl_c_ends_a_command_quietly(server: Path, place: Place) -> None:
    store = Store.open(place.layout.database)
    run = store.create_run(
        name="endless", plan="", plan_digest="", rounds=0, submitted_by="x", now=1.0
    )
    words = "run", "watch", str(run.run_id), "--dir", str(server)
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()  # it has begun
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    store.set_run_state(run.run_id, RunState.STOPPED, now=2.0)
    store.close()
    assert process.returncode == 130
    assert b"Traceback" not in errors
