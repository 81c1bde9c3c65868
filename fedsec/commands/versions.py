"""`fedsec version`."""

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

from fedsec import __version__
from fedsec.console import Json, emit_json, say

PACKAGES = ("flwr", "torch", "numpy", "grpcio", "cryptography", "protobuf", "pydantic")


def version(*, as_json: Json = False) -> None:
    """Print the versions of fedsec, of Python and of what fedsec stands on."""
    versions = {"fedsec": __version__, "python": platform.python_version()}
    versions |= {name: _installed(name) for name in PACKAGES}
    versions["system"] = f"{platform.system()} {platform.machine()}"
    if as_json:
        emit_json(versions)
        return
    for name, found in versions.items():
        say(f"{name:<13} {found}")


def _installed(name: str) -> str:
    try:
        return installed(name)
    except PackageNotFoundError:
        return "not installed"
