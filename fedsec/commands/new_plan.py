"""`fedsec plan new FILE`: asks what is to be learned, or takes it from options."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from fedsec.console import say
from fedsec.errors import ConfigError
from fedsec.files import write_public
from fedsec.plan.data import MODELS, READ_BY
from fedsec.plan.writing import Answers, write_plan
from fedsec.tasks.names import BUILT_IN

Value = TypeVar("Value")

Classes = Annotated[
    int | None, typer.Option(help="Of the label; 0: it is a number.", min=0, show_default=False)
]
Quorum = Annotated[
    int | None,
    typer.Option(
        help="Answers that a round needs; one less than nodes if left out.",
        min=1,
        show_default=False,
    ),
]
Compare = Annotated[
    bool, typer.Option("--compare", help="Each site also trains alone, to compare.")
]

NEW = """\b
Examples:
  fedsec plan new plan.toml
  fedsec plan new plan.toml --task table --data heart --inputs age,chol,sex=m --classes 2
  fedsec plan new plan.toml --task images --data scans --shape 1,28,28 --classes 10
\b
What a table's inputs are called at a site: `fedsec node data check NAME`, on the node.
"""


def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The plan to write.")],
    *,
    task: Annotated[str, typer.Option(help="Built in, or module:attribute.")] = "",
    data: Annotated[str, typer.Option(help="The data set's name at the nodes.")] = "",
    name: Annotated[str, typer.Option(help="Of the plan, for people.")] = "",
    inputs: Annotated[str, typer.Option(help="Of a table, with commas between.")] = "",
    shape: Annotated[str, typer.Option(help="Of images: channels,height,width.")] = "",
    classes: Classes = None,
    scaling: Annotated[str, typer.Option(help="Of the inputs: site or none.")] = "site",
    model: Annotated[str, typer.Option(help="Of the task; its first if left out.")] = "",
    nodes: Annotated[int, typer.Option(help="Needed to start.", min=1)] = 3,
    quorum: Quorum = None,
    rounds: Annotated[int, typer.Option(help="To complete.", min=1)] = 20,
    compare: Compare = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a commented plan; what no option says is asked, on a terminal."""
    if file.exists() and not force:
        raise ConfigError(f"{file} exists; --force replaces it")
    wanted = _asked(Wanted(task, data, inputs, shape, classes))
    numeric = wanted.task == "table" and not wanted.classes
    answers = Answers(
        task=wanted.task,
        data=wanted.data,
        name=name or f"{wanted.task} on {wanted.data}",
        inputs=[each.strip() for each in wanted.inputs.split(",") if each.strip()],
        shape=[_whole("--shape", each) for each in wanted.shape.split(",") if each.strip()],
        classes=wanted.classes or None,
        scaling=scaling,
        model=model or ("linear" if numeric else MODELS.get(wanted.task, ("",))[0]),
        nodes=nodes,
        quorum=max(1, nodes - 1) if quorum is None else quorum,
        rounds=rounds,
        compare=compare,
    )
    write_public(file, write_plan(answers).encode())
    say(f"Written: {file}. Read it, change it, then: fedsec plan check {file}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What cannot be left to a default; empty where no option said it."""

    task: str
    data: str
    inputs: str
    shape: str
    classes: int | None


def _asked(given: Wanted) -> Wanted:
    """Returns `given` with the gaps filled by whoever sits at the terminal."""
    task, known = given.task, ", ".join(BUILT_IN)
    task = task or _ask("--task", f"What is learned? ({known})", "table", str)
    if ":" not in task and task not in BUILT_IN:
        raise ConfigError(f'--task "{task}": built in are {known}; your own is module:attribute')
    data, inputs, shape, classes = given.data, given.inputs, given.shape, given.classes
    if not data:
        known_data = task not in READ_BY and ":" not in task
        data = task if known_data else _ask("--data", "The data set's name at the nodes?", "", str)
    if task == "table":
        question = "The columns that the model sees, with commas between?"
        inputs = inputs or _ask("--inputs", question, "", str)
    if task == "images":
        shape = shape or _ask("--shape", "Channels, height, width of an image?", "1,28,28", str)
    if task in READ_BY and classes is None:
        classes = _ask("--classes", "Classes of the label? (0: it is a number)", "2", int)
    return Wanted(task, data, inputs, shape, classes)


def _ask(option: str, question: str, default: str, kind: Callable[[str], Value]) -> Value:
    """Returns what a person answers; ConfigError where there is nobody to ask."""
    if not sys.stdin.isatty():
        raise ConfigError(f"{option} is missing, and there is nobody to ask: {question}")
    answer: str = typer.prompt(question, default=default or None, type=str, prompt_suffix=" ")
    try:
        return kind(answer.strip())
    except ValueError as error:
        raise ConfigError(f"{option} = {answer!r}: a whole number is expected") from error


def _whole(option: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {text!r} is no whole number") from error
