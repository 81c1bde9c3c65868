"""Root, coordinator and nodes: commands as typed, against a coordinator in its own process."""

import socket
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedsec.identity.invites import Invite
from fedsec_server.init import load_root
from fedsec_server.layout import Listening
from fedsec_server.settings import ServerSettings
from tests.server.commandrig import MAIN, Fedsec, on_terminal
from tests.server.coordinatorrig import PASSPHRASE, Place, Program, make_place

SECRET = PASSPHRASE.decode()


# --- ca init, server init ----------------------------------------------------------------------


def test_a_root_and_a_coordinator_are_made(
    fedsec: Fedsec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDSEC_CA_PASSPHRASE", SECRET)
    root, server = tmp_path / "root", tmp_path / "server"
    made = fedsec("ca", "init", root, "--federation", "hospitals.example")
    assert (made.code, made.err) == (0, "")
    assert "The root of hospitals.example is in" in made.out
    assert "Fingerprint: " in made.out
    init = fedsec("server", "init", server, "--root", root, "--host", "fed.example", "--json")
    assert init.code == 0
    assert isinstance(init.json, dict)
    assert init.json["federation"] == "hospitals.example"
    assert sorted(init.json["fingerprints"]) == ["node", "person", "server"]
    text = (server / "server.toml").read_text()
    assert ServerSettings.parse(text).host == "fed.example"
    assert "# Nodes make first contact here" in text
    assert SECRET not in made.out + init.out + text
    human = fedsec("server", "init", tmp_path / "s2", "--root", root, "--host", "fed.example")
    assert "Next: fedsec server start" in human.out
    assert stat.S_IMODE((tmp_path / "s2").stat().st_mode) == 0o700


def test_a_passphrase_comes_from_a_private_file(fedsec: Fedsec, tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_text(f"{SECRET}\nnot this line\n")
    file.chmod(0o644)
    refused = fedsec("ca", "init", tmp_path / "root", "--passphrase-file", file)
    assert refused.code == 2
    assert "chmod 600" in refused.err
    file.chmod(0o600)
    made = fedsec("ca", "init", tmp_path / "root", "--passphrase-file", file, "--json")
    assert made.code == 0
    assert isinstance(made.json, dict)
    assert load_root(tmp_path / "root", PASSPHRASE).fingerprint == made.json["fingerprint"]


@pytest.mark.parametrize(
    ("passphrase", "sentence"),
    [("short", "want 12 or more"), ("", "want 12 or more"), (None, "nobody is there to be asked")],
)
def test_a_bad_passphrase_makes_nothing(
    fedsec: Fedsec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    passphrase: str | None,
    sentence: str,
) -> None:
    if passphrase is not None:
        monkeypatch.setenv("FEDSEC_CA_PASSPHRASE", passphrase)
    result = fedsec("ca", "init", tmp_path / "root")
    assert result.code == 2
    assert sentence in result.err
    assert not (tmp_path / "root").exists()


@pytest.mark.slow
def test_a_passphrase_is_asked_for_twice(tmp_path: Path) -> None:
    """On a real terminal; what is typed is not shown."""
    command = MAIN, "ca", "init", str(tmp_path / "root")
    shown = on_terminal(
        [sys.executable, "-c", *command],
        [
            (b"key: ", SECRET),
            (b"confirmation: ", "another one"),
            (b"key: ", SECRET),
            (b"confirmation: ", SECRET),
        ],
    )
    assert b"The root of federation.example" in shown
    assert b"do not match" in shown
    assert SECRET.encode() not in shown
    load_root(tmp_path / "root", PASSPHRASE)


def test_what_lies_in_the_way_is_named(fedsec: Fedsec, place: Place, tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_text(SECRET)
    file.chmod(0o600)
    root = place.layout.directory.parent / "root"
    options = ("--root", root, "--host", "h.example", "--passphrase-file", file)
    for directory, sentence in [
        (place.layout.directory, "is not empty"),
        (root / "server", "must lie apart"),
        (root.parent, "must lie apart"),
    ]:
        result = fedsec("server", "init", directory, *options)
        assert result.code == 2
        assert sentence in result.err
    wrong = fedsec(
        "server", "init", tmp_path / "s", "--root", tmp_path / "none", "--host", "h", *options[4:]
    )
    assert "holds no root key" in wrong.err


# --- server start, server status ---------------------------------------------------------------


@pytest.mark.slow
def test_a_root_key_keeps_the_coordinator_from_starting(tmp_path: Path) -> None:
    layout = make_place(tmp_path).layout
    (layout.runs / "copy.pem").write_bytes((tmp_path / "root" / "root.key.pem").read_bytes())
    command = MAIN, "server", "start", str(layout.directory)
    done = subprocess.run(
        [sys.executable, "-c", *command], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert "copy.pem holds an encrypted private key" in done.stderr
    assert "Traceback" not in done.stderr
    assert not layout.listening.exists()


def test_start_wants_a_coordinators_directory(fedsec: Fedsec, tmp_path: Path) -> None:
    for words in ((tmp_path,), ()):
        result = fedsec("server", "start", *words)
        assert result.code == 2
        assert "holds no server.toml; make one with `fedsec server init" in result.err


def test_status_of_a_running_coordinator(fedsec: Fedsec, server: Path) -> None:
    result = fedsec("server", "status", "--dir", server, "--json")
    assert result.code == 0
    assert isinstance(result.json, dict)
    assert (result.json["running"], result.json["federation"]) == (True, "fed.example")
    human = fedsec("server", "status", "--dir", server)
    assert fedsec("server", "status", server, "--json").json == result.json
    assert "running since" in human.out


@pytest.mark.parametrize("option", ["--dir", "--credentials"])
def test_status_is_asked_of_one_coordinator(
    fedsec: Fedsec, server: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = fedsec("server", "status", server, option, "elsewhere")
    assert both.code == 2
    assert "give only one of DIR, --dir and --credentials" in both.err
    for variable in ("FEDSEC_SERVER_DIR", "FEDSEC_CREDENTIALS"):  # less than what is typed
        monkeypatch.setenv(variable, "elsewhere")
    assert fedsec("server", "status", server, "--json").code == 0


def test_status_of_one_that_does_not_run(fedsec: Fedsec, tmp_path: Path) -> None:
    layout = make_place(tmp_path).layout
    result = fedsec("server", "status", "--dir", layout.directory)
    assert (result.code, result.err) == (1, "")
    assert f"is not running; start it with `fedsec server start {layout.directory}`" in result.out
    # killed: its note of where it listens is still there, but nobody listens
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    addresses = {"enrol": "127.0.0.1:1", "fleet": "127.0.0.1:1", "admin": f"127.0.0.1:{port}"}
    Listening(1, addresses).write(layout)  # type: ignore[arg-type]
    result = fedsec("server", "status", "--dir", layout.directory, "--json")
    assert result.code == 1
    assert isinstance(result.json, dict)
    assert result.json["running"] is False
    assert "is not running" in str(result.json["reason"])
    other = fedsec("node", "list", "--dir", layout.directory)
    assert other.code == 2
    assert "is not running; start it with" in other.err


# --- node --------------------------------------------------------------------------------------


def test_a_node_is_invited_shown_and_revoked(fedsec: Fedsec, server: Path) -> None:
    at = ("--dir", server)
    invited = fedsec("node", "invite", "clinic-7", *at)
    assert invited.code == 0
    assert Invite.decode(invited.out).address.startswith("localhost:")
    assert "Good for one use until" in invited.err
    again = fedsec("node", "invite", "clinic-7", *at)
    assert (again.code, again.out) == (2, "")
    assert "has an invite that is good until" in again.err
    listed = fedsec("node", "list", *at, "--json")
    assert isinstance(listed.json, list)
    (node,) = [each for each in listed.json if each["name"] == "clinic-7"]
    assert (node["state"], node["connected"], node["enrolled_at"]) == ("invited", False, None)
    assert isinstance(node["node_id"], str)
    assert "clinic-7  invited" in fedsec("node", "list", *at).out
    shown = fedsec("node", "show", "clinic-7", *at)
    assert "spiffe://fed.example/node/" in shown.out
    assert "node-invited" in shown.out
    as_json = fedsec("node", "show", "clinic-7", *at, "--json")
    assert isinstance(as_json.json, dict)
    assert as_json.json["event"][0]["detail"]["name"] == "clinic-7"
    revoked = fedsec("node", "revoke", "clinic-7", "--reason", "a test", *at)
    assert (revoked.code, revoked.out) == (0, "Node clinic-7 is revoked.\n")
    twice = fedsec("node", "revoke", "clinic-7", *at)
    assert twice.code == 2
    assert "is revoked already, since" in twice.err


def test_invites_have_the_length_that_was_asked_for(fedsec: Fedsec, server: Path) -> None:
    result = fedsec("node", "invite", "clinic-8", "--valid-h", "0.5", "--dir", server, "--json")
    assert isinstance(result.json, dict)
    left = result.json["expires_at"] - datetime.now(UTC).timestamp()
    assert 1700 < left <= 1800
    too_long = fedsec("node", "invite", "clinic-9", "--valid-h", "1000", "--dir", server)
    assert "at most 168 hours (7 days), got 1000" in too_long.err
    nothing = fedsec("node", "invite", "clinic-9", "--valid-h", "0", "--dir", server)
    assert (nothing.code, nothing.err) == (2, "Error: --valid-h must be more than 0\n")


def test_unknown_names_are_told(fedsec: Fedsec, server: Path) -> None:
    for command in ("show", "revoke"):
        result = fedsec("node", command, "nobody", "--dir", server)
        assert result.code == 2
        assert "no node is called 'nobody'; `fedsec node list` shows all" in result.err
    assert "must be 1 to 63 characters" in fedsec("node", "invite", "No Name", "--dir", server).err


@pytest.mark.slow
def test_empty_lists_say_what_to_do(fedsec: Fedsec, tmp_path: Path) -> None:
    place = make_place(tmp_path)
    with Program(place.layout) as program:
        program.until_listening()
        at = ("--dir", place.layout.directory)
        assert fedsec("node", "list", *at).out == (
            "No nodes yet; invite one with `fedsec node invite NAME`.\n"
        )
        assert fedsec("run", "list", *at).out == (
            "No runs yet; submit one with `fedsec run submit PLAN.toml`.\n"
        )
        assert fedsec("node", "list", *at, "--json").json == []
        assert fedsec("run", "list", *at, "--json").json == []
        assert "no runs yet" in fedsec("run", "watch", "last", *at).err
