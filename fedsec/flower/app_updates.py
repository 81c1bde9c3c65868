"""What an app's answer to train says: its update, as one vector, and its figures.

The built-in app answers with the update itself. A Flower app answers with its trained model, under
the name and in the form in which it was sent; the update is the difference of the two.
"""

import logging
from typing import Any

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.flower.arrays import unpack
from fedsec.flower.messages import EXAMPLES, MAX_EXAMPLES, Metrics, read_update
from fedsec.vectors import Arrays, Layout, Vector, is_finite

_LOG = logging.getLogger(__name__)


def read_own_update(_asked: RecordDict, answer: RecordDict) -> tuple[Vector, Metrics]:
    """Returns update (d,) and metrics of the built-in app; raises as `read_update` does."""
    return read_update(answer)


def read_difference(asked: RecordDict, answer: RecordDict) -> tuple[Vector, Metrics]:
    """Returns update (d,), see `difference`, and metrics of a Flower app.

    Raises:
        ConfigError: It did not answer with one model of the form that it was sent, or without a
            number of examples.
    """
    update = difference(model_of(asked, "asked"), answer)
    figures: dict[str, float] = {}
    for record in answer.metric_records.values():
        figures |= {name: float(v) for name, v in record.items() if isinstance(v, (int, float))}
    examples = figures.pop(EXAMPLES, 0)
    if not 1 <= examples <= MAX_EXAMPLES:  # nor where it is NaN
        raise ConfigError(f"the app must answer with a metric {EXAMPLES!r} in 1..2^53")
    return update, Metrics(int(examples), figures)


def difference(sent: Arrays, answer: RecordDict) -> Vector:
    """Returns what the model in `answer` changes about the one that was `sent`, (d,), finite.

    A change with an entry that is NaN or infinite counts as zero: a model can be made to diverge on
    certain records alone, so that to fail would tell of them.

    Raises:
        ConfigError: The answer does not hold one model of that form.
    """
    trained, layout = model_of(answer, "answered"), Layout.of(sent)
    with np.errstate(over="ignore", invalid="ignore"):  # it shows in the update
        for name in sent.keys() & trained.keys():  # FedAdam and others make float64 of float32
            if sent[name].dtype.kind == trained[name].dtype.kind == "f":
                trained[name] = trained[name].astype(sent[name].dtype, copy=False)
    update = layout.change(sent, trained)
    if not is_finite(update):
        _LOG.warning("the app's update has entries that are NaN or infinite; it counts as zero")
        return np.zeros_like(update)
    return update


def model_of(content: RecordDict, what: str) -> dict[str, NDArray[Any]]:
    """Returns the one model in a message, by array name.

    Args:
        content: Of the message.
        what: How the app comes by it, for errors: ``"asked"`` or ``"answered"``.

    Raises:
        ConfigError: There is not exactly one.
    """
    records = list(content.array_records.values())
    if len(records) != 1:
        raise ConfigError(
            f"a protected app is {what} with one record of arrays, the model; "
            f"there are {len(records)}"
        )
    try:
        return {name: unpack(array) for name, array in records[0].items()}
    except ValueError as error:
        raise ConfigError(f"the model that the app is {what} with: {error}") from error
