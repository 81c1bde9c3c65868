"""What several of the node's commands take."""

import sys
from pathlib import Path
from typing import Annotated

import typer

MAX_INVITE = 4096  # characters read from stdin

NodeDirectory = Annotated[
    Path, typer.Argument(metavar="DIR", help="Of the node.", show_default=False)
]


def read_invite(text: str) -> str:
    """Returns the invite that was given; "-" means that it comes on stdin."""
    return sys.stdin.read(MAX_INVITE) if text == "-" else text
