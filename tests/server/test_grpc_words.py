"""Whose wish GRPC_VERBOSITY is, and what the coordinator makes of it."""

import os
import subprocess
import sys

import pytest

from fedsec_server.grpc_words import asked_for


@pytest.mark.parametrize("value", ["DEBUG", "debug", "INFO", "Info"])
def test_an_operator_who_wants_to_see_grpcs_words(value: str) -> None:
    assert asked_for({"GRPC_VERBOSITY": value})


@pytest.mark.parametrize("environment", [{}, *({"GRPC_VERBOSITY": each} for each in ("", "error"))])
def test_silence_is_no_such_wish(environment: dict[str, str]) -> None:
    assert not asked_for(environment)


@pytest.mark.parametrize(
    ("set_to", "asked", "then"),
    [("debug", True, "debug"), ("info", True, "info"), ("ERROR", False, "INFO")],
)
def test_a_coordinator_lets_grpc_speak_and_leaves_a_wish_as_it_is(
    set_to: str, asked: bool, then: str
) -> None:
    script = (
        "import os, sys, typer\nsys.argv = ['fedsec', 'server', 'start']\n"
        "from fedsec_server.commands import fill_server\nfill_server(typer.Typer())\n"
        "from fedsec_server import program\n"
        "print(program.ASKED, os.environ['GRPC_VERBOSITY'])\n"
    )
    environment = {**os.environ, "GRPC_VERBOSITY": set_to}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, timeout=60, env=environment
    )
    assert done.stdout.decode().split() == [str(asked), then]
