"""`fedsec node join` and `fedsec node check`, as typed."""

import asyncio
import io
import json
from pathlib import Path

import pytest

from fedsec.cli import run as fedsec
from fedsec.identity.authorities import show_fingerprint
from fedsec_client.enrolment import Enrolment
from tests.clients.coordinator import FakeCoordinator, make_node
from tests.clients.orders import SETTINGS
from tests.pki import make_pki

DATA = 'schema = 1\n[data.digits]\nconnector = "digits"\n'


async def typed(*words: str) -> int:
    """Runs a command as in a process of its own: where no event loop runs."""
    return await asyncio.wait_for(asyncio.to_thread(fedsec, list(words)), 60)


def test_join_prints_what_to_compare_and_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "node"

    async def main() -> str:
        async with FakeCoordinator() as fake:
            assert await typed("node", "join", fake.invite(), "--dir", str(directory)) == 0
            return fake.pki.root.fingerprint

    root = asyncio.run(main())
    printed = capsys.readouterr()
    assert "Joined as clinic-1, of fed.example." in printed.out
    assert Enrolment.load(directory).signing_fingerprint in printed.out
    assert show_fingerprint(root) in printed.out
    assert f"fedsec node start {directory}" in printed.out
    assert "Root not pinned" in printed.err


def test_join_reads_the_invite_from_stdin_and_prints_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> str:
        async with FakeCoordinator() as fake:
            monkeypatch.setattr("sys.stdin", io.StringIO(fake.invite() + "\n"))
            pin = fake.pki.root.fingerprint
            words = ("--dir", str(tmp_path / "node"), "--root-fingerprint", pin, "--json")
            assert await typed("node", "join", "-", *words) == 0
            return pin

    pin = asyncio.run(main())
    printed = json.loads(capsys.readouterr().out)
    assert printed["root_fingerprint"] == pin
    assert printed["root_pinned"] is True
    assert printed["name"] == "clinic-1"


def test_a_failed_join_is_one_sentence_without_the_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> str:
        async with FakeCoordinator() as fake:
            invite = fake.invite("used")
            assert await typed("node", "join", invite, "--dir", str(tmp_path / "node")) == 2
            return invite

    invite = asyncio.run(main())
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Error: token-used: ")
    assert "Traceback" not in printed.err
    assert invite not in printed.err


def test_check_says_that_all_is_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = make_node(tmp_path / "node", make_pki(), "localhost:1", settings=SETTINGS)
    assert fedsec(["node", "check", str(node.directory), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = {each["check"]: each["state"] for each in printed["checks"]}
    assert found["settings"] == found["app scripted"] == found["identity"] == "ok"
    assert found["certificate"] == "ok"
    assert printed["cause"] == ""


@pytest.mark.parametrize(
    ("settings", "mode", "said"),
    [
        ("schema = 1\n[limits]\nthreads = 0\n", 0o700, "limits.threads = 0"),
        (
            'schema = 1\n[policy]\nallowed_apps = ["a"]\n[apps.a]\ndirectory = "gone"\n',
            0o700,
            "there is no directory",
        ),
        (
            'schema = 1\n[policy]\nallowed_apps = ["a"]\n[apps.a]\nclient = "no_such_one:app"\n',
            0o700,
            "Python finds no module no_such_one here",
        ),
        (DATA, 0o755, "is open to other users"),
        (
            'schema = 1\n[data.x]\nconnector = "cvs"\n',
            0o700,
            '[data.x] connector = "cvs": allowed: "csv", "parquet"',
        ),
        (
            'schema = 1\n[data.x]\nconnector = "csv"\nfiles = "gone.csv"\nlabel = "y"\n',
            0o700,
            "there is no file",
        ),
        (
            'schema = 1\n[data.x]\nconnector = "csv"\nfiles = "gone.csv"\nlable = "y"\n',
            0o700,
            "lable: unknown key; did you mean label?",
        ),
    ],
)
def test_check_says_what_is_not_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: str, mode: int, said: str
) -> None:
    node = make_node(tmp_path / "node", make_pki(), "localhost:1", settings=settings)
    node.directory.chmod(mode)
    assert fedsec(["node", "check", str(node.directory)]) == 1
    assert said in " ".join(capsys.readouterr().out.split())


def test_a_node_without_data_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = make_node(tmp_path / "node", make_pki(), "localhost:1")
    assert fedsec(["node", "check", str(node.directory)]) == 0
    assert "this node refuses every plan" in capsys.readouterr().out


def data_findings(directory: Path, settings: str, capsys: pytest.CaptureFixture[str]) -> str:
    node = make_node(directory / "node", make_pki(), "localhost:1", settings=settings)
    (node.directory / "s.csv").write_text("a,y\n1,0\n", encoding="utf-8")
    assert fedsec(["node", "check", str(node.directory)]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_check_looks_for_the_files_in_the_nodes_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = '[data.study]\nconnector = "csv"\nfiles = "*.csv"\nlabel = "y"\n'
    found = data_findings(tmp_path, f"schema = 1\n{table}", capsys)
    assert "data study ok csv, 1 file is there" in found
    assert "policy.allowed_tasks lacks table, so plans with it are refused" in found


def test_check_leaves_connectors_of_ones_own_tasks_to_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    allowed = '[policy]\nallowed_tasks = ["hospital.ecg:task"]\n'
    found = data_findings(tmp_path, f'schema = 1\n{allowed}[data.e]\nconnector = "ecg"\n', capsys)
    assert 'data e note connector "ecg" is not looked at: it is for hospital.ecg:task' in found
