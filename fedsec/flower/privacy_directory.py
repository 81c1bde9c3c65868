"""What a node of a plain Flower app keeps of its privacy: a directory that its site made.

    DIR/budget.toml       epsilon and delta: the most that this node may ever release
    DIR/privacy.ledger    every release, charged before it leaves; `fedsec ledger show DIR`
    DIR/releases          the newest two, for whoever asks for them again
    DIR/lock              held by the process that releases

The node's own configuration names it, never the app or the coordinator. Each node has its own:

    flower-supernode --node-config 'fedsec-privacy="/var/lib/fedsec/privacy"' ...
"""

import fcntl
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fedsec.errors import ConfigError, PolicyRefusal
from fedsec.files import PRIVATE_FILE, check_private_directory, check_private_file, read_public
from fedsec.ledgerfile import LedgerFile
from fedsec.privacy.ledger import Budget
from fedsec.releases import Releases

PRIVACY = "fedsec-privacy"
"""Key in ``node_config`` that names the directory."""

BUDGET, LEDGER, RELEASES, LOCK = "budget.toml", "privacy.ledger", "releases", "lock"

_REMEDY = (
    "make one (mkdir -m 700 /path), write the most that this node may ever release into its "
    f"{BUDGET} (epsilon = 8.0, delta = 1e-5, a line each), and start the node with "
    f"--node-config '{PRIVACY}=\"/path\"'"
)


class Kept(NamedTuple):
    """What lies in a privacy directory.

    Attributes:
        ledger: Refuses what goes beyond the budget.
        releases: Of every run of this node.
    """

    ledger: LedgerFile
    releases: Releases


def locate(node_config: Mapping[str, object]) -> Path:
    """Returns the directory that the node's configuration names.

    Raises:
        PolicyRefusal: It names none, or one that depends on where the node was started.
    """
    named = node_config.get(PRIVACY)
    if not isinstance(named, str) or not named:
        raise PolicyRefusal(
            "local privacy needs a directory that outlasts this process: without one, what was "
            f"spent would be forgotten at every restart. This node's node_config names none; "
            f"{_REMEDY}"
        )
    if not Path(named).is_absolute():
        raise PolicyRefusal(f"{PRIVACY} = {named!r}: name the directory from the root on, as /path")
    return Path(named)


@contextmanager
def hold(directory: Path) -> Iterator[Kept]:
    """Yields what the node keeps, to one thread of one process at a time; waits for its turn.

    Two that answered the same at once would draw two noises for one charge.

    Raises:
        ConfigError: A file is missing, open to others, or cannot be read; says what to do.
    """
    check_private_directory(directory)
    budget = _read_budget(directory / BUDGET)
    with _locked(directory / LOCK):
        yield Kept(
            LedgerFile(directory / LEDGER, {"enforced": budget}), Releases(directory / RELEASES)
        )


def _read_budget(path: Path) -> Budget:
    if not os.path.lexists(path):
        raise ConfigError(
            f"{path} is missing: write the most that this node may ever release into it, e.g. "
            "epsilon = 8.0 and delta = 1e-5, a line each"
        )
    try:
        table = tomllib.loads(read_public(path).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
    if set(table) != {"epsilon", "delta"}:
        raise ConfigError(f"{path} must say epsilon and delta, and nothing else: {sorted(table)}")
    for name, value in table.items():
        if type(value) not in {int, float}:
            raise ConfigError(f"{path}: {name} must be a number, got {value!r}")
    try:
        return Budget(float(table["epsilon"]), float(table["delta"]), str(path))
    except (ConfigError, OverflowError) as error:
        raise ConfigError(f"{path}: {error}") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, PRIVATE_FILE)
    except OSError as error:
        raise ConfigError(f"cannot open {path}: {error.strerror}") from error
    try:
        check_private_file(path, os.fstat(descriptor))
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # and with it the lock
