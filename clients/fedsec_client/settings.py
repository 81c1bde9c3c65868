"""What a site allows and lends: `node.toml`, read and checked as a whole.

The file belongs to the people who run the node. Nothing that a coordinator sends can change it.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from fedsec.errors import ConfigError
from fedsec.plan import BUILT_IN_APP
from fedsec.plan.reading import list_problems, read_toml
from fedsec.secagg.parameters import Minima

FILE_NAME = "node.toml"
MAX_FILE_BYTES = 1 << 20
MEBIBYTE = 1 << 20

Scalar: TypeAlias = StrictBool | StrictInt | StrictFloat | StrictStr
Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Reference: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
TaskName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][\w.:-]{0,199}$")]
Variable: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=604_800)]


class _Table(BaseModel):
    """A table of the file: fixed once read, and a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Limits(_Table):
    """What one worker and one message may use.

    Args:
        memory_mb: Memory of its own that a worker may hold, MiB; 0 sets no limit.
        threads: Threads of numerical libraries, and of masks, in a worker.
        task_s: Longest work on one message, seconds.
        load_s: Longest start of a worker, seconds; importing an app counts.
        max_content_mb: Largest content of one message, either way, MiB.
        content_total_mb: Content of all messages together that the agent keeps in memory, MiB.
        max_runs: Runs that take part here at the same time.
        log_mb: Largest `worker.log` of a run, MiB; the one before it is kept too.
        environment: Further variables of the agent's environment that workers see.
    """

    memory_mb: Annotated[int, Field(ge=0, le=1 << 24)] = 4096
    threads: Annotated[int, Field(ge=1, le=1024)] = 2
    task_s: Seconds = 3600.0
    load_s: Seconds = 120.0
    max_content_mb: Annotated[int, Field(ge=1, le=1 << 16)] = 512
    content_total_mb: Annotated[int, Field(ge=1, le=1 << 18)] = 1024
    max_runs: Annotated[int, Field(ge=1, le=64)] = 4
    log_mb: Annotated[int, Field(ge=1, le=1024)] = 4
    environment: list[Variable] = []

    @property
    def max_content_bytes(self) -> int:
        """Largest content of one message, bytes."""
        return self.max_content_mb * MEBIBYTE

    @property
    def content_total_bytes(self) -> int:
        """Content of all messages together, bytes."""
        return self.content_total_mb * MEBIBYTE


class Budget(_Table):
    """The most that all runs together may cost this node: `epsilon` at `delta`.

    For each unit by itself: releases that hide the node's whole update, and those that hide single
    examples. Where a node takes part in both, a record is in both.
    """

    epsilon: Annotated[float, Field(gt=0, le=1000)]
    delta: Annotated[float, Field(gt=0, lt=1)]


class PrivacyBudget(_Table):
    """Caps on the two columns of this node's privacy ledger; one left out sets no limit.

    Args:
        enforced: On what this node's own software vouches for.
        promised: On what the coordinator promises.
    """

    enforced: Budget | None = None
    promised: Budget | None = None


class Policy(_Table):
    """What a plan may ask of this site.

    Args:
        allowed_apps: Names of apps that plans may use; ``"fedsec"`` is the built-in one.
        allowed_tasks: Tasks of the built-in app, by name or as ``module:attribute``.
        min_nodes: A plan must need the answers of at least so many nodes in each round.
        max_rounds: A plan of more rounds is refused; 0 sets no limit.
        secure_aggregation: What a plan's secure sum must withstand at least: ``"off"`` asks for
            none, ``"semi-honest"`` for any, ``"malicious"`` for one that needs no trust in the
            coordinator.
        visibility: The most that the coordinator may see of a round: ``"each"`` update, sums of
            ``"groups"`` of nodes, or one ``"sum"``.
        min_cohort: Least nodes in a round with a secure sum.
        min_group: Least nodes of a group, where each group of a round has a sum of its own: as
            drawn, and of those that are there when a sum begins.
        min_neighbours: Least nodes with which this one exchanges masks there; k.
        min_threshold: Least shares that open a secret of this node there; t.
        max_attempts: Most attempts at a round there; 0 sets no limit.
        min_word_bits: Least bits of the words that are added there.
        max_clip: Largest L2 norm to which an update may be clipped there; 0 sets no limit.
        privacy: The least that a plan must have: ``"none"``; ``"promised"``: some [privacy];
            ``"enforced"``: a model that this node carries out itself (local, distributed, example).
        budget: The most privacy that all runs together may cost.
    """

    allowed_apps: list[Name] = [BUILT_IN_APP]
    allowed_tasks: list[TaskName] = ["digits"]
    min_nodes: Annotated[int, Field(ge=1, le=100_000)] = 2
    max_rounds: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    secure_aggregation: Literal["off", "semi-honest", "malicious"] = "off"
    visibility: Literal["each", "groups", "sum"] = "each"
    min_cohort: Annotated[int, Field(ge=1, le=100_000)] = 4
    min_group: Annotated[int, Field(ge=1, le=100_000)] = 4
    min_neighbours: Annotated[int, Field(ge=0, le=100_000)] = 0
    min_threshold: Annotated[int, Field(ge=0, le=100_000)] = 0
    max_attempts: Annotated[int, Field(ge=0, le=1_000)] = 0
    min_word_bits: Literal[16, 32] = 16
    max_clip: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    privacy: Literal["none", "promised", "enforced"] = "none"
    budget: PrivacyBudget = PrivacyBudget()

    @property
    def minima(self) -> Minima:
        """What a round with a secure sum must have, whatever the plan says."""
        return Minima(
            self.min_cohort,
            self.min_neighbours,
            self.min_threshold,
            group=self.min_group,
            attempts=self.max_attempts,
        )


