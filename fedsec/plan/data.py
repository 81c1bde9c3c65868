"""The table ``[data]`` of a plan: what all sites' data sets have in common.

Paths, separators and markers are the sites' business; which inputs the model has, in which order
and on which scale, must be the same everywhere, so the plan says it.
"""

import difflib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from fedsec.plan.refusal import Refusal
from fedsec.plan.sections import Section

if TYPE_CHECKING:
    from fedsec.plan.federation import FederationPlan

InputName: TypeAlias = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,400}$")]


def _frozen(given: object) -> object:
    return tuple(given) if isinstance(given, list) else given


Names: TypeAlias = Annotated[
    tuple[InputName, ...], Field(min_length=1, max_length=10_000), BeforeValidator(_frozen)
]
Shape: TypeAlias = Annotated[
    tuple[Annotated[int, Field(ge=1, le=4096)], ...],
    Field(min_length=3, max_length=3, description="[channels, height, width], each in 1..4096"),
    BeforeValidator(_frozen),
]
Numbers: TypeAlias = Annotated[tuple[float, ...], Field(min_length=1), BeforeValidator(_frozen)]


class Data(Section):
    """What every site's data set must offer.

    Args:
        inputs: Columns that the model sees, in this order; a category is ``column=text``.
        shape: Of an image: channels, height, width.
        classes: Number of classes of the target; left out where the target is a number.
        scaling: ``"site"``: by each site's own mean and deviation. ``"plan"``: by `center` and
            `scale`. ``"none"``: inputs are taken as they are.
        center: With ``"plan"``: taken from each input, or channel.
        scale: With ``"plan"``: what it is divided by.
    """

    inputs: Names | None = None
    shape: Shape | None = None
    classes: Annotated[int, Field(ge=2, le=100_000)] | None = None
    scaling: Literal["site", "plan", "none"]
    center: Numbers | None = None
    scale: Numbers | None = None


MODELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "digits": ("cnn", "mlp", "logistic"),
        "table": ("logistic", "linear", "mlp"),
        "images": ("cnn", "mlp"),
        "breast-cancer": ("logistic", "mlp"),
    }
)
"""The built-in tasks, and the values of task.options.model of each; the first is the default."""

SIZED = ("table", "breast-cancer")
"""The tasks whose "mlp" takes task.options.hidden, the width of its hidden layer."""

MOST_HIDDEN = 100_000

READ_BY = ("table", "images")
"""The tasks that need the table ``[data]``; the others know their data."""


SCALINGS: Mapping[str, str] = MappingProxyType(
    {
        "site": "scaled by each site's own mean and deviation",
        "plan": "scaled by the plan's constants",
        "none": "not scaled",
    }
)


def sentence(data: Data) -> str:
    """Returns what the model sees and what it learns, for people."""
    if data.inputs is not None:
        count = "1 input" if len(data.inputs) == 1 else f"{len(data.inputs)} inputs"
        inputs = f"{count}: {', '.join(data.inputs)}"
    else:
        inputs = f"images of {' x '.join(map(str, data.shape or ()))}"
    target = "a number" if data.classes is None else f"one of {data.classes} classes"
    return f"{inputs}; {SCALINGS[data.scaling]}; the target is {target}"


def data_and_task(plan: "FederationPlan") -> Iterator[Refusal]:
    """What the model sees is the same at every site, and fits the task."""
    task, data = plan.task, plan.data
    if task is None:
        return
    if ":" not in task.name and task.name not in MODELS:
        close = difflib.get_close_matches(task.name, MODELS, n=1)
        guess = f'; did you mean "{close[0]}"?' if close else ""
        known = f'built in are {_quoted(tuple(MODELS))}; your own is "module:attribute"'
        yield Refusal("task.name", f'"{task.name}": {known}{guess}')
        return
    if ":" not in task.name:
        yield from _known_options(task.name, task.options)
    if task.name not in READ_BY:
        if data is not None:
            yield Refusal(
                "data", f'only the tasks {_quoted(READ_BY)} read it; "{task.name}" knows its data'
            )
        return
    needed = "inputs" if task.name == "table" else "shape"
    if data is None:
        yield Refusal(
            "data", f'missing: task.name = "{task.name}" needs a [data] table with `{needed}`'
        )
        return
    other = "shape" if needed == "inputs" else "inputs"
    if getattr(data, needed) is None:
        yield Refusal(f"data.{needed}", f'missing: task.name = "{task.name}" needs it')
    if getattr(data, other) is not None:
        yield Refusal(f"data.{other}", f'task.name = "{task.name}" reads data.{needed} instead')
    yield from _scaling(data)
    yield from _model(task.name, task.options.get("model", MODELS[task.name][0]), data)


def _scaling(data: Data) -> Iterator[Refusal]:
    count = len(data.inputs) if data.inputs is not None else (data.shape or (0,))[0]
    if data.inputs is not None and len(set(data.inputs)) < len(data.inputs):
        twice = next(name for name in data.inputs if data.inputs.count(name) > 1)
        yield Refusal("data.inputs", f'names "{twice}" twice')
    for key in ("center", "scale"):
        numbers = getattr(data, key)
        if data.scaling != "plan":
            if numbers is not None:
                yield Refusal(
                    f"data.{key}", f'is read with scaling = "plan" only, not "{data.scaling}"'
                )
        elif numbers is None:
            yield Refusal(f"data.{key}", 'missing: scaling = "plan" needs it')
        elif len(numbers) != count:
            yield Refusal(
                f"data.{key}", f"holds {len(numbers)} numbers, one is needed for each of {count}"
            )
    if data.scale is not None and min(data.scale) <= 0:
        yield Refusal("data.scale", f"{min(data.scale):g} is not > 0")


def _model(task: str, model: object, data: Data) -> Iterator[Refusal]:
    if task == "images" and data.classes is None:
        yield Refusal("data.classes", 'missing: task.name = "images" needs it')
    if model == "logistic" and data.classes is None and task == "table":
        other = 'for a target that is a number say task.options.model = "linear" or "mlp"'
        yield Refusal("data.classes", f'missing: model = "logistic" needs it; {other}')
    if model == "linear" and data.classes is not None:
        other = 'for classes say task.options.model = "logistic" or "mlp"'
        yield Refusal(
            "data.classes", f'{data.classes}: model = "linear" predicts a number; {other}'
        )


def _known_options(task: str, options: Mapping[str, object]) -> Iterator[Refusal]:
    """What the task itself would refuse on each node, after its worker was started."""
    model = options.get("model")
    if model is not None and model not in MODELS[task]:
        allowed = _quoted(MODELS[task])
        yield Refusal("task.options.model", f'"{str(model)[:80]}": allowed: {allowed}')
        return
    sized = task in SIZED and model == "mlp"
    known = ("model", "hidden") if sized else ("model",)
    for key in sorted(set(options) - set(known)):
        close = difflib.get_close_matches(key, known, n=1)
        guess = f"did you mean task.options.{close[0]}?" if close else f"known: {', '.join(known)}"
        yield Refusal(f"task.options.{key}", f"unknown key; {guess}")
    hidden = options.get("hidden", 1)
    if "hidden" in known and (type(hidden) is not int or not 1 <= hidden <= MOST_HIDDEN):
        allowed = f"allowed: an integer in 1..{MOST_HIDDEN}"
        yield Refusal("task.options.hidden", f"{str(hidden)[:80]}: {allowed}")


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)
