"""`fedsec run`: plans that are trained."""

import asyncio
import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from fedsec.console import (
    Json,
    emit_json,
    examples,
    format_bytes,
    format_time,
    safe,
    say,
    show,
    table,
    warn,
)
from fedsec.errors import ConfigError, FedsecError
from fedsec.files import read_public
from fedsec.plan import FederationPlan
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.commands.progress import follow, node_names
from fedsec_server.commands.reach import CredentialsFile, Directory, Reach, reach
from fedsec_server.commands.rounds import Rounds
from fedsec_server.commands.shape import as_mapping, event_table, facts, moment
from fedsec_server.commands.standing import KIND, Standing

RunId = Annotated[
    str, typer.Argument(metavar="ID", help="Of the run, or 'last' for the newest one.")
]

_EVENTS = 20  # shown of a run
_MAX_PLAN = 1 << 18  # bytes
_LAST = "last"

_SUBMIT = """\b
Example:
  fedsec plan example > plan.toml
  fedsec run submit plan.toml --watch

With --json and --watch, one object per line: {"run_id": ...}, then as `fedsec run watch --json`.
"""
_WATCH = """\b
Example:
  fedsec run watch last

Ends with the run; Ctrl-C ends the watching, not the run. With --json, one object per line:
{"run": ...} when the run changed, {"event": ...} for what happened.

Exit code: 0 the run finished, 1 it failed or was stopped.
"""
_MODEL = """\b
Example:
  fedsec run model last -o model.safetensors
"""


def fill(group: typer.Typer) -> None:
    """Adds the commands of `fedsec run`."""
    group.command("submit", epilog=_SUBMIT)(submit)
    group.command("list", epilog=examples("fedsec run list --dir /srv/fedsec"))(list_runs)
    group.command("show", epilog=examples("fedsec run show last"))(show_run)
    group.command("watch", epilog=_WATCH)(watch)
    group.command("stop", epilog=examples("fedsec run stop last"))(stop)
    group.command("model", epilog=_MODEL)(model)


def submit(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.toml", help="What is to be trained.")],
    wait: Annotated[bool, typer.Option("--watch", help="Watch the run to its end.")] = False,
    directory: Directory = None,
    credentials: CredentialsFile = None,
    json: Json = False,
) -> None:
    """Check a plan, hand it to the coordinator, start it."""
    try:
        text = read_public(plan, limit=_MAX_PLAN).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{plan} is not UTF-8 text") from error
    parsed = FederationPlan.parse(text, str(plan))  # all its errors, before anybody is bothered
    way = reach(directory, credentials)
    reply = way.ask("SubmitRun", pb.SubmitRunRequest(plan=text), pb.SubmitRunReply)
    if json:
        emit_json({"run_id": reply.run_id}, one_line=wait)
    else:
        say(f"Run {reply.run_id} is submitted.")
    warn_of_few(way, parsed)
    if wait:
        raise typer.Exit(follow(way, reply.run_id, json=json))
    if not json:
        say(f"Watch it: fedsec run watch {reply.run_id}")


def warn_of_few(way: Reach, plan: FederationPlan) -> None:
    """Says so where the run will have to wait for nodes, or wait in vain.

    It is a courtesy: the run is submitted, whether this can be found out or not.
    """
    try:
        status = way.ask("Status", pb.StatusRequest(), pb.StatusReply)
    except (FedsecError, OSError) as error:
        warn(f"How many nodes are connected could not be asked: {safe(error)}")
        return
    needed, enrolled = plan.nodes.min_available, status.nodes_enrolled
    if status.nodes_connected >= needed:
        return
    if enrolled < needed:
        advice = "invite more (`fedsec node invite NAME`), or lower nodes.min_available"
    else:
        advice = "`fedsec node list` says which are not"
    warn(
        f"The run waits for nodes.min_available = {needed} nodes, at most nodes.wait_s = "
        f"{plan.nodes.wait_s:g} s, and fails without them. Now {enrolled} are enrolled and "
        f"{status.nodes_connected} connected: {advice}."
    )


def list_runs(
    directory: Directory = None,
    credentials: CredentialsFile = None,
    json: Json = False,
) -> None:
    """List all runs, the newest last."""
    runs = _all(reach(directory, credentials))
    if json:
        emit_json([as_mapping(run) for run in runs])
        return
    if not runs:
        say("No runs yet; submit one with `fedsec run submit PLAN.toml`.")
        return
    rows = [
        (run.run_id, run.name, run.state, progress(run), format_time(run.submitted_at), run.reason)
        for run in runs
    ]
    show(table([">run", "name", "state", ">rounds", "submitted", "reason"], rows))


