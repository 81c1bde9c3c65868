"""The service file fits the program that it starts."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from fedsec_client.agent import ExitCode

UNIT = Path(__file__).parents[2] / "clients" / "deploy" / "fedsec-node.service"


def settings(section: str) -> dict[str, list[str]]:
    """Returns a section's settings; a key that comes several times has several values."""
    found: dict[str, list[str]] = {}
    here = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            here = line.strip("[]")
        elif here == section and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_codes_that_need_a_person_do_not_restart_it() -> None:
    (codes,) = settings("Service")["RestartPreventExitStatus"]
    assert [int(code) for code in codes.split()] == sorted(code for code in ExitCode if code)


def test_it_starts_the_agent_in_its_own_directory_only() -> None:
    service = settings("Service")
    (command,) = service["ExecStart"]
    assert command.endswith("fedsec node start /var/lib/fedsec-node")
    assert service["ReadWritePaths"] == ["/var/lib/fedsec-node"]
    assert service["StateDirectoryMode"] == ["0700"]
    assert service["CapabilityBoundingSet"] == [""]
    assert service["NoNewPrivileges"] == ["yes"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_it() -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", str(UNIT)], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if "not executable" not in line]
    assert complaints == []


def test_it_is_an_ini_file() -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    assert set(parser.sections()) == {"Unit", "Service", "Install"}
