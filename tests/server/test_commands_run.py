"""Runs: commands as typed, against a coordinator in its own process."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
from typer.main import get_command

from fedsec import cli
from fedsec.plan import FederationPlan
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.commands.reach import Reach
from fedsec_server.commands.run import warn_of_few
from fedsec_server.layout import NotRunningError
from fedsec_server.state.store import Store
from fedsec_server.state.values import RunState
from tests.server.commandrig import MAIN, POINTS, Fedsec, on_terminal
from tests.server.coordinatorrig import Place

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


@pytest.mark.parametrize(
    ("more", "code", "out"),
    [((), 0, "Run 7 is submitted.\nWatch it: fedsec run watch 7\n"),
     (("--json",), 0, '{\n  "run_id": 7\n}\n'), (("--json", "--watch"), 2, '{"run_id": 7}\n')],
)  # fmt: skip
def test_a_submitted_run_is_told_whatever_comes_after_it(
    fedsec: Fedsec, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], code: int, out: str
) -> None:
    class Way:
        """A coordinator that goes away once it has the run."""

        layout = None

        def ask(self, method: str, *_kinds: object) -> pb.SubmitRunReply:
            if method == "SubmitRun":
                return pb.SubmitRunReply(run_id=7)
            raise NotRunningError("it went\x1b[2J away")

        def stream(self, *_: object) -> object:
            raise NotRunningError("it went away")

    monkeypatch.setattr("fedsec_server.commands.run.reach", lambda *_: Way())
    Path("plan.toml").write_text('schema = 1\nname = "x"\n[app]\nname = "tiny"\n')
    result = fedsec("run", "submit", "plan.toml", *more)
    assert (result.code, result.out) == (code, out)
    assert "could not be asked: it went\\x1b[2J away\n" in result.err


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
