"""A plan of one's own, from a few answers: commented, and such that it passes its own check."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedsec.plan.data import MODELS
from fedsec.plan.federation import FederationPlan


@dataclass(frozen=True, slots=True)
class Answers:
    """What somebody wants to learn.

    Args:
        task: A built-in task, or one's own as ``module:attribute``.
        data: Name of the data set in each node's settings.
        name: Of the plan, for people.
        inputs: Of the task ``"table"``: names of the columns that the model sees.
        shape: Of the task ``"images"``: channels, height, width.
        classes: Of the target; None: it is a number.
        scaling: How inputs are scaled.
        model: Of the task; empty: its first.
        nodes: That must be ready before the run starts.
        quorum: That must answer in a round.
        rounds: To complete.
        compare: Whether each site also trains alone, to compare.
    """

    task: str
    data: str
    name: str
    inputs: Sequence[str] = ()
    shape: Sequence[int] = ()
    classes: int | None = None
    scaling: str = "site"
    model: str = ""
    nodes: int = 3
    quorum: int = 2
    rounds: int = 20
    compare: bool = False


def write_plan(answers: Answers) -> str:
    """Returns the plan, as TOML.

    Raises:
        ConfigError: The answers do not fit each other; says what to change.
    """
    text = "\n".join(_lines(answers)) + "\n"
    FederationPlan.parse(text)
    return text


def _lines(answers: Answers) -> Iterator[str]:
    quoted = json.dumps  # TOML's basic strings and lists of them are JSON's
    yield "# What is learned, by whom and how. `fedsec plan check FILE` says it in sentences,"
    yield "# `fedsec run submit FILE` starts it, `fedsec plan reference` lists every key."
    yield f"schema = 1\nname = {quoted(answers.name, ensure_ascii=False)}\n"
    yield "[task]"
    yield f"name = {quoted(answers.task)}"
    yield f"data = {quoted(answers.data)}  # [data.{answers.data}] in each node's node.toml"
    if answers.model:
        choices = ", ".join(MODELS.get(answers.task, ()))
        yield f"options = {{ model = {quoted(answers.model)} }}" + (
            f"  # {choices}" if choices else ""
        )
    if answers.inputs or answers.shape:
        yield from _data(answers)
    yield from _training(answers)


def _data(answers: Answers) -> Iterator[str]:
    yield "\n# The same at every site; how its files become this is each site's own business."
    yield "[data]"
    if answers.inputs:
        yield "inputs = ["
        yield from (f"  {json.dumps(name, ensure_ascii=False)}," for name in answers.inputs)
        yield "]"
    else:
        yield f"shape = {list(answers.shape)}  # channels, height, width"
    if answers.classes is not None:
        yield f"classes = {answers.classes}"
    yield (
        f'scaling = "{answers.scaling}"  # "site": by each site\'s own mean and deviation; '
        '"plan": by center and scale; "none"'
    )


def _training(answers: Answers) -> Iterator[str]:
    yield f"""
[training]
rounds = {answers.rounds}
algorithm = "fedavg"     # or "fedprox", "fedavgm", "fedadam"
local_epochs = 1         # passes over a site's records per round
batch_size = 32
learning_rate = 0.1      # too high: the loss rises or training diverges; too low: it hardly falls
weighting = "uniform"    # every site counts alike; or "examples" with max_examples

[nodes]
min_available = {answers.nodes}        # the run starts when so many are ready
quorum = {answers.quorum}               # a round counts when so many have answered
wait_s = 300             # seconds to wait for min_available

[round]
deadline_s = 120         # seconds for a node to answer
attempts = 3             # tries in all for a round that misses its quorum
evaluate_every = 1       # rounds; 0 for never"""
    if answers.compare:
        yield "compare_alone = true     # each site also trains alone; tells its figures at the end"
    yield "\n[model]\nsave_every = 0           # the final model only"
