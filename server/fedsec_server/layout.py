"""Where everything lies in a coordinator's directory.

DIR/server.toml               settings
DIR/ca/root.cert.pem          the federation's root, certificate only
DIR/ca/KINDs.{cert,key}.pem   the three issuing authorities: servers, nodes, people
DIR/ca/KINDs.former.*.pem     the one before, while both are trusted
DIR/ca/KINDs.next.*.pem       the one to come, while files are being changed
DIR/roster                    which nodes there are, signed by the root; once published
DIR/state.sqlite              nodes, invites, certificates, runs, events
DIR/runs/RUN_ID/              plan.toml, models/, run.log
DIR/privacy.ledger            what releases have cost, hash-chained
DIR/server.log                one JSON object per line
DIR/server.lock               held while the coordinator runs
DIR/listening.json            where it listens, while it runs
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedsec.errors import ConfigError, StateError
from fedsec.files import read_private, write_private
from fedsec.identity.names import Kind
from fedsec_server.settings import LISTENERS, Listener, ServerSettings

Which = Literal["", ".former", ".next"]  # of the authorities for one kind

PLURALS = {Kind.SERVER: "servers", Kind.NODE: "nodes", Kind.PERSON: "people"}


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one coordinator's directory. Makes and reads nothing by itself."""

    directory: Path

    @property
    def settings(self) -> Path:
        """`server.toml`."""
        return self.directory / "server.toml"

    @property
    def authorities(self) -> Path:
        """The directory of the authorities."""
        return self.directory / "ca"

    @property
    def root_certificate(self) -> Path:
        """The root's certificate; its key is never under this directory."""
        return self.authorities / "root.cert.pem"

    def issuer_certificate(self, kind: Kind, which: Which = "") -> Path:
        """The certificate of the issuing authority for `kind`."""
        return self.authorities / f"{PLURALS[kind]}{which}.cert.pem"

    def issuer_key(self, kind: Kind, which: Which = "") -> Path:
        """The private key of the issuing authority for `kind`."""
        return self.authorities / f"{PLURALS[kind]}{which}.key.pem"

    @property
    def roster(self) -> Path:
        """The newest signed roster."""
        return self.directory / "roster"

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.directory / "state.sqlite"

    @property
    def runs(self) -> Path:
        """The directory of all runs."""
        return self.directory / "runs"

    def run(self, run_id: int) -> Path:
        """The directory of one run: plan, models, log."""
        return self.runs / str(run_id)

    @property
    def ledger(self) -> Path:
        """The privacy ledger of the federation."""
        return self.directory / "privacy.ledger"

    @property
    def log(self) -> Path:
        """The structured log."""
        return self.directory / "server.log"

    @property
    def lock(self) -> Path:
        """Held by the coordinator, so that there is only one."""
        return self.directory / "server.lock"

    @property
    def listening(self) -> Path:
        """Where the coordinator listens; there while it runs."""
        return self.directory / "listening.json"


def find_coordinator(directory: Path) -> Layout:
    """Returns the layout of an existing coordinator's directory.

    Raises:
        ConfigError: There is no `server.toml`; the sentence says how to make one.
    """
    layout = Layout(directory)
    if not layout.settings.is_file():
        raise ConfigError(
            f"{directory} is no coordinator's directory: it holds no server.toml; make one with "
            f"`fedsec server init {directory} --root ROOTDIR --host NAME`, or name another "
            "directory"
        )
    return layout


class NotRunningError(StateError):
    """The coordinator does not run, or cannot be reached."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a running coordinator can be reached.

    Args:
        process: Its process id.
        addresses: ``host:port`` really listened on, by listener.
    """

    process: int
    addresses: Mapping[Listener, str]

    def write(self, layout: Layout) -> None:
        """Lets commands on this machine find the coordinator."""
        content = {"process": self.process, "addresses": dict(self.addresses)}
        write_private(layout.listening, json.dumps(content).encode())

    @staticmethod
    def read(layout: Layout) -> "Listening":
        """Returns where the coordinator of a directory listens.

        It may have been killed since: then nothing answers there.

        Raises:
            NotRunningError: It does not run.
            ConfigError: The file is damaged.
        """
        if not layout.listening.exists():
            raise not_running(layout)
        try:
            content = json.loads(read_private(layout.listening, limit=4096))
            process = int(content["process"])
            addresses = {each: str(content["addresses"][each]) for each in LISTENERS}
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{layout.listening} is damaged; stop the coordinator, remove it, start again"
            ) from error
        return Listening(process, addresses)


def not_running(layout: Layout) -> NotRunningError:
    """Returns the error for a coordinator that does not run."""
    return NotRunningError(
        f"the coordinator of {layout.directory} is not running; start it with "
        f"`fedsec server start {layout.directory}`"
    )


def load_settings(layout: Layout) -> ServerSettings:
    """Returns the settings of the directory; raises ConfigError as `ServerSettings.load`."""
    return ServerSettings.load(layout.settings)
