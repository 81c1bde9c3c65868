"""From nothing to a model, and a revoked node, by the commands that an operator types."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedsec.artifacts import read_model
from fedsec_sim.processes import Family, Process, wait_until

pytestmark = pytest.mark.slow

FEDSEC = [sys.executable, "-P", "-c", "from fedsec.cli import main; main()"]
REVOKED = 10  # exit code of `fedsec node start`


def fedsec(*arguments: str | Path, code: int = 0) -> str:
    environment = {**os.environ, "FEDSEC_CA_PASSPHRASE": "correct horse battery staple"}
    command = [*FEDSEC, *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stdout + done.stderr


def start(family: Family, name: str, tmp_path: Path, *arguments: str | Path) -> Process:
    log = tmp_path / f"{name}.log"
    process = family.add(Process(name, [*FEDSEC, *map(str, arguments)], log))
    process.start()
    return process


def test_an_operator_goes_the_whole_way(tmp_path: Path) -> None:
    root, coordinator = tmp_path / "root", tmp_path / "coordinator"
    fingerprint = json.loads(fedsec("ca", "init", root, "--json"))["fingerprint"]
    fedsec(
        "server", "init", coordinator, "--root", root, "--host", "127.0.0.1", "--port", "0",
        "--listen", "127.0.0.1",
    )  # fmt: skip
    at = ("--dir", coordinator)
    assert "is not running" in fedsec("node", "list", *at, code=2)
    with Family() as family:
        server = start(family, "server", tmp_path, "server", "start", coordinator)
        wait_until((coordinator / "listening.json").exists, 30, "the coordinator", [server])
        nodes = [join_and_start(family, tmp_path, at, index, fingerprint) for index in range(2)]
        listed = json.loads(fedsec("node", "list", *at, "--json"))
        assert [(node["name"], node["state"], node["root_pinned"]) for node in listed] == [
            ("clinic-0", "enrolled", True),
            ("clinic-1", "enrolled", True),
        ]
        digest = train_and_take_the_model(tmp_path, at)
        shown = json.loads(fedsec("run", "list", *at, "--json"))
        assert [(run["state"], run["round"], run["plan_digest"]) for run in shown] == [
            ("finished", 2, digest)
        ]
        revoke(tmp_path, at, nodes[1])
        assert nodes[0].end(10) == 0
        assert server.end(10) == 0


def join_and_start(
    family: Family, tmp_path: Path, at: tuple[str, Path], index: int, fingerprint: str
) -> Process:
    name, directory = f"clinic-{index}", tmp_path / f"clinic-{index}"
    invite = json.loads(fedsec("node", "invite", name, *at, "--json"))["invite"]
    assert "still unused" in fedsec("doctor", "--invite", invite)
    fedsec("node", "join", invite, "--dir", directory, "--root-fingerprint", fingerprint)
    looked = json.loads(fedsec("doctor", "--invite", invite, "--json", code=1))
    assert looked["cause"] == "token-used"
    assert "used" in fedsec("node", "join", invite, "--dir", tmp_path / "again", code=2)
    settings = (directory / "node.toml").read_text("utf-8")
    data = f'[data.digits]\nconnector = "digits"\npartition = {index}\npartitions = 2\n'
    (directory / "node.toml").write_text(settings.replace("[policy]", f"{data}\n[policy]", 1))
    fedsec("node", "check", directory)
    return start(family, name, tmp_path, "node", "start", directory)


def train_and_take_the_model(tmp_path: Path, at: tuple[str, Path]) -> str:
    plan, model = tmp_path / "plan.toml", tmp_path / "model.safetensors"
    text = fedsec("plan", "example")
    changes = {"rounds": 2, "min_available": 2, "quorum": 2, "save_every": 1}
    for key, value in changes.items():
        text = re.sub(rf"^{key} = \d+", f"{key} = {value}", text, flags=re.MULTILINE)
    plan.write_text(text)
    digest = str(json.loads(fedsec("plan", "check", plan, "--json"))["digest"])
    fedsec("run", "submit", plan, *at)
    watched = [
        json.loads(line) for line in fedsec("run", "watch", "last", *at, "--json").splitlines()
    ]
    events = [line["event"] for line in watched if "event" in line]
    assert [event["detail"]["round"] for event in events if event["kind"] == "round"] == [1, 2]
    assert "accuracy" in fedsec("run", "show", "last", *at)
    fedsec("run", "model", "last", "-o", model, *at)
    arrays, metadata = read_model(model)
    assert arrays
    assert metadata["plan"] == digest
    return digest


def revoke(tmp_path: Path, at: tuple[str, Path], victim: Process) -> None:
    fedsec("node", "revoke", victim.name, "--reason", "lost", *at)
    wait_until(lambda: victim.exit_code is not None, 5, "the revoked node to end")
    assert victim.exit_code == REVOKED
    assert "revoked" in victim.tail()
    assert "revoked" in fedsec("doctor", tmp_path / victim.name, code=1)
