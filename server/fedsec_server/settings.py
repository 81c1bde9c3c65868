"""The coordinator's settings: `server.toml`, checked.

The file is written by ``fedsec server init`` with every key, its default and what it does.
"""

import json
import string
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from fedsec.errors import ConfigError
from fedsec.files import read_public
from fedsec.identity.invites import split_address
from fedsec.identity.leaves import Lifetimes, check_host
from fedsec.identity.names import check_federation
from fedsec.plan.reading import read_toml

Listener: TypeAlias = Literal["enrol", "fleet", "admin"]
LISTENERS: tuple[Listener, ...] = ("enrol", "fleet", "admin")
# Nodes come from other machines; the gate is the guard.
EVERYWHERE = "0.0.0.0"  # noqa: S104 # nosec B104
LOOPBACK = ("localhost", "127.0.0.1", "::1")
DEFAULT_PORT = 7443  # of the first listener; the others follow


def _listen_address(text: str) -> str:
    """Returns ``host:port``; port 0 stands for any free one, as tests want it."""
    host, _, port = text.rpartition(":")
    split_address(f"{host}:1" if port == "0" else text)
    return text


def _public_address(text: str) -> str:
    split_address(text)
    return text


def _host(text: str) -> str:
    check_host(text)
    return text


ListenAddress: TypeAlias = Annotated[str, AfterValidator(_listen_address)]
PublicAddress: TypeAlias = Annotated[str, AfterValidator(_public_address)]
Host: TypeAlias = Annotated[str, AfterValidator(_host)]
Federation: TypeAlias = Annotated[str, AfterValidator(check_federation)]
Hours: TypeAlias = Annotated[float, Field(gt=0, le=31 * 24)]
Reference: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]


def bare_host(address: str) -> str:
    """Returns the host of ``host:port``, without the brackets of an IPv6 address."""
    return address.rpartition(":")[0].removeprefix("[").removesuffix("]")


def is_wildcard(host: str) -> bool:
    """True for the addresses that stand for every interface."""
    return host in {EVERYWHERE, "::"}


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Listen(_Table):
    """Where the coordinator listens, ``host:port`` each."""

    enrol: ListenAddress = f"{EVERYWHERE}:{DEFAULT_PORT}"
    fleet: ListenAddress = f"{EVERYWHERE}:{DEFAULT_PORT + 1}"
    admin: ListenAddress = f"127.0.0.1:{DEFAULT_PORT + 2}"


class Advertise(_Table):
    """What others are told to connect to, where that is not `host` and the listener's port."""

    enrol: PublicAddress | None = None
    fleet: PublicAddress | None = None
    admin: PublicAddress | None = None


class LifetimeHours(_Table):
    """How long certificates live, in hours."""

    node_h: Hours = 8.0
    server_h: Hours = 24.0
    person_h: Hours = 12.0


class Limits(_Table):
    """Bounds on what peers can make the coordinator do.

    Attributes:
        max_nodes: Nodes that are invited or enrolled at a time.
        max_runs: Runs at a time; further ones wait.
        max_content_mb: Bulk content of one message, MiB.
        max_uploads: Uploads of one node at a time.
        max_uploads_mb: MiB of one node's uploads together, under way and not yet taken up by a
            run; at least `max_content_mb`.
        max_all_uploads_mb: MiB of all nodes' uploads together, counted in the same way; 0: half of
            the machine's memory.
        calls_per_s: Calls per identity; `calls_burst` may come at once.
        enrolments_per_s: Attempts to enrol per address; `enrolments_burst` may come at once.
    """

    max_nodes: Annotated[int, Field(ge=1, le=10_000)] = 1000
    max_runs: Annotated[int, Field(ge=1, le=100)] = 8
    max_content_mb: Annotated[int, Field(ge=1, le=1 << 20)] = 4096
    max_uploads: Annotated[int, Field(ge=1, le=64)] = 4
    max_uploads_mb: Annotated[int, Field(ge=1, le=1 << 26)] = 8192
    max_all_uploads_mb: Annotated[int, Field(ge=0, le=1 << 26)] = 0
    calls_per_s: Annotated[float, Field(gt=0, le=1e6)] = 50.0
    calls_burst: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    enrolments_per_s: Annotated[float, Field(gt=0, le=1e6)] = 3.0
    enrolments_burst: Annotated[int, Field(ge=1, le=1_000_000)] = 20

    @model_validator(mode="after")
    def _one_fits(self) -> Self:
        if self.max_uploads_mb < self.max_content_mb:
            raise ValueError(
                f"max_uploads_mb {self.max_uploads_mb} must be at least max_content_mb "
                f"{self.max_content_mb}, or no content of that size can come"
            )
        return self


