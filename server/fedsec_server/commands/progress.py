"""Following a run: a live table on a terminal, a line per round elsewhere, JSON for programs."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from fedsec.console import console, emit_json, format_duration, safe, say, show
from fedsec.errors import FedsecError, IdentityError
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.commands.reach import Reach
from fedsec_server.commands.rounds import HEADS, Rounds
from fedsec_server.commands.shape import as_mapping, detail_words, facts
from fedsec_server.commands.standing import KIND, Standing
from fedsec_server.layout import NotRunningError

FINISHED = "finished"
_ROWS = 15  # rounds on the live screen
_NOTES = 5  # other events there
_RETRIES = 30  # times, a second apart, that a coordinator that went away is looked for
_SILENT = frozenset({"model", "answer-failed", KIND})  # the rounds tell of these anyway


def follow(way: Reach, run_id: int, *, json: bool) -> int:
    """Shows a run until it ends; returns the exit code: 0 if it finished, else 1.

    Raises:
        FedsecError: The run is unknown, or the coordinator stays away for half a minute.
    """
    try:
        return asyncio.run(_json(way, run_id) if json else _human(way, run_id))
    except KeyboardInterrupt:
        typer.echo(f"No longer watched; `fedsec run stop {run_id}` stops the run.", err=True)
        raise


async def news(
    way: Reach, run_id: int, *, pause: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> AsyncIterator[pb.RunEvent]:
    """Gives what `WatchRun` sends, each event once, also over a cut or an expired certificate.

    On the coordinator's machine a command's certificate lives for minutes, a run for hours.
    """
    seen = failures = 0
    while True:
        try:
            request = pb.WatchRunRequest(run_id=run_id)
            async for item in way.stream("WatchRun", request, pb.RunEvent):
                failures = 0
                if item.WhichOneof("kind") == "event":
                    if item.event.sequence <= seen:
                        continue
                    seen = item.event.sequence
                yield item
        except FedsecError as error:
            failures += 1
            if failures > _RETRIES or not _passes(error, way, begun=seen > 0):
                raise
            await pause(1.0)
        else:
            return


def _passes(error: FedsecError, way: Reach, *, begun: bool) -> bool:
    """Says whether it is worth trying again."""
    match error:
        case IdentityError(code="expired"):
            return way.layout is not None  # the next try makes itself a new certificate
        case NotRunningError():
            return begun
        case _:
            return False


async def _json(way: Reach, run_id: int) -> int:
    state = ""
    async for item in news(way, run_id):
        if item.WhichOneof("kind") == "run":
            state = item.run.state
            emit_json({"run": as_mapping(item.run)}, one_line=True)
        else:
            emit_json({"event": as_mapping(item.event)}, one_line=True)
    return int(state != FINISHED)


async def _human(way: Reach, run_id: int) -> int:
    names = await _names(way)
    screen = Screen(Rounds(names=names), Standing(names=names))
    if sys.stdout.isatty():
        with Live(
            get_renderable=screen.render, console=console(), refresh_per_second=4, transient=True
        ):
            async for item in news(way, run_id):
                screen.take(item)
        show(screen.rounds.excerpt())
    else:
        async for item in news(way, run_id):
            for line in screen.take(item):
                say(line)
    if screen.rounds.sites:
        show(screen.rounds.sites.table(screen.rounds.names))
    show(facts(screen.summary()))
    return int(screen.run.state != FINISHED)


def node_names(way: Reach) -> dict[str, str]:
    """Returns the nodes' names by their ids, as events write these."""
    return asyncio.run(_names(way))


async def _names(way: Reach) -> dict[str, str]:
    async for reply in way.stream("ListNodes", pb.ListNodesRequest(), pb.ListNodesReply):
        return {str(node.node_id): node.name for node in reply.node}
    return {}


@dataclass
class Screen:
    """What is known of the run that is followed, and how it looks.

    Attributes:
        rounds: So far.
        standing: Of the nodes.
        run: As it was told last.
        notes: Other events, newest last.
        clock: Unix seconds.
    """

    rounds: Rounds
    standing: Standing = field(default_factory=Standing)
    run: pb.Run = field(default_factory=pb.Run)
    notes: list[str] = field(default_factory=list)
    clock: Callable[[], float] = time.time

    def take(self, item: pb.RunEvent) -> list[str]:
        """Takes the next piece of news; returns the lines that tell of it."""
        if item.WhichOneof("kind") == "run":
            changed = item.run.state != self.run.state
            self.run = item.run
            return [self._headline()] if changed else []
        self.standing.add(item.event)
        row = self.rounds.add(item.event)
        if row is not None:
            cells = zip(HEADS, self.rounds.cells(row), strict=True)
            return [", ".join(f"{head} {safe(cell)}" for head, cell in cells if cell)]
        if item.event.kind in _SILENT:
            return []
        note = safe(f"{item.event.kind}: {detail_words(item.event.detail_json)}".removesuffix(": "))
        self.notes.append(note)
        return [note]

    def render(self) -> Group:
        """Returns the live screen."""
        notes = [Text(note, style="dim") for note in self.notes[-_NOTES:]]
        return Group(Text(self._headline(), style="bold"), self.rounds.table(last=_ROWS), *notes)

    def summary(self) -> list[tuple[str, object]]:
        """Returns what is left to say at the end, as label and value."""
        run = self.run
        state = f"{run.state}: {run.reason}" if run.reason else run.state
        taken = (run.ended_at or self.clock()) - run.submitted_at
        return [
            (f"run {run.run_id}", state),
            ("rounds", f"{run.round}/{run.rounds}" if run.rounds else run.round),
            *self.rounds.summary(),
            *self.standing.summary(),
            ("time in all", format_duration(taken)),
            ("on the coordinator", run.directory),
            ("take the model away", f"fedsec run model {run.run_id} -o FILE.safetensors"),
        ][: None if self.rounds.models else -1]

    def _headline(self) -> str:
        run = self.run
        done = max([run.round, *self.rounds.rows])
        rounds = f", round {done} of {run.rounds}" if run.rounds else ""
        reason = f": {run.reason}" if run.reason else ""
        since = format_duration((run.ended_at or self.clock()) - run.submitted_at)
        return safe(
            f"Run {run.run_id} {run.name}: {run.state}{reason}{rounds}, {since}", limit=1000
        )