class App(_Table):
    """A Flower app that the operator installed: its directory, or an importable client.

    Args:
        directory: Of the app, with its `pyproject.toml`; relative to the node's directory.
        client: ``module:attribute`` of a `ClientApp` that Python can import.
    """

    directory: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    client: Reference | None = None


class DataSet(BaseModel):
    """A data set of this site. All but `connector` is for the task that reads it."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    connector: Annotated[str, Field(min_length=1, max_length=200)]

    @property
    def options(self) -> Mapping[str, object]:
        """Every key of the table, `connector` too."""
        more: dict[str, Any] = self.model_extra or {}
        return {"connector": self.connector, **more}


class NodeSettings(_Table):
    """The whole of `node.toml`.

    Args:
        schema_version: Of this file's form; ``schema`` in the file.
        limits: What a worker may use.
        policy: What a plan may ask.
        data: Data sets by the name that plans use.
        apps: Flower apps by the name that plans use.
        node_config: Handed to every app as `context.node_config`.
    """

    schema_version: Literal[1] = Field(alias="schema")
    limits: Limits = Limits()
    policy: Policy = Policy()
    data: dict[Name, DataSet] = {}
    apps: dict[Name, App] = {}
    node_config: dict[str, Scalar] = {}

    @classmethod
    def parse(cls, text: str) -> "NodeSettings":
        """Returns the settings of a `node.toml`.

        Raises:
            ConfigError: No TOML, or values that are not allowed; names all of them.
        """
        settings = read_toml(cls, text, what=FILE_NAME, max_bytes=MAX_FILE_BYTES)
        problems = list(_contradictions(settings))
        if problems:
            raise ConfigError(list_problems(FILE_NAME, problems))
        return settings

    @classmethod
    def load(cls, directory: Path) -> "NodeSettings":
        """Returns the settings of the node that lives in `directory`.

        Raises:
            ConfigError: The file is missing, unreadable, too big, or wrong.
        """
        path = directory / FILE_NAME
        try:
            with path.open("rb") as file:
                return cls.parse(file.read(MAX_FILE_BYTES + 1).decode())
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be read: {error.strerror}; `fedsec node join` writes it"
            ) from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path} is not UTF-8 text") from None


def _contradictions(settings: NodeSettings) -> Iterator[str]:
    limits = settings.limits
    if limits.content_total_mb < limits.max_content_mb:
        yield (
            f"limits.content_total_mb = {limits.content_total_mb}: holds not even one message of "
            f"limits.max_content_mb = {limits.max_content_mb}"
        )
    policy = settings.policy
    if policy.privacy == "none" and policy.budget != PrivacyBudget():
        yield (
            "policy.budget: a plan without [privacy] would pass it by; set policy.privacy to "
            '"promised" or "enforced"'
        )
    for name, app in settings.apps.items():
        if name == BUILT_IN_APP:
            yield f"apps.{name}: the name is taken by the built-in app; choose another"
        if (app.directory is None) == (app.client is None):
            yield f"apps.{name}: needs either `directory` or `client`, and not both"
    for name, data in settings.data.items():
        try:
            json.dumps(data.options, allow_nan=False)
        except (TypeError, ValueError):
            yield f"data.{name}: holds a date, a time or a number that is not finite; write text"
    for name in policy.allowed_apps:
        if name != BUILT_IN_APP and name not in settings.apps:
            yield f'policy.allowed_apps: "{name}" has no table [apps.{name}]'


def example(*, threads: int = 2, data: str | None = None) -> str:
    """Returns a commented `node.toml` with safe values.

    Args:
        threads: Written as limits.threads.
        data: TOML of the tables of data sets. None writes one as a comment: such a node trains
            on nothing until its operator has named data.

    >>> NodeSettings.parse(example()).policy.allowed_apps
    ['fedsec']
    """
    tables = _NO_DATA if data is None else data.strip()
    return _EXAMPLE.format(threads=f"{threads:<9}", data=tables)


_NO_DATA = """\
# [data.digits]
# connector = "digits"      # scikit-learn's 1,797 handwritten digits
# partition = 0             # this node's part of them, of
# partitions = 10
#
# [data.trial]              # files of your own, for the task "table"
# connector = "csv"         # or "parquet"; images: "idx", "npz", "folder"
# files = ["records.csv"]   # relative names begin in this directory
# label = "outcome"         # the column to be learned; the others become inputs
# `fedsec node data reference` lists every key, `fedsec node data check trial` reads the files."""