class Privacy(_Table):
    """The most that all runs of this federation together may cost; no limit if left out.

    Attributes:
        epsilon: Of the budget.
        delta: At which it holds.
    """

    epsilon: Annotated[float, Field(gt=0, le=1000)] | None = None
    delta: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.epsilon is None) != (self.delta is None):
            raise ValueError("give both epsilon and delta, or neither")
        return self


class AppSettings(_Table):
    """A Flower app that plans may name: a directory, or an importable server app."""

    directory: str | None = None
    server: Reference | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.directory is None) == (self.server is None):
            raise ValueError("give either directory or server, not both and not neither")
        return self


class RootData(BaseModel):
    """Clean data of the coordinator's own. All but `connector` is for the task that reads it."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    connector: Annotated[str, Field(min_length=1, max_length=200)]

    @model_validator(mode="after")
    def _as_json(self) -> Self:
        try:
            json.dumps(self.options, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError(
                "holds a date, a time or a number that is not finite; write text"
            ) from None
        return self

    @property
    def options(self) -> Mapping[str, object]:
        """Every key of the table, `connector` too."""
        more: dict[str, object] = self.model_extra or {}
        return {"connector": self.connector, **more}


class ServerSettings(_Table):
    """All of `server.toml`.

    Attributes:
        federation: The trust domain, e.g. ``"hospitals.example"``.
        host: Name or IP address by which nodes reach the coordinator; in its certificate.
        also: Further names and addresses for its certificate.
        invite_valid_h: Hours for which an invite can be used.
        apps: By the name that plans use.
        data: What the coordinator itself trains on for rules that trust it, by the name that plans
            use.
    """

    federation: Federation
    host: Host
    also: Annotated[list[Host], Field(max_length=16)] = []
    invite_valid_h: Annotated[float, Field(gt=0, le=168)] = 24.0
    listen: Listen = Listen()
    advertise: Advertise = Advertise()
    lifetimes: LifetimeHours = LifetimeHours()
    limits: Limits = Limits()
    privacy: Privacy = Privacy()
    apps: Mapping[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")], AppSettings] = {}
    data: Mapping[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")], RootData
    ] = {}

    @classmethod
    def parse(cls, toml_text: str) -> "ServerSettings":
        """Returns the settings of a TOML text.

        Raises:
            ConfigError: Lists everything that is wrong: key path, value, what is allowed.
        """
        return read_toml(cls, toml_text, what="server.toml")

    @classmethod
    def load(cls, path: Path) -> "ServerSettings":
        """Returns the settings of a file; raises ConfigError as `parse` does, with its path."""
        try:
            text = read_public(path, limit=1 << 20).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not UTF-8 text") from error
        return read_toml(cls, text, what=str(path))

    def advertised(self, listener: Listener, port: int) -> str:
        """Returns ``host:port`` that others are told, `port` being the one listened on."""
        told: str | None = getattr(self.advertise, listener)
        bracketed = f"[{self.host}]" if ":" in self.host else self.host
        return told or f"{bracketed}:{port}"

    @property
    def certificate_hosts(self) -> tuple[str, ...]:
        """Every name and address by which the coordinator is reached; none is a wildcard.

        Those of this machine itself are among them: its own commands come that way.
        """
        addresses = [getattr(self.advertise, each) or "" for each in LISTENERS]
        addresses += [getattr(self.listen, each) for each in LISTENERS]
        hosts = [bare_host(each) for each in addresses if each]
        named = [host for host in hosts if not is_wildcard(host)]
        return tuple(dict.fromkeys([self.host, *self.also, *named, *LOOPBACK]))

    @property
    def certificate_lifetimes(self) -> Lifetimes:
        """Lifetimes as the identity package takes them."""
        return Lifetimes(
            node=timedelta(hours=self.lifetimes.node_h),
            server=timedelta(hours=self.lifetimes.server_h),
            person=timedelta(hours=self.lifetimes.person_h),
        )


def settings_text(federation: str, host: str, *, listen: str, port: int) -> str:
    """Returns the text of a new `server.toml` with every key explained.

    Args:
        federation: The trust domain.
        host: How nodes reach the coordinator.
        listen: Address of the interface for enrol and fleet, e.g. ``"0.0.0.0"``.
        port: Of the enrol listener; fleet and admin get the next two. 0: any free ones.

    Raises:
        ConfigError: A value is out of range.
    """
    ports = [port + i if port else 0 for i in range(len(LISTENERS))]
    bracketed = f"[{listen}]" if ":" in listen else listen
    text = _TEMPLATE.substitute(
        federation=federation,
        host=host,
        enrol=f"{bracketed}:{ports[0]}",
        fleet=f"{bracketed}:{ports[1]}",
        admin=f"127.0.0.1:{ports[2]}",
    )
    ServerSettings.parse(text)
    return text


_TEMPLATE = string.Template("""\
# Settings of a fedsec coordinator. What is commented out shows its default.
# They are read at the start: after a change, restart the coordinator.