def show_run(
    run_id: RunId,
    *,
    every: Annotated[
        bool, typer.Option("--all", help="Every round; else of many the first and last ones.")
    ] = False,
    directory: Directory = None,
    credentials: CredentialsFile = None,
    json: Json = False,
) -> None:
    """Show one run: its state, its rounds, where its models and log lie, what happened lately."""
    way = reach(directory, credentials)
    request = pb.ShowRunRequest(run_id=find(way, run_id))
    reply = way.ask("ShowRun", request, pb.ShowRunReply)
    if json:
        events = [as_mapping(each.event) for each in reply.event]
        emit_json({**as_mapping(reply.run), "plan": reply.plan, "event": events})
        return
    run, now = reply.run, time.time()
    rows = [
        ("run", run.run_id),
        ("name", run.name),
        ("state", f"{run.state}: {run.reason}" if run.reason else run.state),
        ("rounds", progress(run)),
        ("submitted", f"{moment(run.submitted_at, now=now)} by {run.submitted_by}"),
        ("ended", moment(run.ended_at, now=now)),
        ("plan's digest", run.plan_digest),
        ("on the coordinator", run.directory),
    ]
    show(facts(rows))
    names = node_names(way)
    rounds, standing = Rounds(names=names), Standing(names=names)
    for each in reply.event:
        rounds.add(each.event)
        standing.add(each.event)
    _show_rounds(rounds, every=every)
    if run.round and min(rounds.rows, default=run.round + 1) > 1:
        say(f"Earlier rounds lie too far back to be shown here: fedsec run watch {run.run_id}")
    if standing.nodes:
        show(standing.table(title="\nNodes (medians over their rounds)"))
    told = {"round", KIND}
    other = [each.event for each in reply.event if each.event.kind not in told][-_EVENTS:]
    if other:
        show(event_table(other))


def _show_rounds(rounds: Rounds, *, every: bool) -> None:
    if rounds.rows:
        show(rounds.table(title="\nRounds") if every else rounds.excerpt(title="\nRounds"))
    if noised := rounds.noised():
        say(f"Means of nodes' figures, noised: {noised}")
    if rounds.sites:
        show(rounds.sites.table(rounds.names))


def watch(
    run_id: RunId,
    directory: Directory = None,
    credentials: CredentialsFile = None,
    json: Json = False,
) -> None:
    """Watch a run: rounds, nodes that answered, loss, accuracy, time; a summary at its end."""
    way = reach(directory, credentials)
    raise typer.Exit(follow(way, find(way, run_id), json=json))


def stop(
    run_id: RunId,
    directory: Directory = None,
    credentials: CredentialsFile = None,
    json: Json = False,
) -> None:
    """Stop a run. What it stored so far is kept."""
    way = reach(directory, credentials)
    number = find(way, run_id)
    reply = way.ask("StopRun", pb.StopRunRequest(run_id=number), pb.StopRunReply)
    if json:
        emit_json({"run_id": number, **as_mapping(reply)})
        return
    say(f"Run {number} is {safe(reply.state)}.")


def model(
    run_id: RunId,
    *,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", show_default=False, help="File to write, in safetensors form."
        ),
    ],
    after: Annotated[
        int, typer.Option("--round", min=0, help="The model after this round; 0: the newest.")
    ] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    directory: Directory = None,
    credentials: CredentialsFile = None,
    json: Json = False,
) -> None:
    """Take a run's model away."""
    if output.exists() and not force:
        raise ConfigError(f"{output} exists; --force replaces it")
    way = reach(directory, credentials)
    number = find(way, run_id)
    request = pb.FetchModelRequest(run_id=number, round=after)
    size, digest = asyncio.run(_fetch(way, request, output))
    if json:
        emit_json({"run_id": number, "file": str(output), "bytes": size, "sha256": digest})
        return
    say(f"{output}: {format_bytes(size)}, SHA-256 {digest}")


async def _fetch(way: Reach, request: pb.FetchModelRequest, output: Path) -> tuple[int, str]:
    """Writes the model to `output`, whole or not at all; returns its bytes and SHA-256."""
    temporary = output.with_name(f".{output.name}.{os.getpid()}.part")
    digest, size = hashlib.sha256(), 0
    try:
        with temporary.open("xb") as file:
            async for chunk in way.stream("FetchModel", request, pb.ModelChunk):
                file.write(chunk.data)
                digest.update(chunk.data)
                size += len(chunk.data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(output)
    except OSError as error:
        raise ConfigError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return size, digest.hexdigest()


def find(way: Reach, run_id: str) -> int:
    """Returns the number of the run that a person means; ConfigError if it is no number."""
    if run_id == _LAST:
        runs = _all(way)
        if not runs:
            raise ConfigError("no runs yet; submit one with `fedsec run submit PLAN.toml`")
        return runs[-1].run_id
    with suppress(ValueError):
        if 0 < int(run_id) < 1 << 64:
            return int(run_id)
    raise ConfigError(f"{run_id[:40]!r} is no run's id; `fedsec run list` shows all, or say last")


def progress(run: pb.Run) -> str:
    """Returns rounds completed of rounds planned."""
    return f"{run.round}/{run.rounds}" if run.rounds else str(run.round)


def _all(way: Reach) -> list[pb.Run]:
    return list(way.ask("ListRuns", pb.ListRunsRequest(), pb.ListRunsReply).run)
