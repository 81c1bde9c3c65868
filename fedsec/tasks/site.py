"""A site's records as tensors: its part of them, split, scaled."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from fedsec.data.records import Records
from fedsec.data.scaling import Scaling
from fedsec.data.settings import Connector
from fedsec.data.splitting import held_out
from fedsec.errors import ConfigError, DataError
from fedsec.plan.data import Data
from fedsec.tasks.partition import part_of
from fedsec.tasks.task import Examples, NodeData

Inputs = NDArray[np.float32]
Targets = NDArray[np.int64] | NDArray[np.float32]


def node_data(
    settings: Connector,
    records: Records,
    wanted: Data,
    *,
    choose: Callable[[Records], Inputs],
) -> NodeData:
    """Returns what a node trains and tests on.

    Args:
        settings: Of the data set.
        records: All that the files hold.
        wanted: What the plan asks for.
        choose: Returns the inputs (n, ...) that the plan asks for; ConfigError where it cannot.

    Raises:
        ConfigError: The plan asks for what the data set does not have.
        DataError: The records do not fit the plan, or too few are left.
    """
    mine = records.take(part_of(settings, records))
    inputs, targets = choose(mine), _targets(mine, wanted)
    test = held_out(mine, settings.test, classes=wanted.classes is not None)
    scale = _scaling(inputs[~test], wanted)
    return NodeData(
        train=_examples(scale(inputs[~test]), targets[~test]),
        test=_examples(scale(inputs[test]), targets[test]),
    )


def _examples(inputs: Inputs, targets: Targets) -> Examples:
    return Examples(torch.from_numpy(inputs), torch.from_numpy(targets))


def _targets(records: Records, wanted: Data) -> Targets:
    """Returns classes (n,) as int64, or numbers as float32."""
    if wanted.classes is None:
        return records.targets.astype(np.float32)
    classes = records.targets.astype(np.int64)
    wrong = (classes != records.targets) | (classes < 0) | (classes >= wanted.classes)
    if wrong.any():
        raise DataError(
            f"the label of {wrong.sum()} records is none of the plan's classes "
            f"0..{wanted.classes - 1} (data.classes = {wanted.classes}); label_map or "
            "label_threshold makes classes of other labels"
        )
    return classes


def _scaling(train: Inputs, wanted: Data) -> Callable[[Inputs], Inputs]:
    if wanted.scaling == "site":
        return Scaling.of(train)
    if wanted.scaling == "none":
        return lambda inputs: inputs
    if wanted.center is None or wanted.scale is None:
        raise ConfigError('data.center and data.scale are missing for scaling = "plan"')
    return Scaling(wanted.center, wanted.scale)