# The federation's name: the trust domain in every certificate. The root decides it.
federation = "$federation"

# The name or IP address by which nodes reach this machine. It is in the coordinator's
# certificate and in every invite. Further names for the certificate go into `also`.
host = "$host"
# also = ["10.0.0.5"]

# How many hours an invite can be used.
# invite_valid_h = 24.0

[listen]
# Nodes make first contact here; nobody needs a certificate for that.
enrol = "$enrol"
# Nodes work here; only certificates of the nodes' CA get in.
fleet = "$fleet"
# People give commands here; only certificates of the people's CA get in. Make it another
# address than 127.0.0.1 if people are to give commands from other machines.
admin = "$admin"

[advertise]
# host:port that others are told, where a proxy or port mapping makes it another than
# `host` and the port above.
# enrol = "fed.example:443"
# fleet = "fed.example:444"
# admin = "fed.example:445"

[lifetimes]
# Hours that certificates live. Nodes and the coordinator renew theirs at half of it.
# node_h = 8.0
# server_h = 24.0
# person_h = 12.0

[limits]
# Nodes invited or enrolled at a time.
# max_nodes = 1000
# Runs at a time; further ones wait.
# max_runs = 8
# Bulk content of one message, MiB.
# max_content_mb = 4096
# Uploads of one node at a time.
# max_uploads = 4
# MiB of one node's uploads together, finished or not; at least max_content_mb.
# max_uploads_mb = 8192
# MiB of all nodes' uploads together, finished or not; 0 stands for half of this machine's memory,
# so say it where a container has less. A node for which there is no room tries again until its
# answer is due: too little makes large fleets slow. What a run has taken over is not counted, so
# keep max_content_mb near to your largest model.
# max_all_uploads_mb = 0
# Calls per second of one identity, and how many may come at once.
# calls_per_s = 50.0
# calls_burst = 200
# Attempts to enrol per second from one address, and how many may come at once.
# enrolments_per_s = 3.0
# enrolments_burst = 20

[privacy]
# The most differential privacy that all private runs together may cost, as epsilon at
# delta; without them there is no limit. `fedsec ledger show` tells what is spent.
# epsilon = 10.0
# delta = 1e-6

# Flower apps that plans may name in [app] name. Each has a table: the app's directory (with
# its pyproject.toml), or an importable server app.
# [apps.my-app]
# directory = "/srv/apps/my-app"
# [apps.other]
# server = "my_package.server_app:app"

# Clean data of the coordinator's own. For rules that trust it ("fltrust", "monna") it trains on
# them in each round, as a node would; a plan names them as robust.root. The keys are those of a
# node's data sets (`fedsec node data reference`); relative names begin in this directory.
# [data.clean]
# connector = "csv"
# files = ["clean.csv"]
# label = "outcome"
""")
