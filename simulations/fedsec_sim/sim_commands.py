"""`fedsec sim`: what simulations left behind, and what they can be made of."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fedsec.console import Json, emit_json, examples, safe, say, show, table
from fedsec.errors import ConfigError
from fedsec_sim.history import History, common_figures, read_history

Runs = Annotated[list[Path], typer.Argument(help="Files that `fedsec simulate` wrote.")]
LEAD = ("train_loss", "loss", "accuracy")
ROWS = 20  # rounds that are shown of a long run
_WIDTH = 60  # characters of what a person chose
_NOT_CHOSEN = frozenset({"name", "plan", "ids", "reason", "fedsec", "torch", "numpy"})
_OF_ONE_ROUND = frozenset({"rounds", "attempt", "seconds", "updates_per_s"})


def fill(group: typer.Typer) -> None:
    """Adds the commands to the group `sim`."""
    group.command("show", epilog=examples("fedsec sim show runs/2026-11-27-101500.jsonl"))(show_run)
    group.command("compare", epilog=examples("fedsec sim compare runs/*.jsonl"))(compare)
    group.command(
        "plot",
        epilog=examples(
            "fedsec sim plot runs/*.jsonl -o curves.png",
            "fedsec sim plot run.jsonl --figure train_loss",
        ),
    )(plot)
    group.command("attacks", epilog=examples("fedsec sim attacks"))(attacks)
    group.command("splits", epilog=examples("fedsec sim splits"))(splits)


def show_run(
    run: Annotated[Path, typer.Argument(help="A file that `fedsec simulate` wrote.")],
    *,
    json: Json = False,
) -> None:
    """Show a simulation: how it was made, and its figures round by round."""
    history = read_history(run)
    if json:
        emit_json({"about": history.about, "rounds": history.rounds})
        return
    show(table(["", ""], [(name, safe(value)) for name, value in history.about.items() if value]))
    if not history.rounds:
        say("No round is done yet.")
        return
    names = [name for name in (*LEAD, *history.figures) if name in history.figures]
    names = [name for name in dict.fromkeys(names) if name not in {"rounds", "attempt"}]
    chosen = _spread(len(history.rounds))
    rows = [
        [history.rounds[place]["round"], *(_cell(history.rounds[place].get(n)) for n in names)]
        for place in chosen
    ]
    say("")
    show(table([">round", *(f">{name.replace('_', ' ')}" for name in names)], rows))


def compare(runs: Runs, *, json: Json = False) -> None:
    """Compare simulations: in what they differ, and their last figures."""
    histories = _read(runs)
    names = [name for name in common_figures(histories) if name not in _OF_ONE_ROUND]
    differing = _differing(histories)
    if json:
        found = [
            {
                "run": str(path),
                **{name: history.about.get(name) for name in differing},
                **{name: history.last(name) for name in names},
                "seconds": _seconds(history),
            }
            for path, history in zip(runs, histories, strict=True)
        ]
        emit_json(found)
        return
    rows = [
        [
            path.stem,
            safe(history.about.get("name", "")),
            *(safe(history.about.get(name, ""), _WIDTH) for name in differing),
            len(history.rounds),
            *(f"{history.last(name):.4g}" for name in names),
            f"{_seconds(history):.4g}",
        ]
        for path, history in zip(runs, histories, strict=True)
    ]
    last = (f">{name.replace('_', ' ')}" for name in names)
    show(table(["run", "plan", *differing, ">rounds", *last, ">seconds"], rows))


def _differing(histories: Sequence[History]) -> list[str]:
    """Returns what is not alike in all of the simulations, of what a person chose."""
    names = dict.fromkeys(name for history in histories for name in history.about)
    return [
        name
        for name in names
        if name not in _NOT_CHOSEN
        and len({str(history.about.get(name, "")) for history in histories}) > 1
    ]


def _seconds(history: History) -> float:
    """Returns how long all rounds took together."""
    return sum(seconds for _, seconds in history.series("seconds"))


def plot(
    runs: Runs,
    out: Annotated[Path, typer.Option("-o", "--out", help="PNG, SVG or PDF.")] = Path("sim.png"),
    figure: Annotated[str, typer.Option(help="What is drawn over the rounds.")] = "accuracy",
) -> None:
    """Draw a figure of one or more simulations over their rounds."""
    from fedsec_sim.plots import curves, save  # noqa: PLC0415 - matplotlib takes a second

    if not out.parent.is_dir():
        raise ConfigError(f"{out} cannot be written: there is no directory {out.parent}")
    histories = _read(runs)
    lines = {
        path.stem: history.series(figure) for path, history in zip(runs, histories, strict=True)
    }
    if empty := [name for name, line in lines.items() if not line]:
        known = ", ".join(common_figures(histories)) or "none"
        raise ConfigError(f"{empty[0]} has no figure {figure!r}; all runs have: {known}")
    save(curves(lines, ylabel=figure.replace("_", " ")), out)
    say(f"{out} shows {figure} of {len(lines)} run{'s' if len(lines) > 1 else ''}.")


def attacks(*, json: Json = False) -> None:
    """List the attacks: their parameters, papers, and what adversaries must know."""
    from fedsec_sim.attacks.table import DATA, UPDATES  # noqa: PLC0415 - loads torch

    found = [
        (option, name, ", ".join(entry.parameters), entry.paper, entry.knowledge)
        for option, table_of in (("--attack", UPDATES), ("--poison", DATA))
        for name, entry in table_of.items()
    ]
    columns = ("option", "name", "parameters", "paper", "adversaries know")
    if json:
        emit_json([dict(zip(columns, row, strict=True)) for row in found])
        return
    show(table(columns, found))


def splits(*, json: Json = False) -> None:
    """List the ways to divide a task's examples among nodes, with their parameters."""
    from fedsec_sim.partitions import SPLITS  # noqa: PLC0415 - loads torch

    found = [
        (
            name,
            ", ".join(str(each) for each in inspect.signature(made).parameters.values()),
            (made.__doc__ or "").splitlines()[0],
        )
        for name, made in SPLITS.items()
    ]
    if json:
        emit_json([dict(zip(("name", "parameters", "what"), row, strict=True)) for row in found])
        return
    show(table(["name", "parameters", "what it is"], found))


def _read(runs: list[Path]) -> list[History]:
    return [read_history(path) for path in runs]


def _spread(count: int) -> list[int]:
    """Returns up to ROWS places, evenly spread, the last one among them."""
    shown = min(ROWS, count)
    return sorted({round((step + 1) * count / shown) - 1 for step in range(shown)})


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"