_EXAMPLE = """\
# What this node lends to the federation, and what it allows. The file is yours: the coordinator
# cannot change it. After a change run `fedsec node check DIR` and start the node again.
schema = 1

[limits]
memory_mb = 4096          # memory of its own that one worker may hold; 0: no limit
threads = {threads}       # threads of numerical libraries, and of masks, in a worker
task_s = 3600             # longest work on one message, in seconds
load_s = 120              # longest start of a worker, in seconds
max_content_mb = 512      # largest content of one message, either way
content_total_mb = 1024   # content of all messages that the agent keeps in memory
max_runs = 4              # runs that take part here at the same time
log_mb = 4                # largest worker.log of a run
environment = []          # further variables that workers see, e.g. "CUDA_VISIBLE_DEVICES"

[policy]
# "fedsec" is the built-in app: it trains the tasks below on the data sets below, nothing else.
# Another app must be named here and have a table [apps.NAME].
allowed_apps = ["fedsec"]
# Tasks of the built-in app: "digits" (harmless: its data set is public and comes along), "table",
# "images", "breast-cancer". Add "table" or "images" once you have named data of your own below.
# One of your own is named as "module:attribute"; it must be installed on this machine.
allowed_tasks = ["digits"]
min_nodes = 2             # a plan must need the answers of at least so many nodes in each round
max_rounds = 0            # longest plan, in rounds; 0: no limit
# "off" takes part whether or not the coordinator sees this node's update by itself; "semi-honest"
# asks for a secure sum; "malicious" for one without trust in the coordinator: nodes know
# each other by a roster that the federation's root has signed.
secure_aggregation = "off"
# The most that the coordinator may see of a round: "each" update, the sums of "groups" of nodes, or
# one "sum" of all.
visibility = "each"
min_cohort = 4            # least nodes in a round with a secure sum
min_group = 4             # least nodes that begin the sum of a group, where groups have sums
min_neighbours = 0        # least nodes with which this one exchanges masks
min_threshold = 0         # least shares that open a secret of this node
max_attempts = 0          # most tries at a round, as two sums of one may tell an update; 0: any
min_word_bits = 16        # of the words that are added: 16 or 32
max_clip = 0              # largest L2 norm to which an update may be clipped; 0: no limit
# Least differential privacy of a plan: "none"; "promised": the coordinator may be the one who adds
# the noise; "enforced": this node does (local, distributed or example-level privacy).
privacy = "none"
# The most that all runs together may cost, by who vouches for it; counted apart for runs that hide
# the whole node and for those that hide single examples. `fedsec ledger show DIR` tells what is
# spent.
# [policy.budget]
# enforced = {{ epsilon = 8.0, delta = 1e-6 }}
# promised = {{ epsilon = 8.0, delta = 1e-6 }}

# Data sets, by the name that a plan uses (`data = "digits"` under its [task]). `connector` says
# of what kind it is; the other keys are for the task that reads it.
{data}

# Flower apps that you installed and reviewed. Code never comes over the wire.
# [apps.my-app]
# directory = "/opt/apps/my-app"        # holds a pyproject.toml with [tool.flwr.app]
# [apps.other]
# client = "package.module:app"         # a ClientApp that Python can import

# Handed to every app as context.node_config.
[node_config]
"""
